"""The search tool: what the model reads, and what it is told when it errs."""

from __future__ import annotations

import pytest

from reagent_env.corpus import Corpus, Document
from reagent_env.errors import ToolError
from reagent_env.tools.search import make_search_tool

CORPUS = Corpus(
    [
        Document("Velmora", "wiki://Velmora", "Velmora is a city. Its river is the Oska."),
        Document("Oska\nBridge", "wiki://Oska_Bridge", "A bridge\nover the Oska. " + "Long " * 200),
    ],
    cache=False,
)
SEARCH = make_search_tool(CORPUS)


def test_its_schema_is_queries_and_top_k():
    assert SEARCH.signature == "search(queries: list[str], top_k: int = 5)"


def test_a_result_has_title_url_and_the_fitting_sentence():
    assert SEARCH(["velmora river"]) == (
        'Results for "velmora river":\n'
        "[1] Velmora\n"
        "    url: wiki://Velmora\n"
        "    Its river is the Oska."
    )


def test_several_queries_are_answered_in_order():
    shown = SEARCH(["Velmora", "bridge"], top_k=1)
    assert shown.index('"Velmora"') < shown.index('"bridge"')
    assert shown.count("[1]") == 2
    assert "[2]" not in shown


def test_a_title_with_a_line_break_stays_on_one_line():
    assert "[1] Oska Bridge\n" in SEARCH(["bridge"])


def test_snippets_are_cut():
    assert max(len(line) for line in SEARCH(["long"]).splitlines()) <= 244


def test_nothing_found_says_so_and_how_to_go_on():
    assert "Nothing found. Use other or fewer words" in SEARCH(["zebra"])


@pytest.mark.parametrize(
    ("queries", "top_k", "told"),
    [
        ([], 5, "at least one"),
        (["  "], 5, "at least one"),
        (["a"] * 9, 5, "at most 8"),
        (["a"], 0, "from 1 to 20, got 0"),
        (["a"], 21, "from 1 to 20, got 21"),
    ],
)
def test_wrong_arguments_are_told_to_the_model(queries, top_k, told):
    with pytest.raises(ToolError, match=told):
        SEARCH(queries, top_k)
