"""What TRL's rewards and loss need to know of a rollout: its attempts, and which tokens are whose turn.

Filled by the environments (``trl_environment.py``) or by the rollout function (``trl_rollout.py``),
read by the reward functions here and by ``trl_trainer.py``. Imports neither TRL nor torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reagent_env.trainers.sample import AttemptReturn


@dataclass(frozen=True, slots=True)
class Played:
    """One rollout, e.g. ``Played("6642f3", (AttemptReturn(1.0, (0.4, 0.9)),), ("answered",), 0.3)``."""

    task: str
    """The task's id: rollouts of one group share it."""
    attempts: tuple[AttemptReturn, ...]
    """In order; empty where infrastructure failed, so that nothing may be learnt from it."""
    stop_reasons: tuple[str, ...]
    """Why each attempt ended; ``unfinished`` where the trainer stopped asking."""
    weight: float
    """λ of the process reward."""
    turn_of: tuple[int, ...] | None = None
    """[T] turn of the rollout that sampled each token of the completion, −1 for tokens it read;
    None where the trainer knows (TRL's own tool loop)."""

    @property
    def masked(self) -> bool:
        """True where infrastructure failed."""
        return not self.attempts


def scalar_parts(group: Sequence[Played]) -> list[tuple[float, float] | None]:
    """Outcome and process parts of each rollout's one number, for a trainer that takes no more.

    Both are means over the attempts. An attempt without a score is given the mean of those members
    that have one, so that its process advantage is 0 and its outcome's stays; with fewer than two
    scores in the group the process pays nobody. None for a masked rollout.

    Args:
        group: Rollouts of one task.
    """
    stages = max((len(one.attempts) for one in group), default=0)
    fill: list[float | None] = []
    for stage in range(stages):
        scores = [
            one.attempts[stage].score
            for one in group
            if len(one.attempts) > stage and one.attempts[stage].score is not None
        ]
        known = [score for score in scores if score is not None]
        enough = len(known) >= 2 or (known and len(group) == 1)
        fill.append(sum(known) / len(known) if enough else None)
    parts: list[tuple[float, float] | None] = []
    for one in group:
        if one.masked:
            parts.append(None)
            continue
        paid = 0.0
        for attempt, given in zip(one.attempts, fill, strict=False):
            if given is not None:
                paid += given if attempt.score is None else attempt.score
        count = len(one.attempts)
        outcome = sum(attempt.outcome for attempt in one.attempts) / count
        parts.append((outcome, one.weight * paid / count))
    return parts


def parts_by_task(rollouts: Sequence[Played]) -> list[tuple[float, float] | None]:
    """:func:`scalar_parts` of a batch with several groups, in its order."""
    members: dict[str, list[int]] = {}
    for place, one in enumerate(rollouts):
        members.setdefault(one.task, []).append(place)
    found: list[tuple[float, float] | None] = [None] * len(rollouts)
    for places in members.values():
        for place, parts in zip(places, scalar_parts([rollouts[p] for p in places]), strict=True):
            found[place] = parts
    return found


@dataclass
class _Step:
    generation: int
    """Which completion of the rollout made the call."""
    phi: float | None
    """Quality of the process so far, where the judge was asked there."""


@dataclass
class _Attempt:
    steps: list[_Step] = field(default_factory=list)
    returned: float = 0.0
    outcome: float | None = None
    """None while it runs."""
    scores: tuple[float | None, ...] = ()
    """φ of each step, known when it has ended."""
    stop_reason: str = "unfinished"


class Ledger:
    """Takes what ``step()`` returns, and tells attempts as returns; one a rollout.

    Example::

        ledger = Ledger(task="6642f3", weight=0.3)
        ledger.take(reward, over, info, generation=0)
        ledger.played(generations=1)
    """

    def __init__(self, task: str, weight: float) -> None:
        self.task = task
        self.weight = weight
        self.failure: str | None = None
        """What failed around the policy, if anything did."""
        self._attempts = [_Attempt()]

    @property
    def over(self) -> bool:
        """True when the last attempt has ended, or infrastructure failed."""
        return self.failure is not None or self._attempts[-1].outcome is not None

    def take(self, reward: float, over: bool, info: Mapping[str, Any], generation: int) -> None:
        """Count a step of the environment, made by the completion number ``generation``."""
        attempt = self._attempts[-1]
        judgement = info.get("judgement") or {}
        attempt.steps.append(_Step(generation, judgement.get("score")))
        attempt.returned += reward
        if not (over or info.get("attempt_ended")):
            return
        if math.isnan(attempt.returned):
            self.fail(str(info.get("infrastructure_error", "infrastructure failure")))
            return
        said = info.get("reward/outcome")
        outcome = attempt.returned - (info.get("reward/process") or 0.0)
        near = said is not None and math.isclose(outcome, said, abs_tol=1e-6)
        attempt.outcome = float(said) if near and said is not None else outcome
        attempt.stop_reason = str(info.get("stop_reason"))
        attempt.scores = self._scores(attempt, judgement)
        if not over:
            self._attempts.append(_Attempt())

    def fail(self, reason: str) -> None:
        """Infrastructure failed: the rollout is masked."""
        self.failure = reason

    def played(self, generations: int | None = None) -> Played:
        """The rollout as it stands; what has not ended counts as outcome 0, unscored.

        Args:
            generations: Completions that the trainer sampled; then a turn is a completion, calls or
                none, up to the episode's end. Without it a turn is a step of the environment.
        """
        if self.failure is not None:
            reasons = tuple(attempt.stop_reason for attempt in self._attempts[:-1])
            return Played(self.task, (), (*reasons, "infrastructure_failure"), self.weight)
        attempts = [one for one in self._attempts if one.steps or one is self._attempts[0]]
        levels = self._by_step(attempts) if generations is None else None
        if generations is not None:
            levels = self._by_generation(attempts, generations)
            attempts = [one for one, phis in zip(attempts, levels, strict=True) if phis]
            levels = [phis for phis in levels if phis]
        assert levels is not None
        returns = []
        for attempt, phis in zip(attempts, levels, strict=True):
            ended = attempt.outcome is not None and bool(attempt.scores)
            score = attempt.scores[-1] if ended else None
            returns.append(AttemptReturn(attempt.outcome or 0.0, (*phis[:-1], score)))
        reasons = tuple(attempt.stop_reason for attempt in attempts)
        return Played(self.task, tuple(returns), reasons, self.weight)

    @staticmethod
    def _scores(attempt: _Attempt, judgement: Mapping[str, Any]) -> tuple[float | None, ...]:
        """φ of each step: said at each step, else in hindsight."""
        earlier = [step.phi for step in attempt.steps[:-1]]
        if not any(phi is not None for phi in earlier):
            earlier = list(judgement.get("turn_scores") or ())[: len(earlier)]
            earlier += [None] * (len(attempt.steps) - 1 - len(earlier))
        return (*earlier, judgement.get("score"))

    @staticmethod
    def _by_step(attempts: Sequence[_Attempt]) -> list[list[float | None]]:
        return [list(attempt.scores) or [None] * max(1, len(attempt.steps)) for attempt in attempts]

    @staticmethod
    def _by_generation(attempts: Sequence[_Attempt], generations: int) -> list[list[float | None]]:
        """φ of each completion; one without a step belongs to the attempt that follows it."""
        levels: list[list[float | None]] = [[] for _ in attempts]
        first: dict[int, int] = {}
        for number, attempt in enumerate(attempts):
            for step in attempt.steps:
                # An answer given as text is taken when all rollouts have ended, later ones too.
                step.generation = min(step.generation, generations - 1)
                first.setdefault(step.generation, number)
        owner = [0] * generations
        last = max((step.generation for one in attempts for step in one.steps), default=0)
        if attempts[-1].outcome is not None:  # over: what was written afterwards is no turn
            generations = min(generations, last + 1)
            owner = owner[:generations]
        following = len(attempts) - 1
        for generation in reversed(range(generations)):
            following = first.get(generation, following)
            owner[generation] = following
        for generation, number in enumerate(owner):
            attempt = attempts[number]
            phis = [
                phi
                for step, phi in zip(attempt.steps, attempt.scores, strict=False)
                if step.generation == generation and phi is not None
            ]
            levels[number].append(phis[-1] if phis else None)
        return levels
