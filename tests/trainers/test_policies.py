"""Policies by name and folder, and LoRA adapters on them; tiny random models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig  # noqa: E402
from transformers import LlamaForCausalLM as Llama  # noqa: E402

from reagent_env.agents.smollm2 import ModelUnavailable  # noqa: E402
from reagent_env.trainers.policies import (  # noqa: E402
    UnknownPolicy,
    checkpoint_folder,
    load_policy,
)
from reagent_env.trainers.policies.lora import (  # noqa: E402
    apply_lora,
    load_adapter,
    save_adapter,
    target_modules,
)
from reagent_env.trainers.policies.policy import Policy  # noqa: E402
from reagent_env.trainers.policies.tiny import make_tokenizer  # noqa: E402

PROMPT = [[5, 6, 7, 8]]


def random_llama(seed: int = 0, context: int = 64, tied: bool = True) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=tied,
    )
    return Llama(config)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random model and its tokenizer."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model")
    policy = Policy("random", random_llama(), make_tokenizer(["What is 2 + 3?"], 300), 64)
    policy.save(folder)
    return folder


def logits(model: Any) -> Any:
    model.eval()
    with torch.no_grad():
        return model(torch.tensor(PROMPT)).logits


def test_a_folder_is_read_back_as_it_was_saved(saved: Path) -> None:
    policy = load_policy(saved)
    assert policy.name == str(saved)
    assert policy.context_length == 64, "the model's, less than the tokenizer's 2,048"
    assert policy.model.dtype == torch.float32
    assert not policy.model.training
    assert policy.tokenizer.pad_token == "<|pad|>"
    assert policy.tokenizer.padding_side == "left"
    assert torch.equal(logits(policy.model), logits(random_llama()))


def test_a_run_means_its_latest_checkpoint(saved: Path, tmp_path: Path) -> None:
    for update in ("000009", "000010"):
        shutil.copytree(saved, tmp_path / "checkpoints" / update)
    (tmp_path / "checkpoints" / "000011").mkdir()
    (tmp_path / "checkpoints" / ".000012.part").mkdir()
    assert checkpoint_folder(tmp_path).name == "000010"
    assert checkpoint_folder(tmp_path / "checkpoints").name == "000010"
    assert checkpoint_folder(tmp_path / "checkpoints" / "000009").name == "000009"
    assert load_policy(tmp_path).context_length == 64


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("smolm2", "Did you mean 'smollm2'"),
        ("Tiny", "Did you mean 'tiny'"),
        ("gpt", "Known: smollm2, tiny, the folder"),
        ("runs/20261104-120000-reagent-u", "There is no policy 'runs/2026"),
        ("/no/such/folder", "There is no policy '/no/such/folder'"),
    ],
)
def test_an_unknown_name_is_refused_with_what_there_is(name: str, said: str) -> None:
    with pytest.raises(UnknownPolicy, match=said):
        load_policy(name)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UnknownPolicy, match="holds no model"):
        load_policy(tmp_path)


def test_a_model_without_a_chat_template_is_refused(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(saved)
    tokenizer.chat_template = None
    for file in (tmp_path / "base").glob("chat_template*"):
        file.unlink()
    tokenizer.save_pretrained(tmp_path / "base")
    with pytest.raises(ModelUnavailable, match="no chat template"):
        load_policy(tmp_path / "base")


def test_a_damaged_model_is_refused_with_its_name(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "torn")
    weights = tmp_path / "torn" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelUnavailable, match="torn"):
        load_policy(tmp_path / "torn")


def test_weights_that_are_not_in_the_file_are_not_made_up(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "half")
    weights = load_file(saved / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "half" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelUnavailable, match=r"no weights for model\.layers\.1\.mlp\.up_proj"):
        load_policy(tmp_path / "half")


def test_adapters_change_nothing_at_first_and_are_all_that_is_trained() -> None:
    plain = random_llama()
    before = logits(plain)
    adapted = apply_lora(plain, rank=4, alpha=8.0)
    assert torch.equal(logits(adapted), before)
    trained = [name for name, weights in adapted.named_parameters() if weights.requires_grad]
    assert len(trained) == 2 * 7 * 2, "A and B on seven layers of two blocks"
    assert all("lora_" in name for name in trained)


def test_adapters_are_drawn_by_the_seed_and_leave_torchs_generator_alone() -> None:
    def drawn(seed: int) -> Any:
        adapted = apply_lora(random_llama(), rank=4, seed=seed)
        return next(weights for name, weights in adapted.named_parameters() if "lora_A" in name)

    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    model = random_llama(seed=1)
    torch.manual_seed(1)
    apply_lora(model, rank=4)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))


def test_linear_layers_are_found_without_the_head() -> None:
    attention = ["k_proj", "o_proj", "q_proj", "v_proj"]
    mlp = ["down_proj", "gate_proj", "up_proj"]
    assert target_modules(random_llama()) == sorted(attention + mlp)
    assert target_modules(random_llama(tied=False)) == sorted(attention + mlp)
    shape = {"n_layer": 1, "n_head": 2, "n_embd": 8, "vocab_size": 32, "n_positions": 16}
    assert target_modules(GPT2LMHeadModel(GPT2Config(**shape))) == ["c_attn", "c_fc", "c_proj"]
    with pytest.raises(ValueError, match="no linear layer"):
        target_modules(torch.nn.LayerNorm(3))


def test_adapters_are_read_back_as_they_were_saved(saved: Path, tmp_path: Path) -> None:
    adapted = apply_lora(load_policy(saved).model, rank=4, alpha=8.0)
    with torch.no_grad():
        for name, weights in adapted.named_parameters():
            if "lora_B" in name:
                weights += 0.1
    save_adapter(adapted, tmp_path)
    assert {"adapter_config.json", "adapter_model.safetensors"} == {
        file.name for file in tmp_path.iterdir()
    }
    again = load_adapter(load_policy(saved).model, tmp_path)
    assert torch.equal(logits(again), logits(adapted))
    assert not torch.allclose(logits(again), logits(random_llama()), atol=1e-4)
    assert any(weights.requires_grad for weights in again.parameters())
    policy = load_policy(tmp_path)
    assert torch.equal(logits(policy.model), logits(adapted)), "the folder names its base"
    assert policy.tokenizer.chat_template, "of the base"


def test_adapters_on_adapters_and_rank_0_are_refused() -> None:
    adapted = apply_lora(random_llama(), rank=2)
    with pytest.raises(ValueError, match="adapters already"):
        apply_lora(adapted, rank=2)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        apply_lora(random_llama(), rank=0)
    with pytest.raises(ValueError, match="has no adapters"):
        save_adapter(random_llama(), Path("nowhere"))


def test_the_output_layer_of_a_tied_model_is_written_out_for_a_server(
    saved: Path, tmp_path: Path
) -> None:
    """Else vLLM on a CPU goes on with the first output layer after a reload."""
    from reagent_env.trainers.engines import vllm_server

    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    served = vllm_server._untied(saved, tmp_path)
    assert served == tmp_path
    assert json.loads((served / "config.json").read_text())["tie_word_embeddings"] is False
    weights = {
        name: tensor
        for file in served.glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }
    untied = random_llama(seed=9, tied=False)
    untied.load_state_dict(weights)
    assert torch.equal(logits(untied), logits(random_llama()))
    assert before == {file.name: file.read_bytes() for file in saved.iterdir()}


def test_an_untied_model_is_served_from_its_own_folder(tmp_path: Path) -> None:
    from reagent_env.trainers.engines import vllm_server

    random_llama(tied=False).save_pretrained(tmp_path / "model")
    (tmp_path / "links").mkdir()
    served = vllm_server._untied(tmp_path / "model", tmp_path / "links")
    assert served == tmp_path / "model"
    assert list((tmp_path / "links").iterdir()) == []


def test_weights_in_several_files_get_the_output_layer_into_their_index(
    saved: Path, tmp_path: Path
) -> None:
    from reagent_env.trainers.engines import vllm_server

    load_policy(saved).model.save_pretrained(tmp_path / "model", max_shard_size="10KB")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 1
    (tmp_path / "links").mkdir()
    served = vllm_server._untied(tmp_path / "model", tmp_path / "links")
    index = json.loads((served / "model.safetensors.index.json").read_text())
    assert index["weight_map"]["lm_head.weight"] == "lm_head.safetensors"
    assert torch.equal(logits(Llama.from_pretrained(served)), logits(random_llama()))
