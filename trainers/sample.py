"""What training keeps of an episode: the tokens as sampled, and what each attempt came to.

Text is never encoded a second time: ids and log-probabilities are those the engine returned.
Not here: how they are collected (``rollout.py``), what they are worth (``advantages.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from reagent_env.trajectory import Trajectory


@dataclass(slots=True)
class Sample:
    """One token sequence of an episode; grows turn by turn, and holds every attempt that extends it.

    Example: a prompt of two tokens, a turn of two, an observation of one, a last turn of one::

        Sample(ids=[5, 6, 7, 8, 9, 4], turn_of=[-1, -1, 0, 0, -1, 1],
               sampled_logprobs=[0, 0, -0.1, -0.2, 0, -0.3], versions=[-1, -1, 3, 3, -1, 3])

    Attention is causal, so a second attempt that reads the first one and its critique is trained
    under its own context in the same pass. An independent attempt starts a new sample.
    """

    ids: list[int] = field(default_factory=list)
    """[T] every token, prompt and observations included."""
    turn_of: list[int] = field(default_factory=list)
    """[T] index of the turn (counted over the whole episode) that sampled the token; −1 elsewhere."""
    sampled_logprobs: list[float] = field(default_factory=list)
    """[T] log-probability at which the token was sampled; 0 elsewhere."""
    versions: list[int] = field(default_factory=list)
    """[T] version of the weights that sampled the token; −1 elsewhere."""

    def read(self, ids: list[int]) -> None:
        """Append tokens that the policy reads: a prompt or an observation."""
        self.ids += ids
        self.turn_of += [-1] * len(ids)
        self.sampled_logprobs += [0.0] * len(ids)
        self.versions += [-1] * len(ids)

    def write(self, ids: list[int], logprobs: list[float], turn: int, version: int) -> None:
        """Append tokens that the policy sampled in ``turn``."""
        self.ids += ids
        self.turn_of += [turn] * len(ids)
        self.sampled_logprobs += logprobs
        self.versions += [version] * len(ids)

    @property
    def completion_mask(self) -> list[bool]:
        """[T] True where the policy is trained: its own tokens, and no others."""
        return [turn >= 0 for turn in self.turn_of]


@dataclass(frozen=True, slots=True)
class AttemptReturn:
    """What one attempt came to, e.g. ``AttemptReturn(outcome=1.0, turn_scores=(0.2, 0.6, 0.9))``."""

    outcome: float
    """R in [0, 1]."""
    turn_scores: tuple[float | None, ...]
    """φ_t of each of its turns; a None keeps φ_{t−1}. The last is the score φ_T, or None: unscored."""

    @property
    def turns(self) -> int:
        """Turns of the attempt."""
        return len(self.turn_scores)

    @property
    def score(self) -> float | None:
        """φ_T in [0, 1], or None where no judge scored the attempt."""
        return self.turn_scores[-1]

    def levels(self) -> list[float]:
        """φ_0 = 0, φ_1, …, φ_T, with φ_{t−1} where a turn has none of its own."""
        found = [0.0]
        for level in self.turn_scores:
            found.append(found[-1] if level is None else level)
        return found


@dataclass(frozen=True, slots=True)
class Rollout:
    """One episode as training sees it."""

    group: int
    """Which group of the run it belongs to: rollouts of a group share their task."""
    member: int
    """0 … G − 1 within the group."""
    samples: tuple[Sample, ...]
    """Its token sequences; one, unless a prompt was rewritten."""
    attempts: tuple[AttemptReturn, ...]
    """One or two; empty where ``trajectory.infrastructure_error`` says why it is masked."""
    trajectory: Trajectory
    """The record."""

    @property
    def masked(self) -> bool:
        """True where infrastructure failed: no part of any mean, no gradient, never a reward of 0."""
        return not self.attempts

    def attempt_of_turn(self) -> list[int]:
        """For each turn of the episode, the index of its attempt."""
        return [k for k, attempt in enumerate(self.attempts) for _ in range(attempt.turns)]


@dataclass(frozen=True, slots=True)
class Group:
    """G rollouts of one task."""

    index: int
    """Its number in the run."""
    rollouts: tuple[Rollout, ...]
    """In order of ``member``."""

    @property
    def kept(self) -> tuple[Rollout, ...]:
        """Those that are not masked."""
        return tuple(one for one in self.rollouts if not one.masked)
