"""A tool step that does nothing: parse the completion, dispatch the call, render the result.

The same completion and the same no-op tool through this package, ``gem-llm`` and ``skyrl-gym``,
interleaved in one process. Theirs parse a tag, ours a JSON call checked against the tool's schema
(the tag's text is the same JSON). Prints medians with quartiles, and the ratio to ours.

    make bench      # sets up .venv-bench with the other two, and runs this in it

Bar: ours at most 0.3 ms.
"""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from machine import Watch
from rows import Row, arguments, deliver, spread

from reagent_env import ToolUseEnv, tool
from reagent_env.testing import addition_tasks

ROUNDS, STEPS = 40, 50
BAR_MS = 0.3
ARGUMENTS = '{"name": "no_op", "arguments": {"text": "hello", "count": 3}}'


@tool(timeout_s=None)
def no_op(text: str, count: int = 1) -> str:
    """Do nothing.

    Args:
        text: Ignored.
        count: Ignored.
    """
    return "ok"


@tool(name="no_op")
def no_op_watched(text: str, count: int = 1) -> str:
    """Do nothing, under the default time limit, which costs a thread.

    Args:
        text: Ignored.
        count: Ignored.
    """
    return "ok"


def ours(the_tool: Any) -> Callable[[], None]:
    env = ToolUseEnv(addition_tasks(), [the_tool], max_turns=STEPS + 1)
    completion = f"I will call it.\n<tool_call>\n{ARGUMENTS}\n</tool_call>"

    def episode() -> None:
        env.reset(seed=0)
        for _ in range(STEPS):
            observation = env.step(completion)[0]
        assert "ok" in observation

    return episode


def gem() -> Callable[[], None] | None:
    try:
        from gem.core import Env
        from gem.tools.base_tool import BaseTool
        from gem.tools.tool_env_wrapper import ToolEnvWrapper
    except ImportError:
        return None

    class NoOpTool(BaseTool):
        tool_type = "no_op"

        def instruction_string(self) -> str:
            return "Call <tool>{...}</tool>."

        def execute_action(self, action: str) -> Any:
            found = re.search(r"<tool>(.*?)</tool>", action, re.DOTALL)
            if not found:
                return False, True, "", action
            json.loads(found.group(1))
            return True, False, "<information>ok</information>", action[: found.end()]

    class Question(Env):
        def reset(self, seed: int | None = None) -> Any:
            return "What is 3 + 4?", {}

        def step(self, action: str) -> Any:
            return "", 0.0, True, False, {}

    env = ToolEnvWrapper(Question(), [NoOpTool()], max_tool_uses=STEPS + 1)
    completion = f"I will call it.\n<tool>\n{ARGUMENTS}\n</tool>"

    def episode() -> None:
        env.reset()
        for _ in range(STEPS):
            observation = env.step(completion)[0]
        assert "ok" in observation

    return episode


def skyrl() -> Callable[[], None] | None:
    try:
        from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput
        from skyrl_gym.tools.core import ToolGroup
        from skyrl_gym.tools.core import tool as skyrl_tool
    except ImportError:
        return None

    class NoOpGroup(ToolGroup):
        def __init__(self) -> None:
            super().__init__("NoOpGroup")

        @skyrl_tool
        def no_op(self, text: str, count: int = 1) -> str:
            return "ok"

    class Question(BaseTextEnv):
        def __init__(self) -> None:
            super().__init__()
            self.init_tool_groups([NoOpGroup()])
            self.chat_history: list[dict[str, str]] = []

        def step(self, action: str) -> Any:
            self.turns += 1
            self.chat_history.append({"role": "assistant", "content": action})
            found = re.search(r"<tool>(.*?)</tool>", action, re.DOTALL)
            assert found
            call = json.loads(found.group(1))
            shown = self._execute_tool("NoOpGroup", call["name"], list(call["arguments"].values()))
            message = {"role": "user", "content": f"<information>{shown}</information>"}
            self.chat_history.append(message)
            return BaseTextEnvStepOutput(
                observations=[message], reward=0.0, done=False, metadata={}
            )

    completion = f"I will call it.\n<tool>\n{ARGUMENTS}\n</tool>"

    def episode() -> None:
        env = Question()
        env.init([{"role": "user", "content": "What is 3 + 4?"}])
        for _ in range(STEPS):
            observation = env.step(completion)["observations"][0]["content"]
        assert "ok" in observation

    return episode


def main() -> None:
    parser = arguments(__doc__, quick="five rounds")
    given = parser.parse_args()
    watch = Watch()
    contenders = {
        "reagent_env": ours(no_op),
        "reagent_env, watched": ours(no_op_watched),
        "gem-llm": gem(),
        "skyrl-gym": skyrl(),
    }
    times: dict[str, list[float]] = {name: [] for name, run in contenders.items() if run}
    for _ in range(5 if given.quick else ROUNDS):
        for name, run in contenders.items():
            if run is None:
                continue
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) / STEPS * 1e3)
    base = statistics.median(times["reagent_env"])
    print(f"{'':24}{'median ms':>10}{'quartiles':>20}{'ratio':>8}")
    for name, samples in times.items():
        low, middle, high = statistics.quantiles(samples, n=4)
        print(f"{name:24}{middle:10.4f}{f'{low:.4f} – {high:.4f}':>20}{middle / base:8.2f}")
    for name in ("gem-llm", "skyrl-gym"):
        shown = version(name) if name in times else "not installed: see the top of this file"
        print(f"{name}: {shown}")
    rows = [row_of(name, samples, times) for name, samples in times.items()]
    deliver(given.json, "tool_step", rows, watch.machine(), {"ms": times})


def row_of(name: str, samples: list[float], times: dict[str, list[float]]) -> Row:
    """Ours against the bar; the others, and our thread for a time limit, told as times of ours."""
    if name == "reagent_env":
        measured, quartiles = spread(samples)
        return Row(
            name="a tool step",
            compares="parse, dispatch and render of a tool that does nothing",
            measured=measured,
            of="ms",
            quartiles=quartiles,
            bar=BAR_MS,
            most=True,
        )
    base = times["reagent_env"]
    ratio, quartiles = spread([one / ours for one, ours in zip(samples, base, strict=True)])
    return Row(
        name=f"a tool step, {name.removeprefix('reagent_env, ')}",
        compares=f"{name} / ours",
        measured=ratio,
        quartiles=quartiles,
        ours=statistics.median(base),
        other=statistics.median(samples),
        unit="ms",
    )


if __name__ == "__main__":
    main()
