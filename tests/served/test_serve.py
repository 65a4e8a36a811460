"""The server's life cycle with a stand-in interpreter: a small real HTTP server, started the same way.

The real vLLM is test_vllm.py's; here are the ways it can fail, in seconds.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reagent_env.agents.serve import ServerFailed, VLLMServer, vllm_version
from reagent_env.cli import app

# Stands in for `python -I -m vllm.entrypoints.openai.api_server`: reads the same arguments, leaves a
# child behind as vLLM's engine is one, and answers /health and /v1/models.
PROGRAM = """
import http.server, json, os, subprocess, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
mode = os.environ.get("STAND_IN", "")
child = subprocess.Popen(["sleep", "600"])
print("environment", os.environ.get("OMP_NUM_THREADS"), os.environ.get("HF_HUB_OFFLINE"), flush=True)
print("child", child.pid, flush=True)
print("arguments", sys.argv[1:], flush=True)
if mode == "dies":
    sys.exit("RuntimeError: out of memory")
if mode == "hangs":
    child.wait()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = "another" if mode == "another" else options["--served-model-name"]
        body = json.dumps({"data": [{"id": name}]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
        if mode == "dies later" and self.path == "/v1/models":
            self.wfile.flush()
            os._exit(3)
    def log_message(self, *arguments):
        pass
address = ("127.0.0.1", int(options["--port"]))
http.server.HTTPServer(address, Handler).serve_forever()
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An "interpreter" whose vLLM is the program above."""
    (tmp_path / "program.py").write_text(PROGRAM)
    path = tmp_path / "python"
    path.write_text(
        "#!/bin/sh\n"
        'if [ "$2" = -c ]; then echo 0.32.0+cpu; exit; fi\n'
        f'shift 3; exec "{sys.executable}" -I "{tmp_path}/program.py" "$@"\n'
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def make(python: Path, mode: str = "", **options: object) -> VLLMServer:
    log = python.with_name("server.log")
    given = {"served_name": "m", "deadline_s": 30.0, "log_path": log, **options}
    return VLLMServer(
        python.parent,
        python=python,
        environment={"STAND_IN": mode},
        **given,  # type: ignore[arg-type]
    )


def child_of(server: VLLMServer) -> int:
    assert server.log_path is not None
    [line] = [one for one in server.log_path.read_text().splitlines() if one.startswith("child")]
    return int(line.split()[1])


def ended(pid: int, seconds: float = 20.0) -> bool:
    """Whether the process is gone, or a zombie nobody has waited for yet, within ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_it_answers_inside_with_and_is_gone_after(python: Path) -> None:
    with make(python) as server:
        assert server.alive
        assert server.base_url == f"http://127.0.0.1:{server.port}/v1"
        assert server.start_seconds < 30
        child = child_of(server)
        assert not ended(child, 0.1)
    assert not server.alive
    assert ended(child), "the whole group ends, not the first process alone"
    server.close()


def test_on_a_cpu_it_is_told_float32_threads_and_no_network(python: Path) -> None:
    with make(python, threads=3, max_model_len=512, extra_args=["--enable-lora", "x"]) as server:
        log = server.log_tail()
    assert "environment 3 1" in log
    assert "'--dtype', 'float32', '--enforce-eager', '--enable-lora', 'x'" in log
    assert "'--max-model-len', '512'" in log


def test_two_servers_take_different_ports(python: Path) -> None:
    with make(python) as one, make(python) as other:
        assert one.port != other.port


def test_a_server_that_dies_tells_the_end_of_its_log(python: Path) -> None:
    server = make(python, "dies")
    with pytest.raises(
        ServerFailed, match="exit code 1.*RuntimeError: out of memory".replace(".*", r"[\s\S]*")
    ):
        server.start()
    assert ended(child_of(server))


def test_a_server_that_does_not_answer_in_time_is_ended(python: Path) -> None:
    server = make(python, "hangs", deadline_s=2.0)
    with pytest.raises(ServerFailed, match="did not answer within 2 s; give it more"):
        server.start()
    assert ended(child_of(server))


def test_another_server_on_the_port_is_noticed(python: Path) -> None:
    with pytest.raises(ServerFailed, match=r"answered by another server, of \['another'\]"):
        make(python, "another").start()


def test_a_death_later_is_noticed(python: Path) -> None:
    with make(python, "dies later") as server, pytest.raises(ServerFailed, match="exit code 3"):
        server.wait()


def test_a_killed_owner_takes_its_server_with_it(python: Path) -> None:
    program = (
        "import sys, pathlib; sys.path.insert(0, '.')\n"
        "from reagent_env.agents.serve import VLLMServer\n"
        f"folder = pathlib.Path({str(python.parent)!r})\n"
        "server = VLLMServer(folder, served_name='m', python=folder / 'python',\n"
        "                    log_path=folder / 'server.log')\n"
        "server.start(); print(server.port, flush=True); sys.stdin.read()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        assert int(owner.stdout.readline()) > 0
        child = child_of(make(python))
        assert not ended(child, 0.1)
        os.kill(owner.pid, signal.SIGKILL)
    assert ended(child)


def test_without_vllm_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="scripts/make-vllm-venv"):
        vllm_version(tmp_path / "python")


def test_reagent_serve_refuses_a_folder_without_a_model(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["serve", str(tmp_path)])
    assert shown.exit_code == 2
    assert "holds no config.json" in shown.output


def test_reagent_serve_prints_the_agent_and_ends_on_interrupt(python: Path) -> None:
    (python.parent / "config.json").write_text("{}")
    command = [str(Path(sys.executable).with_name("reagent")), "serve", str(python.parent)]
    served = subprocess.Popen(
        [*command, "--name", "m", "--log", str(python.with_name("server.log"))],
        env={**os.environ, "REAGENT_VLLM_PYTHON": str(python)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with served:
        assert served.stdout is not None
        assert served.stderr is not None
        spec = served.stdout.readline().strip()
        assert spec.startswith("http://127.0.0.1:")
        assert spec.endswith("/v1#m")
        child = child_of(make(python))
        served.send_signal(signal.SIGINT)
        said = served.stderr.read()
    assert served.returncode == 0
    assert f"reagent eval reagent/PythonMath-v0 --agent {spec}" in said
    assert ended(child)


def test_reagent_serve_without_vllm_is_one_line_of_advice(python: Path) -> None:
    (python.parent / "config.json").write_text("{}")
    command = [str(Path(sys.executable).with_name("reagent")), "serve", str(python.parent)]
    environment = {**os.environ, "REAGENT_VLLM_PYTHON": str(python.with_name("nowhere"))}
    ended_by = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ended_by.returncode == 1
    assert "scripts/make-vllm-venv" in ended_by.stderr
    assert "Traceback" not in ended_by.stderr
