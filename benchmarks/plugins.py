"""What a plug-in adds to a step: the bare environment, and the same calls through TRL, SkyRL, SB3.

All in one process, interleaved, in the thread's processor time, which other work on the machine
touches least. Prints each one's median and what it adds; the bound is 0.2 ms.

    make bench      # in .venv-bench, where skyrl-gym is; or by itself, then without SkyRL's row
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from machine import Watch
from rows import Row, arguments, deliver, spread

from reagent_env import ToolUseEnv, tool
from reagent_env.testing import addition_tasks

ROUNDS, STEPS = 30, 40
BOUND_MS = 0.2
TEXT = "Velmora lies on the River Danu, 120 metres above the sea. Its mayor is Kelo Tarn. " * 4


@tool(timeout_s=None)
def look_up(name: str, count: int = 1) -> str:
    """Look something up: always the same four sentences.

    Args:
        name: Of what.
        count: How many.
    """
    return TEXT


CALL = {"name": "look_up", "arguments": {"name": "Velmora", "count": 3}}
COMPLETION = f"<tool_call>\n{json.dumps(CALL)}\n</tool_call>"


def make() -> ToolUseEnv:
    return ToolUseEnv(addition_tasks(), [look_up], max_turns=STEPS + 1)


def bare() -> Callable[[], None]:
    env = make()

    def episode() -> None:
        env.reset(seed=0)
        for _ in range(STEPS):
            observation = env.step(COMPLETION)[0]
        assert TEXT in observation

    return episode


def sb3_menu() -> Callable[[], None]:
    from reagent_env.plugins.sb3 import ActionMenu, SplitAttempts

    env = ActionMenu(SplitAttempts(make()), [COMPLETION], size=16)
    return _steps(env)


def sb3_whole() -> Callable[[], None]:
    from reagent_env.plugins.sb3 import make_sb3_env

    return _steps(make_sb3_env(make(), menu=[COMPLETION], size=16))


def sb3_proposing() -> Callable[[], None]:
    from reagent_env.plugins.menus import proposed_calls
    from reagent_env.plugins.sb3 import make_sb3_env

    return _steps(make_sb3_env(make(), menu=proposed_calls, size=16))


def _steps(env: Any) -> Callable[[], None]:
    def episode() -> None:
        env.reset(seed=0)
        for _ in range(STEPS):
            info = env.step(0)[4]
        assert info["turn"] == STEPS

    return episode


def trl() -> Callable[[], None]:
    from reagent_env.plugins.trl import make_environment_factory

    factory = make_environment_factory(make)
    env: Any = factory()

    def episode() -> None:
        env.reset(task=0)
        for _ in range(STEPS):
            observation = env.look_up(name="Velmora", count=3)
        assert TEXT in observation

    return episode


def skyrl() -> Callable[[], None] | None:
    try:
        import skyrl_gym

        from reagent_env.plugins.skyrl import register_skyrl
    except ModuleNotFoundError:
        return None
    register_skyrl("bench", make)

    def episode() -> None:
        env = skyrl_gym.make("bench", extras={"task": 0})
        env.init([])
        for _ in range(STEPS):
            step = env.step(COMPLETION)
        assert TEXT in step["observations"][0]["content"]
        env.close()

    return episode


def main() -> None:
    parser = arguments(__doc__, quick="five rounds")
    given = parser.parse_args()
    watch = Watch()
    contenders = {
        "bare environment": bare(),
        "TRL, a tool's method": trl(),
        "SkyRL": skyrl(),
        "SB3, fixed menu": sb3_menu(),
        "SB3, fixed menu and features": sb3_whole(),
        "SB3, proposed calls and features": sb3_proposing(),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(5 if given.quick else ROUNDS):
        for name, episode in contenders.items():
            if episode is not None:
                began = time.thread_time()
                episode()
                times[name].append((time.thread_time() - began) / STEPS * 1_000)
    print(f"{'':34} median ms   quartiles         adds ms, quartiles  (processor time, a step)")
    base = times["bare environment"]
    for name, seen in times.items():
        if not seen:
            print(f"{name:34} not installed")
            continue
        low, middle, high = statistics.quantiles(seen, n=4)
        shown = f"{name:34} {middle:9.4f}   {low:.4f} – {high:.4f} "
        if not name.startswith("bare"):
            added = (one - two for one, two in zip(seen, base, strict=True))
            low, middle, high = statistics.quantiles(added, n=4)
            late = "  over the bound" if middle > BOUND_MS else ""
            shown += f"{middle:8.4f}   {low:.4f} – {high:.4f}{late}"
        print(shown)
    rows = [
        row_of(name, seen, base)
        for name, seen in times.items()
        if seen and not name.startswith("bare")
    ]
    deliver(given.json, "plugins", rows, watch.machine(), {"ms": times})


def row_of(name: str, seen: list[float], base: list[float]) -> Row:
    added, quartiles = spread([one - two for one, two in zip(seen, base, strict=True)])
    return Row(
        name=f"plug-in, {name}",
        compares="what it adds to a step of the bare environment, processor time",
        measured=added,
        of="ms",
        quartiles=quartiles,
        bar=BOUND_MS,
        most=True,
        ours=statistics.median(seen),
        other=statistics.median(base),
        unit="ms",
    )


if __name__ == "__main__":
    main()
