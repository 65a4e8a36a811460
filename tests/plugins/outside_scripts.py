"""Scripts for the environments from outside, and the suite that plays them through a plug-in."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from outside_envs import BAZAAR, LIFT, PRICES, bazaar_tasks, lift_tasks

from reagent_env.plugins.conformance import ConformanceSuite, Script, ScriptedTurn
from reagent_env.plugins.conformance_env import ScriptedJudge
from reagent_env.trajectory import ToolCall

REWARDS: list[dict[str, Any]] = [
    {},
    {"judge": ScriptedJudge("outside"), "credit": "turn"},
    {"judge": ScriptedJudge("steps"), "when": "step", "weight": 0.5},
    {"judge": ScriptedJudge(), "attempts": 2, "credit": "turn"},
]


def outside_scripts(count: int, seed: int) -> Iterator[Script]:
    """Episodes of either environment in turn, under each reward."""
    draw = random.Random(f"outside {seed}")
    for number in range(count):
        reward = REWARDS[number // 2 % len(REWARDS)]
        write, source, names = WORLDS[number % 2]
        task = draw.randrange(len(lift_tasks() if source == LIFT else bazaar_tasks()))
        turns: list[ScriptedTurn] = []
        spoiled = False
        for _ in range(reward.get("attempts", 1)):
            attempt, spoiled = write(draw, task)
            turns += attempt
            if spoiled:
                break
        kwargs = {"greeting": "Salâm!"} if source == BAZAAR and number % 3 == 0 else {}
        yield Script(
            number,
            tuple(turns),
            task,
            source,
            kwargs,
            spoiled=spoiled,
            tool_names=frozenset(names),
            **reward,
        )


def _bazaar(draw: random.Random, task: int) -> tuple[list[ScriptedTurn], bool]:
    kind = draw.choice(("right", "right", "wrong", "long", "failing", "awkward"))
    turns = [_bazaar_turn(draw, kind == "awkward") for _ in range(draw.randrange(4))]
    if kind == "long":
        return [_bazaar_turn(draw, False) for _ in range(6)], False
    if kind == "failing":
        return [*turns, ScriptedTurn((ToolCall("ask_the_guild", {"year": 1066}),))], True
    answer = str(bazaar_tasks()[task].answer) if kind == "right" else "cinquante-et-un ½"
    return [*turns, ScriptedTurn(answer=answer)], False


def _bazaar_turn(draw: random.Random, awkward: bool) -> ScriptedTurn:
    goods = draw.choice([*PRICES, "Πυθαγόρας"])
    basket = [{"goods": goods, "count": draw.randrange(5)}, {"goods": "绿茶", "gift": True}]
    one = draw.choice(
        [
            ToolCall("price", {"goods": goods}),
            ToolCall("price", {"goods": goods, "unit": "écu", "day": None}),
            ToolCall("price", {"goods": goods, "unit": "florin", "day": "mercredi"}),
            ToolCall("price", {"goods": goods, "unit": "doubloon"}),
            ToolCall("total", {"lines": basket}),
            ToolCall("total", {"lines": basket, "coupon": {"percent": 12.5, "only": [goods]}}),
            ToolCall("total", {"lines": [], "coupon": {"percent": 250}, "round_to": 1}),
            ToolCall("total", {"lines": basket, "coupon": None, "round_to": 0}),
            ToolCall("today", {}),
            ToolCall(
                "exchange",
                {"rates": {"écu": 4, "sou": 0.05}, "coins": {"écu": 3, "sou": 7}, "exact": True},
            ),
            ToolCall("exchange", {"rates": {}, "coins": {"½ écu": 1}, "exact": True}),
            ToolCall("ask_the_guild", {"year": 1950}),
        ]
    )
    if not awkward:
        return ScriptedTurn((one,))
    return draw.choice(
        [
            ScriptedTurn((one, ToolCall("today", {}), one)),
            ScriptedTurn((ToolCall("today", {"when": "now"}), ToolCall("haggle", {}))),
            ScriptedTurn((ToolCall("total", {"lines": "saffron"}),)),
            ScriptedTurn(text=f"<tool_call>\n{json.dumps({'name': 'today'})}\n</tool_call>"),
        ]
    )


def _lift(draw: random.Random, task: int) -> tuple[list[ScriptedTurn], bool]:
    goal = int(lift_tasks()[task].metadata["goal"])
    door = ScriptedTurn((ToolCall("press_door", {}),))
    kind = draw.choice(("right", "slowly", "stuck", "answer", "lost", "gone"))
    if kind == "right":
        return [_move("up", goal), door], False
    if kind == "slowly":
        return [*[_move("up")] * goal, door], False
    if kind == "stuck":
        return [_move("down", 2), door, _move("up", 21)], False
    if kind == "gone":
        return [_move("down"), _move("up", 1066)], True
    if kind == "answer":
        return [_move("up", goal), ScriptedTurn(answer="I am there.")], False
    return [_move(draw.choice(["up", "down", "sideways"]), 7), *[door] * 9], False


def _move(direction: str, floors: int | None = None) -> ScriptedTurn:
    further = {} if floors is None else {"floors": floors}
    return ScriptedTurn((ToolCall("move", {"direction": direction, **further}),))


WORLDS = (
    (_bazaar, BAZAAR, ("price", "total", "today", "exchange", "ask_the_guild")),
    (_lift, LIFT, ("move", "press_door")),
)


class OutsideSuite(ConformanceSuite):
    """48 episodes in environments that the package has never heard of."""

    episodes = 48
    noted = False

    def scripts(self, count: int, seed: int) -> Iterator[Script]:
        """Those of here."""
        return outside_scripts(count, seed)
