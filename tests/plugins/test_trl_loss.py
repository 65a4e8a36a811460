"""What reaches TRL's loss: the tensors of its batch, with literal tokens, turns and advantages."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from reagent_env.judgement import Judgement
from reagent_env.plugins.conformance_env import LEDGER
from reagent_env.plugins.trl import make_environment_factory, make_rollout_func
from reagent_env.plugins.trl_template import with_tool_calls
from reagent_env.plugins.trl_trainer import TurnCreditGRPOTrainer, runs
from reagent_env.trainers.advantages import AdvantageSettings
from reagent_env.trajectory import Trajectory

sys.path.insert(0, str(Path(__file__).parent))

from trl_fakes import (
    LIBRARIES_WARN,
    WrittenEngine,
    WrittenTrainer,
    WrittenTurnTrainer,
    as_rows,
    make_trainer,
    tiny,
    trained_texts,
)

pytestmark = pytest.mark.filterwarnings(LIBRARIES_WARN)

CALL = '<tool_call>{"name": "balance", "arguments": {"owner": "Ada"}}</tool_call>'
BREAK = '<tool_call>{"name": "audit", "arguments": {"year": 1066}}</tool_call>'
RIGHT, WRONG = "\\boxed{165}", "\\boxed{1}"  # Ada and Bo hold 165 together
FLOOR = AdvantageSettings(weight=0.3, std_floor=0.1)


class ByLength:
    """φ = 0.5 after a call, 0.8 at an end that had a call before it, 0.2 without; ``\\boxed{}`` unscored."""

    def judge(self, trajectories: Sequence[Trajectory]) -> list[Judgement]:
        return [self._one(trajectory.attempts[-1].turns) for trajectory in trajectories]

    def _one(self, turns: Sequence[Any]) -> Judgement:
        if turns[-1].completion == "\\boxed{}":
            return Judgement(critique="Look again.", unscored="no verdict")
        scores = (*(0.5 for _ in turns[:-1]), 0.8 if len(turns) > 1 else 0.2)
        return Judgement(critique="Look again.", score=scores[-1], turn_scores=scores)


def played(
    tmp_path: Path, completions: Sequence[Sequence[str]], *, estimator: str = "turn", **reward: Any
) -> tuple[dict[str, Any], Any]:
    """TRL's batch for one group whose rollouts write ``completions``, on "Ada and Bo"."""
    order: Iterator[Sequence[str]] = iter(completions)
    play = make_rollout_func(
        LEDGER,
        tool_format="compact",
        concurrency=1,  # in order
        engine=lambda trainer, renderer: WrittenEngine(tiny().tokenizer, lambda n: next(order)),
        **reward,
    )
    trainer = make_trainer(
        TurnCreditGRPOTrainer,
        tmp_path,
        group=len(completions),
        rollout_func=play,
        reward_funcs=play.reward_funcs,
        train_dataset=play.dataset(1),
        estimator=estimator,
        settings=FLOOR,
    )
    row = {"prompt": [{"role": "user", "content": "", "name": "task-0"}], "task": 0}
    try:
        return trainer._generate_and_score_completions([dict(row) for _ in completions]), trainer
    finally:
        play.close()


def by_turn(batch: dict[str, Any], row: int) -> list[float]:
    """The advantage of each run of trained tokens; all tokens of a run share it."""
    values = as_rows(batch, "advantages", row)
    mask = as_rows(batch, "tool_mask", row)
    found: dict[int, set[float]] = {}
    for value, run in zip(values, runs(mask), strict=True):
        if run >= 0:
            found.setdefault(run, set()).add(round(value, 5))
    assert all(len(one) == 1 for one in found.values())
    return [one.pop() for _, one in sorted(found.items())]


def test_each_turn_has_its_own_advantage_in_the_loss(tmp_path: Path) -> None:
    batch, _ = played(tmp_path, [[CALL, RIGHT], [CALL, WRONG], [WRONG]], judge=ByLength())
    assert batch["advantages"].shape == batch["completion_ids"].shape
    # Outcomes 1, 0, 0: mean 1/3, std sqrt(2)/3: ±. Process g: 0.8 then 0.3; 0.8, 0.3; 0.2.
    high, low = 2**0.5, -(0.5**0.5)
    first = [high + 0.3 * (0.8 - 0.5), high + 0.3 * (0.3 - (0.5 - 0.5))]
    third = low + 0.3 * (0.2 - 0.8)
    assert by_turn(batch, 0) == pytest.approx(first, abs=1e-4)
    assert by_turn(batch, 1) == pytest.approx([a - high + low for a in first], abs=1e-4)
    assert by_turn(batch, 2) == pytest.approx([third], abs=1e-4)


def test_the_loss_itself_uses_them(tmp_path: Path) -> None:
    batch, trainer = played(tmp_path, [[CALL, RIGHT], [WRONG]], judge=ByLength())
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer._compute_loss(trainer.model, batch)
    # At the first update every ratio is 1: the loss is minus the mean advantage of trained tokens.
    mask = batch["tool_mask"]
    wanted = -(batch["advantages"] * mask).sum() / mask.sum()
    assert loss.item() == pytest.approx(float(wanted), abs=1e-5)
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trainer.model.parameters())


def test_only_what_the_policy_wrote_is_trained(tmp_path: Path) -> None:
    batch, _ = played(tmp_path, [[CALL, RIGHT], [WRONG]])
    ids, mask = as_rows(batch, "completion_ids"), as_rows(batch, "tool_mask")
    assert trained_texts(tiny().tokenizer, ids, runs(mask)) == [CALL, RIGHT]
    assert int(batch["num_items_in_batch"]) == int(batch["tool_mask"].sum())
    sampled = as_rows(batch, "sampling_per_token_logps")
    written = [round(value, 4) for value, keep in zip(sampled, mask, strict=True) if keep]
    assert written[:3] == [-0.01, -0.02, -0.03]
    assert all(value == 0 for value, keep in zip(sampled, mask, strict=True) if not keep)


def test_attempts_are_credited_apart_in_one_sequence(tmp_path: Path) -> None:
    batch, _ = played(
        tmp_path,
        [[WRONG, CALL, RIGHT], [RIGHT, CALL, WRONG]],
        judge=ByLength(),
        attempts=2,
        estimator="per_stage",
    )
    # Stage 1: outcomes 0, 1; stage 2: 1, 0; the scores are equal within each stage.
    assert by_turn(batch, 0) == pytest.approx([-1, 1, 1], abs=1e-4)
    assert by_turn(batch, 1) == pytest.approx([1, -1, -1], abs=1e-4)


def test_an_unscored_rollout_keeps_its_outcome_and_has_no_process_advantage(tmp_path: Path) -> None:
    batch, _ = played(
        tmp_path, [["\\boxed{}"], [CALL, WRONG], [WRONG]], judge=ByLength(), estimator="grpo"
    )
    # All wrong: only the process differs, 0.8 and 0.2 among the two that are scored.
    unscored, better, worse = (by_turn(batch, row)[0] for row in range(3))
    assert unscored == 0
    assert better == -worse
    assert better > 0.5


def test_a_spoiled_rollout_is_in_no_mean_and_has_no_token_in_the_loss(tmp_path: Path) -> None:
    batch, _ = played(tmp_path, [[RIGHT], [CALL, BREAK], [WRONG]], estimator="grpo")
    assert by_turn(batch, 0) == pytest.approx([1.0])  # as if there were two: mean 0.5, std 0.5
    assert by_turn(batch, 2) == pytest.approx([-1.0])
    assert sum(as_rows(batch, "tool_mask", 1)) == 0
    assert set(as_rows(batch, "advantages", 1)) == {0.0}


def test_trls_own_trainer_gets_one_number_a_rollout(tmp_path: Path) -> None:
    order = iter([[CALL, RIGHT], [CALL, BREAK], [WRONG]])
    play = make_rollout_func(
        LEDGER,
        concurrency=1,
        judge=ByLength(),
        engine=lambda trainer, renderer: WrittenEngine(tiny().tokenizer, lambda n: next(order)),
    )
    trainer = make_trainer(
        WrittenTrainer,
        tmp_path,
        group=3,
        rollout_func=play,
        reward_funcs=play.reward_funcs,
        train_dataset=play.dataset(1),
        config={"scale_rewards": "none"},
    )
    row = {"prompt": [{"role": "user", "content": "", "name": "task-0"}]}
    batch = trainer._generate_and_score_completions([dict(row) for _ in range(3)])
    play.close()
    # 1 + 0.3 * 0.8 and 0 + 0.3 * 0.2 about their mean; the spoiled one is NaN, hence 0.
    assert batch["advantages"].tolist() == pytest.approx([0.59, 0.0, -0.59])


def test_trls_own_loop_credits_each_completion(tmp_path: Path) -> None:
    factory = make_environment_factory(LEDGER, judge=ByLength(), answer="text")
    trainer = make_trainer(
        WrittenTurnTrainer,
        tmp_path,
        environment_factory=factory,
        reward_funcs=factory.reward_funcs,
        train_dataset=factory.dataset(1),
        processing_class=with_tool_calls(tiny().tokenizer),
        settings=FLOOR,
        estimator="grpo",
    )
    trainer.written = [[CALL, RIGHT], [WRONG]]
    row = {"prompt": [{"role": "user", "content": "Ada and Bo?"}], "task": 0}
    batch = trainer._generate_and_score_completions([dict(row), dict(row)])
    # 1.24 and 0.06: ± half their distance over the std of the same size
    assert by_turn(batch, 0) == pytest.approx([1.0, 1.0], abs=1e-4)
    assert by_turn(batch, 1) == pytest.approx([-1.0], abs=1e-4)
    ids, mask = as_rows(batch, "completion_ids"), as_rows(batch, "tool_mask")
    assert trained_texts(tiny().tokenizer, ids, runs(mask)) == [CALL, RIGHT]


def test_trls_own_loop_refines_inside_one_rollout(tmp_path: Path) -> None:
    factory = make_environment_factory(LEDGER, judge=ByLength(), attempts=2)
    trainer = make_trainer(
        WrittenTurnTrainer,
        tmp_path,
        environment_factory=factory,
        train_dataset=factory.dataset(1),
        processing_class=with_tool_calls(tiny().tokenizer),
        settings=FLOOR,
        estimator="per_stage",
    )
    right, wrong = (
        f'<tool_call>{{"name": "submit_answer", "arguments": {{"answer": "{answer}"}}}}</tool_call>'
        for answer in (165, 1)
    )
    trainer.written = [[wrong, right, "Done."], [right, wrong, "Done."]]
    row = {"prompt": [{"role": "user", "content": ""}], "task": 0}
    batch = trainer._generate_and_score_completions([dict(row), dict(row)])
    assert by_turn(batch, 0) == pytest.approx(
        [-1, 1], abs=1e-4
    )  # "Done." is after the end: no turn
    assert by_turn(batch, 1) == pytest.approx([1, -1], abs=1e-4)
    text = tiny().tokenizer.decode(as_rows(batch, "completion_ids"))
    assert "Look again." in text


def test_the_template_gives_the_tokens_that_our_own_loop_reads(tmp_path: Path) -> None:
    from reagent_env.trainers.rendering import Renderer

    tokenizer = with_tool_calls(tiny().tokenizer)
    call = {"type": "function", "function": {"name": "balance", "arguments": {"owner": "Ada"}}}
    messages = [
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "balance", "content": "Ada has 120"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    renderer = Renderer(tiny().tokenizer)
    ids = renderer.opening_ids(messages[:1])
    ids += tiny().tokenizer.encode(CALL)
    ids += renderer.reply_ids("<tool_response>\nAda has 120\n</tool_response>", closed=False)
    assert text == tiny().tokenizer.decode(ids)
    assert tokenizer.encode(text) == ids


def test_the_models_own_samples_are_taken_and_the_model_goes_on_training(tmp_path: Path) -> None:
    play = make_rollout_func(LEDGER, tool_format="compact", max_tokens=3, max_turns=2)
    trainer = make_trainer(
        TurnCreditGRPOTrainer,
        tmp_path,
        rollout_func=play,
        reward_funcs=play.reward_funcs,
        train_dataset=play.dataset(1),
    )
    row = {"prompt": [{"role": "user", "content": "", "name": "task-0"}]}
    for _ in range(2):
        batch = trainer._generate_and_score_completions([dict(row), dict(row)])
        assert trainer.model.training
        assert "rewards/outcome_reward/mean" in trainer._metrics["train"]
    mask = batch["tool_mask"].bool()
    with torch.no_grad():
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        attended = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        found, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, attended, batch["completion_ids"].shape[1]
        )
    play.close()
    sampled = batch["sampling_per_token_logps"]
    assert torch.allclose(found[mask], sampled[mask], atol=1e-4)  # sampler and learner agree


def test_what_needs_more_than_trl_has_is_refused(tmp_path: Path) -> None:
    play = make_rollout_func(LEDGER)
    with pytest.raises(ValueError, match="value head"):
        TurnCreditGRPOTrainer("x", estimator="gae", reward_funcs=play.reward_funcs)
    with pytest.raises(ValueError, match="names no task"):
        play([[{"role": "user", "content": "2 + 3?"}]], None)
