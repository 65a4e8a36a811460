"""SearchQA: multi-hop questions over a corpus, answered with ``search`` and ``browse``.

``search_qa()`` asks about fictional worlds, real countries, or both; ``load_hotpot()`` reads data
sets shaped as HotpotQA, 2WikiMultihopQA, MuSiQue, NQ or TriviaQA. Each set carries its corpus.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from reagent_env.corpus import Corpus, context_paragraphs
from reagent_env.task import Task
from reagent_env.task_sets.phrasing import check_split
from reagent_env.task_sets.worlds import DEFAULT_SIZE, generate_world
from reagent_env.task_sets.worlds_facts import World
from reagent_env.task_sets.worlds_questions import language_of
from reagent_env.task_sets.worlds_sampling import SHAPES, draw_tasks, mixed_splits, only_levels
from reagent_env.task_sets.worlds_solver import Calls, solve_question

SIZES = {"train": 3000, "validation": 400, "test": 400}
"""Tasks a split, by default."""
SOURCES = ("worlds", "atlas")


class SearchTasks(Sequence[Task]):
    """Tasks in a fixed order and the corpus that answers them: ``tasks.corpus``."""

    def __init__(self, name: str, tasks: Sequence[Task], corpus: Corpus) -> None:
        self.name = name
        self.corpus = corpus
        self._tasks = tuple(tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        return list(self._tasks[index]) if isinstance(index, slice) else self._tasks[index]

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks)

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self)} tasks over {self.corpus!r}>"


def search_qa(
    split: str | None = None,
    *,
    source: str | Sequence[str] = "worlds",
    size: int = DEFAULT_SIZE,
    seed: int = 0,
    levels: Sequence[int] | None = None,
    kinds: Sequence[str] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> SearchTasks:
    """Multi-hop questions with one corpus for all splits.

    Example: ``search_qa("train", levels=(1, 2), size=300)``.

    Args:
        split: ``train``, ``validation``, ``test``, or None for all.
        source: ``worlds`` (fictional), ``atlas`` (real countries; extra ``atlas``), or both.
        size: Things in the fictional world.
        seed: Of the fictional world; another seed is another world.
        levels: Only questions of these hops, 1 to 4.
        kinds: Only these shapes (:data:`~reagent_env.task_sets.worlds_sampling.SHAPES`).
        sizes: Tasks a split, :data:`SIZES` by default; shared between the sources.

    Raises:
        ValueError: an unknown split, source, level or kind.
    """
    check_split(split)
    sources = [source] if isinstance(source, str) else list(source)
    worlds = [_world(name, size, seed) for name in dict.fromkeys(sources)]
    if not worlds:
        raise ValueError(f"search_qa needs a source; known: {', '.join(SOURCES)}.")
    tasks: list[Task] = []
    for name, wanted in mixed_splits(sizes or SIZES, split):
        drawn = [
            _drawn(world, name, wanted // len(worlds), _key(levels), _key(kinds))
            for world in worlds
        ]
        longest = max(map(len, drawn))
        tasks += [part[i] for i in range(longest) for part in drawn if i < len(part)]
    return SearchTasks("search_qa", tasks, _joined_corpus(tuple(worlds)))


def _key(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)


@functools.lru_cache(maxsize=16)
def _drawn(
    world: World,
    split: str,
    count: int,
    levels: tuple[int, ...] | None,
    kinds: tuple[str, ...] | None,
) -> tuple[Task, ...]:
    return tuple(draw_tasks(world, split, count, only_levels(SHAPES, levels, kinds)))


@functools.lru_cache(maxsize=4)
def _joined_corpus(worlds: tuple[World, ...]) -> Corpus:
    if len(worlds) == 1:
        return worlds[0].corpus
    name = "+".join(world.name for world in worlds)
    return Corpus([document for world in worlds for document in world.corpus], name=name)


def _world(source: str, size: int, seed: int) -> World:
    if source == "worlds":
        return generate_world(size, seed)
    if source == "atlas":
        from reagent_env.task_sets.atlas import load_atlas

        return load_atlas()
    raise ValueError(f"Unknown source {source!r}; known: {', '.join(SOURCES)}.")


def solve(question: str) -> Generator[Calls, list[str], str]:
    """Solve a SearchQA question from observations alone.

    Yields a turn's calls as ``[(tool, arguments)]``, is sent their answers in order, and returns
    the final answer (empty where it found none).
    """
    from reagent_env.task_sets.atlas import ATLAS_SCHEMA
    from reagent_env.task_sets.worlds_predicates import WORLD_SCHEMA

    languages = [language_of(WORLD_SCHEMA), language_of(ATLAS_SCHEMA)]
    return (yield from solve_question(question, languages))


# Data sets of others ------------------------------------------------------------------------------


def load_hotpot(
    path: str | Path,
    split: str | None = None,
    *,
    corpus: Corpus | None = None,
    grader: str = "qa",
) -> SearchTasks:
    """A question set in a JSON or JSONL file, with the corpus of its own contexts or yours.

    Lines as in HotpotQA and 2WikiMultihopQA (``question``, ``answer``, ``context`` as ``[[title,
    [sentences]]]``, ``supporting_facts``, ``_id``, ``type``, ``level``), MuSiQue (``paragraphs``,
    ``answer_aliases``), NQ and TriviaQA (``question``, ``answer`` as a text, a list of aliases or
    TriviaQA's object). Splits are by content hash; pass ``split=None`` for the whole file.

    Args:
        path: The file.
        split: ``train``, ``validation``, ``test``, or None for all.
        corpus: Where to search; by default the contexts of all records of the file.
        grader: For the answers.

    Raises:
        ValueError: a record without question or answer, or no contexts and no corpus.
    """
    check_split(split)
    source = Path(path)
    records = list(_records(source))
    tasks: dict[str, Task] = {}
    for number, record in enumerate(records, start=1):
        task = _hotpot_task(source, number, record, grader)
        tasks.setdefault(task.id, task)
    if corpus is None:
        if not any(True for record in records for _ in context_paragraphs(record)):
            raise ValueError(
                f"{source} has no contexts to search in; give corpus=Corpus.from_jsonl(...) "
                "or another Corpus."
            )
        corpus = Corpus.from_contexts(records, name=source.stem)
    kept = [task for task in tasks.values() if split is None or task.split == split]
    return SearchTasks(source.stem, kept, corpus)


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    text = path.read_text("utf-8-sig")
    try:
        whole = json.loads(text) if text.lstrip().startswith("[") else None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}).") from None
    lines = enumerate(whole if whole is not None else text.split("\n"), start=1)
    for number, line in lines:
        try:
            record = json.loads(line) if isinstance(line, str) and line.strip() else line
        except ValueError as error:
            raise ValueError(f"{path}, record {number}: not JSON ({error}).") from None
        if isinstance(record, Mapping):
            yield record
        elif record:
            raise ValueError(f"{path}, record {number}: expected an object, got {record!r:.80}.")


def _hotpot_task(path: Path, number: int, record: Mapping[str, Any], grader: str) -> Task:
    question = record.get("question")
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f'{path}, record {number}: no "question"; keys: {sorted(record)}.')
    aliases = list(dict.fromkeys(_aliases(record)))
    if not aliases:
        raise ValueError(f'{path}, record {number}: no "answer"; keys: {sorted(record)}.')
    metadata: dict[str, Any] = {"source": path.stem, "kind": str(record.get("type", "qa"))}
    for key, name in (("_id", "source_id"), ("id", "source_id"), ("level", "level")):
        if isinstance(record.get(key), str | int):
            metadata[name] = record[key]
    titles = list(dict.fromkeys(_supporting(record)))
    if titles:
        metadata["supporting_titles"] = titles
    return Task(question.strip(), aliases if len(aliases) > 1 else aliases[0], grader, {}, metadata)


def _aliases(record: Mapping[str, Any]) -> Iterator[str]:
    answer = record.get("answer", record.get("answers", record.get("golden_answers")))
    if isinstance(answer, Mapping):  # TriviaQA
        answer = [answer.get("value", ""), *answer.get("aliases", ())]
    values = answer if isinstance(answer, list) else [answer]
    values = [*values, *record.get("answer_aliases", ())]
    yield from (str(value).strip() for value in values if value is not None and str(value).strip())


def _supporting(record: Mapping[str, Any]) -> Iterator[str]:
    facts = record.get("supporting_facts")
    if isinstance(facts, Mapping):
        yield from (str(title) for title in facts.get("title", ()))
    elif isinstance(facts, list):
        yield from (str(fact[0]) for fact in facts if isinstance(fact, list) and fact)
    for paragraph in record.get("paragraphs") or ():
        if isinstance(paragraph, Mapping) and paragraph.get("is_supporting"):
            yield str(paragraph.get("title"))
