"""The ``audio2text`` tool: what is said in a recording among the task's files.

Two engines: pocketsphinx, whose wheel carries a model of American English (rough, offline), and any
OpenAI-compatible transcription server (``/audio/transcriptions``). Recordings are untrusted: they
are decoded in a bounded process first, and only the plain WAV that comes out goes on.
"""

from __future__ import annotations

import os

from reagent_env.errors import ToolBackendError, ToolError
from reagent_env.needs import extra, require
from reagent_env.task import Task
from reagent_env.tool_definition import Tool, tool
from reagent_env.tools.bounded_process import Bounds, ProgramFailed, beside, run_bounded
from reagent_env.tools.decode_sound import REFUSED
from reagent_env.tools.file_reader import task_file
from reagent_env.tools.served_media import (
    cut,
    media_client,
    server_and_model,
    server_error,
    text_of,
)

SERVER = "REAGENT_AUDIO2TEXT"
"""Environment variable: the transcription server behind the tool, ``URL#model``."""
MAX_AUDIO_BYTES = 25 * 2**20
MAX_SECONDS = 600.0
"""A longer recording is not transcribed."""
SOUNDFILE = extra("media", "soundfile")
POCKETSPHINX = extra("media", "pocketsphinx")
_MEMORY = 2 * 2**30


def make_audio2text_tool(server: str | None = None, *, timeout_s: float = 300.0) -> Tool:
    """The tool ``audio2text(path: str)``.

    Example: ``make_audio2text_tool("http://127.0.0.1:8000/v1#whisper-large-v3")``.

    Args:
        server: A transcription model, ``URL#model``; by default what ``REAGENT_AUDIO2TEXT`` names,
            else pocketsphinx.
        timeout_s: Seconds for one recording.

    Raises:
        NeedMissing: neither a server nor pocketsphinx, or no soundfile to decode with.
        ValueError: ``server`` is no URL with a model.
    """
    server = server or os.environ.get(SERVER) or None
    require("audio2text", SOUNDFILE, *([POCKETSPHINX] if server is None else []))
    named = None if server is None else server_and_model(server, SERVER)

    @tool(name="audio2text", timeout_s=timeout_s + 60.0)
    def audio2text(path: str, *, task: Task) -> str:
        """Write down what is said in a recording among the task's files.

        Args:
            path: The recording, such as "memo.mp3" or "archive.zip::voice.wav".
        """
        name, content = task_file(task, path, MAX_AUDIO_BYTES)
        sound = plain_sound(name, content)
        if named is None:
            heard = _recognised(name, sound, timeout_s)
        else:
            heard = _transcribed(name, sound, *named, timeout_s)
        return f"Said in {name}:\n{heard}" if heard else f"No words heard in {name}."

    return audio2text


def plain_sound(name: str, content: bytes) -> bytes:
    """An untrusted recording as a plain WAV.

    Raises:
        ToolError: it is no recording, damaged, empty, or too long.
        ToolBackendError: the decoder itself cannot be run.
    """
    command = [*beside("decode_sound.py"), str(MAX_SECONDS)]
    try:
        return run_bounded(command, content, Bounds(seconds=60.0, memory_bytes=_MEMORY))
    except ProgramFailed as error:
        if error.status == REFUSED or error.timed_out:
            raise ToolError(f"{name!r} cannot be read as a recording: {error}.") from None
        raise ToolBackendError(f"Decoding {name!r} failed: {error}") from error


def _recognised(name: str, sound: bytes, timeout_s: float) -> str:
    command = beside("recognise_speech.py")
    try:
        heard = run_bounded(command, sound, Bounds(seconds=timeout_s, memory_bytes=_MEMORY))
    except ProgramFailed as error:
        if error.timed_out:
            raise ToolError(f"Recognising the speech in {name!r} took too long: {error}.") from None
        raise ToolBackendError(f"pocketsphinx failed on {name!r}: {error}") from error
    return cut(heard.decode("utf-8", "replace").strip())


def _transcribed(name: str, sound: bytes, base_url: str, model: str, timeout_s: float) -> str:
    import openai

    with media_client(base_url, timeout_s) as client:
        try:
            reply: object = client.audio.transcriptions.create(
                model=model, file=("recording.wav", sound, "audio/wav"), response_format="json"
            )
        except openai.OpenAIError as error:
            raise server_error(error, name, base_url) from error
        except ValueError as error:
            raise ToolBackendError(
                f"The server at {base_url} answered no transcription ({error})."
            ) from error
    return text_of(getattr(reply, "text", reply), base_url)
