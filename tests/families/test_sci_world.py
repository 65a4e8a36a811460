"""ScienceWorld: the library's own parts and scores, one world a process, the same in every process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from typing import Any

import gymnasium as gym
import pytest

from reagent_env.env import ToolUseEnv
from reagent_env.errors import TaskError, ToolBackendError
from reagent_env.families.sci_world import KINDS, SciWorld, act, parts_of, sci_world
from reagent_env.families.sci_world_jvm import (
    JAVA_OPTIONS,
    World,
    WorldPool,
    shared_pool,
)
from reagent_env.families.sci_world_solver import gold_sequence, solve, wander
from reagent_env.task import SPLITS, Task
from reagent_env.testing import SimulatorContract
from reagent_env.testing.simulator_contract import play
from reagent_env.trajectory import ToolCall

ENV_ID = "reagent/SciWorld-v0"


class TestContract(SimulatorContract):
    env_id = ENV_ID
    solver = "reagent_env.families.sci_world_solver:solve"
    idle = ToolCall("act", {"command": "objects"})
    seeds = (6, 14)  # short ones: a gold sequence of the longest takes a minute to compute


@pytest.fixture(scope="module", autouse=True)
def _ended() -> Any:
    """Leave no Java process to the tests that follow."""
    yield
    shared_pool().close()


def paint(variation: int = 0) -> Task:
    """The shortest kind, of seven commands."""
    return sci_world(kinds=("chemistry-mix-paint-secondary-color",))[variation]


def call(command: str) -> str:
    return f'<tool_call>{{"name": "act", "arguments": {{"command": "{command}"}}}}</tool_call>'


@pytest.fixture
def env() -> Any:
    env = ToolUseEnv([paint()], [act], simulator=SciWorld, max_turns=20)
    yield env
    env.close()


# The tasks ----------------------------------------------------------------------------------------


def test_there_are_7207_variations_in_the_librarys_parts() -> None:
    assert len(sci_world()) == 7207
    assert {split: len(sci_world(split)) for split in SPLITS} == {
        "train": 3592,
        "validation": 1796,
        "test": 1819,
    }
    assert {task.id for task in sci_world("train")}.isdisjoint(t.id for t in sci_world("test"))


def test_kinds_and_their_parts_are_as_the_library_has_them() -> None:
    world = shared_pool().acquire()
    try:
        assert sorted(world.call("getTaskNames")) == sorted(KINDS)
        assert {kind: world.call("getTaskMaxVariations", kind) for kind in KINDS} == {
            kind: count for kind, (count, _) in KINDS.items()
        }
        for kind in ("identify-life-stages-2", "identify-life-stages-1", "boil"):  # 10, 14, 30
            world.load((kind, 0, ""))
            parts = parts_of(KINDS[kind][0])
            for split, name in zip(SPLITS, ("Train", "Dev", "Test"), strict=True):
                assert world.call(f"getVariations{name}") == list(parts[split]), (kind, split)
    finally:
        shared_pool().release(world)


def test_kinds_take_turns_and_can_be_chosen_by_name_or_level() -> None:
    assert len({task.metadata["kind"] for task in sci_world("test")[:30]}) == 30
    assert {t.metadata["kind"] for t in sci_world(kinds=("boil", "melt"))} == {"boil", "melt"}
    assert {t.metadata["level"] for t in sci_world("train", levels=(1,))} == {1}
    with pytest.raises(ValueError, match=r"Unknown \['boils'\]; known: boil, "):
        sci_world(kinds=("boils",))
    with pytest.raises(ValueError, match="No kind of"):
        sci_world(kinds=("boil",), levels=(1,))


# Playing ------------------------------------------------------------------------------------------


def test_the_prompt_has_the_librarys_description_and_first_look(env: Any) -> None:
    prompt, info = env.reset(seed=0)
    assert "Your task is to use chemistry to create green paint." in prompt
    assert "This room is called the" in prompt
    assert info["messages"][-1]["content"] in prompt


def test_gold_earns_everything_and_half_of_it_what_was_reached(env: Any) -> None:
    steps = list(play(env, solve, 0))
    assert steps[-1][1:4] == (1.0, True, False)
    assert steps[-1][4]["stop_reason"] == "finished"
    gold = gold_sequence(("chemistry-mix-paint-secondary-color", 0, ""))
    env.reset(seed=0)
    for command in gold[: len(gold) // 2]:
        env.step(call(command))
    _, reward, terminated, _, _ = env.step("That is as far as I go.")
    assert 0 < reward < 1
    assert terminated


def test_a_wrong_focus_ends_the_episode_with_nothing(env: Any) -> None:
    env.reset(seed=0)
    for command in gold_sequence(("chemistry-mix-paint-secondary-color", 0, ""))[:2]:
        env.step(call(command))
    _, reward, terminated, truncated, info = env.step(call("focus on agent"))
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert info["stop_reason"] == "finished"


def test_random_commands_get_nowhere(env: Any) -> None:
    assert [list(play(env, wander, seed))[-1][1] for seed in (0, 1)] == [0.0, 0.0]


@pytest.mark.parametrize("command", ["", "   ", "x" * 201])
def test_an_empty_or_endless_command_is_explained(env: Any, command: str) -> None:
    env.reset(seed=0)
    observation, _, terminated, truncated, _ = env.step(call(command))
    assert "a command has 1 to 200 characters" in observation
    assert (terminated, truncated) == (False, False)


def test_a_lone_surrogate_is_a_command_like_another(env: Any) -> None:
    env.reset(seed=0)
    observation, *_ = env.step(call("eat \\ud800"))
    assert "No known action" in observation


def test_a_task_that_the_library_does_not_know_masks_the_episode() -> None:
    unknown = Task("x", None, "simulator", metadata={"kind": "no-such-task", "variation": 0})
    env = ToolUseEnv([unknown], [act], simulator=SciWorld)
    env.reset(seed=0)
    _, reward, _, truncated, info = env.step(call("look around"))
    assert (reward != reward, truncated) == (True, True)
    assert "no-such-task" in info["infrastructure_error"]
    env.close()
    with pytest.raises(TaskError, match="metadata 'kind' and 'variation'"):
        SciWorld(Task("x", None, "simulator"))


# Java processes -----------------------------------------------------------------------------------


def test_a_process_serves_one_episode_after_another() -> None:
    pool = WorldPool()
    first = pool.acquire(("find-plant", 0, ""))
    pool.release(first)
    second = pool.acquire(("find-plant", 0, ""))
    assert second is first
    assert pool.started == 1
    opening = second.opening
    second.step("open door to hallway")
    pool.release(second)
    assert pool.acquire(("find-plant", 0, "")).opening == opening  # set up anew
    assert pool.started == 1
    pool.release(second)
    pool.close()
    assert not os.path.exists(f"/proc/{first.process_id}")


def test_an_idle_process_is_ended_in_time() -> None:
    pool = WorldPool(idle_seconds=0.0)
    world = pool.acquire()
    pool.release(world)
    pool.close()
    with pytest.raises(ToolBackendError):
        world.call("getTaskNames")


def test_a_killed_process_masks_its_episode_and_is_replaced(env: Any) -> None:
    env.reset(seed=0)
    simulator = env.unwrapped._episode.simulator
    os.kill(simulator._world.process_id, signal.SIGKILL)
    _, reward, terminated, truncated, info = env.step(call("look around"))
    assert reward != reward  # NaN: no reward of 0
    assert (terminated, truncated) == (False, True)
    assert info["stop_reason"] == "infrastructure_failure"
    assert "ScienceWorld's Java process failed" in info["infrastructure_error"]
    env.reset(seed=0)
    assert "This room is called" in env.step(call("look around"))[0]


def test_a_killed_process_leaves_no_socket_open_and_nothing_on_the_terminal() -> None:
    # In a process of its own, as its root logger must be untouched: to log to that is to print.
    program = """
import gc, os, signal, sys, warnings
from reagent_env.errors import ToolBackendError
from reagent_env.families.sci_world_jvm import World

warnings.simplefilter("always", ResourceWarning)
world = World()
held = world._world
os.kill(world.process_id, signal.SIGKILL)
world._process.wait(10)
for _ in range(2):
    try:
        world.call("getTaskNames")
    except ToolBackendError as error:
        print(error)
world.close()
world.close()
del world, held
gc.collect()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first.startswith("ScienceWorld's Java process failed: Py4JNetworkError: ")
    assert second.endswith(": Gateway is not connected.")  # it is not asked again


def test_a_process_that_cannot_be_reached_leaves_no_socket_open() -> None:
    from reagent_env.families.sci_world_client import Py4JError, connected

    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        _, client = connected(taken.getsockname()[1], "token", 1.0)
        before = len(os.listdir("/proc/self/fd"))
        for said in ("trying to connect", "not connected"):
            with pytest.raises(Py4JError, match=said) as raised:
                client.send_command("p\n")
            assert raised.tb is not None  # it holds Py4J's frames, and they the connection
            assert len(os.listdir("/proc/self/fd")) == before


def test_a_command_is_sent_once_however_it_ends() -> None:
    """Py4J sends again what was not answered: a step would be done twice."""
    from reagent_env.families.sci_world_client import Py4JError, connected

    said: list[bytes] = []

    def java(server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:  # closed: the test is over
                return
            with connection, connection.makefile("rb") as lines:
                connection.settimeout(5.0)
                said.extend((lines.readline(), lines.readline()))  # the greeting
                connection.sendall(b"!yv\n")
                said.append(lines.readline())
                # and closes: no answer

    with socket.create_server(("127.0.0.1", 0)) as server:
        listening = threading.Thread(target=java, args=(server,), daemon=True)
        listening.start()
        _, client = connected(server.getsockname()[1], "token", 5.0)
        with pytest.raises(Py4JError):
            client.send_command("step\n")
        server.shutdown(socket.SHUT_RDWR)
        listening.join(5.0)
    assert said == [b"A\n", b"token\n", b"step\n"]


def test_java_that_does_not_start_says_what_to_try() -> None:
    # In a process of its own: Py4J leaves the pipes of a Java that failed to the collector.
    program = "from reagent_env.families.sci_world_jvm import World; World(['-XX:NoSuch'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ToolBackendError" in done.stderr
    assert "try `java -version`" in done.stderr


def test_a_process_ends_with_the_python_that_started_it() -> None:
    program = (
        "import os; from reagent_env.families.sci_world_jvm import World;"
        "print(World().process_id, flush=True); os.kill(os.getpid(), 9)"
    )
    started = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    ended = threading.Event()
    for _ in range(100):
        if not os.path.exists(f"/proc/{int(started.stdout)}"):
            break
        ended.wait(0.1)
    assert not os.path.exists(f"/proc/{int(started.stdout)}")


def transcript(world: World, variation: tuple[str, int, str]) -> list[object]:
    world.load(variation)
    return [world.opening, world.call("getPossibleObjects"), world.step("look around")]


def test_what_a_room_holds_has_one_order_in_every_process() -> None:
    """Without the constant hash a room's contents come as that process's random hashes have them."""
    task = ("inclined-plane-friction-unnamed-surfaces", 5, "")
    guard = ("-XX:+UnlockExperimentalVMOptions", "-XX:hashCode=2")
    assert JAVA_OPTIONS[-2:] == guard
    seen: dict[bool, list[list[object]]] = {True: [], False: []}
    for guarded in (True, False):
        options = JAVA_OPTIONS if guarded else JAVA_OPTIONS[:-2]
        for others in (0, 2):  # what was played before moves the random hashes on
            world = World(options)
            for variation in range(others):
                world.load(("find-plant", variation, ""))
            seen[guarded].append(transcript(world, task))
            world.close()
    assert seen[True][0] == seen[True][1]
    assert seen[False][0] != seen[False][1]


def test_the_id_makes_the_environment_with_what_it_needs_listed() -> None:
    from reagent_env.registration import ENVIRONMENTS

    env = gym.make(ENV_ID)
    assert len(env.unwrapped.tasks) == 3592  # type: ignore[attr-defined]
    env.close()
    commands = [need.command for need in ENVIRONMENTS[ENV_ID]["needs"]]
    assert commands == [
        "python -m pip install 'reagent-env[sciworld]'",
        "apt-get install -y default-jre-headless",
    ]
