"""Whether a critique helps: a frozen policy's second attempts after it, against those after `retry`.

::

    utility = R(o² | critique) − R(o² | retry)        on first attempts that went wrong, in [−1, 1]

The recorded first attempt is played again in its environment, then the policy makes a second one
(``agents/judge_eval/playing_on.py``). Not here: what else a judgement earns (``reward.py``).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium

from reagent_env.agents.agent import Agent
from reagent_env.agents.judge_data.records import PlantedRecord
from reagent_env.agents.judge_eval.judging import fingerprint
from reagent_env.agents.judge_eval.playing_on import Continuation, MakeEnv, outcomes
from reagent_env.agents.making import AgentRequest, agent_maker
from reagent_env.wrappers.critique_refine import NEUTRAL, gives_answer_away

RIGHT = 0.5
"""A first attempt with an outcome below this went wrong."""


@dataclass(frozen=True, slots=True)
class Players:
    """What plays second attempts in one environment."""

    make_env: MakeEnv
    make_agent: Callable[[], Agent]


class CritiqueUtility:
    """Measures critiques with a frozen policy; what was played once is remembered.

    Example::

        with frozen_policy("tiny", ["reagent/MiniMix-v0"]) as players:
            measured = CritiqueUtility(players).of([(record, "Use the second page.")])

    """

    def __init__(
        self, players: dict[str, Players], *, tries: int = 4, concurrency: int = 16
    ) -> None:
        """Measure with these.

        Args:
            players: Environment id → what plays there; records of other environments have none.
            tries: Second attempts after each critique, and as many after `retry`, sampled alike.
            concurrency: At once.
        """
        self.players = players
        self.tries = tries
        self.concurrency = concurrency
        self.failed = 0
        """Critiques whose second attempts infrastructure spoiled, or whose record replays otherwise."""
        self._played: dict[tuple[str, str], float] = {}

    def measures(self, record: PlantedRecord) -> bool:
        """Whether there is something to mend: one ended attempt, wrong by the task's own answer."""
        trajectory = record.trajectory
        return (
            trajectory.env_id in self.players
            and record.label == "as_is"
            and len(trajectory.attempts) == 1
            and trajectory.stop_reason is not None
            and trajectory.outcome is not None
            and trajectory.outcome < RIGHT
        )

    def of(self, asked: Sequence[tuple[PlantedRecord, str]]) -> list[float]:
        """The utility of each critique of a record; NaN where it could not be measured.

        0 for records that :meth:`measures` refuses, for an empty critique, and for one that gives
        the answer away, all without playing.
        """
        shown = [
            (record, _shown(critique, record)) if self.measures(record) else None
            for record, critique in asked
        ]
        wanted: dict[tuple[str, str], PlantedRecord] = {}
        for one in shown:
            if one is not None and one[1] != NEUTRAL:
                record, critique = one
                wanted.setdefault(_key(record, critique), record)
                wanted.setdefault(_key(record, NEUTRAL), record)
        self._play({key: one for key, one in wanted.items() if key not in self._played})
        found = []
        for one in shown:
            if one is None or one[1] == NEUTRAL:
                found.append(0.0)
                continue
            record, critique = one
            after = self._played[_key(record, critique)]
            found.append(after - self._played[_key(record, NEUTRAL)])
        self.failed += sum(map(math.isnan, found))
        return found

    def _play(self, wanted: dict[tuple[str, str], PlantedRecord]) -> None:
        """Fill in the mean outcome of second attempts, NaN where one was spoiled."""
        for env_id, players in self.players.items():
            here = [key for key, one in wanted.items() if one.trajectory.env_id == env_id]
            continuations = [
                Continuation(
                    wanted[key].trajectory, len(wanted[key].turn_targets), number, critique=key[1]
                )
                for key in here
                for number in range(self.tries)
            ]
            ended = outcomes(
                continuations, players.make_env, players.make_agent, concurrency=self.concurrency
            )
            for place, key in enumerate(here):
                part = ended[place * self.tries : (place + 1) * self.tries]
                self._played[key] = sum(part) / self.tries


@contextlib.contextmanager
def frozen_policy(
    policy: str,
    env_ids: Sequence[str],
    *,
    sandbox: str = "auto",
    temperature: float = 1.0,
    concurrency: int = 16,
    seed: int = 0,
) -> Iterator[dict[str, Players]]:
    """What plays second attempts as ``policy``, by any name that ``reagent eval --agent`` takes.

    Raises:
        UnknownAgent: no such policy.
        gymnasium.error.Error: no such environment.
    """

    def players(env_id: str) -> Players:
        def make_env() -> Any:
            return gymnasium.make(env_id, disable_env_checker=True, sandbox=sandbox)

        with contextlib.closing(make_env()) as made:
            tool_format = made.unwrapped.tool_format.name
        request = AgentRequest(policy, env_id, tool_format, temperature, 512, concurrency, seed)
        return Players(make_env, agent_maker(request, shared))

    with contextlib.ExitStack() as shared:
        yield {env_id: players(env_id) for env_id in env_ids}


def _shown(critique: str, record: PlantedRecord) -> str:
    """What the policy would read: ``CritiqueRefine``'s neutral words where it would say those."""
    text = critique.strip()
    return NEUTRAL if not text or gives_answer_away(text, record.trajectory) else text


def _key(record: PlantedRecord, critique: str) -> tuple[str, str]:
    return fingerprint(record.trajectory), critique
