"""image2text and audio2text: what they read, what they refuse, and whose fault a failure is."""

from __future__ import annotations

import base64
import io
import shutil
import struct
import subprocess
import sys
import time
import wave
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from reagent_env import Task
from reagent_env.errors import ToolBackendError, ToolError
from reagent_env.needs import NeedMissing
from reagent_env.testing import ChatReply, ScriptedChatServer
from reagent_env.testing.published_miniatures import picture_of, silence
from reagent_env.tools import audio2text as audio
from reagent_env.tools import get_tool
from reagent_env.tools import image2text as image
from reagent_env.tools.bounded_process import Bounds, ProgramFailed, run_bounded

SIGN = picture_of("Total: 4812 crates")


def task(**files: bytes) -> Task:
    return Task("q?", "a", files={name.replace("_", "."): blob for name, blob in files.items()})


@pytest.fixture(scope="module")
def speech() -> bytes:
    """Flite saying five words (`make test` installs it)."""
    if shutil.which("flite") is None:
        pytest.fail("flite is missing: scripts/ensure-system flite")
    said = subprocess.run(
        ["flite", "-voice", "rms", "-t", "one two three four five", "-o", "/dev/stdout"],
        check=True,
        capture_output=True,
    )
    return said.stdout


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes whose header promises so many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


# Pictures -----------------------------------------------------------------------------------------


def test_tesseract_reads_the_text_in_a_picture() -> None:
    read = get_tool("image2text", [])
    assert "4812" in read("sign.png", task=task(sign_png=SIGN))
    assert "answers no questions" in read("sign.png", "What colour?", task=task(sign_png=SIGN))


def test_a_picture_in_an_archive_is_read() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("in/sign.png", SIGN)
    found = image.make_image2text_tool()("a.zip::in/sign.png", task=task(a_zip=packed.getvalue()))
    assert "4812" in found


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"hello", "none of PNG, JPEG"),
        (b"", "none of PNG, JPEG"),
        (SIGN[:400], "damaged"),
        (bomb(60_000, 60_000), "pixels"),
        (bomb(6_000, 6_000), "damaged"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "none of PNG, JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of PNG, JPEG"),
    ],
)
def test_what_is_no_sound_picture_is_told_to_the_model(content: bytes, why: str) -> None:
    with pytest.raises(ToolError, match=why):
        image.plain_picture("x.png", content)


def test_files_that_are_not_the_tasks_are_refused_and_sizes_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = image.make_image2text_tool("http://127.0.0.1:9/v1#m")
    for path in ("../x.png", "/etc/passwd", "none.png"):
        with pytest.raises(ToolError):
            read(path, task=task(sign_png=SIGN))
    monkeypatch.setattr(image, "MAX_IMAGE_BYTES", 100)
    with pytest.raises(ToolError, match="at most 100 can be read"):
        read("sign.png", task=task(sign_png=SIGN))


def test_a_vision_model_is_shown_the_plain_picture_and_asked_the_question() -> None:
    seen: list[Any] = []

    def reply(request: Any) -> ChatReply:
        seen.append(request.body["messages"][0]["content"])
        return ChatReply("A sign.")

    with ScriptedChatServer(reply) as server:
        read = image.make_image2text_tool(f"{server.base_url}#eyes")
        assert read("sign.png", "What is it?", task=task(sign_png=SIGN)) == "A sign."
    (text, picture) = seen[0]
    assert text["text"] == "What is it?"
    kind, _, blob = picture["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(blob).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (ChatReply("too big", status=413), ToolError),
        (ChatReply("no key", status=401), ToolBackendError),
        (ChatReply(raw=b"{}"), ToolBackendError),
        (ChatReply(raw=b'"text"'), ToolBackendError),
    ],
)
def test_a_server_that_refuses_the_file_is_told_one_that_fails_is_infrastructure(
    reply: ChatReply, error: type[Exception]
) -> None:
    with ScriptedChatServer(lambda request: reply) as server:
        read = image.make_image2text_tool(f"{server.base_url}#eyes")
        with pytest.raises(error):
            read("sign.png", task=task(sign_png=SIGN))


def test_the_environment_variable_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedChatServer(lambda request: ChatReply("Seen.")) as server:
        monkeypatch.setenv("REAGENT_IMAGE2TEXT", f"{server.base_url}#eyes")
        assert get_tool("image2text", [])("sign.png", task=task(sign_png=SIGN)) == "Seen."
    monkeypatch.setenv("REAGENT_IMAGE2TEXT", "eyes")
    with pytest.raises(ValueError, match="REAGENT_IMAGE2TEXT"):
        get_tool("image2text", [])


def test_a_machine_without_tesseract_is_told_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NeedMissing, match="apt-get install tesseract-ocr"):
        get_tool("image2text", [])


# Recordings ---------------------------------------------------------------------------------------


def test_pocketsphinx_writes_down_english(speech: bytes) -> None:
    heard = get_tool("audio2text", [])("memo.wav", task=task(memo_wav=speech))
    assert {"two", "three", "four", "five"} <= set(heard.split())


def test_silence_is_no_words() -> None:
    assert (
        get_tool("audio2text", [])("a.wav", task=task(a_wav=silence()))
        == "No words heard in a.wav."
    )


@pytest.mark.parametrize("ending", ["FLAC", "OGG", "MP3"])
def test_other_formats_become_the_same_plain_wav(ending: str, speech: bytes) -> None:
    import soundfile

    samples, rate = soundfile.read(io.BytesIO(speech))
    packed = io.BytesIO()
    soundfile.write(packed, samples, rate, format=ending)
    with wave.open(io.BytesIO(audio.plain_sound("a", packed.getvalue()))) as plain:
        assert (plain.getnchannels(), plain.getsampwidth(), plain.getframerate()) == (1, 2, 16_000)
        assert plain.getnframes() / 16_000 == pytest.approx(len(samples) / rate, abs=0.2)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"hello", "no recording"),
        (b"", "no recording"),
        (silence()[:44], "no sound"),
        (SIGN, "no recording"),
    ],
)
def test_what_is_no_sound_recording_is_told_to_the_model(content: bytes, why: str) -> None:
    with pytest.raises(ToolError, match=why):
        audio.plain_sound("x.wav", content)


def test_a_recording_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "MAX_SECONDS", 0.25)
    with pytest.raises(ToolError, match=r"longer than 0\.25 s"):
        audio.plain_sound("x.wav", silence(0.5))


def test_a_transcription_server_is_sent_the_plain_wav() -> None:
    with TranscriptionServer(b'{"text": "good morning"}') as server:
        hear = audio.make_audio2text_tool(f"{server.base_url}#ears")
        assert hear("a.wav", task=task(a_wav=silence())) == "Said in a.wav:\ngood morning"
    assert b"RIFF" in server.bodies[0]
    assert b"ears" in server.bodies[0]
    with TranscriptionServer(b"{", status=500) as server:
        hear = audio.make_audio2text_tool(f"{server.base_url}#ears")
        with pytest.raises(ToolBackendError):
            hear("a.wav", task=task(a_wav=silence()))


class TranscriptionServer:
    """Answers every post alike, and keeps what it was sent."""

    def __init__(self, answer: bytes, status: int = 200) -> None:
        import threading
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        bodies: list[bytes] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                bodies.append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args: Any) -> None:
                pass

        self.bodies = bodies
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> TranscriptionServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._thread.join(5)
        self._http.server_close()


# The bounds ---------------------------------------------------------------------------------------


def python(program: str) -> list[str]:
    return [sys.executable, "-I", "-c", program]


def test_a_program_is_given_its_input_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    program = "import os, sys; print(sys.stdin.read()[::-1], 'OPENAI_API_KEY' in os.environ)"
    assert run_bounded(python(program), b"abc") == b"cba False\n"


def test_a_program_that_takes_too_long_is_stopped_with_its_children() -> None:
    began = time.monotonic()
    with pytest.raises(ProgramFailed) as caught:
        run_bounded(["sh", "-c", "sleep 60 & sleep 60"], b"", Bounds(seconds=0.5))
    assert caught.value.timed_out
    assert time.monotonic() - began < 20


def test_a_program_that_writes_or_takes_too_much_is_stopped() -> None:
    with pytest.raises(ProgramFailed, match="more than 1000 bytes"):
        run_bounded(["sh", "-c", "yes"], b"", Bounds(output_bytes=1000))
    hungry = python("x = bytearray(10**9); print(len(x))")
    with pytest.raises(ProgramFailed, match="MemoryError"):
        run_bounded(hungry, b"", Bounds(memory_bytes=512 * 2**20))


def test_input_that_nobody_reads_and_a_missing_program_are_failures_not_hangs() -> None:
    assert run_bounded(["sh", "-c", "echo done"], bytes(10**7)) == b"done\n"
    with pytest.raises(ProgramFailed) as caught:
        run_bounded(["no-such-program-here"], b"")
    assert caught.value.status == 127


def test_the_programs_beside_import_nothing_of_the_package() -> None:
    for name in ("decode_picture.py", "decode_sound.py", "recognise_speech.py"):
        text = (Path(image.__file__).parent / name).read_text()
        assert "import reagent_env" not in text
        assert "from reagent_env" not in text
