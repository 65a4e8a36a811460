from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from reagent_env.trainers.checkpoints import (
    checkpoint_folders,
    is_whole,
    latest_checkpoint,
    load_checkpoint,
    policy_saver,
    restore_random_state,
    save_checkpoint,
)
from reagent_env.trainers.memory_plan import shape_of
from reagent_env.trainers.policies.lora import apply_lora
from reagent_env.trainers.policies.tiny import make_tokenizer

torch.set_num_threads(1)
TOKENIZER = make_tokenizer(["find the river of Velmora"] * 4, vocabulary=300)


def small_model(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=300,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
        )
    )


def adam(model: Any) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        [one for one in model.parameters() if one.requires_grad], lr=1e-2, betas=(0.9, 0.95)
    )


def train(model: Any, optimizer: Any, updates: int) -> None:
    """Updates on random ids, so that they depend on the random numbers as well."""
    for _ in range(updates):
        ids = torch.randint(0, 300, (2, 8))
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def save(run: Path, update: int, model: Any, optimizer: Any, **more: Any) -> Path:
    return save_checkpoint(
        run,
        update,
        save_policy=policy_saver(model, TOKENIZER),
        optimizer=optimizer.state_dict(),
        state=more.pop("state", {"update": update}),
        **more,
    )


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: one.clone() for name, one in model.state_dict().items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) for name in left
    )


def test_training_goes_on_from_a_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    model = small_model()
    optimizer = adam(model)
    train(model, optimizer, 2)
    folder = save(tmp_path, 2, model, optimizer)
    train(model, optimizer, 3)

    torch.manual_seed(99)
    checkpoint = load_checkpoint(folder)
    resumed = AutoModelForCausalLM.from_pretrained(folder)
    resumed.train()
    again = adam(resumed)
    again.load_state_dict(checkpoint.optimizer)
    restore_random_state(checkpoint.random_state)
    train(resumed, again, 3)

    assert same(weights(resumed), weights(model))
    assert not same(weights(resumed), weights(small_model()))


def test_every_random_number_generator_goes_on_where_it_was(tmp_path: Path) -> None:
    model = small_model()
    random.gauss(0, 1)  # leaves a second one in store
    np.random.standard_normal()
    folder = save(tmp_path, 1, model, adam(model))
    drawn = (random.gauss(0, 1), random.random(), np.random.standard_normal(3), torch.rand(3))
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    restore_random_state(load_checkpoint(folder).random_state)
    again = (random.gauss(0, 1), random.random(), np.random.standard_normal(3), torch.rand(3))
    assert drawn[:2] == again[:2]
    assert np.array_equal(drawn[2], again[2])
    assert torch.equal(drawn[3], again[3])


def test_the_state_comes_back_with_every_digit(tmp_path: Path) -> None:
    model = small_model()
    state = {"process_std": 0.1 + 0.2, "tokens": 2**60 + 1, "tasks": [3, 1, 2]}
    head = {"value_head": torch.arange(6.0).reshape(2, 3).T}
    checkpoint = load_checkpoint(save(tmp_path, 12, model, adam(model), state=state, extra=head))
    assert (checkpoint.update, checkpoint.state) == (12, state)
    assert torch.equal(checkpoint.extra["value_head"], head["value_head"])
    assert checkpoint.optimizer["param_groups"][0]["betas"] == (0.9, 0.95)


def test_a_checkpoint_is_a_model_that_transformers_loads(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = small_model()
    folder = save(tmp_path, 12, model, adam(model))
    assert capfd.readouterr().err == ""  # no bars in the midst of ours
    assert folder == tmp_path / "checkpoints" / "000012"
    assert [one.name for one in folder.glob("*.safetensors")] == ["model.safetensors"]
    assert same(weights(AutoModelForCausalLM.from_pretrained(folder)), weights(model))
    shape = shape_of(str(folder))  # what plans of memory count with
    assert shape is not None
    assert shape.parameters == sum(one.numel() for one in model.parameters())
    assert AutoTokenizer.from_pretrained(folder)("river").input_ids == TOKENIZER("river").input_ids


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_with_lora_the_adapters_alone_are_kept(tmp_path: Path) -> None:
    base = tmp_path / "base"
    small_model().save_pretrained(base)
    model = apply_lora(AutoModelForCausalLM.from_pretrained(base), rank=2, alpha=4)
    optimizer = adam(model)
    train(model, optimizer, 1)
    folder = save(tmp_path, 1, model, optimizer)
    assert [one.name for one in folder.glob("*.safetensors")] == ["adapter_model.safetensors"]
    from peft import PeftModel

    resumed = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    assert same(weights(resumed), weights(model))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    model = small_model()
    for update in (1, 2, 10):
        save(tmp_path, update, model, adam(model), keep=2)
    assert [one.name for one in checkpoint_folders(tmp_path)] == ["000002", "000010"]
    assert list((tmp_path / ".unfinished").iterdir()) == []


def test_a_checkpoint_written_again_replaces_the_old_one(tmp_path: Path) -> None:
    model = small_model()
    save(tmp_path, 1, model, adam(model), state={"run": "first"})
    folder = save(tmp_path, 1, model, adam(model), state={"run": "second"})
    assert load_checkpoint(folder).state == {"run": "second"}
    assert len(checkpoint_folders(tmp_path)) == 1


def test_a_damaged_checkpoint_is_passed_over_for_an_older_one(tmp_path: Path) -> None:
    model = small_model()
    first = save(tmp_path, 1, model, adam(model))
    second = save(tmp_path, 2, model, adam(model))
    assert latest_checkpoint(tmp_path) == second
    os.truncate(second / "model.safetensors", (second / "model.safetensors").stat().st_size - 1)
    assert not is_whole(second)
    assert latest_checkpoint(tmp_path) == first
    (first / "training" / "state.json").unlink()
    assert latest_checkpoint(tmp_path) is None


def test_reading_what_is_no_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"state\.json"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("room", [200, 10_000, 60_000])
def test_a_full_disk_costs_no_older_checkpoint_and_leaves_nothing_unfinished(
    tmp_path: Path, room: int
) -> None:
    model = small_model()
    optimizer = adam(model)
    train(model, optimizer, 1)
    first = save(tmp_path, 1, model, optimizer, keep=1)
    sizes = [one.stat().st_size for one in first.rglob("*.safetensors")]
    assert max(sizes) > 60_000
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OSError, match="checkpoints/000002"):
            save(tmp_path, 2, model, optimizer, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint_folders(tmp_path) == [first]
    assert is_whole(first)
    assert list((tmp_path / ".unfinished").iterdir()) == []


def test_a_process_killed_while_it_saves_leaves_whole_checkpoints_only(tmp_path: Path) -> None:
    code = f"""
import itertools
from pathlib import Path
import torch
from safetensors.torch import save_file
from reagent_env.trainers.checkpoints import save_checkpoint

def save_policy(folder):
    for part in range(20):
        save_file({{"weight": torch.zeros(4096)}}, folder / f"model-{{part}}.safetensors")

weight = torch.nn.Parameter(torch.zeros(4096))
for update in itertools.count(1):
    optimizer = torch.optim.AdamW([weight]).state_dict()
    save_checkpoint(Path({str(tmp_path)!r}), update, save_policy=save_policy,
                    optimizer=optimizer, state={{}}, keep=2)
    print(update, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        time.sleep(0.15)
        process.send_signal(signal.SIGKILL)
    found = checkpoint_folders(tmp_path)
    assert 1 <= len(found) <= 3
    assert all(is_whole(one) for one in found)
    assert {one.name for one in (tmp_path / "checkpoints").iterdir()} == {one.name for one in found}
