"""Makes the environment of a benchmark: a row of the published table as a ``ToolUseEnv``.

``gym.make("reagent/GSM8K-v0", data="copies/gsm8k")`` comes here. Not here: the data sets
(``task_sets/published.py``), the judge of correctness (``correctness.py``).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from reagent_env.choosing import Tools
from reagent_env.corpus_places import CorpusPlace, open_corpus
from reagent_env.correctness import JUDGE, CorrectnessJudge, judged_grade, make_correctness_judge
from reagent_env.env import ToolUseEnv
from reagent_env.graders import grade
from reagent_env.task import Task
from reagent_env.task_sets.published import published, published_row
from reagent_env.task_sets.published_table import PublishedSet
from reagent_env.tool_definition import Tool
from reagent_env.tools import get_tool
from reagent_env.tools.browse import make_browse_tool
from reagent_env.tools.search import make_search_tool
from reagent_env.vector import ToolUseVectorEnv

MAX_TURNS = 31
"""Thirty turns with tools and one that answers, as in Reagent's evaluation."""
_MEDIA = ("file_reader", "image2text", "audio2text")


def make_benchmark_env(
    benchmark: str,
    *,
    split: str = "test",
    data: str | os.PathLike[str] | None = None,
    subset: str | None = None,
    levels: Sequence[int | str] | None = None,
    kinds: Sequence[str] | None = None,
    ids: Iterable[str] | str | os.PathLike[str] | None = None,
    judge: str | CorrectnessJudge | None = None,
    corpus: CorpusPlace | None = None,
    web: bool = False,
    tools: Tools | None = None,
    sandbox: Any = "auto",
    max_turns: int = MAX_TURNS,
    max_seconds: float = 3_600.0,
    **env_options: Any,
) -> ToolUseEnv:
    """The environment of one benchmark.

    Example::

        make_benchmark_env("gaia", data="copies/gaia", subset="full", levels=(1,), web=True,
                           judge="http://127.0.0.1:8000/v1#qwen2.5-72b", corpus="wiki.jsonl")

    Args:
        benchmark: A name of :data:`~reagent_env.task_sets.published_table.PUBLISHED`.
        split: ``test`` (the published evaluation split), ``train`` where there is one, or ``all``.
        data: A copy of the data set; else ``REAGENT_DATA_DIR``, else the hub.
        subset: ``text`` or ``full``, for GAIA and HLE.
        levels: Only these levels.
        kinds: Only these kinds.
        ids: Only these records, in a list or a file of one id a line.
        judge: Who says whether an answer is right where a comparison does not find it so,
            ``URL#model``; needed by WebWalkerQA, HLE and xbench.
        corpus: Where to search: a corpus, a ``.jsonl`` file, a folder, or the URL of a retrieval
            server; by default the records' own paragraphs.
        web: Let ``browse`` open web pages too.
        tools: In place of the benchmark's.
        sandbox: As of ``ToolUseEnv``.
        max_turns: As of ``ToolUseEnv``.
        max_seconds: As of ``ToolUseEnv``.
        **env_options: Everything else that ``ToolUseEnv`` takes.

    Raises:
        DataSetUnavailable: the data set is not to be had here; the message says what to do.
        NeedMissing: a tool's program or extra is not installed.
        ValueError: there is no judge but the benchmark needs one, nowhere to search, or an argument
            is unknown.
    """
    row = published_row(benchmark)
    judging = _judging(row, judge)
    tasks = published(
        benchmark,
        None if split == "all" else split,
        data=data,
        subset=subset,
        levels=levels,
        kinds=kinds,
        ids=ids,
        contexts=corpus is None and tools is None,
    )
    if tools is None:
        tools = _tools(row, tasks, corpus, web)
    return ToolUseEnv(
        tasks,
        tools,
        sandbox,
        grade=judging,
        split="all",
        max_turns=max_turns,
        max_seconds=max_seconds,
        **env_options,
    )


def make_benchmark_vector_env(num_envs: int, **options: Any) -> ToolUseVectorEnv:
    """Several of them as one vector environment, for ``gym.make_vec``."""
    return ToolUseVectorEnv(num_envs, make_env=make_benchmark_env, **options)


def _judging(
    row: PublishedSet, judge: str | CorrectnessJudge | None
) -> Callable[[Task, str | None], float]:
    if isinstance(judge, str):
        judge = make_correctness_judge(judge)
    if judge is None and row.judge == "own":
        named = os.environ.get(JUDGE)
        if not named:
            raise ValueError(
                f"{row.title}'s answers are compared by a model, as published: pass "
                f"judge='http://host:8000/v1#model' (`reagent eval --correctness-judge`) or set {JUDGE}."
            )
        judge = make_correctness_judge(named)
    return grade if judge is None else functools.partial(judged_grade, judge)


def _tools(
    row: PublishedSet,
    tasks: Sequence[Task],
    corpus: CorpusPlace | None,
    web: bool,
) -> list[Tool]:
    names = [name for name in row.tools if name not in _MEDIA or any(task.files for task in tasks)]
    if "search" not in names:
        return [get_tool(name, tasks) for name in names]
    where = corpus if corpus is not None else getattr(tasks, "corpus", None)
    if where is None:
        raise ValueError(
            f"{row.title} brings no documents to search in. Pass corpus= (`reagent eval --corpus`): a "
            ".jsonl file or folder of documents, a Corpus, or the URL of a retrieval server; or tools=(…) "
            "of your own."
        )
    documents = open_corpus(where)
    made = {
        "search": lambda: make_search_tool(documents),
        "browse": lambda: make_browse_tool(documents, allow_web=web),
    }
    return [made[name]() if name in made else get_tool(name, tasks) for name in names]
