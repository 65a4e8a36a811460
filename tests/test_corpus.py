"""The corpus: what is read, what is found, in which order, and how fast."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
import time

import pytest

from reagent_env.corpus import Corpus, Document, sentences, words

CITIES = [
    Document("Velmora", "wiki://Velmora", "Velmora is a city on the River Oska."),
    Document("Velmira", "wiki://Velmira", "Velmira is a city in the hills. It has 12,400 people."),
    Document("River Oska", "wiki://River_Oska", "The River Oska flows through Velmora."),
]


def test_the_best_match_comes_first_and_strangers_do_not_come():
    corpus = Corpus(CITIES, cache=False)
    assert [hit.document.title for hit in corpus.search("Velmira")] == ["Velmira"]
    assert corpus.search("Oska")[0].document.title == "River Oska"
    assert corpus.search("the of zebra") == []


def test_words_fold_case_accents_commas_and_plurals():
    assert words("The Bridges of Órlan: 12,400 m") == ["bridge", "orlan", "12400", "m"]


def test_sentences_end_at_full_stops_and_line_breaks():
    assert sentences("One is 3.5 m. Two.\n\nThree") == ["One is 3.5 m.", "Two.", "Three"]


def test_equal_scores_keep_the_documents_order():
    twins = [Document(f"T{i}", f"u:{i}", "same words here") for i in (3, 1, 2, 9, 7, 8)]
    found = Corpus(twins, cache=False).search("words", top_k=4)
    assert [hit.document.title for hit in found] == ["T3", "T1", "T2", "T9"]


def test_a_url_twice_is_refused_by_name():
    with pytest.raises(ValueError, match="wiki://Velmora"):
        Corpus([CITIES[0], CITIES[0]])


def test_no_documents_are_refused():
    with pytest.raises(ValueError, match="no documents"):
        Corpus([])


def test_a_corpus_without_words_answers_with_nothing():
    assert Corpus([Document("", "u", "...")], cache=False).search("anything") == []


def test_the_index_is_kept_on_disk_and_a_broken_one_is_built_again(tmp_path):
    assert Corpus(CITIES, cache=tmp_path).search("Oska")
    (folder,) = tmp_path.iterdir()
    for file in folder.iterdir():
        file.write_bytes(b"broken")
    again = Corpus(CITIES, cache=tmp_path)
    assert again.search("Oska")[0].document.title == "River Oska"
    assert json.loads((folder / "params.index.json").read_text())["num_docs"] == 3


def test_the_kept_index_is_used_and_scores_alike(tmp_path, monkeypatch):
    first = Corpus(CITIES, cache=tmp_path).search("velmora oska city")
    monkeypatch.setattr(Corpus, "_build_index", lambda self: pytest.fail("built twice"))
    assert Corpus(CITIES, cache=tmp_path).search("velmora oska city") == first


def test_another_text_is_another_index(tmp_path):
    Corpus(CITIES, cache=tmp_path).search("x")
    Corpus(
        [*CITIES[:2], Document("River Oska", "wiki://River_Oska", "Dry.")], cache=tmp_path
    ).search("x")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_costs_only_the_head_start(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert Corpus(CITIES, cache=blocked / "below").search("Oska")


def test_jsonl_with_and_without_titles(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text(
        '{"title": "A", "text": "alpha", "url": "x:1", "year": 3}\n\n'
        '{"id": "7", "contents": "\\"B\\"\\nbeta"}\n'
        '{"contents": "B\\nsecond passage"}\n'
    )
    corpus = Corpus.from_jsonl(path, cache=False)
    assert [(d.title, d.url) for d in corpus] == [
        ("A", "x:1"),
        ("B", "corpus://B"),
        ("B", "corpus://B#2"),
    ]
    assert corpus.documents[0].metadata == {"year": 3}


@pytest.mark.parametrize("line", ["{", "[1]", '{"title": "no text"}', '{"text": 5}'])
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "c.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(ValueError, match="line 2"):
        Corpus.from_jsonl(path)


def test_broken_characters_of_json_are_replaced(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"title": "A\\ud800", "text": "b\\udfff c"}\n')
    (document,) = Corpus.from_jsonl(path, cache=False)
    assert (document.title, document.text) == ("A?", "b? c")


def test_a_folder_of_texts(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.md").write_text("# Beta city\n\nBeta text.")
    (tmp_path / "sub" / "a.txt").write_bytes(b"alpha \xff text")
    (tmp_path / "ignored.png").write_bytes(b"x")
    corpus = Corpus.from_folder(tmp_path, cache=False)
    assert [(d.title, d.url) for d in corpus] == [
        ("Beta city", "corpus://b.md"),
        ("a", "corpus://sub/a.txt"),
    ]
    with pytest.raises(ValueError, match=r"no \.txt"):
        Corpus.from_folder(tmp_path / "nowhere")


def test_contexts_of_hotpotqa_and_musique_are_gathered_once():
    pair = {"context": [["A", ["One.", " Two."]], ["B", ["Three."]]]}
    columns = {"context": {"title": ["A"], "sentences": [["One.", "Two."]]}}
    musique = {"paragraphs": [{"title": "C", "paragraph_text": "Four."}]}
    corpus = Corpus.from_contexts([pair, columns, musique], cache=False)
    assert [(d.title, d.text) for d in corpus] == [
        ("A", "One. Two."),
        ("B", "Three."),
        ("C", "Four."),
    ]


def test_documents_open_by_url_or_title_and_near_names_are_told():
    corpus = Corpus(CITIES, cache=False)
    assert corpus.find("wiki://Velmora") is CITIES[0]
    assert corpus.find("river oska") is CITIES[2]
    assert corpus.find("Velmore") is None
    assert {d.title for d in corpus.near_titles("wiki://Velmore")} >= {"Velmora"}


def test_passages_are_the_sentences_about_the_question():
    corpus = Corpus(CITIES, cache=False)
    assert corpus.passages(CITIES[1], "Velmira people") == ["It has 12,400 people."]


def test_a_corpus_survives_pickling():
    corpus = pickle.loads(pickle.dumps(Corpus(CITIES, cache=False)))
    assert corpus.search("Oska")[0].document.title == "River Oska"


def test_many_threads_find_the_same():
    corpus = Corpus(
        [Document(f"D{i}", f"u:{i}", f"w{i % 7} w{i % 11} all") for i in range(300)], cache=False
    )
    expected = Corpus(corpus.documents, cache=False).search("w3 all w5", 9)
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(corpus.search("w3 all w5", 9)))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 16


PROBE = """
from reagent_env.corpus import Corpus, Document
docs = [Document(f"D{i}", f"u:{i}", f"w{i % 7} w{i % 11} x{i % 13} all") for i in range(200)]
hits = Corpus(docs, cache=False).search("w3 all x5 w5", 20)
print([(h.document.url, repr(h.score)) for h in hits])
"""


def test_scores_and_order_do_not_depend_on_the_hash_seed():
    outputs = {
        subprocess.run(
            [sys.executable, "-c", PROBE],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(outputs) == 1


def test_ten_thousand_documents_are_searched_in_milliseconds():
    corpus = Corpus(
        [
            Document(f"Doc {i}", f"u:{i}", f"alpha{i % 97} beta{i % 89} gamma common")
            for i in range(10_000)
        ],
        cache=False,
    )
    corpus.search("warm")
    started = time.perf_counter()
    for i in range(20):
        corpus.search(f"alpha{i} beta{i} common")
    assert (time.perf_counter() - started) / 20 < 0.02
