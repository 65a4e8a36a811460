"""Flaws in a world: commands too many, too early, of nothing there; stopping before the goal.

Here is what all worlds share, and their ground; ``world_*.py`` says what a flaw is in the commands of
each. Every command is played in the real simulator; what was meant to fail and did not, or ended
otherwise than meant, is dropped.
"""

from __future__ import annotations

import functools
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence

from reagent_env.agents.judge_data.benign import Twin, same_moves
from reagent_env.agents.judge_data.flaws import FlawKind, Plant, flaw_kinds
from reagent_env.agents.judge_data.flaws_calls import inserted
from reagent_env.agents.judge_data.grounds import Ground
from reagent_env.agents.judge_data.playing import CleanRun, Policy, Step, resume
from reagent_env.agents.judge_data.voice import BREAKS, Call, Move, excerpt
from reagent_env.task_sets.phrasing import stable_random
from reagent_env.trajectory import StopReason, Trajectory, Turn

_SAID_AT_THE_END = ("done", "finished", "the goal is reached", "completed")
_MOST_DIFFERENCE = 2
"""Turns by which the partners of a pair may differ in the end."""


class Words(ABC):
    """The commands of one family of worlds, all of one tool with one argument."""

    look: str
    """A command that changes nothing and may be given at any time."""

    @abstractmethod
    def failed(self, text: str) -> bool:
        """Whether a result says that the command was not done."""

    @abstractmethod
    def too_early(self, run: CleanRun, at: int, later: int) -> bool:
        """Whether the command of turn ``later`` cannot be done yet before turn ``at``."""

    @abstractmethod
    def repeated(self, run: CleanRun, rng: random.Random) -> Plant | None:
        """Something done again that changes nothing for the better."""

    @abstractmethod
    def needless(self, run: CleanRun, rng: random.Random) -> Plant | None:
        """Something done when only the last step is missing."""

    @abstractmethod
    def aside(self, run: CleanRun, rng: random.Random) -> Plant | None:
        """Something done for another goal."""

    @abstractmethod
    def strange(self, run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
        """Something done with a thing that nothing has named."""

    def reordered(self, run: CleanRun) -> Sequence[int] | None:
        """The turns in an order that is as good; None where the order matters."""
        return None


def world_of(env_id: str) -> Words:
    """The words of an environment's world.

    Raises:
        ValueError: there are none.
    """
    from reagent_env.agents.judge_data.world_baby_ai import BabyAIWords
    from reagent_env.agents.judge_data.world_text_craft import TextCraftWords

    known: dict[str, Callable[[], Words]] = {
        "reagent/TextCraft-v0": TextCraftWords,
        "reagent/BabyAI-v0": BabyAIWords,
    }
    if env_id not in known:
        raise ValueError(
            f"No flaws are known for the world of {env_id or 'this environment'}; they are for "
            f"{', '.join(known)}. Judge trajectories of your own with judge-eval --data."
        )
    return known[env_id]()


def command_of(step: Step) -> str:
    """The command that a step gave, e.g. ``turn left``."""
    return str(next(iter(step.move.calls[0][1].values()), "")) if step.move.calls else ""


def saying(run: CleanRun, command: str) -> Move:
    """The move that gives a command in the words of the run's tool."""
    name, arguments = run.steps[0].move.calls[0]
    return Move(calls=((name, {next(iter(arguments)): command}),))


# The ground ---------------------------------------------------------------------------------------


class World(Ground):
    """An attempt ends as the world is decided; what it is worth is the simulator's to say."""

    def __init__(self, words: Words) -> None:
        self.words = words
        self.kinds = kinds_of(words)
        twins: dict[str, Twin] = {
            "rephrased": _rephrased,
            "second_look": functools.partial(_with_looks, self, 1),
            "longer_path": functools.partial(_with_looks, self, 2),
            "reordered": functools.partial(_reordered, words),
        }
        self.twins: Mapping[str, Twin] = twins

    def clean(self, trajectory: Trajectory) -> bool:
        """The goal was reached, and no command failed on the way."""
        reached = trajectory.stop_reason == StopReason.FINISHED and (trajectory.outcome or 0) > 0
        return reached and not any(map(self._failed, trajectory.turns))

    def flawed(self, run: CleanRun, prepared: Plant, looks: int, place: list[int]) -> Policy:
        """With harmless looks here and there, but none beside the flaw."""
        beside = range(prepared.at, prepared.at + prepared.lead + 2)
        turns = run.length + prepared.shift
        chosen = self._places(run, looks, [n for n in range(1, turns) if n not in beside])
        before = resume(run, 0)
        number = made = 0
        move = next(before)
        while number < prepared.at:
            yield from self._look(run, number in chosen)
            made += 1 + (number in chosen)
            results = yield move
            move = before.send(results)
            number += 1
        move = next(prepared.policy)
        while True:
            if number in chosen:
                yield from self._look(run, True)
                made += 1
            if number == prepared.at + prepared.lead:
                place.append(made)
            results = yield move
            made += 1
            number += 1
            try:
                move = prepared.policy.send(results)
            except StopIteration:
                break
        yield Move(answer=_SAID_AT_THE_END[0])  # the world went on: such a pair is dropped

    def padded(self, run: CleanRun, looks: int) -> Policy:
        """With harmless looks here and there."""
        chosen = self._places(run, looks, list(range(1, run.length)))
        moves = resume(run, 0)
        move = next(moves)
        for number in range(run.length):
            yield from self._look(run, number in chosen)
            results = yield move
            try:
                move = moves.send(results)
            except StopIteration:
                break
        yield Move(answer=_SAID_AT_THE_END[0])

    def shows(self, run: CleanRun, kind: FlawKind, flawed: Trajectory, turn: int) -> bool:
        """What had to fail did, what had to be done was, and it ended as the flaw means it to."""
        turns = flawed.turns
        if flawed.stop_reason not in (StopReason.FINISHED, StopReason.ANSWERED):
            return False
        if abs(len(turns) - run.length) > _MOST_DIFFERENCE + 1:
            return False
        if flawed.stop_reason == StopReason.ANSWERED:
            stops = turn == len(turns) - 1  # what goes on after its flaw gets there
            unmet = kind.name != "ignored_result" or self._failed(turns[turn - 1])
            return stops and unmet and not flawed.outcome
        if kind.name in ("skipped_hop", "fabricated_result"):
            return self._failed(turns[turn])
        if kind.name == "ignored_result":
            return self._failed(turns[turn - 1]) and self._failed(turns[turn])
        if kind.name in ("repeated_call", "needless_call", "purposeless_lookup"):
            return not any(map(self._failed, turns))
        return True

    def labelled(
        self,
        wanted: str,
        run: CleanRun,
        other: CleanRun,
        pair: tuple[Trajectory, Trajectory],
        rng: random.Random,
    ) -> tuple[str, Trajectory, Trajectory]:
        """As the simulator paid; there is no answer that could be recorded wrongly."""
        return ("as_is", *pair)

    def same(self, run: CleanRun, twin: Trajectory, steps: Sequence[Step]) -> bool:
        """It reached the goal too, without a failure."""
        return self.clean(twin)

    def _places(self, run: CleanRun, looks: int, possible: list[int]) -> set[int]:
        """Turns before which to look, the same for all that is made of a run, as far as they go."""
        order = list(range(1, 64))
        stable_random("looks", run.told).shuffle(order)
        return set([place for place in order if place in possible][:looks])

    def _look(self, run: CleanRun, wanted: bool) -> Policy:
        if wanted:
            yield saying(run, self.words.look)

    def _failed(self, turn: Turn) -> bool:
        return any(one.error or self.words.failed(one.content) for one in turn.results)


# Twins --------------------------------------------------------------------------------------------


def _rephrased(run: CleanRun, rng: random.Random) -> tuple[int, Policy] | None:
    return 0, same_moves(run.steps)


def _with_looks(
    ground: World, looks: int, run: CleanRun, rng: random.Random
) -> tuple[int, Policy] | None:
    if run.length <= looks:
        return None
    chosen = ground._places(run, looks, list(range(1, run.length)))
    return min(chosen), ground.padded(run, looks)


def _reordered(words: Words, run: CleanRun, rng: random.Random) -> tuple[int, Policy] | None:
    order = words.reordered(run)
    if order is None:
        return None
    first = next(turn for turn, place in enumerate(order) if turn != place)
    return first, _in_order(run, order)


def _in_order(run: CleanRun, order: Sequence[int]) -> Policy:
    yield from same_moves([run.steps[turn] for turn in order])
    yield Move(answer=_SAID_AT_THE_END[0])


# Flaws --------------------------------------------------------------------------------------------


def _stopping(run: CleanRun, at: int, rng: random.Random, before: tuple[Move, ...] = ()) -> Plant:
    """An end before the goal, at turn ``at`` of the run, after some moves."""
    said = rng.choice(_SAID_AT_THE_END)

    def policy() -> Policy:
        for move in before:  # noqa: UP028 (results are sent in, which a tuple does not take)
            yield move
        yield Move(answer=said)

    shift = at + len(before) + 1 - run.length
    return Plant(at, policy(), shift=shift, lead=len(before))


def _premature_answer(
    words: Words, run: CleanRun, other: CleanRun, rng: random.Random
) -> Plant | None:
    return _stopping(run, rng.randint(max(1, run.length - 2), run.length - 1), rng)


def _repeated_call(
    words: Words, run: CleanRun, other: CleanRun, rng: random.Random
) -> Plant | None:
    """The same command with nothing changed since, be it a look."""
    plant = words.repeated(run, rng) if rng.random() < 0.7 else None
    if plant is not None:
        return plant
    at = rng.randint(1, run.length - 1)

    def policy() -> Policy:
        yield saying(run, words.look)
        yield saying(run, words.look)
        yield from resume(run, at)

    return Plant(at, policy(), shift=2, lead=1)


def _needless_call(
    words: Words, run: CleanRun, other: CleanRun, rng: random.Random
) -> Plant | None:
    return words.needless(run, rng)


def _purposeless_lookup(
    words: Words, run: CleanRun, other: CleanRun, rng: random.Random
) -> Plant | None:
    return words.aside(run, rng)


def _hallucinated_argument(
    words: Words, run: CleanRun, other: CleanRun, rng: random.Random
) -> Plant | None:
    return words.strange(run, other, rng)


def _malformed_call(
    words: Words, run: CleanRun, other: CleanRun, rng: random.Random
) -> Plant | None:
    at = rng.choice(list(run.call_turns()))
    calls = run.steps[at].move.calls[:1]
    return inserted(run, at, Move(calls=calls, breaks=rng.choice(BREAKS)))


def _wrong_tool(words: Words, run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    """A command as the name of a tool, or a tool for texts and sums."""
    at = rng.choice(list(run.call_turns()))
    verb, _, rest = command_of(run.steps[at]).partition(" ")
    choices: list[Call] = [
        (verb, {"item": rest or verb}),
        ("search", {"query": f"how to {verb} {rest}".strip()}),
        ("python", {"code": f"{re.sub(r'[^a-z]', '_', verb)}({rest!r})"}),
    ]
    return inserted(run, at, Move(calls=(rng.choice(choices),)))


def _early(words: Words, run: CleanRun, rng: random.Random) -> Iterator[tuple[int, int]]:
    """(turn, later turn) where the later command cannot be done yet, in random order."""
    places = [
        (at, later)
        for at in range(run.length - 1)
        for later in range(at + 1, run.length)
        if words.too_early(run, at, later)
    ]
    rng.shuffle(places)
    yield from places


def _skipped_hop(words: Words, run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    """A step before what it needs is there; then the steps in their order."""
    for at, later in _early(words, run, rng):
        return inserted(run, at, saying(run, command_of(run.steps[later])))
    return None


def _ignored_result(
    words: Words, run: CleanRun, other: CleanRun, rng: random.Random
) -> Plant | None:
    """A command fails; it is sent again unchanged, or taken for done."""
    again = rng.random() < 0.5
    for at, later in _early(words, run, rng):
        failing = saying(run, command_of(run.steps[later]))
        if not again and later == run.length - 1 and at >= run.length - 3:
            return _stopping(run, at, rng, (failing,))
        if again:
            return _sent_twice(run, at, failing)
    return None


def _sent_twice(run: CleanRun, at: int, failing: Move) -> Plant:
    def policy() -> Policy:
        yield failing
        yield failing
        yield from resume(run, at)

    return Plant(at, policy(), shift=2, lead=1)


def _fabricated_result(
    words: Words, run: CleanRun, other: CleanRun, rng: random.Random
) -> Plant | None:
    """Reports what a command would have come to that it never gave, and goes on from there."""
    places = [at for at in range(run.length - 1) if words.too_early(run, at, at + 1)]
    at = rng.choice([*places, run.length - 1])
    belief = excerpt("\n".join(run.steps[at].results))
    if at == run.length - 1:
        said = rng.choice(_SAID_AT_THE_END)

        def ending() -> Policy:
            yield Move(answer=said, belief=belief, stated=True)

        return Plant(at, ending(), shift=0)
    following = saying(run, command_of(run.steps[at + 1]))

    def policy() -> Policy:
        yield Move(calls=following.calls, belief=belief, stated=True)
        yield from resume(run, at)

    return Plant(at, policy(), shift=1)


_PLANTERS: Mapping[str, Callable[[Words, CleanRun, CleanRun, random.Random], Plant | None]] = {
    "repeated_call": _repeated_call,
    "needless_call": _needless_call,
    "purposeless_lookup": _purposeless_lookup,
    "wrong_tool": _wrong_tool,
    "malformed_call": _malformed_call,
    "hallucinated_argument": _hallucinated_argument,
    "fabricated_result": _fabricated_result,
    "ignored_result": _ignored_result,
    "skipped_hop": _skipped_hop,
    "premature_answer": _premature_answer,
}
_CRITIQUES: Mapping[str, str] = {
    "repeated_call": "The {turn} turn does again what was done, with nothing changed since. Go on "
    "from what the world last showed.",
    "needless_call": "By the {turn} turn only the last step was missing; what is done there adds "
    "nothing. Take that step at once.",
    "purposeless_lookup": "What the {turn} turn does serves another goal than the one given. "
    "Before each command, say which part of the goal it brings nearer.",
    "wrong_tool": "The {turn} turn asks a tool that there is not. Give each command to the tool "
    "that is offered.",
    "hallucinated_argument": "The {turn} turn names a thing that neither the task nor the world has "
    "shown. Name things as they were shown.",
    "fabricated_result": "The {turn} turn reports what the world never said. Give the command, and "
    "go on from what it really answers.",
    "ignored_result": "Before the {turn} turn a command had failed, and that turn takes no notice. "
    "Read why it failed and do first what is missing.",
    "skipped_hop": "The {turn} turn takes a step before what it needs is there. Do the steps in "
    "the order in which each makes the next possible.",
    "premature_answer": "The {turn} turn stops before the goal is reached. Go on until the world "
    "says that it is.",
}


def kinds_of(words: Words) -> tuple[FlawKind, ...]:
    """The kinds of flaw in a world, under the names and with the severity that they have elsewhere."""
    known = flaw_kinds()
    return tuple(
        FlawKind(
            name,
            known[name].target,
            _CRITIQUES.get(name, known[name].critique),
            functools.partial(planter, words),
        )
        for name, planter in _PLANTERS.items()
    )
