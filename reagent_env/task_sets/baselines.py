"""What blind guessing earns on a task set: a task set worth training on leaves these near 0.

``python -m reagent_env.task_sets.baselines [NAME …]`` prints a table. Guesses are fitted on the train
split and scored on the test split by the set's own graders. Not here: models or tools.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reagent_env.graders import grade
from reagent_env.task import Task
from reagent_env.task_sets import load_task_set, task_set_names

Guess = Callable[[Task], str]
"""From a task, of which it may use the question and the kind, to an answer."""

_WORD = re.compile(r"[A-Za-z]+|\d+(?:\.\d+)?")
_QUOTED = re.compile(r'"([^"\n]{1,80})"')


@dataclass(frozen=True)
class Baseline:
    """One way to guess on one task set, e.g. ``Baseline("python_math", "majority", 0.01, 300)``."""

    task_set: str
    guess: str
    mean_score: float
    tasks: int
    worst_kind: str = ""
    """The kind on which the guess earns most."""
    worst_kind_score: float = 0.0


def majority(train: Sequence[Task]) -> Guess:
    """The commonest answer of the training tasks of the same kind."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for task in train:
        answers[_kind(task)][_as_text(task.answer)] += 1
    overall = sum(answers.values(), Counter[str]()).most_common(1)[0][0]

    def guess(task: Task) -> str:
        known = answers.get(_kind(task))
        return known.most_common(1)[0][0] if known else overall

    return guess


def nearest_question(train: Sequence[Task]) -> Guess:
    """The answer to the training question that shares most words with this one (of its kind)."""
    known: dict[str, list[tuple[Counter[str], str]]] = defaultdict(list)
    for task in train:
        known[_kind(task)].append((_words(task.question), _as_text(task.answer)))

    def guess(task: Task) -> str:
        words = _words(task.question)
        candidates = known.get(_kind(task)) or [pair for pairs in known.values() for pair in pairs]
        return max(candidates, key=lambda pair: (sum((pair[0] & words).values()), pair[1]))[1]

    return guess


def echo(train: Sequence[Task]) -> Guess:
    """The question itself, which holds the answer if a grader is lenient."""
    return lambda task: task.question


def last_mentioned(train: Sequence[Task]) -> Guess:
    """The last quoted words or number of the question."""

    def guess(task: Task) -> str:
        found = _QUOTED.findall(task.question) or re.findall(r"\d+(?:\.\d+)?", task.question)
        return found[-1] if found else task.question.split()[-1]

    return guess


def all_candidates(train: Sequence[Task]) -> Guess:
    """The ten commonest answers of the kind in one list, the hedge that lenient graders reward."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for task in train:
        answers[_kind(task)][_as_text(task.answer)] += 1
    return lambda task: ", ".join(a for a, _ in answers[_kind(task)].most_common(10)) or "?"


GUESSES: Mapping[str, Callable[[Sequence[Task]], Guess]] = {
    "majority": majority,
    "nearest_question": nearest_question,
    "echo": echo,
    "last_mentioned": last_mentioned,
    "all_candidates": all_candidates,
}


def measure_baselines(name: str, train: Sequence[Task], test: Iterable[Task]) -> list[Baseline]:
    """Score every guess of :data:`GUESSES`, fitted on ``train``, on ``test``.

    Raises:
        ValueError: when either is empty.
    """
    held_out = list(test)
    if not train or not held_out:
        raise ValueError(
            f"Baselines of {name!r} need tasks to fit and to score; got {len(train)} and "
            f"{len(held_out)}."
        )
    found = []
    for guess_name, fit in GUESSES.items():
        guess = fit(train)
        by_kind: dict[str, list[float]] = defaultdict(list)
        for task in held_out:
            by_kind[_kind(task)].append(grade(task, guess(task)))
        means = {kind: sum(scores) / len(scores) for kind, scores in by_kind.items()}
        worst = max(means, key=lambda kind: means[kind])
        total = sum(map(sum, by_kind.values())) / len(held_out)
        found.append(Baseline(name, guess_name, total, len(held_out), worst, means[worst]))
    return found


def _kind(task: Task) -> str:
    return str(task.metadata.get("kind", ""))


def _as_text(answer: Any) -> str:
    return ", ".join(map(str, answer)) if isinstance(answer, list | tuple) else str(answer)


def _words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.lower()))


def main(names: Sequence[str]) -> None:
    """Print the baselines of the task sets named, or of all."""
    print(f"{'task set':<14}{'guess':<18}{'mean':>7}{'tasks':>7}  worst kind")
    for name in names or task_set_names():
        train = list(load_task_set(name, split="train"))
        for b in measure_baselines(name, train, load_task_set(name, split="test")):
            print(
                f"{b.task_set:<14}{b.guess:<18}{b.mean_score:>7.3f}{b.tasks:>7}  "
                f"{b.worst_kind} {b.worst_kind_score:.2f}"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
