"""Flaws of one turn that should not have been: a call too many, or made wrongly; then it goes on."""

from __future__ import annotations

import itertools
import random
import re

from reagent_env.agents.judge_data.flaws import FlawKind, Plant
from reagent_env.agents.judge_data.playing import (
    CleanRun,
    Policy,
    first_query,
    hits,
    numbers,
    page_title,
    resume,
    solve_on,
    stands_in,
    title_of,
)
from reagent_env.agents.judge_data.voice import BREAKS, Call, Move


def inserted(run: CleanRun, at: int, move: Move) -> Plant:
    """``move`` before the clean run's turn ``at``, which then follows as if nothing had been."""

    def policy() -> Policy:
        yield move
        yield from resume(run, at)

    return Plant(at, policy(), shift=1)


def _repeated_call(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    turn = rng.choice(list(run.call_turns()))
    at = rng.randint(turn + 1, run.length - 1)
    return inserted(run, at, Move(calls=run.steps[turn].move.calls))


def _needless_call(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    """All is known; it looks for something about the matter that nobody asked."""
    seen = run.seen(run.length - 1)
    calls: list[Call] = []
    found = hits(seen)
    if "search" in run.tools and found:
        aside = _aside(run, other, rng)
        if aside is not None:
            calls.append(("search", {"queries": [f"{found[0][0]} {aside}"], "top_k": 3}))
            calls.append(("browse", {"url": found[0][1], "query": aside}))
    if "browse" in run.tools and not calls:  # a page that another one names
        opened = {
            page_title(str(a["url"])) for s in run.steps for n, a in s.move.calls if n == "browse"
        }
        named = re.findall(r"^(?!known as|url)[a-z ]+: ([A-Z][A-Za-z]+)$", seen, re.MULTILINE)
        unopened = [name for name in named if name not in opened and name != run.answer]
        calls += [("browse", {"url": rng.choice(unopened)})] if unopened else []
    listed = re.findall(r"^(\S+) \(\d+ bytes\)", seen, re.MULTILINE)
    asked = run.task.question.split("\n")[0]
    unasked = [n for n in listed if n.rsplit(".", 1)[0] not in asked and "readme" not in n]
    if "file_reader" in run.tools and unasked:
        calls.append(("file_reader", {"path": rng.choice(unasked)}))
    if "python" in run.tools and "search" not in run.tools:
        known = run.answer.replace(",", "")
        code = rng.choice(["print(len({0!r}))", "print({0!r}[::-1])", "print(sorted({0!r}))"])
        calls.append(("python", {"code": code.format(known)}))
    return inserted(run, run.length - 1, Move(calls=(rng.choice(calls),))) if calls else None


def _aside(run: CleanRun, other: CleanRun, rng: random.Random) -> str | None:
    """What the other question wanted to know of its things, if this one didn't want that too."""
    mine = {first_query(call) for step in run.steps for call in step.move.calls}
    tails = []
    for step in other.steps:
        for call in step.move.calls:
            query = first_query(call)
            title = title_of(query, other.seen(other.length))
            tail = query[len(title) :].strip() if title else ""
            if tail and not any(one.endswith(tail) for one in mine):
                tails.append(tail)
    return rng.choice(tails) if tails else None


_IDLE = (
    "import sys\nprint(sys.version_info[:2])",
    "from datetime import date\nprint(date(2000, 1, 1).strftime('%A'))",
    "print([n for n in range(2, 60) if all(n % d for d in range(2, n))])",
    "import math\nprint(math.pi)",
    "print(sum(range(100)))",
)


def _purposeless_lookup(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    """A call that serves another question."""
    at = rng.randint(0, run.length - 1)
    calls = [step.move.calls[0] for step in other.steps[:-1] if step.move.calls]
    fit = [call for call in calls if call[0] == "search" or "file_reader" not in run.tools]
    strange = hits(other.seen(other.length)) if "browse" in run.tools else []
    if strange and rng.random() < 0.5:
        title, url, _ = rng.choice(strange)
        fit = [("browse", {"url": url, "query": title})]
    call = rng.choice(fit) if fit else ("python", {"code": rng.choice(_IDLE)})
    if any(call in step.move.calls for step in run.steps):
        return None
    return inserted(run, at, Move(calls=(call,)))


def _wrong_tool(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    """What the next call should do, asked of a tool that cannot."""
    at = rng.choice(list(run.call_turns()))
    name, arguments = run.steps[at].move.calls[0]
    calls: list[Call] = []
    if name == "python":
        last = str(arguments["code"]).strip().splitlines()[-1]
        if "search" in run.tools:
            calls.append(("search", {"queries": [last], "top_k": 3}))
        elif "file_reader" in run.tools:
            calls.append(("file_reader", {"path": run.task.question.split("\n")[0]}))
        else:
            wanted = " ".join(run.task.question.split()[:20])
            calls.append((rng.choice(["search", "calculator", "browse"]), {"query": wanted}))
    elif name == "search":
        query = first_query((name, arguments))
        calls.append(("browse", {"url": query}))
        if "python" in run.tools:
            page = query.split()[0]
            calls.append(("python", {"code": f"print(open({page + '.txt'!r}).read())"}))
    elif name == "browse" and "python" in run.tools:
        calls.append(("python", {"code": f"print(open({arguments['url']!r}).read())"}))
    elif name == "file_reader" and "python" in run.tools:
        calls.append(("python", {"code": "print(file_reader('.'))"}))
    return inserted(run, at, Move(calls=(rng.choice(calls),))) if calls else None


def _malformed_call(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    at = rng.choice(list(run.call_turns()))
    calls = run.steps[at].move.calls[:1]
    return inserted(run, at, Move(calls=calls, breaks=rng.choice(BREAKS)))


def _hallucinated_argument(run: CleanRun, other: CleanRun, rng: random.Random) -> Plant | None:
    """A page, a file or a number that neither the question nor a tool has named."""
    if "browse" in run.tools:
        known = run.task.question + run.seen(run.length)
        strange = other.seen(other.length)
        words = [w for title, _, _ in hits(strange) for w in title.split()]
        if len(words) < 2:
            words = re.findall(r"\b[A-Z][a-z]{3,}\b", strange)
        rng.shuffle(words)
        for first, second in itertools.pairwise(words):
            if not stands_in(first, known) and first != second:
                at = rng.randint(0, run.length - 1)
                choices: list[Call] = [
                    ("browse", {"url": f"wiki://{first}_{second}"}),
                    ("search", {"queries": [f"{first} {second}"], "top_k": 3}),
                ]
                return inserted(run, at, Move(calls=(rng.choice(choices),)))
        return None
    if "file_reader" in run.tools:
        names = re.findall(r"(\w+)\.(\w+)", run.task.question.partition("\nFiles: ")[2])
        if not names:
            return None
        stem, ending = rng.choice(names)
        invented = f"{stem}_{rng.choice(['final', 'summary', 'old', 'totals'])}.{ending}"
        at = rng.randint(1, run.length - 1)
        return inserted(run, at, Move(calls=(("file_reader", {"path": invented}),)))
    return _invented_number(run, rng)


def _invented_number(run: CleanRun, rng: random.Random) -> Plant | None:
    step = run.steps[0]
    name, arguments = step.move.calls[0]
    code = str(arguments["code"])
    head = code.split("\n")[0]
    given = [one for one in numbers(head) if one.isdigit() and len(one) > 1]
    if name != "python" or not given:
        return None
    old = rng.choice(given)
    new = perturbed(old, rng)
    if stands_in(new, run.task.question):
        return None
    changed = code.replace(head, re.sub(rf"(?<!\d){old}(?!\d)", new, head, count=1), 1)
    if changed == code:
        return None

    def policy() -> Policy:
        results = yield Move(calls=(("python", {"code": changed}),))
        yield from solve_on(run, 0, results)

    return Plant(0, policy())


def perturbed(number: str, rng: random.Random) -> str:
    """A number of the same length with one or two digits changed."""
    digits = [i for i, char in enumerate(number) if char.isdigit()]
    chars = list(number)
    for place in rng.sample(digits, min(len(digits), 1 if len(digits) < 3 else 2)):
        low = "123456789" if place == digits[0] and len(digits) > 1 else "0123456789"
        chars[place] = rng.choice([d for d in low if d != chars[place]])
    return "".join(chars)


def _kind(name: str, target: float, critique: str) -> FlawKind:
    return FlawKind(name, target, critique, globals()[f"_{name}"])


KINDS = (
    _kind(
        "repeated_call",
        0.7,
        "The {turn} turn makes a call again that was already answered. Use the earlier result.",
    ),
    _kind(
        "needless_call",
        0.7,
        "By the {turn} turn everything needed was known; the call there asks something nobody "
        "asked for. Stop once the question is settled.",
    ),
    _kind(
        "purposeless_lookup",
        0.6,
        "The call of the {turn} turn has nothing to do with the question. Before each call, say "
        "what it is to bring.",
    ),
    _kind(
        "wrong_tool",
        0.5,
        "The {turn} turn asks a tool for what it cannot do. Read the tools' descriptions and "
        "choose by them.",
    ),
    _kind(
        "malformed_call",
        0.7,
        "The call of the {turn} turn is not written in the form that was asked for, so it was not "
        "run. Check the form before sending it.",
    ),
    _kind(
        "hallucinated_argument",
        0.4,
        "The {turn} turn uses a name or number that neither the question nor any result gives. "
        "Take arguments from what you have seen.",
    ),
)
