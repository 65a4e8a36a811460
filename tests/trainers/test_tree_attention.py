"""Passes over trees: what every sample would have got in a row of its own, for fewer tokens."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from reagent_env import Task, Trajectory  # noqa: E402
from reagent_env.trainers import tree_attention  # noqa: E402
from reagent_env.trainers.config import TrainConfig  # noqa: E402
from reagent_env.trainers.learner import Learner  # noqa: E402
from reagent_env.trainers.policies.lora import apply_lora  # noqa: E402
from reagent_env.trainers.policies.policy import Policy  # noqa: E402
from reagent_env.trainers.sample import AttemptReturn, Rollout, Sample  # noqa: E402
from reagent_env.trainers.tree_attention import why_no_trees  # noqa: E402

RECORD = Trajectory(Task("What is 2 + 3?", "5"), "")
pytestmark = pytest.mark.usefixtures("one_thread")

Batch = tuple[list[Rollout], list[list[list[float]]]]


def grown(*parts: tuple[str, list[int]]) -> Sample:
    """A sample of tokens that were read and written, in turn."""
    made, turn = Sample(), 0
    for kind, ids in parts:
        if kind == "read":
            made.read(ids)
        else:
            made.write(ids, [-2.0 - 0.01 * one for one in range(len(ids))], turn, 0)
            turn += 1
    return made


def words(seed: int, count: int) -> list[int]:
    chance = random.Random(seed)
    return [chance.randrange(280) for _ in range(count)]


def batch_of(*of_rollouts: list[Sample], attempts: int = 1) -> Batch:
    """Rollouts whose turns all belong to one attempt, or one to each of two."""
    rollouts, advantages = [], []
    for number, samples in enumerate(of_rollouts):
        turns = len({turn for sample in samples for turn in sample.turn_of if turn >= 0})
        shape = [turns] if attempts == 1 else [1, turns - 1]
        of_attempts = tuple(AttemptReturn(0.5, (0.5,) * count) for count in shape)
        rollouts.append(Rollout(0, number, tuple(samples), of_attempts, RECORD))
        advantages.append([[(-1.0) ** number * (0.3 + number)] * count for count in shape])
    return rollouts, advantages


def renumbered(sample: Sample, first: int) -> Sample:
    """As the later sample of an episode: its turns counted on."""
    sample.turn_of = [turn if turn < 0 else turn + first for turn in sample.turn_of]
    return sample


def group(prompt: int = 40, members: int = 5) -> Batch:
    """One prompt, then turns, an observation and turns of each member's own."""
    return batch_of(
        *(
            [
                grown(
                    ("read", words(0, prompt)),
                    ("write", words(10 + member, 3 + member)),
                    ("read", words(20 + member % 2, 12)),
                    ("write", words(30 + member, 4)),
                    ("read", [7, 7, 7]),
                )
            ]
            for member in range(members)
        )
    )


BATCHES: dict[str, Callable[[], Batch]] = {
    "one prompt": group,
    "one sample": lambda: group(members=1),
    "the same sample twice": lambda: batch_of(
        *([grown(("read", words(0, 9)), ("write", words(1, 5)))] for _ in range(2))
    ),
    "prompts that begin alike": lambda: batch_of(
        *(
            [
                grown(
                    ("read", words(0, 30) + words(member // 2, 10)),
                    ("write", words(50 + member // 3, 4) + words(60 + member, member)),
                )
            ]
            for member in range(6)
        )
    ),
    "nothing in common": lambda: batch_of(
        *([grown(("read", [member, *words(member, 9)]), ("write", [5, 6]))] for member in range(3))
    ),
    "second attempts": lambda: batch_of(
        *(
            [
                grown(
                    ("read", words(0, 25)),
                    ("write", words(member, 6)),
                    ("read", words(40 + member, 5)),
                    ("write", words(50 + member, 6)),
                )
            ]
            for member in range(4)
        ),
        attempts=2,
    ),
    "two samples a rollout": lambda: batch_of(
        *(
            [
                grown(("read", words(0, 25)), ("write", words(member, 6))),
                renumbered(
                    grown(("read", words(0, 25)), ("write", words(50 + member, 4))), first=1
                ),
            ]
            for member in range(4)
        ),
        attempts=2,
    ),
}


@pytest.fixture
def learner(random_policy: Any) -> Callable[..., Learner]:
    def make(policy: Any = None, **settings: Any) -> Learner:
        config = TrainConfig(**{"groups_per_update": 1, "group_size": 6, "lr": 1e-3, **settings})
        return Learner(random_policy() if policy is None else policy, config, fixed_length=20)

    return make


def gradients(one: Learner, batch: Batch) -> tuple[Any, dict[str, float]]:
    """What an update would move the weights by: the gradient, before the optimiser has it."""
    kept: list[Any] = []
    trained = [each for each in one.policy.model.parameters() if each.requires_grad]

    def keep(optimiser: Any, *_: Any) -> None:
        kept.append(torch.cat([each.grad.detach().flatten().clone() for each in trained]))

    hook = one.optimiser.register_step_pre_hook(keep)
    told = one.update(*batch, update=0)
    hook.remove()
    return kept[0], told


@pytest.mark.parametrize("name", BATCHES)
def test_a_pass_over_a_tree_gives_the_gradient_of_padded_rows(learner: Any, name: str) -> None:
    settings = {"kl": 0.1, "entropy": 0.01, "max_grad_norm": 1e9}
    shared, told = gradients(learner(**settings), BATCHES[name]())
    padded, tell = gradients(learner(**settings, share_prefixes=False), BATCHES[name]())
    assert (shared - padded).abs().max() < 1e-5 * padded.abs().max()
    assert told == pytest.approx({**tell, "seconds/update": told["seconds/update"]}, abs=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_checkpointing": True},
        {"lora_rank": 4, "kl": 0.1},
        {"minibatches": 2, "epochs": 2},
        {"micro_batch_tokens": 60},
        {"loss": "gspo", "reject_ratio": 1e6},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_so_it_is_with_whatever_else_is_set(
    learner: Any, random_policy: Any, settings: dict[str, Any]
) -> None:
    found = []
    for shared in (True, False):
        policy = random_policy()
        if "lora_rank" in settings:
            object.__setattr__(policy, "model", apply_lora(policy.model, 4, 8.0))
        if "gradient_checkpointing" in settings:
            policy.model.activation_checkpointing_enable({"use_reentrant": False})
        one = learner(policy, share_prefixes=shared, max_grad_norm=1e9, **settings)
        found.append(gradients(one, group()))
    (one, told), (other, tell) = found
    assert (one - other).abs().max() < 1e-5 * other.abs().max()
    assert told["grad_norm"] == pytest.approx(tell["grad_norm"], rel=1e-4)


def test_values_are_those_of_padded_rows(learner: Any) -> None:
    found = []
    for shared in (True, False):
        one = learner(advantage="gae", share_prefixes=shared)
        torch.nn.init.constant_(one.value_head.weight, 0.1)
        found.append(torch.tensor(one.values(group()[0])))
    assert (found[0] - found[1]).abs().max() < 1e-5
    assert found[0].abs().min() > 1e-3


def test_what_is_shared_is_computed_once(learner: Any) -> None:
    rollouts, advantages = group(prompt=100, members=8)
    one, other = learner(), learner(share_prefixes=False)
    for each in (one, other):
        each.update(rollouts, advantages, update=0)
    # To the last token but one that was written: 7 · 100 prompt tokens are not computed again.
    read = sum(100 + (3 + member) + 12 + 3 for member in range(8))
    assert one.counts.read == other.counts.read == read
    assert one.counts.computed == read - 700
    assert other.counts.computed >= read


def test_the_last_layer_computes_no_more_than_is_asked_for(learner: Any) -> None:
    rollouts, advantages = group(prompt=100, members=8)
    one = learner()
    seen: dict[int, int] = {0: 0, 1: 0}
    for number, layer in enumerate(one.policy.model.model.layers):
        layer.mlp.down_proj.register_forward_hook(
            lambda _, __, found, number=number: seen.update({number: found.shape[1]})
        )
    told = one.update(rollouts, advantages, update=0)
    assert seen[0] == one.counts.computed
    # Eight first words come after the same token, whose state is computed once.
    assert told["tokens"] == sum(3 + member + 4 for member in range(8)) == 84
    assert 70 < seen[1] <= 77


def test_rows_as_long_as_a_mask_may_not_be_go_without(
    learner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = gradients(learner(), group())
    seen: list[Any] = []
    real = tree_attention.scaled_dot_product_attention

    def noting(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["attn_mask"])
        return real(*args, **kwargs)

    monkeypatch.setattr(tree_attention, "scaled_dot_product_attention", noting)
    monkeypatch.setattr(tree_attention, "MASK_ELEMENTS", 100)
    found, _ = gradients(learner(), group())
    assert all(mask is None or mask.numel() <= 100 for mask in seen)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_the_model_is_left_as_it_was_even_by_a_failed_update(
    learner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = learner()
    config = one.policy.model.config
    assert (config._attn_implementation, one.why_no_trees) == ("sdpa", None)
    one.update(*group(), update=0)
    assert config._attn_implementation == "sdpa"
    monkeypatch.setattr(Learner, "_write_back", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        one.update(*group(), update=1)
    assert config._attn_implementation == "sdpa"


def small(**settings: Any) -> dict[str, Any]:
    return {
        "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, **settings,
    }  # fmt: skip


def made(kind: str, **settings: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**settings)
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Llama", small()),
        ("Qwen2", small()),
        ("Qwen3", small(head_dim=16)),
        ("Mistral", small(sliding_window=None)),
        ("Gemma", small(head_dim=16)),
        ("Qwen3Moe", small(head_dim=16, num_experts=4, num_experts_per_tok=2,
                           moe_intermediate_size=32)),
    ],
)  # fmt: skip
def test_models_of_many_makes_run_over_trees(
    kind: str, settings: dict[str, Any], tokenizer: Any, learner: Any
) -> None:
    found = []
    for shared in (True, False):
        policy = Policy("made", made(kind, **settings), tokenizer, 256)
        one = learner(policy, share_prefixes=shared, max_grad_norm=1e9)
        assert one.why_no_trees == (None if shared else "share_prefixes is off")
        found.append(gradients(one, group())[0])
    assert (found[0] - found[1]).abs().max() < 1e-5 * found[1].abs().max()


@pytest.mark.parametrize(
    ("kind", "settings", "why"),
    [
        ("Mistral", small(sliding_window=16), "a window of 16 tokens"),
        ("Gemma2", small(head_dim=16, sliding_window=16), "layers of sliding_attention"),
        ("Mamba", {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2}, ""),
        ("Bloom", {"vocab_size": 300, "hidden_size": 32, "n_layer": 2, "n_head": 4}, ""),
    ],
)
@pytest.mark.filterwarnings("ignore")  # what these libraries say of kernels that are not installed
def test_models_that_cannot_are_found_out_and_trained_in_rows(
    kind: str, settings: dict[str, Any], why: str
) -> None:
    model = made(kind, **settings)
    before = getattr(model.config, "_attn_implementation", None)
    found = why_no_trees(model, 256)
    assert found is not None
    assert why in found
    assert getattr(model.config, "_attn_implementation", None) == before
    assert not model.training


def test_an_argument_that_attention_does_not_know_is_refused() -> None:
    states = torch.zeros(1, 2, 3, 4)
    with pytest.raises(TypeError, match="softcap"):
        tree_attention.tree_attention(
            torch.nn.Identity(), states, states, states, None, token_paths=(None,), softcap=30.0
        )
