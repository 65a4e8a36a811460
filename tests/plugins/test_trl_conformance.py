"""200 scripted episodes through TRL's real trainer, by each of its two roads."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from reagent_env.plugins.conformance import (
    ConformanceSuite,
    Driver,
    Script,
    Seen,
    differences,
    play_bare,
    scripts,
)
from reagent_env.plugins.conformance_env import LEDGER
from reagent_env.plugins.trl import make_environment_factory, make_rollout_func
from reagent_env.plugins.trl_record import Played
from reagent_env.plugins.trl_template import with_tool_calls
from reagent_env.trainers.advantages import Estimator
from reagent_env.trainers.advantages_base import Advantages, Batch
from reagent_env.trainers.sample import AttemptReturn

sys.path.insert(0, str(Path(__file__).parent))

from outside_scripts import OutsideSuite
from trl_fakes import (
    LIBRARIES_WARN,
    WrittenEngine,
    WrittenTurnTrainer,
    as_rows,
    make_trainer,
    tiny,
    trained_texts,
)

pytestmark = pytest.mark.filterwarnings(LIBRARIES_WARN)

HEAD, FOOT = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"


def shares(attempt: AttemptReturn, credit: str, weight: float) -> list[float]:
    """``info["reward/turns"]`` of an attempt, from what the trainer was given."""
    if attempt.score is None:
        found = [0.0] * attempt.turns
    elif credit == "trajectory":
        found = [0.0] * (attempt.turns - 1) + [weight * attempt.score]
    else:
        found = [weight * (after - before) for before, after in pairwise(attempt.levels())]
    found[-1] += attempt.outcome
    return found


def paid_before_it_failed(script: Script) -> bool:
    """What steps paid before infrastructure failed reaches no loss: the rollout is left out of it."""
    return script.when == "step" and script.spoiled


class TrlDriver:
    """Plays a script twice, as a group of two, and reads the tensors that TRL's loss is given.

    The advantage estimator used gives each turn its own share of the reward as its advantage, so that
    the shares are read off the advantages of the turns' tokens.
    """

    unseen = frozenset({"rewards"})  # a step pays nothing by itself in TRL
    loss_sees = "each turn with `TurnCreditGRPOTrainer`; TRL's own trainers: *scalar only*"

    def __init__(self, folder: Path) -> None:
        self.script = Script(0, (), 0)

        def paid(
            batch: Batch, settings: Any, *, running: Any = None, values: Any = None
        ) -> Advantages:
            one = self.script
            return [
                [[shares(a, one.credit, one.weight) for a in rollout] for rollout in group]
                for group in batch
            ]

        self.trainer = make_trainer(
            WrittenTurnTrainer, folder, estimator=Estimator("paid", paid), **self.setup()
        )

    def setup(self) -> dict[str, Any]:
        raise NotImplementedError

    def seen(self, batch: dict[str, Any], played: Played, prompt: str) -> Seen:
        """From the batch's tensors, and what the trainer keeps of the rollout."""
        script = self.script
        assert played.turn_of is not None
        ids = as_rows(batch, "completion_ids")
        advantages = as_rows(batch, "advantages")
        mask = as_rows(batch, "tool_mask")
        turns = list(played.turn_of)
        first = [turns.index(turn) for turn in range(max(turns) + 1)]
        starts = [0]
        for attempt in played.attempts[:-1]:
            starts.append(starts[-1] + attempt.turns)
        paid = math.fsum(
            x for a in played.attempts for x in shares(a, script.credit, script.weight)
        )
        return Seen(
            prompt=prompt,
            observations=self.observations(ids, turns),
            episode_return=math.nan if played.masked else paid,
            turn_shares=tuple(advantages[at] for at in first),
            process_scores=tuple(attempt.score for attempt in played.attempts),
            stop_reasons=played.stop_reasons,
            attempt_starts=tuple(starts),
            trained=tuple(trained_texts(tiny().tokenizer, ids, turns)),
            left_out=not any(mask),
        )

    def observations(self, ids: Sequence[int], turns: Sequence[int]) -> tuple[str, ...]:
        """The text between completions, without what the chat template puts around it."""
        gaps: list[list[int]] = []
        before = 0
        for token, turn in zip(ids, turns, strict=False):
            if turn < 0:
                if before >= 0:
                    gaps.append([])
                gaps[-1].append(token)
            before = turn
        texts = [tiny().tokenizer.decode(gap).lstrip("\n") for gap in gaps]
        return tuple(text.removeprefix(HEAD).removesuffix(FOOT) for text in texts)


class RolloutDriver(TrlDriver):
    name = "trl/rollout_func"

    def setup(self) -> dict[str, Any]:
        play = make_rollout_func(LEDGER)
        return {
            "rollout_func": play,
            "reward_funcs": play.reward_funcs,
            "train_dataset": play.dataset(1),
        }

    def can_play(self, script: Script) -> bool:
        return not paid_before_it_failed(script)

    def play(self, script: Script) -> Seen:
        self.script = script
        play = make_rollout_func(
            script.source,
            concurrency=1,
            engine=lambda trainer, renderer: WrittenEngine(
                tiny().tokenizer, lambda n: script.completions
            ),
            **script.reward,
            **script.env_kwargs,
        )
        self.trainer.rollout_func = play
        row = {"prompt": [{"role": "user", "content": "", "name": f"task-{script.task}"}]}
        inputs = [dict(row), dict(row)]
        batch = self.trainer._generate_and_score_completions(inputs)
        play.close()
        told = tiny().tokenizer.decode(as_rows(batch, "prompt_ids"))
        prompt = told.split(HEAD)[-1].removesuffix(FOOT)
        seen = self.seen(batch, self.trainer.kept[0], prompt)
        return self._spoiled(seen, play.rollouts[0]) if seen.left_out else seen

    def _spoiled(self, seen: Seen, one: Any) -> Seen:
        """What is left out of the loss, shown from the record that the rollout function keeps."""
        script, shown, starts, scores = self.script, [], [], []
        for attempt in one.trajectory.attempts:
            starts.append(len(shown))
            judged = attempt.judgement
            scores.append(None if judged is None else judged.score)
            turns = len(attempt.turns)
            if attempt.outcome is None:
                shown += [0.0] * (turns - 1) + [math.nan]
                continue
            levels = list((judged and judged.turn_scores) or [None] * turns)
            returned = AttemptReturn(attempt.outcome, (*levels[:-1], scores[-1]))
            shown += shares(returned, script.credit, script.weight)
        return replace(
            seen,
            turn_shares=tuple(shown),
            attempt_starts=tuple(starts),
            process_scores=tuple(scores),
        )


class EnvironmentDriver(TrlDriver):
    name = "trl/environment_factory"

    def setup(self) -> dict[str, Any]:
        factory = make_environment_factory(LEDGER, answer="text")
        return {
            "environment_factory": factory,
            "reward_funcs": factory.reward_funcs,
            "train_dataset": factory.dataset(1),
            "processing_class": with_tool_calls(tiny().tokenizer),
        }

    def can_play(self, script: Script) -> bool:
        return script.one_call_a_turn and script.attempts == 1 and not paid_before_it_failed(script)

    def play(self, script: Script) -> Seen:
        self.script = script
        factory = make_environment_factory(
            script.source, answer="text", **script.reward, **script.env_kwargs
        )
        self.trainer.environment_factories = {None: factory}
        self.trainer._environment_pool = {None: []}
        written = [*script.completions, "After the end."]
        self.trainer.written = [written, written]
        messages = [{"role": "user", "content": "Task: "}]
        inputs = [{"prompt": messages, "task": script.task} for _ in range(2)]
        batch = self.trainer._generate_and_score_completions(inputs)
        played = self.trainer.kept[0]
        told = tiny().tokenizer.decode(as_rows(batch, "prompt_ids"))
        prompt = told.split("Task: ")[-1].removesuffix(FOOT)
        steps = len(self.trainer.environments[0]._ledger._attempts[-1].steps)
        turns = tuple(turn if turn < steps else -1 for turn in played.turn_of)
        seen = self.seen(batch, replace(played, turn_of=turns), prompt)
        observed = (seen.observations or ())[: steps - 1]
        if not seen.left_out:
            return replace(seen, observations=observed)
        # Left out of the loss, so that no tensor of it tells more than that.
        spoiled = (*(0.0 for _ in range(steps - 1)), math.nan)
        return replace(seen, observations=observed, turn_shares=spoiled, process_scores=(None,))


class ByRolloutFunc:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def driver(self) -> Driver:
        return RolloutDriver(self.folder)


class ByEnvironmentFactory:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def driver(self) -> Driver:
        return EnvironmentDriver(self.folder)


class TestRolloutFunc(ByRolloutFunc, ConformanceSuite): ...


class TestEnvironmentFactory(ByEnvironmentFactory, ConformanceSuite): ...


class TestRolloutFuncOutside(ByRolloutFunc, OutsideSuite): ...


class TestEnvironmentFactoryOutside(ByEnvironmentFactory, OutsideSuite): ...


def test_the_driver_notices_a_reward_that_does_not_arrive(tmp_path: Path) -> None:
    driver = RolloutDriver(tmp_path)
    script = next(one for one in scripts() if one.judge is not None and one.attempts == 1)
    seen = driver.play(replace(script, weight=0.31))
    assert any(
        "turn_shares" in line for line in differences(play_bare(script), seen, driver.unseen)
    )
