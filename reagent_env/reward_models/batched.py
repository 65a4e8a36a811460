"""Merges the calls of many callers into few: a judge that likes batches, asked one episode at a time.

Environments that step in threads each ask about their own episode when it ends. Here they wait for
one another for some milliseconds, one of them asks for all, and what comes while it asks is the
next batch. No thread of its own, no busy waiting. Not here: judging (any reward model does that).
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from reagent_env.judgement import Judgement
from reagent_env.reward_models.base import (
    JudgeUnavailable,
    RewardModel,
    Unscored,
    unscored,
    up_to_attempt,
)
from reagent_env.trajectory import Trajectory

PATIENCE_S = 600.0
"""Longest wait for somebody else's call, of a judge that does not say otherwise."""


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """What was merged so far, e.g. ``BatchCounts(callers=64, trajectories=64, batches=3)``."""

    callers: int
    """Calls of :meth:`BatchedJudge.judge` that had something to judge."""
    trajectories: int
    """Trajectories handed on."""
    batches: int
    """Calls of the judge inside."""


@dataclass(eq=False, slots=True)
class _Request:
    """One caller's trajectories, and how it is told: a promotion to lead, judgements, or an error."""

    trajectories: list[Trajectory]
    told: threading.Event = field(default_factory=threading.Event)
    leads: bool = False
    judgements: list[Judgement] | None = None
    error: Exception | None = None


class BatchedJudge:
    """A reward model that asks another one about many callers' trajectories at once.

    The first caller leads: it waits ``window_s`` for others, takes the oldest requests up to
    ``max_batch`` trajectories, asks, and tells their callers. Requests that came meanwhile have one
    of their own callers lead next, so nobody serves strangers for longer than one batch, and
    nobody is overtaken. A judge that raises, raises in every caller of that batch.

    Example::

        judge = BatchedJudge(make_reward_model("tiny-rrm"), max_batch=64)
        envs = [ProcessReward(gym.make(ENV), judge) for _ in range(64)]   # stepped in threads
    """

    def __init__(
        self,
        judge: RewardModel,
        *,
        window_s: float = 0.01,
        max_batch: int = 64,
        at_once: int = 1,
        patience_s: float | None = None,
    ) -> None:
        """Wrap ``judge``.

        Args:
            judge: Any reward model; has to be safe in threads only where ``at_once`` > 1.
            window_s: How long an idle judge waits for company; 0 asks at once.
            max_batch: Most trajectories of one call. A caller that brings more is asked alone.
            at_once: Batches under way at the same time; more than 1 for a server.
            patience_s: Longest that a caller waits for somebody else's call; then its trajectories
                are unscored (``transport``), since no score is better than none. By default 600;
                as long as it takes where the judge is in this process and has no deadline itself.

        Raises:
            ValueError: an argument out of range.
            TypeError: ``judge`` cannot judge.
        """
        if not callable(getattr(judge, "judge", None)):
            raise TypeError(f"BatchedJudge needs a reward model, got {judge!r}.")
        if patience_s is None:
            patience_s = float(getattr(judge, "patience_s", PATIENCE_S))
        if window_s < 0 or patience_s <= 0:
            raise ValueError(
                f"window_s may not be negative and patience_s is above 0, got {window_s!r} and "
                f"{patience_s!r}."
            )
        if max_batch < 1 or at_once < 1:
            raise ValueError(
                f"max_batch and at_once are at least 1, got {max_batch!r} and {at_once!r}."
            )
        self.inner = judge
        self.window_s = window_s
        self.max_batch = max_batch
        self.at_once = at_once
        self.patience_s = patience_s
        self._changed = threading.Condition()
        self._waiting: deque[_Request] = deque()
        self._leaders = 0
        self._counts = (0, 0, 0)

    def judge(self, trajectories: Sequence[Trajectory], *, attempt: int = -1) -> list[Judgement]:
        """One judgement a trajectory, in the same order; may wait for others' trajectories.

        Raises:
            IndexError: a trajectory has attempts, but not this one.
            Exception: whatever the judge inside raised.
        """
        mine = _Request([up_to_attempt(each, attempt) for each in trajectories])
        if not mine.trajectories:
            return []
        with self._changed:
            self._waiting.append(mine)
            first = self._leaders < self.at_once
            if first:
                self._leaders += 1
                mine.leads = True
            else:
                self._changed.notify_all()  # a leader in its window may have enough now
        if not first and not self._told(mine):
            why = unscored(Unscored.TRANSPORT, f"no judgement after {self.patience_s:g} s")
            return [Judgement(unscored=why) for _ in mine.trajectories]
        if mine.leads:
            self._lead(mine, self.window_s if first else 0.0)
        if mine.error is not None:
            raise mine.error
        assert mine.judgements is not None
        return mine.judgements

    def counts(self) -> BatchCounts:
        """What was merged so far."""
        with self._changed:
            return BatchCounts(*self._counts)

    def close(self) -> None:
        """Close the judge inside, where it can be. Twice is fine."""
        getattr(self.inner, "close", lambda: None)()

    def _told(self, mine: _Request) -> bool:
        """Wait until there is an answer or ``mine`` is to lead; False where patience ended first."""
        mine.told.wait(None if math.isinf(self.patience_s) else self.patience_s)
        with self._changed:
            if mine.told.is_set():
                return True
            if mine in self._waiting:
                self._waiting.remove(mine)
            return False

    def _lead(self, mine: _Request, window_s: float) -> None:
        """Ask for the oldest requests, ``mine`` among them, then pass the lead on."""
        batch = self._gather(mine, window_s)
        try:
            _answer(self.inner, batch)
        finally:
            with self._changed:
                callers, trajectories, batches = self._counts
                self._counts = (
                    callers + len(batch),
                    trajectories + sum(len(each.trajectories) for each in batch),
                    batches + 1,
                )
                heir = next((each for each in self._waiting if not each.leads), None)
                if heir is None:
                    self._leaders -= 1
                else:
                    heir.leads = True
                    heir.told.set()
                for each in batch:
                    each.told.set()

    def _gather(self, mine: _Request, window_s: float) -> list[_Request]:
        deadline = time.monotonic() + window_s
        with self._changed:
            while sum(len(each.trajectories) for each in self._waiting) < self.max_batch:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            self._waiting.remove(mine)
            batch, count = [mine], len(mine.trajectories)
            for each in list(self._waiting):
                if each.leads:
                    continue  # another leader will take its own
                if count + len(each.trajectories) > self.max_batch:
                    break  # not a later, smaller one: nobody is overtaken
                self._waiting.remove(each)
                batch.append(each)
                count += len(each.trajectories)
            return batch

    def __reduce__(self) -> tuple[Any, ...]:
        """Settings and the judge inside travel; callers that wait do not."""
        settings: dict[str, Any] = {
            "window_s": self.window_s,
            "max_batch": self.max_batch,
            "at_once": self.at_once,
            "patience_s": self.patience_s,
        }
        return functools.partial(BatchedJudge, **settings), (self.inner,)

    def __repr__(self) -> str:
        """The judge inside, and how it is batched."""
        return f"BatchedJudge({self.inner!r}, max_batch={self.max_batch})"


def _answer(judge: RewardModel, batch: list[_Request]) -> None:
    """Ask once for all; every request has judgements or an error afterwards."""
    together = [trajectory for each in batch for trajectory in each.trajectories]
    try:
        judgements = judge.judge(together)
        if len(judgements) != len(together):
            raise ValueError(
                f"The judge gave {len(judgements)} judgements of {len(together)} trajectories; "
                "judge() returns one each, in the same order."
            )
    except Exception as error:
        for each in batch:
            each.error = error
        return
    except BaseException as error:  # Ctrl-C comes to one thread; the others are not to hang
        for each in batch:
            each.error = JudgeUnavailable(f"the call was broken off by {type(error).__name__}")
        raise
    start = 0
    for each in batch:
        each.judgements = judgements[start : start + len(each.trajectories)]
        start += len(each.trajectories)
