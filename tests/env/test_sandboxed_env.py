"""The environment over real sandboxes: a registered id, its tools, and what happens when one is lost."""

from __future__ import annotations

import json
import math
import time
import warnings
from typing import Any

import gymnasium as gym
import pytest

from reagent_env import Task, ToolUseEnv
from reagent_env.sandboxes import Limits, Sandbox, SandboxPool, SandboxUnavailable, make_sandbox
from reagent_env.testing import EnvContract

TASKS = [Task(question=f"What is {n} + 1?", answer=str(n + 1), grader="number") for n in range(9)]


def python(code: str) -> str:
    return f"<tool_call>{json.dumps({'name': 'python', 'arguments': {'code': code}})}</tool_call>"


def shell(command: str) -> str:
    arguments = {"command": command}
    return f"<tool_call>{json.dumps({'name': 'shell', 'arguments': arguments})}</tool_call>"


class _OnPythonMath(EnvContract):
    kind: str

    def make_env(self, **kwargs: Any) -> gym.Env[str, str]:
        return gym.make("reagent/PythonMath-v0", sandbox=self.kind, **kwargs)


class TestPythonMathInDocker(_OnPythonMath):
    kind = "docker"

    @pytest.fixture(autouse=True)
    def _engine(self, docker: None) -> None:
        """Needs an engine."""


class TestPythonMathEmbedded(_OnPythonMath):
    kind = "embedded"


@pytest.fixture
def env(sandbox_kind: str) -> Any:
    made = ToolUseEnv(TASKS, ["python", "shell"], sandbox_kind)
    yield made
    made.close()


def test_a_registered_id_runs_code_in_the_backend_asked_for(sandbox_kind: str) -> None:
    env = gym.make("reagent/PythonMath-v0", sandbox=sandbox_kind)
    _, info = env.reset(seed=7)
    assert info["sandbox"] == {"docker": "docker", "embedded": "bubblewrap"}[sandbox_kind]
    assert env.step(python("6 * 7"))[0] == "<tool_response>\n42\n</tool_response>"
    env.close()


def test_state_lasts_for_the_episode_and_no_longer(env: Any) -> None:
    env.reset(seed=0)
    env.step(python("x = 41; open('kept.txt', 'w').write('hello')"))
    assert "42" in env.step(python("x + 1"))[0]
    assert "hello" in env.step(shell("cat kept.txt"))[0]
    env.reset(seed=0)
    assert "NameError" in env.step(python("x"))[0]
    assert "exit code 1" in env.step(shell("cat kept.txt"))[0]


def test_calls_of_one_turn_share_the_sandbox_in_order(env: Any) -> None:
    env.reset(seed=0)
    observation = env.step(python("y = 1") + python("y += 1; print('y is', y)") + shell("echo hi"))[
        0
    ]
    assert "y is 2" in observation
    assert "hi" in observation


def test_a_failed_command_is_a_result(env: Any) -> None:
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(shell("echo out; echo err >&2; exit 3"))
    assert "[exit code 3]" in info["tool_results"][0]["content"]
    assert info["tool_results"][0]["status"] == "error"
    assert (reward, terminated, truncated) == (0.0, False, False)


def test_the_tasks_files_are_in_the_working_directory(sandbox_kind: str) -> None:
    task = Task(question="Sum?", answer="6", grader="number", files={"in/data.csv": b"1\n2\n3\n"})
    env = ToolUseEnv([task], ["python"], sandbox_kind)
    env.reset(seed=0)
    assert "6" in env.step(python("sum(int(line) for line in open('in/data.csv'))"))[0]
    env.close()


def test_awkward_text_reaches_the_sandbox_and_comes_back(env: Any) -> None:
    env.reset(seed=0)
    assert "Error" in env.step(python("'\x00\ud800'"))[0]
    assert "\\ud800" in env.step(python("print(ascii(chr(0xd800)))"))[0]
    env.step(python("import sys; sys.stdout.buffer.write(bytes(range(256)))"))
    assert "42" in env.step(python("42"))[0]


def test_a_sandbox_is_taken_only_when_a_call_needs_one(sandbox_kind: str) -> None:
    made = 0

    def create() -> Sandbox:
        nonlocal made
        made += 1
        return make_sandbox(sandbox_kind)

    env = ToolUseEnv(TASKS, ["python"], create)
    for seed in range(3):
        env.reset(seed=seed)
        env.step(r"\boxed{1}")
    assert made == 0
    env.reset(seed=0)
    env.step(python("1"))
    assert made == 1
    env.close()


class _Dying(Sandbox):
    """A real sandbox that is killed before its ``at``-th execution."""

    def __init__(self, inner: Any, at: int) -> None:
        self.inner, self.left, self.limits = inner, at, inner.limits

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def capabilities(self) -> Any:
        return self.inner.capabilities

    def python(self, code: str, timeout_s: float | None = None) -> Any:
        self.left -= 1
        if self.left == 0:
            self.inner.close()
        from reagent_env.sandboxes import SandboxLost

        try:
            return self.inner.python(code, timeout_s)
        except Exception as error:
            raise SandboxLost("killed by the test") from error

    def shell(self, command: str, timeout_s: float | None = None) -> Any:
        return self.inner.shell(command, timeout_s)

    def write_files(self, files: Any) -> None:
        self.inner.write_files(files)

    def read_file(self, path: str, max_bytes: int = 1_048_576) -> bytes:
        return bytes(self.inner.read_file(path, max_bytes))

    def ping(self) -> None:
        self.inner.ping()

    def reset(self) -> None:
        self.inner.reset()

    def close(self) -> None:
        self.inner.close()


def dying_env(*deaths: int) -> ToolUseEnv:
    """An environment whose n-th sandbox dies at its ``deaths[n]``-th execution (0: never)."""
    left = list(deaths)

    def create() -> Sandbox:
        return _Dying(make_sandbox("embedded"), left.pop(0) if left else 0)

    return ToolUseEnv(TASKS, ["python"], create)


def test_a_sandbox_lost_in_mid_episode_masks_the_episode_and_the_next_one_is_fine() -> None:
    env = dying_env(2)
    env.reset(seed=0)
    assert "1" in env.step(python("x = 1; x"))[0]
    _, reward, terminated, truncated, info = env.step(python("x"))
    assert math.isnan(reward)
    assert (terminated, truncated) == (False, True)
    assert info["stop_reason"] == "infrastructure_failure"
    assert info["infrastructure_error"].startswith("SandboxLost")
    env.reset(seed=0)
    assert "5" in env.step(python("2 + 3"))[0]
    env.close()


def test_a_sandbox_lost_at_the_first_call_is_replaced_and_nobody_notices() -> None:
    env = dying_env(1)
    env.reset(seed=0)
    observation, _, terminated, truncated, _ = env.step(python("2 + 3"))
    assert "5" in observation
    assert not terminated
    assert not truncated
    env.close()


def test_losing_the_replacement_too_masks_the_episode() -> None:
    env = dying_env(1, 1)
    env.reset(seed=0)
    assert env.step(python("2 + 3"))[4]["stop_reason"] == "infrastructure_failure"
    env.close()


def test_a_demanded_guard_that_is_missing_is_refused(sandbox_kind: str) -> None:
    env = ToolUseEnv(
        TASKS,
        ["python"],
        sandbox_kind,
        sandbox_requires=["network_isolated", "syscalls_filtered", "memory_limited"],
    )
    env.close()
    with pytest.raises(ValueError, match="Unknown capability"):
        ToolUseEnv(TASKS, ["python"], sandbox_kind, sandbox_requires=["teleportation"])


def test_vector_members_run_code_at_the_same_time(sandbox_kind: str) -> None:
    envs = gym.make_vec("reagent/PythonMath-v0", num_envs=4, sandbox=sandbox_kind)
    envs.reset(seed=0)
    observations, *_ = envs.step(
        [python(f"import os; print('member', {n}, os.getpid() > 0)") for n in range(4)]
    )
    assert [f"member {n} True" in observations[n] for n in range(4)] == [True] * 4
    envs.close()


def test_a_vector_that_could_starve_itself_is_refused() -> None:
    pool = SandboxPool(lambda: make_sandbox("embedded"), max_size=2)
    with pytest.raises(SandboxUnavailable, match="2"):
        gym.make_vec("reagent/PythonMath-v0", num_envs=3, sandbox=pool)
    envs = gym.make_vec("reagent/PythonMath-v0", num_envs=2, sandbox=pool)
    with pytest.raises(SandboxUnavailable):
        gym.make_vec("reagent/PythonMath-v0", num_envs=1, sandbox=pool)
    envs.close()
    gym.make_vec("reagent/PythonMath-v0", num_envs=2, sandbox=pool).close()
    pool.close()


def test_forked_workers_use_sandboxes_of_their_own(sandbox_kind: str) -> None:
    gym.make("reagent/PythonMath-v0", sandbox=sandbox_kind).close()
    mine = ToolUseEnv(TASKS, ["python"], sandbox_kind)
    mine.reset(seed=0)
    mine.step(python("x = 'parent'"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
        envs = gym.make_vec(
            "reagent/PythonMath-v0",
            num_envs=2,
            vectorization_mode="async",
            vector_kwargs={"shared_memory": False},
            sandbox=sandbox_kind,
        )
        envs.reset(seed=0)
        observations, *_ = envs.step((python("x = 'child'; x"), python("6 * 7")))
    assert "child" in observations[0]
    assert "42" in observations[1]
    assert "parent" in mine.step(python("x"))[0]
    envs.close()
    mine.close()


def test_a_small_sandbox_is_really_small(sandbox_kind: str) -> None:
    env = ToolUseEnv(
        TASKS, ["python"], sandbox_kind, sandbox_limits=Limits(memory_mb=96, timeout_s=2)
    )
    env.reset(seed=0)
    info = env.step(python("b = bytearray(200_000_000)"))[4]
    assert info["tool_results"][0]["status"] in ("oom", "error")
    assert env.step(python("while True: pass"))[4]["tool_results"][0]["error"] == "timeout"
    env.close()


def test_the_episodes_time_bounds_its_executions_too(sandbox_kind: str) -> None:
    env = ToolUseEnv(TASKS, ["python"], sandbox_kind, max_seconds=1.5)
    env.reset(seed=0)
    start = time.monotonic()
    info = env.step(python("import time; time.sleep(100)") * 4)[4]
    assert time.monotonic() - start < 1.5 + 3
    assert info["stop_reason"] == "wall_time"
    assert [one["error"] for one in info["tool_results"]] == ["timeout"] * 4
    env.close()


def test_files_that_do_not_fit_mask_the_episode_instead_of_ending_the_program() -> None:
    big = Task(question="?", answer="1", files={"big.bin": bytes(80 * 2**20)})
    env = ToolUseEnv([big], ["python"], "embedded")
    env.reset(seed=0)
    reward, *_, info = env.step(python("1"))[1:]
    assert math.isnan(reward)
    assert "TaskError" in info["infrastructure_error"]
    env.close()
