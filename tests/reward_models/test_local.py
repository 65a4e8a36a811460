"""A judge of transformers in this process: what it reads and writes, and when it has no score."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reagent_env.reward_models import RewardModel, make_reward_model
from reagent_env.reward_models.base import Unscored, kind_of
from reagent_env.testing import example_trajectory
from reagent_env.testing.reward_model_contract import RewardModelContract
from reagent_env.trajectory import Turn

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ANSWER = ("<think>Sound.</think>", "<critique>Go on.</critique>", "<score>0.75</score>")
TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }} {% endfor %}ASK"


def chain(folder: Path, pieces: tuple[str, ...], context: int, template: str = TEMPLATE) -> Path:
    """A model that writes ``pieces`` one after the other, whatever it has read.

    Its layers add nothing to the stream, and each token's embedding is answered by the next one.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.set_num_threads(1)
    words = ["[UNK]", "[PAD]", "ASK", *pieces, "[END]"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]", eos_token="[END]"
    )
    tokenizer.chat_template = template
    config = transformers.LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=context,
        eos_token_id=words.index("[END]"),
        pad_token_id=1,
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(len(words), 16))
        model.lm_head.weight.zero_()
        for token in range(2, len(words) - 1):
            model.lm_head.weight[token + 1, token] = 1.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chain(tmp_path_factory.mktemp("judge"), ANSWER, 30_000)


class TestALocalModelKeepsTheContract(RewardModelContract):
    @pytest.fixture(autouse=True)
    def _folder(self, folder: Path) -> None:
        self.folder = folder

    def make_reward_model(self) -> RewardModel:
        return make_reward_model(str(self.folder), max_new_tokens=8)


def test_what_it_writes_is_the_judgement(folder: Path) -> None:
    (judgement,) = make_reward_model(str(folder), max_new_tokens=8).judge([example_trajectory(2)])
    assert (judgement.reasoning, judgement.critique) == ("Sound.", "Go on.")
    assert (judgement.score, judgement.turn_scores) == (0.75, None)
    assert judgement.tokens == 4  # three blocks and the end
    assert judgement.latency_s > 0


def test_turn_scores_that_it_writes_are_read(tmp_path: Path) -> None:
    pieces = (*ANSWER[:2], "<turns>[0.5,null,0.75]</turns>", ANSWER[2])
    judge = make_reward_model(str(chain(tmp_path, pieces, 30_000)), max_new_tokens=8)
    three, two = judge.judge([example_trajectory(3), example_trajectory(2)])
    assert three.turn_scores == (0.5, None, 0.75)
    assert kind_of(two) is Unscored.UNPARSED  # three scores for two turns


def test_a_model_without_turn_scores_can_judge_the_prefixes(folder: Path) -> None:
    judge = make_reward_model(str(folder), max_new_tokens=8, turn_scores="prefixes")
    three, none = judge.judge([example_trajectory(3), replace(example_trajectory(1), attempts=())])
    assert three.turn_scores == (0.75, 0.75, 0.75)
    assert three.tokens == 12
    assert kind_of(none) is Unscored.EMPTY


def test_a_prefix_shows_nothing_of_what_came_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge: Any = make_reward_model(str(folder), max_new_tokens=8, turn_scores="prefixes")
    seen: list[str] = []

    def encode(loaded: Any, messages: list[dict[str, str]]) -> list[int]:
        seen.append(messages[1]["content"])
        return [2]

    monkeypatch.setattr(type(judge._loaded), "encode", encode)
    trajectory = example_trajectory(3)
    judge.judge([trajectory])
    answer = json.dumps(trajectory.attempts[0].final_answer)
    assert [f'"final_answer": {answer}' in text for text in seen] == [False, False, True]
    assert [text.count('"turn": ') for text in seen] == [1, 2, 3]


def test_a_cut_off_answer_has_no_score(folder: Path) -> None:
    (judgement,) = make_reward_model(str(folder), max_new_tokens=3).judge([example_trajectory()])
    assert judgement.unscored == "unparsed: cut off at 3 tokens"


def test_an_attempt_is_shown_shorter_before_it_is_given_up(folder: Path) -> None:
    judge: Any = make_reward_model(str(folder), max_new_tokens=8)
    long = example_trajectory(3)
    turns = tuple(Turn(completion="word " * 9_000) for _ in range(9))
    long = replace(long, attempts=(replace(long.attempts[0], turns=turns),))
    whole = len(judge._loaded.encode(next(judge._questions(long))))
    object.__setattr__(judge._loaded, "context", whole - 1)
    (judgement,) = judge.judge([long])
    assert judgement.score == 0.75
    object.__setattr__(judge._loaded, "context", 100)
    (judgement,) = judge.judge([long])
    assert (
        judgement.unscored == "context_overflow: a context of 100 tokens, 8 of them for the answer"
    )


def test_a_template_that_opens_the_think_block_and_knows_no_system_role(tmp_path: Path) -> None:
    template = (
        "{% for message in messages %}"
        "{% if message.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{{ message.content }} {% endfor %}<think> "
    )
    pieces = ("<think>", "Sound.</think>", *ANSWER[1:])
    judge = make_reward_model(str(chain(tmp_path, pieces, 30_000, template)), max_new_tokens=8)
    (judgement,) = judge.judge([example_trajectory(2)])
    assert (judgement.reasoning, judgement.score) == ("Sound.", 0.75)


def test_the_folder_says_how_its_model_is_asked(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "judge.json").write_text('{"max_new_tokens": 7, "batch_size": 3}')
    stated: Any = make_reward_model(str(tmp_path))
    assert (stated.max_new_tokens, stated.batch_size) == (7, 3)
    asked: Any = make_reward_model(str(tmp_path), batch_size=5)
    assert (asked.max_new_tokens, asked.batch_size) == (7, 5)
    (tmp_path / "judge.json").write_text('{"batch": 3}')
    with pytest.raises(ValueError, match="holds batch; known settings: max_new_tokens"):
        make_reward_model(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is at least 1, got 0"),
        ({"batch_size": -2}, "batch_size is at least 1, got -2"),
        ({"turn_scores": "some"}, "own, prefixes"),
        ({"view": "all"}, "record, marks"),
        ({"max_chars": 10}, "max_chars is at least 16000"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    folder: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        make_reward_model(str(folder), **options)


def test_a_tokenizer_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    chain(tmp_path, ANSWER, 100)
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        path = tmp_path / name
        if path.exists() and name.endswith("jinja"):
            path.unlink()
    with pytest.raises(ValueError, match="no chat template"):
        make_reward_model(str(tmp_path))


def test_without_torch_the_extra_is_named(folder: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from reagent_env.reward_models import make_reward_model\n"
        f"make_reward_model({str(folder)!r})\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'reagent-env[train]'" in ended.stderr
