"""Checks on commands to a world: done again, too early, with things not there; stopping too soon.

They go by the words of the task, the commands (``rubric_commands.py``) and what the world answered.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from reagent_env.reward_models.rubric_commands import (
    MOST_COMMANDS,
    commands_of,
    dealing,
    goal_of,
    goal_things,
    handles,
    is_goal,
    is_named,
    offers_of,
    parts_of,
    plain,
    things_of,
)
from reagent_env.reward_models.rubric_finding import Finding
from reagent_env.reward_models.rubric_text import STOP_WORDS, tokens
from reagent_env.reward_models.rubric_view import Call, View

_GOING_TO_ONE = re.compile(r"(?:go|walk|move|run|travel) (?:to|towards) ([a-z ]+) \d{1,3}")
"""To one of several things in sight, not to a place on the way."""
_AT_A_PLACE = re.compile(
    r"(?:go|walk|move|run|travel) (?:to|towards) |open |close |activate |focus "
)
"""Commands that change nothing where they were just done."""
_TURNING = re.compile(r"(?:turn|rotate|face)\b")
_LOST = re.compile(r"\b(?:task|mission|goal|game)\b[^.\n]{0,20}\b(?:failed|lost)\b", re.I)
_REPORT = re.compile(
    r"\b(?:Got|Crafted|Took|Picked up|Opened|Unlocked|Dropped|Placed|Moved|Arrived)\b[^.\n]*"
    r"|\b(?:There (?:is|are)|You (?:are|have|can|see|cannot))\b[^.\n]*"
)
_READ = 60_000
"""Characters of the task, and of what the world showed last, in which a name is looked for."""
_MOST_LINES = 1_000
_LONG_ENOUGH = 8
"""Words in a row that are no accident."""


def repeated_commands(view: View) -> Iterator[Finding]:
    """The same command again with nothing changed since: refused again, or to no effect."""
    since: dict[str, Call] = {}
    for call in commands_of(view):
        earlier = since.get(call.command)
        if earlier is not None and call.error is not None and earlier.error is not None:
            yield Finding(
                call.turn,
                "repeated_failure",
                0.45,
                f"the command refused in turn {earlier.turn + 1} again, with nothing changed since",
                "Read why a command was refused, and do first what it lacks.",
            )
        elif earlier is not None and call.error is None and call.content == earlier.content:
            yield Finding(
                call.turn,
                "repeated_call",
                0.25,
                f"the command of turn {earlier.turn + 1} again, with nothing changed since",
                "Go on from what the world last showed.",
                idle=True,
            )
        lasting = call.looks or _AT_A_PLACE.match(call.command) is not None
        if call.error is None and not call.looks:
            since = {}
        if call.error is not None or lasting:
            since[call.command] = call


def things_not_there(view: View) -> Iterator[Finding]:
    """A thing that neither the task nor the world has named."""
    told = plain(view.question[:_READ])
    shown = ""
    by_turn: dict[int, list[Call]] = {}
    for call in commands_of(view):
        by_turn.setdefault(call.turn, []).append(call)
    for turn, calls in by_turn.items():
        for call in calls:
            known = (told, shown)
            strange = [thing for thing in things_of(call.command) if not is_named(thing, known)]
            if strange:
                yield Finding(
                    turn,
                    "made_up_thing",
                    0.3 if call.error is not None else 0.12,
                    f"{strange[0][:60]!r} is named neither by the task nor by the world",
                    "Name things as the task or the world's last answer names them.",
                )
        for call in calls:
            if call.error is None:
                shown = f"{shown}\n{plain(call.content)}"[-_READ:]


def steps_too_early(view: View) -> Iterator[Finding]:
    """A refused command for which something was missing, or that was not among those offered."""
    hands: Counter[str] = Counter()
    offered = offers_of(view.question)
    for call in commands_of(view):
        dealt = dealing(call)
        if call.error is not None:
            asked = parts_of(call.command)
            missing = any(hands[name] < number for name, number in asked.items())
            if (asked and missing) or (offered and call.command not in offered):
                yield Finding(
                    call.turn,
                    "too_early",
                    0.2,
                    "the command was refused, and what it needs was not there yet",
                    "Do first what makes a step possible; choose among what is possible now.",
                )
        elif dealt is not None:
            hands.subtract(dealt.taken)
            hands.update(dealt.brought)
        offered = offers_of(call.content) or offered


def brought_for_nothing(view: View) -> Iterator[Finding]:
    """Things fetched or made that nothing needed, once the world is decided."""
    if not view.decided:
        return
    dealt = [one for one in map(dealing, commands_of(view)) if one is not None]
    goal = plain(goal_of(view))
    left: Counter[str] = Counter()
    for one in dealt:
        left.update(one.brought)
    for one in dealt:
        left.subtract(one.taken)
    for one in reversed(dealt):
        for name, number in one.brought.items():
            if left[name] >= number and not is_goal(name, goal):
                left[name] -= number
                yield Finding(
                    one.call.turn,
                    "needless_call",
                    0.2,
                    "nothing that followed needed what this command brought",
                    "Work out what the goal takes, and bring that and no more.",
                    hindsight=True,
                    idle=True,
                )


def detours(view: View) -> Iterator[Finding]:
    """Going to a thing that the goal does not speak of, or turning away and back, for nothing."""
    done = [call for call in commands_of(view) if call.error is None and not call.looks]
    wanted = goal_things(goal_of(view))
    for place, call in enumerate(done):
        following = done[place + 1].command if place + 1 < len(done) else ""
        going = _GOING_TO_ONE.fullmatch(call.command)
        if going is not None and following and wanted:
            thing = frozenset(going[1].split())
            if not any(each <= thing for each in wanted) and not handles(following, thing):
                yield _detour(call, "it goes to a thing that the goal does not need")
        if view.decided and _turned_back(done, place, _shown_before(view, done, place)):
            yield _detour(call, "it turns away and back, and then does what it could have done")


def reports_nobody_gave(view: View) -> Iterator[Finding]:
    """Words of the world in the agent's mouth that the world has not said."""
    heard = _lines(view.question)
    for turn in view.turns[:MOST_COMMANDS]:
        for report in _REPORT.findall(turn.talk[:20_000])[:10]:
            said = tokens(report)
            if len(set(said) - STOP_WORDS) > 1 and not any(_holds(one, said) for one in heard):
                yield Finding(
                    turn.index,
                    "claimed_result",
                    0.4,
                    "it reports of the world what the world has not said",
                    "Report only what the world answered; give the command first.",
                )
                break
        for call in turn.calls:
            heard = (heard + _lines(call.content))[-_MOST_LINES:]


def end_in_a_world(view: View) -> Iterator[Finding]:
    """An attempt that its world did not end, or ended as lost."""
    if not view.turns:
        return
    last = view.turns[-1]
    if view.decided:
        if any(_LOST.search(call.content[-400:]) for call in last.calls):
            yield Finding(
                last.index,
                "goal_lost",
                0.5,
                "what it did put the goal out of reach",
                "Make sure of a step that cannot be taken back before taking it.",
            )
    elif view.answered:
        tried = any(call.error is None and not call.looks for call in view.calls)
        yield Finding(
            last.index,
            "premature_answer",
            0.6 if tried else 0.75,
            "it stops although the world has not ended the attempt: the goal is not reached",
            "Go on until the world says that the goal is reached.",
        )
    elif view.stop_reason in ("max_turns", "wall_time", "context_length"):
        yield Finding(
            last.index,
            "no_answer",
            0.6,
            "the attempt ran out before the goal was reached",
            "Plan the steps to the goal and take the shortest way.",
        )


def _turned_back(done: Sequence[Call], place: int, before: str) -> bool:
    """Two turns that end where they began, before a last step that was possible all along."""
    if place + 3 != len(done) or not before:  # earlier ones may have been to look around
        return False
    away, back, then = done[place : place + 3]
    if not (_TURNING.match(away.command) and _TURNING.match(back.command)):
        return False
    same = back.content == before and away.content != before
    same = same or {away.command, back.command} == {"turn left", "turn right"}
    return same and not _TURNING.match(then.command) and then.command in offers_of(before)


def _shown_before(view: View, done: Sequence[Call], place: int) -> str:
    return done[place - 1].content if place else view.question


def _detour(call: Call, seen: str) -> Finding:
    return Finding(
        call.turn,
        "detour",
        0.2,
        seen,
        "Before each command, say which part of the goal it brings nearer.",
        hindsight=True,
        idle=True,
    )


def _lines(text: str) -> list[tuple[list[str], frozenset[str]]]:
    """The tokens of each line or sentence of a text, in order and as a set."""
    lines = [tokens(line) for line in re.split(r"[\n.]", text[:20_000])]
    return [(line[:80], frozenset(line)) for line in lines if line][:_MOST_LINES]


def _holds(line: tuple[list[str], frozenset[str]], said: Sequence[str]) -> bool:
    """Whether a line says the same: from its beginning to the end of either, or in all its words."""
    heard, words = line
    same = 0
    for one, other in zip(said, heard, strict=False):
        if one != other:
            break
        same += 1
    ends = same >= min(len(said), len(heard)) or heard[same].startswith(said[same])
    return (
        (same > 1 and ends)
        or same >= _LONG_ENOUGH
        or words.issuperset(word for word in said[:8] if word not in STOP_WORDS)
    )
