"""Makes pairs of a flawed and a clean trajectory, re-executed, balanced in length and in outcome.

The balance: a flawed trajectory takes one turn fewer, as many, or one more than its partner, each a
third of the time, by harmless second looks in the shorter; and some pairs with an answer are
graded by a wrong recorded one (as real tasks now and then are), so that clean work fails and
flawed work passes. Such records say so in ``label``.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium

from reagent_env.agents.expert import solver_of
from reagent_env.agents.judge_data.benign import TWINS
from reagent_env.agents.judge_data.flaws import (
    CLEAN_CRITIQUE,
    CLEAN_TARGET,
    FlawKind,
    Plant,
    flaw_kinds,
    ordinal,
)
from reagent_env.agents.judge_data.grounds import Ground, ground_of
from reagent_env.agents.judge_data.playing import CleanRun, expert_run, play
from reagent_env.agents.judge_data.records import CLEAN, PlantedRecord
from reagent_env.agents.judge_data.voice import Voice
from reagent_env.env import ToolUseEnv
from reagent_env.task_sets.phrasing import stable_random
from reagent_env.trajectory import Trajectory

LENGTH_DIFFERENCES = (0, -1, 1)
"""Turns of the flawed trajectory less those of its partner, in this cycle."""
LABELS = ("as_is", "lucky", "unlucky", "lucky", "as_is")
"""Whose answer grades a pair, in this cycle."""


def plant(
    env_id: str,
    episodes: int,
    *,
    split: str = "train",
    seed: int = 0,
    kinds: Sequence[str] | None = None,
    flaws_per_task: int = 4,
    twins_per_task: int = 2,
    sandbox: str = "auto",
    on_task: Callable[[], None] = lambda: None,
) -> list[PlantedRecord]:
    """Pairs from ``episodes`` tasks of an environment; the same arguments give the same records.

    Example: ``plant("reagent/SearchQA-v0", 10, kinds=["skipped_hop"])``.

    Args:
        env_id: One of the ids that have an expert.
        episodes: Tasks that the expert solves; fewer where the split has fewer.
        split: ``train``, ``validation`` or ``test``; tasks of different splits differ.
        seed: Draws the tasks, the kinds and the places.
        kinds: Only these flaws and benign twins; by default all.
        flaws_per_task: Flaws a task, each in a pair of its own; the rarest kinds first.
        twins_per_task: Benign twins a task.
        sandbox: For environments that need one.
        on_task: Called after each task.

    Raises:
        ValueError: an unknown kind, none that fits the environment, an environment without an
            expert, or a world in which nobody has said how to do wrong.
    """
    chosen_kinds(kinds)
    solver = solver_of(env_id)
    options: dict[str, Any] = {"split": split, "disable_env_checker": True}
    if gymnasium.spec(env_id).kwargs.get("sandbox") is not None:
        options["sandbox"] = sandbox
    made = gymnasium.make(env_id, **options)
    try:
        env = made.unwrapped
        assert isinstance(env, ToolUseEnv)
        ground = ground_of(env)
        flaws, twins = _fitting(ground, kinds, env_id)
        order = list(range(len(env.tasks)))
        stable_random("judge data", env_id, split, seed).shuffle(order)
        work = _Planter(env, ground, flaws, twins, seed)
        records: list[PlantedRecord] = []
        solved: list[CleanRun] = []
        for index in order:
            if len(solved) > episodes:
                break
            run = expert_run(env, env.tasks[index], solver)
            if run.length > 1 and ground.clean(run.trajectory):
                solved.append(run)
        for position, run in enumerate(solved[:episodes]):
            other = solved[(position + 1) % len(solved)]
            records += work.of_task(run, other, flaws_per_task, twins_per_task)
            on_task()
        return records
    finally:
        made.close()


def chosen_kinds(kinds: Sequence[str] | None) -> tuple[list[FlawKind], list[str]]:
    """The flaws and the benign twins of these names, all for None. Raises ``ValueError``."""
    known = flaw_kinds()
    if kinds is None:
        return list(known.values()), list(TWINS)
    unknown = sorted(set(kinds) - set(known) - set(TWINS))
    if unknown:
        raise ValueError(
            f"Unknown kinds {', '.join(unknown)}; known flaws: {', '.join(known)}; "
            f"benign twins: {', '.join(TWINS)}."
        )
    return [known[k] for k in kinds if k in known], [k for k in kinds if k in TWINS]


def _fitting(
    ground: Ground, kinds: Sequence[str] | None, env_id: str
) -> tuple[list[FlawKind], list[str]]:
    """Those of the kinds that can be planted here."""
    flaws = [kind for kind in ground.kinds if kinds is None or kind.name in kinds]
    twins = [name for name in ground.twins if kinds is None or name in kinds]
    if not flaws and not twins:
        known = ", ".join([*(kind.name for kind in ground.kinds), *ground.twins])
        raise ValueError(f"None of {', '.join(kinds or ())} fits {env_id}; there fit: {known}.")
    return flaws, twins


@dataclass
class _Planter:
    """Counts what was planted, so that kinds, lengths and labels stay in balance."""

    env: ToolUseEnv
    ground: Ground
    flaws: list[FlawKind]
    twins: list[str]
    seed: int

    def __post_init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def of_task(
        self, run: CleanRun, other: CleanRun, flaws: int, twins: int
    ) -> Iterator[PlantedRecord]:
        """The records of one task."""
        planted = 0
        for kind in sorted(self.flaws, key=lambda one: self.counts[one.name]):
            if planted == flaws:
                break
            rng = stable_random("flaw", self.seed, run.task.id, kind.name)
            prepared = kind.plant(run, other, rng)
            pair = self._flawed_pair(run, other, kind, prepared, rng) if prepared else None
            if pair is not None:
                self.counts[kind.name] += 1
                planted += 1
                yield from pair
        planted = 0
        for name in sorted(self.twins, key=lambda one: self.counts[one]):
            if planted == twins:
                break
            rng = stable_random("twin", self.seed, run.task.id, name)
            pair = self._benign_pair(run, name, rng)
            if pair is not None:
                self.counts[name] += 1
                planted += 1
                yield from pair

    def _flawed_pair(
        self, run: CleanRun, other: CleanRun, kind: FlawKind, prepared: Plant, rng: random.Random
    ) -> list[PlantedRecord] | None:
        number = self.counts[kind.name] + _offset(self.env, kind.name)
        wanted = LENGTH_DIFFERENCES[number % 3] - prepared.shift
        both = (number // 3) % 2
        voice = Voice(self.env.tool_format, run.task.question)
        place: list[int] = []
        flawed, _ = play(
            self.env,
            run.task,
            self.ground.flawed(run, prepared, max(0, wanted) + both, place),
            voice,
        )
        clean, _ = play(self.env, run.task, self.ground.padded(run, max(0, -wanted) + both), voice)
        if not self.ground.clean(clean) or not place:
            return None
        turn = place[0]
        if not self.ground.shows(run, kind, flawed, turn):
            return None
        diverges = _first_difference(flawed, clean)
        wanted_label = LABELS[number % len(LABELS)]
        label, flawed, clean = self.ground.labelled(wanted_label, run, other, (flawed, clean), rng)
        pair_id = f"{run.task.id}-{kind.name}"
        turns = len(flawed.turns)
        targets = (CLEAN_TARGET,) * turn + (kind.target,) * (turns - turn)
        critique = kind.critique.replace("{turn}", ordinal(turn))
        split = run.task.split
        return [
            PlantedRecord(
                flawed,
                kind.name,
                turn,
                kind.target,
                critique,
                targets,
                pair_id,
                diverges=diverges,
                split=split,
                label=label,
            ),
            _clean_record(clean, pair_id, split, label),
        ]

    def _benign_pair(
        self, run: CleanRun, name: str, rng: random.Random
    ) -> list[PlantedRecord] | None:
        prepared = self.ground.twins[name](run, rng)
        if prepared is None:
            return None
        diverges, policy = prepared
        salt = "other words" if name == "rephrased" else ""
        voice = Voice(self.env.tool_format, run.task.question, salt)
        twin, steps = play(self.env, run.task, policy, voice)
        if not self.ground.same(run, twin, steps):
            return None
        pair_id = f"{run.task.id}-{name}"
        split = run.task.split
        record = dataclasses.replace(
            _clean_record(twin, pair_id, split, "as_is"), kind=name, benign=True, diverges=diverges
        )
        return [record, _clean_record(run.trajectory, pair_id, split, "as_is")]


def _first_difference(one: Trajectory, other: Trajectory) -> int:
    pairs = zip(one.turns, other.turns, strict=False)
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
    return sum(1 for _ in same)


def _offset(env: ToolUseEnv, kind: str) -> int:
    """Where the cycles begin, so that few tasks of several environments are balanced together."""
    env_id = "" if env.spec is None else env.spec.id
    return stable_random("offset", env_id, kind).randrange(len(LABELS) * len(LENGTH_DIFFERENCES))


def _clean_record(trajectory: Trajectory, pair_id: str, split: str, label: str) -> PlantedRecord:
    targets = (CLEAN_TARGET,) * len(trajectory.turns)
    return PlantedRecord(
        trajectory,
        CLEAN,
        None,
        CLEAN_TARGET,
        CLEAN_CRITIQUE,
        targets,
        pair_id,
        split=split,
        label=label,
    )
