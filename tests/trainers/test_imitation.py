"""Demonstrations as tokens, and the mean loss of a batch of them."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from reagent_env import Judgement, Task  # noqa: E402
from reagent_env.testing import addition_env  # noqa: E402
from reagent_env.trainers.engines.base import Sampling  # noqa: E402
from reagent_env.trainers.imitation import accumulate_imitation, demonstration  # noqa: E402
from reagent_env.trainers.rollout import rollout  # noqa: E402
from reagent_env.trainers.sample import Sample  # noqa: E402
from reagent_env.wrappers import CritiqueRefine  # noqa: E402

TASK = Task(question="What is 2 + 3?", answer="5", grader="number")
CALL = '<tool_call>{"name": "add", "arguments": {"a": 2, "b": 3}}</tool_call>'
RIGHT, WRONG = r"\boxed{5}", r"\boxed{6}"
pytestmark = pytest.mark.usefixtures("one_thread")


class Judge:
    def judge(self, trajectories: Any, /) -> list[Judgement]:
        return [Judgement(critique="Add with care.", score=0.5) for _ in trajectories]


def test_a_demonstration_has_the_tokens_of_the_rollout_that_says_the_same(
    renderer: Any, scripted: Any
) -> None:
    env = CritiqueRefine(addition_env(tool_format="compact", max_turns=2), Judge())
    script = [CALL, CALL, CALL, RIGHT]  # the first attempt ends at its turn limit
    done = rollout(env, scripted(script), renderer, TASK, Sampling(), seed=1)
    _, info = env.reset(options={"task": TASK})
    shown = demonstration(done.trajectory, info["messages"], renderer)
    [sample] = done.samples
    assert shown.ids == sample.ids
    assert shown.turn_of == sample.turn_of
    second = demonstration(done.trajectory, info["messages"], renderer, attempts=[1])
    assert second.ids == sample.ids
    assert [turn >= 0 for turn in second.turn_of] == [turn >= 2 for turn in sample.turn_of]


def samples() -> list[Sample]:
    made = []
    for number in range(4):
        one = Sample()
        one.read(list(range(10, 14 + number)))
        one.write([20 + number, 21, 22][: number % 3 + 1], [0.0] * (number % 3 + 1), 0, 0)
        made.append(one)
    return made


def gradient(model: Any, **settings: Any) -> tuple[float, Any]:
    model.zero_grad()
    loss = accumulate_imitation(model, samples(), pad_id=0, **settings)
    return loss, torch.cat([one.grad.flatten() for one in model.parameters()])


def test_the_mean_is_over_all_written_tokens_however_they_are_cut(random_policy: Any) -> None:
    model = random_policy().model
    loss, whole = gradient(model, micro_batch_tokens=1000)
    again, cut = gradient(model, micro_batch_tokens=10)
    assert loss == pytest.approx(again, rel=1e-5)
    assert (whole - cut).abs().max() < 1e-6
    _, half = gradient(model, micro_batch_tokens=1000, weight=0.5)
    assert (half - whole / 2).abs().max() < 1e-6
    by_hand = 0.0
    for one in samples():
        logits = model(input_ids=torch.tensor([one.ids])).logits[0].log_softmax(-1)
        by_hand -= sum(
            float(logits[place - 1, one.ids[place]].detach())
            for place, turn in enumerate(one.turn_of)
            if turn >= 0
        )
    assert loss == pytest.approx(by_hand / 7, rel=1e-4)


def test_what_is_read_is_learned_only_where_asked_for(random_policy: Any) -> None:
    model = random_policy().model
    loss, plain = gradient(model, micro_batch_tokens=1000)
    same, context = gradient(model, micro_batch_tokens=1000, context_weight=1.0)
    assert loss == pytest.approx(same, rel=1e-5)  # what is logged is the written tokens' alone
    assert (plain - context).abs().max() > 1e-3
