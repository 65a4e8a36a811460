"""Views in which one line is not as it should be, whatever that may be: for flaws that have no name.

A judge that is shown named flaws alone takes every other view for sound. So it also meets views of
sound attempts with a line that was damaged blindly: words of it replaced, put in or taken out, the
whole line exchanged, put in or left out. What it meets there it learns to call odd. Nothing here
knows what a flaw is: words and lines are drawn from those of all views, and some words are made of
random letters. The idea is outlier exposure (Hendrycks, Mazeika and Dietterich, arXiv 1812.04606).

For the short view of ``reward_models/marks.py``: a line about the question, one a turn, one about
the end.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence

from reagent_env.agents.judge_data.records import CLEAN
from reagent_env.agents.judge_eval.naming import SOUND
from reagent_env.reward_models.marks import MOST_TURNS
from reagent_env.reward_models.parse import render_judgement
from reagent_env.trainers.judge.examples import JudgeExample

ODD = "odd"
"""The kind that these views are called by; no planter makes it."""
SOUND_TARGET = 0.95
"""φ before the odd turn, that of a sound attempt."""
ODD_TARGET = 0.5
"""φ from the odd turn on: something is wrong, and nobody knows how much."""
_CRITIQUE = "Turn {} does not fit what was asked, done and found around it. Go through it again."
_WAYS = ("words", "words", "exchanged", "added", "left out")
_MADE_UP = 0.2


def with_odd(examples: Sequence[JudgeExample], share: float, seed: int = 0) -> list[JudgeExample]:
    """``examples`` and ``share`` times as many odd ones, shuffled; alone if the share is 0.

    Example: ``with_odd(examples, 0.25)`` of 1,000 examples gives 1,250.
    """
    count = int(share * len(examples))
    together = [*examples, *odd_examples(examples, count, seed)]
    if count:
        random.Random(f"odd order {seed}").shuffle(together)
    return together


def odd_examples(examples: Sequence[JudgeExample], count: int, seed: int = 0) -> list[JudgeExample]:
    """``count`` views of sound ones among ``examples``, each with one turn damaged.

    Raises:
        ValueError: some are wanted, but none of ``examples`` is sound.
    """
    rng = random.Random(f"odd {seed}")
    sound = [one for one in examples if one.kind == CLEAN]
    if count and not sound:
        raise ValueError("There is no sound example to make odd ones of.")
    lines = [line for one in examples for line in _turns(one)]
    words = [word for line in lines for word in line.split()]
    found: list[JudgeExample] = []
    while len(found) < count:
        view = rng.choice(sound)
        turns = _turns(view)
        place = _damage(turns, rng, lines, words)
        if turns != _turns(view):
            found.append(_example(view, turns, min(place, len(turns) - 1)))
    return found


def _turns(example: JudgeExample) -> list[str]:
    """A line a turn, without its number."""
    rows = example.messages[-1]["content"].split("\n")[1:-1]
    return [row.partition(" ")[2] for row in rows]


def _damage(
    turns: list[str], rng: random.Random, lines: Sequence[str], words: Sequence[str]
) -> int:
    """Change one of ``turns``; returns which."""
    place = rng.randrange(len(turns))
    way = rng.choice(_WAYS)
    if way == "exchanged":
        turns[place] = rng.choice(lines)
    elif way == "added" and len(turns) < MOST_TURNS:
        turns.insert(place, rng.choice(lines))
    elif way == "left out" and 2 < len(turns) != place + 1:  # the last one is the answer
        del turns[place]
    else:
        turns[place] = _reworded(turns[place].split(), rng, words)
    return place


def _reworded(line: list[str], rng: random.Random, words: Sequence[str]) -> str:
    """The line with one to three words replaced, put in or taken out."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(line))
        way = rng.random()
        word = rng.choice(words)
        if rng.random() < _MADE_UP:
            word = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 7)))
        if way < 0.4:
            line[at] = word
        elif way < 0.7:
            line.insert(at, word)
        elif len(line) > 1:
            del line[at]
    return " ".join(line)


def _example(view: JudgeExample, turns: Sequence[str], place: int) -> JudgeExample:
    message = view.messages[-1]
    rows = message["content"].split("\n")
    shown = [rows[0], *(f"{number} {line}" for number, line in enumerate(turns, 1)), rows[-1]]
    verdicts = [SOUND] * len(turns)
    verdicts[place] = ODD
    levels = [SOUND_TARGET] * place + [ODD_TARGET] * (len(turns) - place)
    judgement = render_judgement(
        ", ".join(f"{number} {verdict}" for number, verdict in enumerate(verdicts, 1)),
        _CRITIQUE.format(place + 1),
        levels[-1],
        levels,
    )
    changed = {**message, "content": "\n".join(shown)}
    return JudgeExample([*view.messages[:-1], changed], judgement, ODD)
