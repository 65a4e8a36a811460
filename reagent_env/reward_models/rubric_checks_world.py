"""Checks on commands to a world: done again, too early, with things not there; stopping too soon.

They go by the words of the task, the commands and what the world answered. A command is one of a
kind by its verb: taking (``get 2 oak logs``), making (``craft 1 stick using 2 bamboo``), going to a
thing, turning, looking.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reagent_env.reward_models.rubric_finding import Finding
from reagent_env.reward_models.rubric_text import STOP_WORDS, tokens
from reagent_env.reward_models.rubric_view import Call, View

_TAKING = re.compile(r"(?:get|take|fetch|collect|gather|mine|pick ?up|grab) (?:(\d{1,6}) )?(.+)")
_MAKING = re.compile(
    r"(?:craft|make|build|create|brew|smelt) (?:(\d{1,6}) )?(.+?) (?:using|from|with|out of) (.+)"
)
_PART = re.compile(r"(?:(\d{1,6}) )?(.+)")
_GOING = re.compile(r"(?:go|walk|move|run|travel) (?:to|towards) (.+)")
_GOING_TO_ONE = re.compile(r"(?:go|walk|move|run|travel) (?:to|towards) ([a-z ]+) \d{1,3}")
"""To one of several things in sight, not to a place on the way."""
_AT_A_PLACE = re.compile(
    r"(?:go|walk|move|run|travel) (?:to|towards) |open |close |activate |focus "
)
"""Commands that change nothing where they were just done."""
_HANDLING = re.compile(
    r"(?:toggle|open|close|unlock|use|take|get|pick ?up|drop|put|push|pull|move)\b"
)
_WANTED = re.compile(r"\b(?:an?|the) ([a-z]+(?: [a-z]+){0,3})")
_NO_PART = STOP_WORDS | {"next", "left", "right", "front", "behind", "object", "thing", "after"}
_TURNING = re.compile(r"(?:turn|rotate|face)\b")
_THING = re.compile(r"[a-z](?: (?!using|from|with|and|in|on|into|next|to)[a-z]+|[a-z_]+)*")
_GOAL = re.compile(
    r"^.{0,40}\b(?:goal|task|mission|objective)\b[^:\n]{0,40}:[ \t]*(.+)$", re.I | re.M
)
_OFFERED = re.compile(r"(?:available|possible|following) actions?[^\[\n]{0,20}\[([^\]]*)\]", re.I)
_LOST = re.compile(r"\b(?:task|mission|goal|game)\b[^.\n]{0,20}\b(?:failed|lost)\b", re.I)
_REPORT = re.compile(
    r"\b(?:Got|Crafted|Took|Picked up|Opened|Unlocked|Dropped|Placed|Moved|Arrived)\b[^.\n]*"
    r"|\b(?:There (?:is|are)|You (?:are|have|can|see|cannot))\b[^.\n]*"
)
_MOST_COMMANDS = 400
_LONG_ENOUGH = 8
"""Words in a row that are no accident."""


@dataclass(frozen=True, slots=True)
class _Dealt:
    """What one command takes from and brings into one's hands, as far as it was done."""

    call: Call
    taken: Counter[str]
    brought: Counter[str]
    fetches: bool


def repeated_commands(view: View) -> Iterator[Finding]:
    """The same command again with nothing changed since: refused again, or to no effect."""
    since: dict[str, Call] = {}
    for call in _commands(view):
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
    known = _plain(view.question)
    calls = iter(_commands(view))
    waiting = next(calls, None)
    for turn in view.turns:
        while waiting is not None and waiting.turn == turn.index:
            strange = next(
                (one for one in _things(waiting.command) if not _named(one, known)), None
            )
            if strange is not None:
                yield Finding(
                    waiting.turn,
                    "made_up_thing",
                    0.3,
                    f"{strange[:60]!r} is named neither by the task nor by the world",
                    "Name things as the task or the world's last answer names them.",
                )
            if waiting.error is None:
                known += "\n" + _plain(waiting.content)
            waiting = next(calls, None)
        if len(known) > 400_000:
            return


def steps_too_early(view: View) -> Iterator[Finding]:
    """A refused command for which something was missing, or that was not among those offered."""
    hands: Counter[str] = Counter()
    offered = _offers(view.question)
    for call in _commands(view):
        dealt = _dealt(call)
        if call.error is not None:
            asked = _parts(call.command)
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
        offered = _offers(call.content) or offered


def brought_for_nothing(view: View) -> Iterator[Finding]:
    """Things fetched or made that nothing needed, once the world is decided."""
    if not view.decided:
        return
    dealt = [one for one in map(_dealt, _commands(view)) if one is not None]
    goal = _plain(goal_of(view))
    left: Counter[str] = Counter()
    for one in dealt:
        left.update(one.brought)
    for one in dealt:
        left.subtract(one.taken)
    for one in reversed(dealt):
        for name, number in one.brought.items():
            surplus = left[name] >= number if one.fetches else _idle(name, dealt)
            if surplus and not _is_wanted(name, goal):
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
    done = [call for call in _commands(view) if call.error is None and not call.looks]
    wanted = _wanted_things(goal_of(view))
    for place, call in enumerate(done):
        following = done[place + 1].command if place + 1 < len(done) else ""
        going = _GOING_TO_ONE.fullmatch(call.command)
        if going is not None and following and wanted:
            thing = frozenset(going[1].split())
            if not any(each <= thing for each in wanted) and not _handles(following, thing):
                yield _detour(call, "it goes to a thing that the goal does not need")
        if _turned_back(done, place, _shown_before(view, done, place)):
            yield _detour(call, "it turns away and back, and then does what it could have done")


def reports_nobody_gave(view: View) -> Iterator[Finding]:
    """Words of the world in the agent's mouth that the world has not said."""
    heard = _lines(view.question)
    for turn in view.turns:
        for report in _REPORT.findall(turn.talk[:20_000])[:40]:
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
            heard += _lines(call.content)


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


# Reading commands ---------------------------------------------------------------------------------


def goal_of(view: View) -> str:
    """The line that states the goal, or else the task's first paragraph."""
    found = _GOAL.search(view.question[:40_000])
    return found[1] if found else view.question.split("\n\n", 1)[0]


def _commands(view: View) -> list[Call]:
    return [call for call in view.calls if call.command][:_MOST_COMMANDS]


def _dealt(call: Call) -> _Dealt | None:
    """What a command deals with, if it was done."""
    if call.error is not None:
        return None
    making = _MAKING.fullmatch(call.command)
    if making is not None:
        brought = Counter({_plain(making[2]): int(making[1] or 1)})
        return _Dealt(call, _parts(call.command), brought, fetches=False)
    taking = _TAKING.fullmatch(call.command)
    if taking is None or taking[1] is None:
        return None
    return _Dealt(call, Counter(), Counter({_plain(taking[2]): int(taking[1])}), fetches=True)


def _parts(command: str) -> Counter[str]:
    """What a making command takes: thing → number."""
    making = _MAKING.fullmatch(command)
    found: Counter[str] = Counter()
    for part in re.split(r", | and ", making[3]) if making else ():
        one = _PART.fullmatch(part.strip())
        if one is not None:
            found[_plain(one[2])] += int(one[1] or 1)
    return found


def _is_wanted(name: str, goal: str) -> bool:
    """Whether a thing is what the goal asks for, e.g. ``oak slab`` of ``craft oak slab``."""
    before, found, after = goal.rpartition(name)
    return bool(found) and after in ("", "s") and len(before.split()) < 3


def _wanted_things(goal: str) -> list[frozenset[str]]:
    """The words of each thing in a goal: of ``open the red door`` only ``red`` and ``door``."""
    found = []
    for words in _WANTED.findall(goal.lower()[:2_000]):
        kept: list[str] = []
        for word in words.split():
            if word in STOP_WORDS or word in ("next", "on", "behind"):
                break
            kept.append(word)
        found.append(frozenset(kept) - _NO_PART)
    return found


def _handles(command: str, thing: frozenset[str]) -> bool:
    """Whether a command does something with a thing, or with whatever is before one."""
    if _GOING.match(command) or not _HANDLING.match(command):
        return False
    named = frozenset(one for each in _things(command) for one in each.split())
    return not named or bool(named & thing == named)


def _idle(name: str, dealt: Sequence[_Dealt]) -> bool:
    """Whether a made thing was never taken for anything."""
    return all(name not in one.taken for one in dealt)


def _things(command: str) -> list[str]:
    """The things that a command names: two words and more, or what is taken or made."""
    making = _MAKING.fullmatch(command)
    if making is not None:
        return [_plain(making[2]), *_parts(command)]
    for pattern in (_TAKING, _GOING):
        found = pattern.fullmatch(command)
        if found is not None:
            return [" ".join(re.sub(r"\d+", " ", _plain(found[found.re.groups])).split())]
    return []


def _named(thing: str, known: str) -> bool:
    """Whether a thing was named: its words side by side, or one word between them."""
    words = thing.split()[:8]
    if not words or thing in known:
        return True
    return (
        re.search(r"\b" + r"(?: [a-z]+)? ".join(map(re.escape, words)) + r"\b", known) is not None
    )


def _plain(text: str) -> str:
    """Lower case, without prefixes such as ``minecraft:`` and underscores."""
    return re.sub(r"\b[a-z]+:(?=[a-z_])", "", text.lower()).replace("_", " ").strip(" .")


def _offers(text: str) -> frozenset[str]:
    """The commands that a text lists as possible."""
    found = None
    for found in _OFFERED.finditer(text):  # noqa: B007 (the last one counts)
        pass
    if found is None:
        return frozenset()
    return frozenset(" ".join(one.lower().split()) for one in re.findall(r'"([^"]+)"', found[1]))


def _turned_back(done: Sequence[Call], place: int, before: str) -> bool:
    """Two turns that end where they began, before a step that was possible all along."""
    if place + 2 >= len(done) or not before:
        return False
    away, back, then = done[place : place + 3]
    if not (_TURNING.match(away.command) and _TURNING.match(back.command)):
        return False
    same = back.content == before and away.content != before
    same = same or {away.command, back.command} == {"turn left", "turn right"}
    return same and not _TURNING.match(then.command) and then.command in _offers(before)


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


def _lines(text: str) -> list[list[str]]:
    """The tokens of each line or sentence of a text."""
    return [tokens(line) for line in re.split(r"[\n.]", text[:20_000]) if line.strip()]


def _holds(heard: Sequence[str], said: Sequence[str]) -> bool:
    """Whether a line says the same: from its beginning to the end of either, or in all its words."""
    same = 0
    for one, other in zip(said, heard, strict=False):
        if one != other:
            break
        same += 1
    ends = same >= min(len(said), len(heard)) or heard[same].startswith(said[same])
    return (same > 1 and ends) or same >= _LONG_ENOUGH or set(said[:8]) - STOP_WORDS <= set(heard)
