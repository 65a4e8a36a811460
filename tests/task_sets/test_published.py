"""The published data sets: every shape is read by one loader, and what is missing is explained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from reagent_env.graders import grade, problem_with
from reagent_env.task_sets import load_task_set, task_set_names
from reagent_env.task_sets.published import DataSetUnavailable, published
from reagent_env.task_sets.published_cipher import decrypted, encrypted
from reagent_env.task_sets.published_need import PublishedNeed
from reagent_env.task_sets.published_shapes import gaia, hle, math, qa, webwalker, xbench
from reagent_env.task_sets.published_table import BENCHMARKS, PUBLISHED, SEARCH_PRESETS
from reagent_env.testing.published_miniatures import CANARY, write_miniatures

SIZES = dict.fromkeys(PUBLISHED, 3) | {"gaia": 5, "reagent_rl": 2}


TRAIN = 37
"""Of the 40 training questions made, those whose hash does not set them aside."""


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_miniatures(tmp_path_factory.mktemp("copies"))


def full(name: str) -> dict[str, Any]:
    return {"subset": "full"} if PUBLISHED[name].subsets else {}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_data_set_is_read_from_a_copy_and_its_own_answers_are_right(
    name: str, copies: Path
) -> None:
    split = "test" if "test" in PUBLISHED[name].splits else None
    tasks = load_task_set(name, split, data=copies, **full(name))
    assert len(tasks) == SIZES[name]
    assert {task.split for task in tasks} <= ({split} if split else {"train", "validation"})
    assert {task.metadata["source"] for task in tasks} == {name}
    assert [problem_with(task) for task in tasks] == [None] * len(tasks)


@pytest.mark.parametrize("name", ["gsm8k", "math500", "aime24", "aime25"])
def test_mathematics_is_graded_as_published(name: str, copies: Path) -> None:
    for task in load_task_set(name, "test", data=copies):
        assert (grade(task, str(task.answer)), grade(task, "12345")) == (1.0, 0.0)


def test_the_twelve_benchmarks_have_ids_and_the_seven_presets_have_names() -> None:
    names = (
        "GSM8K MATH500 AIME24 AIME25 HotpotQA 2Wiki MuSiQue Bamboogle GAIA WebWalkerQA HLE XBench"
    )
    assert sorted(BENCHMARKS) == sorted(f"reagent/{name}-v0" for name in names.split())
    assert set(SEARCH_PRESETS) <= set(task_set_names())
    assert len(SEARCH_PRESETS) == 7


def test_the_configuration_and_the_split_choose_the_files(copies: Path) -> None:
    assert len(published("gsm8k", "test", data=copies)) == 3  # of main; socratic has one too
    assert len(published("hotpotqa", "test", data=copies)) == 3  # of distractor, not fullwiki


def test_a_tenth_of_a_published_training_split_is_set_aside(copies: Path) -> None:
    parts = {one: published("gsm8k", one, data=copies) for one in ("train", "validation", "test")}
    assert {one: len(tasks) for one, tasks in parts.items()} == {
        "train": TRAIN,
        "validation": 40 - TRAIN,
        "test": 3,
    }
    for one, tasks in parts.items():
        assert {task.split for task in tasks} == {one}
    everything = published("gsm8k", None, data=copies)
    assert len({task.question for task in everything}) == 43


def test_a_folder_a_file_and_a_folder_of_folders_are_the_same_copy(copies: Path) -> None:
    by_parent = published("aime25", "test", data=copies)
    by_folder = published("aime25", "test", data=copies / "aime25")
    by_file = published("aime25", "test", data=copies / "aime25" / "test.jsonl")
    assert [t.id for t in by_parent] == [t.id for t in by_folder] == [t.id for t in by_file]


def test_the_environment_variable_names_a_folder_of_copies(
    copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REAGENT_DATA_DIR", str(copies))
    assert len(load_task_set("popqa", "test")) == 3
    assert PublishedNeed(PUBLISHED["popqa"]).met


def test_a_changed_copy_is_read_again(copies: Path, tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    rows = (copies / "aime25" / "test.jsonl").read_text().splitlines()
    path.write_text(rows[0] + "\n")
    assert len(published("aime25", "test", data=path)) == 1
    path.write_text("\n".join(rows))
    assert len(published("aime25", "test", data=path)) == 3


def test_contexts_become_the_corpus_and_supporting_titles_are_in_it(copies: Path) -> None:
    for name in ("hotpotqa", "2wiki", "musique"):
        tasks: Any = published(name, "test", data=copies)
        assert len(tasks.corpus) == 6
        for task in tasks:
            assert all(tasks.corpus.find(title) for title in task.metadata["supporting_titles"])
    assert not hasattr(published("hotpotqa", "test", data=copies, contexts=False), "corpus")


# GAIA and HLE: files, levels, subsets -------------------------------------------------------------


def test_gaias_text_subset_leaves_out_what_has_a_file_and_the_full_one_attaches_it(
    copies: Path,
) -> None:
    text = published("gaia", "test", data=copies)
    everything = published("gaia", "test", data=copies, subset="full")
    assert [len(task.files) for task in text] == [0, 0]
    assert [len(task.files) for task in everything] == [0, 0, 1, 1, 1]
    (name,) = everything[2].files
    assert everything[2].files[name].startswith(b"day,crates")
    assert name in everything[2].question


def test_levels_and_ids_choose_questions(copies: Path) -> None:
    everything = published("gaia", "test", data=copies, subset="full")
    level_2 = published("gaia", "test", data=copies, subset="full", levels=[2])
    assert [task.metadata["level"] for task in level_2] == [2, 2]
    wanted = [everything[0].metadata["source_id"]]
    assert list(published("gaia", "test", data=copies, ids=wanted)) == [everything[0]]
    with pytest.raises(ValueError, match="no level 9; levels: 1, 2, 3"):
        published("gaia", "test", data=copies, subset="full", levels=[9])
    with pytest.raises(ValueError, match="1 of 1 ids are not among"):
        published("gaia", "test", data=copies, ids=["nothing"])


def test_a_missing_attachment_is_said_with_what_to_do(copies: Path, tmp_path: Path) -> None:
    shutil.copytree(copies / "gaia", tmp_path / "gaia")
    for path in (tmp_path / "gaia").rglob("*.csv"):
        path.unlink()
    with pytest.raises(DataSetUnavailable, match="subset='text'"):
        published("gaia", "test", data=tmp_path, subset="full")


@pytest.mark.parametrize("name", ["../secret.txt", "/etc/hostname", "a/b.txt", ".."])
def test_an_attachment_cannot_be_named_outside_the_copy(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "gaia" / "2023" / "validation"
    folder.mkdir(parents=True)
    row = {"Question": "q?", "Final answer": "a", "Level": 1, "file_name": name, "file_path": name}
    (folder / "metadata.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match="no file's name"):
        published("gaia", "test", data=tmp_path / "gaia", subset="full")


def test_an_attachments_path_does_not_lead_out_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "gaia" / "2023" / "validation"
    folder.mkdir(parents=True)
    (folder / "secret.txt").symlink_to(tmp_path / "secret.txt")
    row = {"Question": "q?", "Final answer": "a", "Level": 1, "file_name": "secret.txt"}
    row["file_path"] = "../secret.txt"
    (folder / "metadata.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataSetUnavailable, match=r"'secret\.txt'"):
        published("gaia", "test", data=tmp_path / "gaia", subset="full")


def test_withheld_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="withheld"):
        gaia({"Question": "q?", "Final answer": "?", "Level": 1})


def test_hles_picture_becomes_a_file(copies: Path) -> None:
    assert len(published("hle", "test", data=copies)) == 2
    picture = published("hle", "test", data=copies, subset="full")[2]
    assert picture.files["image.png"].startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="no data URI"):
        hle({"question": "q?", "answer": "a", "image": "http://example.org/x.png"})


# xbench -------------------------------------------------------------------------------------------


def test_xbench_is_read_encrypted_and_plain(copies: Path) -> None:
    raw = (copies / "xbench" / "DeepSearch.csv").read_text()
    assert "Ilse" not in raw
    assert published("xbench", "test", data=copies)[1].answer == "Tomas Bel"
    assert xbench({"question": "q?", "answer": "a"}).text == "q?"


def test_the_cipher_is_xor_with_the_canary_then_base64() -> None:
    assert encrypted("A", "key") == "Kg=="  # 0x41 ^ 0x6b = 0x2a
    assert decrypted(encrypted("条件 42", CANARY), CANARY) == "条件 42"
    with pytest.raises(ValueError, match="cannot be decrypted"):
        decrypted("not base64!", CANARY)
    with pytest.raises(ValueError, match="cannot be decrypted"):
        decrypted(encrypted("条件", "one key"), "another key")
    with pytest.raises(ValueError, match="empty canary"):
        decrypted("AAAA", "")


# Shapes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        {"question": "q?", "answer": "a"},
        {"Question": "q?", "Answer": "a"},
        {"question": "q?", "golden_answers": ["a"], "metadata": {"type": "bridge"}},
        {"question": "q?", "possible_answers": '["a"]'},
        {"question": "q?", "answer": {"value": "a", "aliases": ["a"]}},
        {"question": "q?", "ground_truth": {"target": ["a"]}},
    ],
)
def test_the_spellings_of_question_and_answer_are_one_shape(record: dict[str, Any]) -> None:
    assert (qa(record).text, qa(record).answer) == ("q?", "a")


def test_webwalkers_columns_are_read_in_either_case() -> None:
    info = {"Hop": "single", "Difficulty_Level": "easy"}
    record = {"Question": "q?", "Answer": "a", "Root_Url": "https://x.example", "Info": info}
    read = webwalker(record)
    assert read.metadata["root_url"] == "https://x.example"
    assert (read.metadata["level"], read.metadata["kind"]) == ("easy", "single")


def test_an_answer_is_taken_from_the_solutions_box_where_there_is_no_other() -> None:
    assert math({"problem": "p", "solution": "so \\boxed{\\frac12}"}).answer == "\\frac12"


# What is wrong is said ----------------------------------------------------------------------------


def test_without_a_copy_the_error_says_terms_licence_and_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(
        "datasets.load_dataset", lambda *a, **k: (_ for _ in ()).throw(OSError("offline"))
    )
    monkeypatch.delenv("REAGENT_DATA_DIR", raising=False)
    with pytest.raises(DataSetUnavailable) as caught:
        published("gaia", "test")
    said = str(caught.value)
    for part in ("accept the terms at https://huggingface.co/datasets/gaia-benchmark/GAIA", "hf auth login",
                 "licence: ", "hf download gaia-benchmark/GAIA", "data=FOLDER", "offline"):  # fmt: skip
        assert part in said
    assert "accept the terms" not in str(_raised(published, "gsm8k", "test"))


def _raised(call: Any, *args: Any, **kwargs: Any) -> BaseException:
    with pytest.raises(Exception) as caught:
        call(*args, **kwargs)
    return caught.value


def test_a_folder_of_other_data_sets_is_not_taken_for_this_one(
    copies: Path, tmp_path: Path
) -> None:
    shutil.copytree(copies / "aime25", tmp_path / "aime25")
    with pytest.raises(DataSetUnavailable, match="no folder 'math500'"):
        published("math500", "test", data=tmp_path)


def test_a_record_that_cannot_be_read_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text('{"problem": "p", "answer": "1"}\n{"problem": "p"}\n')
    with pytest.raises(ValueError, match=r"test\.jsonl, line 2: not read as AIME 2025"):
        published("aime25", "test", data=path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ValueError, match="git lfs pull"):
        published("aime25", "test", data=path)
    path.write_text('{"problem": ')
    with pytest.raises(ValueError, match="cannot be read"):
        published("aime25", "test", data=path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "gsm8"}, "Did you mean 'gsm8k'"),
        ({"name": "math500", "split": "train"}, "no split 'train'; it has test"),
        ({"name": "gsm8k", "split": "dev"}, "Unknown split 'dev'"),
        ({"name": "gsm8k", "split": "test", "subset": "text"}, "no subset 'text'; known: none"),
        ({"name": "gsm8k", "split": "test", "data": "/nowhere"}, "no file and no folder"),
    ],
)
def test_wrong_arguments_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        published(**given)


@pytest.mark.parametrize("name", SEARCH_PRESETS)
def test_every_preset_is_played_as_searchqa_over_a_corpus(
    name: str, copies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gymnasium

    monkeypatch.setenv("REAGENT_DATA_DIR", str(copies))
    documents = tmp_path / "wiki.jsonl"
    documents.write_text('{"title": "Keth", "text": "The river Keth is 212 km long."}\n')
    env = gymnasium.make(
        "reagent/SearchQA-v0", tasks=name, split="test", corpus=documents, disable_env_checker=True
    )
    assert env.reset(seed=0)[1]["task_id"]
    call = '<tool_call>{"name": "search", "arguments": {"queries": ["Keth river"]}}</tool_call>'
    assert "212 km" in env.step(call)[0]
    env.close()


def test_a_preset_is_played_as_searchqa(copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gymnasium

    monkeypatch.setenv("REAGENT_DATA_DIR", str(copies))
    with pytest.raises(ValueError, match="these tasks bring none; pass corpus="):
        gymnasium.make("reagent/SearchQA-v0", tasks="nq", split="test", disable_env_checker=True)
    env = gymnasium.make(
        "reagent/SearchQA-v0", tasks="musique", split="test", disable_env_checker=True
    )
    env.reset(seed=0)
    call = '<tool_call>{"name": "search", "arguments": {"queries": ["Keth river"]}}</tool_call>'
    observation, *_ = env.step(call)
    env.close()
    assert "212 km" in observation
