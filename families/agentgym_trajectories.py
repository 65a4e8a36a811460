"""Reads AgentGym's and Reagent's published conversations, by the data set's name or from a copy.

``AgentTraj-L`` is played episodes, ``AgentEval`` the item ids to evaluate on, ``Reagent-SFT`` the
tool-use conversations that Reagent was cold-started on. One conversation is one
:class:`Conversation`, in whichever shape it was published. Not here: judged trajectories
(``reagent_env.agents.judge_data``), Reagent's set for reinforcement learning
(``load_task_set("reagent_rl")``).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reagent_env.task_sets.published_records import find_records
from reagent_env.task_sets.published_table import PublishedSet

CONVERSATION_SETS: Mapping[str, PublishedSet] = {
    row.name: row
    for row in (
        PublishedSet(
            "agenttraj_l",
            "AgentTraj-L",
            "AgentGym/AgentTraj-L",
            "conversation",
            {"train": "train"},
            14_485,
            "as its page says",
            "Episodes in AgentGym's environments.",
        ),
        PublishedSet(
            "agenteval",
            "AgentEval",
            "AgentGym/AgentEval",
            "conversation",
            {"test": "test"},
            1_160,
            "as its page says",
            "Item ids to evaluate on.",
        ),
        PublishedSet(
            "reagent_sft",
            "Reagent-SFT-55.6K",
            "bunny127/Reagent-SFT-55.6K",
            "conversation",
            {"train": "train"},
            55_600,
            "as its page says",
            "Conversations with tools.",
        ),
    )
}
"""Name → where it is published."""

_ROLES = {"human": "user", "gpt": "assistant", "observation": "tool", "function_call": "assistant"}
_KNOWN_ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, e.g. ``Message("assistant", "Action:\\nlook around", True)``."""

    role: str
    """``system``, ``user``, ``assistant`` or ``tool``."""
    content: str
    trained: bool
    """Whether the set means it to be learnt: an assistant's, unless its ``loss`` is false."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One episode, e.g. ``Conversation((Message(…), …), "textcraft_3")``."""

    messages: tuple[Message, ...]
    """Empty for an item that is only to be evaluated on."""
    item_id: str | None = None
    """AgentGym's name of the task: its environment and number."""

    @property
    def family(self) -> str | None:
        """The environment in :attr:`item_id`, such as ``lmrlgym_maze`` of ``lmrlgym_maze_3``."""
        return None if self.item_id is None else self.item_id.rpartition("_")[0] or None

    @property
    def index(self) -> int | None:
        """The number in :attr:`item_id`."""
        digits = "" if self.item_id is None else self.item_id.rpartition("_")[2]
        return int(digits) if digits.isascii() and digits.isdigit() else None


def read_conversations(
    name: str, *, data: str | os.PathLike[str] | None = None
) -> Iterator[Conversation]:
    """Yield a set's conversations in order.

    Example: ``read_conversations("agenttraj_l", data="copies/AgentTraj-L")``.

    Args:
        name: One of :data:`CONVERSATION_SETS`.
        data: A copy: a file, its folder, or a folder of data sets; else ``REAGENT_DATA_DIR``, else
            the hub.

    Raises:
        DataSetUnavailable: it is not to be had here; the message says what to do.
        ValueError: an unknown name, or a record that is no conversation; the message has its place.
    """
    if name not in CONVERSATION_SETS:
        near = difflib.get_close_matches(name.lower(), CONVERSATION_SETS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"No set of conversations {name!r}.{hint} Known: {', '.join(CONVERSATION_SETS)}."
        )
    row = CONVERSATION_SETS[name]
    (split,) = row.splits
    for place, record in find_records(row, split, data).records:
        try:
            yield conversation(record)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{place}: no conversation: {error}") from error


def conversation(record: Mapping[str, Any]) -> Conversation:
    """One record: ``conversations`` of ``from`` and ``value``, or ``messages`` of ``role`` and ``content``.

    Raises:
        ValueError: neither, or a message without a role or text that is known.
    """
    item = record.get("item_id")
    given = record.get("conversations")
    if given is None:
        given = record.get("messages")
    if given is None and item is None:
        raise ValueError(f"neither conversations, messages nor an item_id; keys: {sorted(record)}")
    if not isinstance(given or [], Sequence) or isinstance(given, str):
        raise ValueError(f"its messages are {type(given).__name__}, not a list")
    messages = tuple(_message(one) for one in given or ())
    system = record.get("system")
    if isinstance(system, str) and system and not any(m.role == "system" for m in messages):
        messages = (Message("system", system, False), *messages)
    return Conversation(messages, None if item is None else str(item))


def _message(given: Mapping[str, Any]) -> Message:
    said = given.get("role", given.get("from"))
    role = _ROLES.get(str(said), str(said))
    content = given.get("content", given.get("value"))
    if role not in _KNOWN_ROLES:
        raise ValueError(f"unknown role {said!r}")
    if not isinstance(content, str):
        raise ValueError(f"a message of {role} has no text")
    return Message(role, content, role == "assistant" and given.get("loss") is not False)
