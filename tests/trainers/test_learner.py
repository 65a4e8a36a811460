"""The learner: what moves the weights, which way, and what does not matter."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from reagent_env import Task, Trajectory  # noqa: E402
from reagent_env.trainers.config import TrainConfig  # noqa: E402
from reagent_env.trainers.layout import Layout  # noqa: E402
from reagent_env.trainers.learner import Learner  # noqa: E402
from reagent_env.trainers.likelihood import likelihood  # noqa: E402
from reagent_env.trainers.policies.lora import apply_lora  # noqa: E402
from reagent_env.trainers.sample import AttemptReturn, Rollout, Sample  # noqa: E402

RECORD = Trajectory(Task("What is 2 + 3?", "5"), "")
pytestmark = pytest.mark.usefixtures("one_thread")


def sample(model: Any, seed: int, turns: int = 2) -> Sample:
    """Prompt, then turns of random tokens with their true log-probabilities, observations between."""
    chance = random.Random(seed)
    made = Sample()
    for turn in range(turns):
        made.read([chance.randrange(280) for _ in range(chance.randrange(3, 9))])
        ids = [chance.randrange(280) for _ in range(chance.randrange(2, 6))]
        made.write(ids, [0.0] * len(ids), turn, 0)
    made.sampled_logprobs = [
        found if turn >= 0 else 0.0
        for found, turn in zip(logprobs(model, made), made.turn_of, strict=True)
    ]
    return made


def logprobs(model: Any, made: Sample) -> list[float]:
    """Of every token but the first, by the whole model."""
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor([made.ids])).logits[0]
    found = logits[:-1].log_softmax(-1)[range(len(made.ids) - 1), made.ids[1:]]
    return [0.0, *found.tolist()]


def mean_likelihood(model: Any, made: Sample) -> float:
    found = logprobs(model, made)
    own = [one for one, turn in zip(found, made.turn_of, strict=True) if turn >= 0]
    return sum(own) / len(own)


Batch = tuple[list[Rollout], list[list[list[float]]]]


@pytest.fixture(scope="module")
def batch(random_policy: Any) -> Batch:
    """Six rollouts of one or two attempts, advantages of either sign."""
    model = random_policy().model
    rollouts, advantages = [], []
    for number in range(6):
        attempts = (AttemptReturn(1.0, (0.5,)), AttemptReturn(0.0, (0.5,)))
        if number % 2:
            attempts = (AttemptReturn(float(number > 2), (0.2, 0.7)),)
        rollouts.append(Rollout(0, number, (sample(model, number),), attempts, RECORD))
        sign = 1.0 if number < 3 else -1.0
        advantages.append([[sign * 0.7] * one.turns for one in attempts])
    return rollouts, advantages


@pytest.fixture
def learner(random_policy: Any) -> Callable[..., Learner]:
    def make(policy: Any = None, reference: Any = None, **settings: Any) -> Learner:
        config = TrainConfig(**{"groups_per_update": 1, "group_size": 6, "lr": 1e-3, **settings})
        chosen = random_policy() if policy is None else policy
        return Learner(chosen, config, fixed_length=20, reference=reference)

    return make


def weights(learner: Learner) -> Any:
    return torch.cat([one.detach().flatten() for one in learner.policy.model.parameters()])


def updated(learner: Learner, batch: Batch, **options: Any) -> tuple[Any, dict[str, float]]:
    metrics = learner.update(*batch, update=0, **options)
    return weights(learner), metrics


@pytest.mark.parametrize("aggregation", ["seq_mean", "token_mean", "fixed_length"])
@pytest.mark.parametrize("loss", ["ppo_clip", "gspo"])
def test_how_a_batch_is_cut_into_micro_batches_changes_nothing(
    learner: Any, batch: Batch, loss: str, aggregation: str
) -> None:
    settings = {"loss": loss, "aggregation": aggregation, "kl": 0.1, "entropy": 0.01, "lr": 1e-4}
    one, told = updated(learner(micro_batch_tokens=100_000, **settings), batch)
    many, tell = updated(learner(micro_batch_tokens=30, **settings), batch)
    assert (one - many).abs().max() < 1e-6
    assert told["grad_norm"] == pytest.approx(tell["grad_norm"], rel=1e-4)
    assert told["tokens"] == sum(sum(one.samples[0].completion_mask) for one in batch[0])


def test_likelihood_rises_where_the_advantage_is_positive_and_falls_where_negative(
    learner: Any, batch: Batch
) -> None:
    one = learner()
    before = [mean_likelihood(one.policy.model, r.samples[0]) for r in batch[0]]
    updated(one, batch)
    after = [mean_likelihood(one.policy.model, r.samples[0]) for r in batch[0]]
    assert all(b > a for a, b in zip(before[:3], after[:3], strict=True))
    assert all(b < a for a, b in zip(before[3:], after[3:], strict=True))


def test_no_gradient_comes_from_tokens_that_the_policy_did_not_write(
    learner: Any, batch: Batch, random_policy: Any
) -> None:
    rollouts, advantages = batch
    zero = [[[0.0] * len(turns) for turns in attempts] for attempts in advantages]
    one = learner()
    before = weights(one)
    assert torch.equal(updated(one, (rollouts, zero))[0], before)
    # The last observation has no token of the policy behind it: nothing of it is looked at.
    longer = copy.deepcopy(rollouts)
    for rollout in longer:
        rollout.samples[0].read([7, 7, 7, 7])
    first, second = updated(learner(), batch)[0], updated(learner(), (longer, advantages))[0]
    assert (first - second).abs().max() < 1e-6


def test_the_way_in_one_pass_is_the_way_in_two(learner: Any, batch: Batch) -> None:
    once, told = updated(learner(), batch)
    twice, tell = updated(learner(reject_ratio=1e6), batch)  # wants π_old beforehand
    assert (once - twice).abs().max() < 1e-6
    assert told["sampler/k3"] == pytest.approx(tell["sampler/k3"], abs=1e-6)
    assert told["sampler/effective"] == pytest.approx(1.0, abs=1e-4)
    assert told["ratio"] == pytest.approx(1.0, abs=1e-5)


def test_a_sampler_that_says_other_probabilities_is_corrected(learner: Any, batch: Batch) -> None:
    other = copy.deepcopy(batch)
    for rollout in other[0]:
        numbers = rollout.samples[0].sampled_logprobs
        numbers[:] = [one - 0.5 if one else 0.0 for one in numbers]
    _, plain = updated(learner(), batch)
    _, metrics = updated(learner(), other)
    assert metrics["sampler/k3"] == pytest.approx(2.71828**0.5 - 1.5, rel=1e-2)
    assert metrics["grad_norm"] == pytest.approx(plain["grad_norm"] * 2.71828**0.5, rel=1e-2)
    _, capped = updated(learner(importance_cap=1.0), other)
    assert capped["sampler/clipped"] == 1.0
    assert capped["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-2)


def test_minibatches_and_epochs_each_make_a_step_and_clip(learner: Any, batch: Batch) -> None:
    one = learner(minibatches=3, epochs=2, lr=0.02)
    _, metrics = updated(one, batch)
    assert one.steps == 6
    assert metrics["clip_fraction"] > 0
    assert metrics["ratio"] != pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("lora", [False, True])
def test_the_reference_holds_the_policy_back(
    learner: Any, batch: Batch, random_policy: Any, lora: bool
) -> None:
    def distance(kl: float) -> list[float]:
        policy = random_policy()
        if lora:
            object.__setattr__(policy, "model", apply_lora(policy.model, 4, 8.0))
        one = learner(policy, kl=kl, lora_rank=4 if lora else 0, lr=3e-3)
        return [one.update(*batch, update=n).get("ref_kl", 0.0) for n in range(6)]

    held, free = distance(kl=20.0), distance(kl=1e-9)
    assert held[0] == pytest.approx(0.0, abs=1e-6)
    assert 0 < held[-1] < 0.7 * free[-1]


def test_a_run_that_goes_on_keeps_the_reference_it_began_with(
    learner: Any, batch: Batch, random_policy: Any
) -> None:
    one = learner(kl=0.1, reference=random_policy(seed=1).model)
    assert updated(one, batch)[1]["ref_kl"] > 1e-3


def test_an_entropy_bonus_raises_entropy(learner: Any, batch: Batch, random_policy: Any) -> None:
    rollouts, advantages = batch
    zero = [[[0.0] * len(turns) for turns in attempts] for attempts in advantages]
    policy = random_policy()
    with torch.no_grad():
        policy.model.get_input_embeddings().weight.mul_(20)  # far from uniform
    one = learner(policy, entropy=0.5)
    found = [one.update(rollouts, zero, update=n)["entropy"] for n in range(5)]
    assert found[-1] > found[0] + 0.01


def test_a_value_head_learns_what_turns_are_worth(learner: Any, batch: Batch) -> None:
    rollouts, _ = batch
    one = learner(advantage="gae", lr=0.01, value_weight=1.0)

    def error() -> float:
        values = one.values(rollouts)
        return sum(
            (value - attempt.outcome) ** 2
            for rollout, of_attempts in zip(rollouts, values, strict=True)
            for attempt, turns in zip(rollout.attempts, of_attempts, strict=True)
            for value in turns
        )

    values = one.values(rollouts)
    assert [[len(turns) for turns in attempts] for attempts in values] == [
        [attempt.turns for attempt in rollout.attempts] for rollout in rollouts
    ]
    assert all(value == 0.0 for a in values for turns in a for value in turns)
    before = error()
    for number in range(30):
        values = one.values(rollouts)
        advantages = [
            [[attempt.outcome - value for value in turns]
             for attempt, turns in zip(rollout.attempts, of_attempts, strict=True)]
            for rollout, of_attempts in zip(rollouts, values, strict=True)
        ]  # fmt: skip
        one.update(rollouts, advantages, update=number, values=values)
    assert error() < 0.5 * before
    unweighed = learner(advantage="gae", value_weight=0.0)
    unweighed.update(rollouts, advantages, update=0, values=unweighed.values(rollouts))
    assert float(unweighed.value_head.weight.detach().abs().max()) == 0.0


def test_a_gradient_that_is_no_number_changes_nothing(learner: Any, batch: Batch) -> None:
    rollouts, advantages = batch
    spoiled = [[[float("nan")] * len(turns) for turns in one] for one in advantages]
    one = learner()
    before = weights(one)
    after, metrics = updated(one, (rollouts, spoiled))
    assert torch.equal(before, after)
    assert metrics["grad_norm"] != metrics["grad_norm"]
    assert not torch.equal(updated(one, batch)[0], before)


def test_nothing_to_train_on_is_no_step(learner: Any) -> None:
    one = learner()
    assert one.update([], [], update=0) == {"tokens": 0.0}
    assert one.steps == 0


def test_imitated_samples_are_learned_beside(learner: Any, batch: Batch) -> None:
    one = learner(attempts=2, advantage="pooled", judge="rubric", distill=True, distill_weight=1.0)
    shown = sample(one.policy.model, 99)
    before = mean_likelihood(one.policy.model, shown)
    metrics = one.update(*batch, update=0, imitated=[shown])
    assert metrics["distill/loss"] == pytest.approx(-before, rel=1e-3)
    assert mean_likelihood(one.policy.model, shown) > before


def test_temperature_and_nucleus_are_those_of_the_sampler(random_policy: Any) -> None:
    model = random_policy().model
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(10)
    logits = model(input_ids=torch.tensor([[5, 6]])).logits[0, 1]
    expected = (logits / 0.7).log_softmax(-1)

    def after_5_and_6(token: int) -> Layout:
        return Layout(torch.tensor([[5, 6]]), torch.tensor([1]), torch.tensor([token]))

    found = likelihood(model, after_5_and_6(7), temperature=0.7)
    assert found.logprobs.item() == pytest.approx(expected[7].item(), abs=1e-4)
    likeliest = int(expected.argmax())
    found = likelihood(model, after_5_and_6(likeliest), temperature=0.7, top_p=1e-6)
    assert found.logprobs.item() == pytest.approx(0.0, abs=1e-5)  # the only one in its nucleus
