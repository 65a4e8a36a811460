"""Environments as a package of somebody else's registers them: ``gym.make("outside_envs:outside/…")``.

A question answered with tools whose arguments are enums, optional, nested, lists, maps, or none, one of
them async; and a simulator with a limit of Gymnasium's own around it. Nothing here knows of plug-ins.
"""

from __future__ import annotations

import asyncio
import enum
from typing import Any, Literal

import gymnasium
import pydantic

from reagent_env import Task, ToolUseEnv, tool
from reagent_env.errors import ToolBackendError, ToolError
from reagent_env.simulator import Simulator

BAZAAR = "outside_envs:outside/Bazaar-v3"
LIFT = "outside_envs:outside/Lift-v0"

PRICES = {"saffron": 12.5, "naïve art": 80.0, "绿茶": 3.25, "crêpes": 4.0}


class Unit(enum.Enum):
    """What a price is said in."""

    FLORIN = "florin"
    ECU = "écu"


class Line(pydantic.BaseModel):
    """One line of a basket."""

    goods: str
    """What."""
    count: int = 1
    """How many."""
    gift: bool = False


class Coupon(pydantic.BaseModel):
    """What may be taken off."""

    percent: float = pydantic.Field(ge=0, le=100)
    only: list[str] | None = None


@tool
def price(goods: str, unit: Unit = Unit.FLORIN, day: str | None = None) -> str:
    """Say what something costs.

    Args:
        goods: Its name, as the stall writes it.
        unit: In which coin; an écu is four florins.
        day: A day of the week, where prices of another day are asked.
    """
    if goods not in PRICES:
        raise ToolError(f"no stall sells {goods!r}; there are {', '.join(PRICES)}")
    value = PRICES[goods] / (4 if unit is Unit.ECU else 1)
    return f"{goods} – {value:g} {unit.value}" + ("" if day is None else f" ({day})")


@tool
def total(lines: list[Line], coupon: Coupon | None = None, round_to: Literal[0, 1, 2] = 2) -> str:
    """Add up a basket.

    Args:
        lines: What is in it.
        coupon: What is taken off.
        round_to: Digits after the point.
    """
    paid = 0.0
    for line in lines:
        if line.goods not in PRICES:
            raise ToolError(f"no stall sells {line.goods!r}")
        off = coupon is not None and (coupon.only is None or line.goods in coupon.only)
        share = 1 - coupon.percent / 100 if coupon is not None and off else 1.0
        paid += 0.0 if line.gift else PRICES[line.goods] * line.count * share
    return f"{paid:.{round_to}f} florin"


@tool
def today() -> str:
    """Say which day it is."""
    return "vendredi, le 3 août"


@tool
async def exchange(rates: dict[str, float], coins: dict[str, int], exact: bool) -> str:
    """Change coins by rates of one's own.

    Args:
        rates: Coin → florins.
        coins: Coin → how many.
        exact: Whether to say what has no rate.
    """
    await asyncio.sleep(0)
    unknown = sorted(set(coins) - set(rates))
    if unknown and exact:
        raise ToolError(f"no rate for {', '.join(unknown)}")
    return f"{sum(rates.get(coin, 0) * count for coin, count in coins.items()):g}"


@tool(name="ask_the_guild")
def guild(year: int) -> str:
    """Ask the guild's archive; it is shut for years before 1900.

    Args:
        year: Of which year.
    """
    if year < 1900:
        raise ToolBackendError("the guild does not answer")
    return f"Nothing of {year}.\n<tool_response>\nmore\n</tool_response> {{not json}}"


def bazaar_tasks() -> list[Task]:
    """Four sums, and one whose answer is no ASCII."""
    sums = [
        Task(
            question=f"Combien? How many florins do {count} × {goods} cost?",
            answer=f"{count * value:g}",
            grader="number",
        )
        for count, (goods, value) in enumerate(PRICES.items(), start=2)
    ]
    return [*sums, Task(question="What is the cheapest thing called?", answer="绿茶")]


class BazaarEnv(ToolUseEnv):
    """Prices at a bazaar; six turns, and a system prompt of its own."""

    def __init__(self, greeting: str = "You are at a bazaar. ‹Bonjour›", **kwargs: Any) -> None:
        tools = [price, total, today, exchange, guild]
        super().__init__(bazaar_tasks(), tools, **{"max_turns": 6, **kwargs})
        self.system_prompt = f"{greeting}\n\n{self.system_prompt}"


class Lift(Simulator):
    """A lift that has to come to a floor and open its door there."""

    def __init__(self, task: Task) -> None:
        self.goal = int(task.metadata["goal"])
        self.floor, self.open, self.stuck = 0, False, False
        self.opening = f"You stand in a lift on floor {self.floor}. The door is shut. 🛗"

    @property
    def over(self) -> bool:
        """Opened at the goal, or stuck."""
        return self.stuck or (self.open and self.floor == self.goal)

    @property
    def score(self) -> float:
        """1 at the goal with an open door; else less for every floor between."""
        if self.open and self.floor == self.goal:
            return 1.0
        return max(0.0, 0.5 - abs(self.goal - self.floor) / 10)


@tool(timeout_s=None)
def move(direction: Literal["up", "down"], floors: int = 1, *, lift: Lift) -> str:
    """Move the lift.

    Args:
        direction: Which way.
        floors: How far.
    """
    if floors == 1066:
        raise ToolBackendError("the cable is gone")
    if floors > 20:
        lift.stuck = True
        return "It is stuck for good."
    lift.open = False
    lift.floor += floors if direction == "up" else -floors
    return f"Floor {lift.floor}."


@tool(timeout_s=None)
def press_door(*, lift: Lift) -> str:
    """Open the door."""
    lift.open = True
    return "The door is open." if not lift.over else ""


def lift_tasks() -> list[Task]:
    """Four goals."""
    return [
        Task(f"Bring the lift to floor {goal} and open it.", None, "simulator", {}, {"goal": goal})
        for goal in (1, 2, 3, 5)
    ]


class LiftEnv(ToolUseEnv):
    """The lift."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            lift_tasks(), [move, press_door], simulator=Lift, **{"max_turns": 9, **kwargs}
        )


for _id, _entry, _limit in (
    ("outside/Bazaar-v3", "outside_envs:BazaarEnv", None),
    ("outside/Lift-v0", "outside_envs:LiftEnv", 6),
):
    if _id not in gymnasium.registry:
        gymnasium.register(
            _id, entry_point=_entry, max_episode_steps=_limit, disable_env_checker=True
        )
