"""How AgentGym's servers differ: one contract (``/create /reset /step /observation /close``), many schemas.

A row a family, read from the servers at WooooDyy/AgentGym 3ef9235. Not here: talking to them
(``agentgym_client.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Dialect:
    """One family's schema, e.g. ``Dialect("textcraft", "id", "data_idx", goal="Craft …")``."""

    name: str
    """The family, as in AgentGym's item ids: ``textcraft_3``."""
    id_key: str
    """Under which every request names its environment."""
    index_key: str
    """Under which ``/reset`` takes the task's number."""
    goal: str
    """What the policy is told before the first observation."""
    create: Mapping[str, Any] = field(default_factory=dict)
    """Body of ``/create``."""
    reset: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of ``/reset``."""
    observation_key: str = "observation"
    done_key: str = "done"
    value_key: str = "reward"
    """What a step's payload says the state is worth."""
    scale: float = 1.0
    """That value of a whole success."""
    partial: bool = False
    """Whether an unfinished task is worth its value too, not 0."""
    observe: bool = False
    """Whether the first observation is that of ``GET /observation``, not of ``/reset``."""
    prefix: str = ""
    """Before every path."""
    answer: str | None = None
    """Text in an action that ends the episode, right or wrong: such servers say "try again", which
    would let a policy guess until it is right."""
    whole: bool = False
    """Whether the server reads the policy's whole completion as its action."""
    success: str | None = None
    """Text of a finished observation that alone means success, where the value does not tell."""


_ROWS = (
    Dialect(
        "textcraft",
        "id",
        "data_idx",
        "Craft the goal item. Actions: 'inventory', 'get N item', 'craft N item using N item, N item'; "
        "always with quantities, and only by the recipes shown.",
    ),
    Dialect(
        "babyai",
        "id",
        "data_idx",
        "Reach the goal in the room you are placed in. Actions: 'turn left', 'turn right', 'move "
        "forward', 'go to <object> <number>', 'pick up <object> <number>', 'go through <door> "
        "<number>', 'toggle and go through <door> <number>', 'toggle'.",
    ),
    Dialect(
        "sciworld",
        "id",
        "data_idx",
        "Carry out the task in a simulated laboratory and house, one command at a time, such as "
        "'look around', 'open door to kitchen', 'go to kitchen', 'pick up thermometer', 'use "
        "thermometer on water', 'focus on water', 'wait'.",
        value_key="score",
        scale=100.0,
        partial=True,
    ),
    Dialect(
        "alfworld",
        "id",
        "game",
        "Carry out the task in a household, one of the available actions at a time.",
        reset={"world_type": "Text"},
    ),
    Dialect(
        "searchqa",
        "env_idx",
        "id",
        "Answer the question. Think inside <think></think>; search with <search>query</search> and "
        "wait for the information; answer once with <answer>answer</answer>.",
        create={"id": 0},
        observe=True,
        answer="</answer>",
        whole=True,
    ),
    Dialect(
        "webshop",
        "env_idx",
        "session_id",
        "Buy what the instruction asks for. Actions: 'search[keywords]' where there is a search bar, "
        "'click[value]' of the values that can be clicked.",
        observation_key="state",
        observe=True,
    ),
    Dialect(
        "sqlgym",
        "env_idx",
        "item_id",
        "Answer the question with one SQL query.",
        observation_key="state",
        observe=True,
    ),
    Dialect(
        "webarena",
        "env_idx",
        "idx",
        "Carry out the task on the web site, one action inside ``` ``` at a time, such as "
        "```click [42]```, ```type [7] [text] [1]```, ```scroll [down]```, ```stop [answer]```.",
        reset={"seed": 0},
        observe=True,
        done_key="terminated",
        whole=True,
    ),
    Dialect(
        "maze",
        "id",
        "game",
        "Reach the goal in as few steps as possible. Actions: 'move up', 'move down', 'move left', "
        "'move right'.",
        prefix="/maze",
        success="Success",
    ),
    Dialect(
        "wordle",
        "id",
        "seed",
        "Guess the hidden five-letter word in six guesses. An action is the word, its letters apart: "
        "'c r a n e'. The reply marks each letter: g in its place, y elsewhere, b nowhere.",
        prefix="/wordle",
        success="g g g g g",
    ),
    *(
        Dialect(
            name,
            "env_idx",
            "id",
            "Reach the goal with the tools described, one call at a time; 'finish' ends.",
            create={"id": 0},
            observe=True,
            whole=True,
        )
        for name in ("weather", "movie", "academia", "sheet", "todo")
    ),
)

DIALECTS: Mapping[str, Dialect] = MappingProxyType({row.name: row for row in _ROWS})
"""Family → its schema."""
