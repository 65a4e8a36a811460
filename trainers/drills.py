r"""Drills: what teaches a model without any training to copy a name and to look up a value.

An episode asks for two or three values; a drill of the same length asks for many, so that copying,
which appears as a jump, appears several times sooner. The articles are of worlds that no task asks
about. For the cold start of the tiny policy only; larger models can copy.

A drill, messages apart::

    Velmora                      user: two articles as ``browse`` shows them
    mayor: Ostrin …
    Find the mayor of Velmora.
    \boxed{Ostrin}               assistant
    What is the height of Zorvin?
    \boxed{481}
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from reagent_env.task_sets.mini_mix_world import ALIAS, Thing, mini_world
from reagent_env.tool_formats import get_tool_format
from reagent_env.trainers.rendering import Renderer
from reagent_env.trainers.sample import Sample
from reagent_env.trajectory import ToolCall, ToolResult

WORLDS = range(101, 109)
"""Seeds of the worlds that drills are about."""
WORLD_SIZE = 400
_ASKED = 9
_FORMS = ("What is {}?", "Find {}.", "Name {}.", "State {}.")


Drill = Callable[[Renderer, random.Random], Sample]
"""Makes one."""


def drills(
    renderer: Renderer, count: int, seed: int, *, repeats: bool, drill: Drill | None = None
) -> list[Sample]:
    """``count`` drills over a few worlds, or of an environment's own kind.

    Args:
        renderer: Of the policy.
        count: How many.
        seed: Draws them.
        repeats: Half of them are articles to repeat, their lines in another order; the others are
            questions, after two articles or each before its article.
        drill: Makes one in place of all those.
    """
    rng = random.Random(f"drills/{seed}/{repeats}")
    if drill is not None:
        return [drill(renderer, rng) for _ in range(count)]
    worlds = [list(mini_world(WORLD_SIZE, world).things.values()) for world in WORLDS]
    kinds = (_repeated, _after, _repeated, _before) if repeats else (_before, _after)
    return [
        kinds[number % len(kinds)](renderer, rng.choice(worlds), rng) for number in range(count)
    ]


def drill_texts(seed: int = 0, count: int = 400) -> list[str]:
    """Articles of the drills' worlds, for a tokenizer to be trained on."""
    rng = random.Random(f"texts/{seed}")
    worlds = [list(mini_world(WORLD_SIZE, world).things.values()) for world in WORLDS]
    return [_page(rng.choice(rng.choice(worlds))) for _ in range(count)]


def _repeated(renderer: Renderer, things: Sequence[Thing], rng: random.Random) -> Sample:
    """Three articles, then the same in another order: what stands after a label stands there again."""
    chosen = rng.sample(list(things), 3)
    pages = "\n".join(_page(thing) for thing in chosen)
    sample = Sample()
    sample.read(renderer.opening_ids([{"role": "user", "content": pages}]))
    rng.shuffle(chosen)
    again = []
    for thing in chosen:
        lines = thing.article.splitlines()
        rng.shuffle(lines)
        again.append("\n".join([thing.name, *lines]))
    _write(sample, renderer.completion_ids("\n\n".join(again)), 0)
    return sample


def _after(renderer: Renderer, things: Sequence[Thing], rng: random.Random) -> Sample:
    """Two articles, then questions about both."""
    chosen = rng.sample(list(things), 2)
    pages = "\n".join(_page(thing) for thing in chosen)
    sample = Sample()
    for turn in range(_ASKED):
        thing = rng.choice(chosen)
        question, completion = _asked(thing, rng)
        if turn == 0:
            content = f"{pages}\n{question}"
            sample.read(renderer.opening_ids([{"role": "user", "content": content}]))
        else:
            sample.read(renderer.reply_ids(question, closed=True))
        _write(sample, renderer.completion_ids(completion), turn)
    return sample


def _before(renderer: Renderer, things: Sequence[Thing], rng: random.Random) -> Sample:
    """Questions, each with its article to be opened and read first."""
    sample = Sample()
    turn = 0
    for number in range(3):
        thing = rng.choice(list(things))
        question, completion = _asked(thing, rng)
        if number == 0:
            sample.read(renderer.opening_ids([{"role": "user", "content": question}]))
        else:
            sample.read(renderer.reply_ids(question, closed=True))
        _write(sample, renderer.completion_ids(_browse(thing.name)), turn)
        sample.read(renderer.reply_ids(_page(thing), closed=True))
        _write(sample, renderer.completion_ids(completion), turn + 1)
        turn += 2
    return sample


def _asked(thing: Thing, rng: random.Random) -> tuple[str, str]:
    """A question about a thing, and what to write: a value, the link's page, or a computation."""
    form = get_tool_format("compact")
    facts = {**thing.links, **thing.numbers, ALIAS: thing.alias}
    label = rng.choice([name for name in facts if name != ALIAS])
    value = str(facts[label])
    question = rng.choice(_FORMS).format(f"the {label} of {thing.name}")
    if label in thing.links and rng.random() < 0.4:
        return f"Open the {label} of {thing.name}.", _browse(value)
    if label in thing.numbers and rng.random() < 0.4:
        factor = rng.randrange(12, 99)
        code = form.render_calls([ToolCall("python", {"code": f"{value} * {factor}"})])
        return f"Compute the {label} of {thing.name} times {factor}.", code
    return question, form.render_answer(value)


def _browse(url: str) -> str:
    return get_tool_format("compact").render_calls([ToolCall("browse", {"url": url})])


def _page(thing: Thing) -> str:
    """A thing's article as ``browse`` shows it."""
    text = f"{thing.name}\nurl: {thing.name}\n\n{thing.article}"
    return get_tool_format("compact").render_results([ToolResult("browse", text)])


def _write(sample: Sample, ids: list[int], turn: int) -> None:
    sample.write(ids, [0.0] * len(ids), turn, 0)
