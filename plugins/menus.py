"""Menus: the completions that a policy may choose from at a step, proposed from what it has read.

A menu is a function from a :class:`MenuView` to choices, one a slot; None leaves a slot empty, and
that action is masked. It sees question, observations and its own completions, never the answer.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reagent_env.plugins.text_features import overlap, word_set
from reagent_env.tool_formats import ToolFormat
from reagent_env.trajectory import ToolCall


@dataclass(frozen=True, slots=True)
class Choice:
    """One entry, e.g. ``Choice('<tool_call>…</tool_call>', "search River Nanjorn")``."""

    completion: str
    """What the environment's ``step`` gets."""
    label: str = ""
    """What a featuriser compares with the question; the completion itself where empty."""

    @property
    def words(self) -> frozenset[str]:
        """The words of the label."""
        return word_set(self.label or self.completion)


@dataclass(frozen=True, slots=True)
class MenuView:
    """What a menu may look at: everything the policy has read and written, nothing else."""

    question: str
    """The task's question."""
    observation: str
    """What was read last; the prompt at the start."""
    results: tuple[str, ...]
    """The last turn's tool results, unframed; empty at the start."""
    read: tuple[str, ...]
    """All tool results of this attempt, the last first."""
    chosen: tuple[str, ...]
    """The completions of this attempt so far."""
    tools: tuple[Mapping[str, Any], ...]
    """Schemas of the environment's tools, in OpenAI's shape."""
    tool_format: ToolFormat
    """How calls and answers are written."""
    turns_left: int | None
    """Turns before the limit, where the environment says so."""
    info: Mapping[str, Any]
    """What the environment's last ``reset`` or ``step`` said."""
    made: dict[Any, Choice] = field(default_factory=dict, repr=False, compare=False)
    """Calls that menus of this episode made before: most stand in the next menu again."""

    def call(self, name: str, arguments: Mapping[str, Any], label: str = "") -> Choice:
        """A choice that makes one call."""
        if any(type(value) is not str for value in arguments.values()):  # 1 and True are one key
            return self._call(name, arguments, label)
        key = (name, label, *arguments.items())
        if key not in self.made:
            self.made[key] = self._call(name, arguments, label)
        return self.made[key]

    def _call(self, name: str, arguments: Mapping[str, Any], label: str) -> Choice:
        shown = label or f"{name} {' '.join(map(str, arguments.values()))}"
        return Choice(self.tool_format.render_calls([ToolCall(name, arguments)]), shown)

    def answer(self, text: str, label: str = "") -> Choice:
        """A choice that ends the attempt with an answer."""
        return Choice(self.tool_format.render_answer(text), label or f"answer {text}")


Menu = Callable[[MenuView], Sequence[Choice | str | None]]

_NAME = re.compile(r"“[^”]+”|\"[^\"]+\"|[A-Z][\w'-]*(?: (?:of |the )?[A-Z][\w'-]*)*")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
_DATE = re.compile(r"\d{1,2} [A-Z][a-z]+ \d{4}|[A-Z][a-z]+ \d{1,2}, \d{4}|\d{4}-\d{2}-\d{2}")
_URL = re.compile(r"\b[a-z]+://[^\s\"<>]+")
_SENTENCE = re.compile(r"(?<=[.!?;:])\s+|\n+")
_ASKING = {"a", "an", "at", "compute", "find", "give", "how", "in", "is", "name", "on", "state"}
_ASKING |= {"tell", "the", "what", "when", "where", "which", "who"}
"""First words of questions: capitalised, and no names."""


@functools.lru_cache(maxsize=4_096)  # a menu is made anew at every step, from the same texts
def names_in(text: str) -> tuple[str, ...]:
    """Capitalised names and quoted titles of a text, each once, in order; not a question's first word."""
    found = (name.strip("“”\"'") for name in _NAME.findall(text))
    return tuple(dict.fromkeys(n for n in found if n and n.lower() not in _ASKING))


@functools.lru_cache(maxsize=4_096)
def numbers_in(text: str) -> tuple[str, ...]:
    """Numbers of a text as written, each once, in order."""
    return tuple(dict.fromkeys(_NUMBER.findall(text)))


@functools.lru_cache(maxsize=4_096)
def _addresses_in(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_URL.findall(text)))


@functools.lru_cache(maxsize=4_096)
def _sentences(text: str) -> tuple[tuple[str, frozenset[str], tuple[str, ...]], ...]:
    """Sentences with their words, and the dates, names and numbers in them."""
    found = []
    for sentence in _SENTENCE.split(text)[:200]:
        rest = _DATE.sub(" ", _URL.sub(" ", sentence))
        spans = (*_DATE.findall(sentence), *names_in(rest), *numbers_in(rest))
        if spans:
            found.append((sentence, word_set(sentence), spans))
    return tuple(found)


def _once(texts: Sequence[str], find: Callable[[str], tuple[str, ...]]) -> list[str]:
    return list(dict.fromkeys(found for text in texts for found in find(text)))


# Whatever the tools are ---------------------------------------------------------------------------


PER_TOOL, ANSWERS, CLOSED = 6, 8, 32
"""Slots: of a tool whose arguments are read from texts; of answers; the most of a tool whose calls are
all known beforehand."""


def proposed_calls(view: MenuView) -> list[Choice | None]:
    """A menu for any environment: calls its schemas allow on what was read, then answers from it.

    Slots are regions that keep their meaning, tool by tool, then eight answers. A tool that takes no
    argument, or only such as have few values (``enum``, booleans), has a slot for each of its calls, at
    each step. Any other has six, of names, numbers or addresses that stand in the question or in
    what was read, calls not made yet first. Optional arguments are left out. An environment that
    lists its own actions (``info["available_actions"]``) is taken at its word.
    """
    listed = view.info.get("available_actions")
    if isinstance(listed, Sequence) and not isinstance(listed, str):
        return _listed(view, listed)
    texts = [*view.read[:6], view.question]
    slots: list[Choice | None] = []
    for tool in view.tools:
        width = _width(tool["function"])
        calls = _calls(view, tool["function"], texts)
        if _closed(tool["function"]["parameters"]):
            offered = list(itertools.islice(calls, width))
        else:
            offered = _new_first(calls, frozenset(view.chosen), width)
        slots += [*offered, *[None] * (width - len(offered))]
    return slots + answer_candidates(view, view.results, ANSWERS)


def _new_first(calls: Iterable[Choice], chosen: frozenset[str], width: int) -> list[Choice]:
    """``width`` calls, those not made yet first."""
    new: list[Choice] = []
    made: list[Choice] = []
    for call in calls:
        (made if call.completion in chosen else new).append(call)
        if len(new) == width:
            break
    return [*new, *made][:width]


def proposed_size(tools: Sequence[Mapping[str, Any]]) -> int:
    """How many slots :func:`proposed_calls` fills for an environment of these schemas."""
    return sum(_width(tool["function"]) for tool in tools) + ANSWERS


def _width(function: Mapping[str, Any]) -> int:
    """Slots of a tool."""
    schema = function["parameters"]
    if not _closed(schema):
        return PER_TOOL
    properties, shapes = schema.get("properties", {}), schema.get("$defs", {})
    wanted = schema.get("required", ())
    counts = [len(_values(name, properties[name], (), shapes)) for name in wanted]
    return min(math.prod(counts), CLOSED)


def _closed(schema: Mapping[str, Any]) -> bool:
    """Whether every call of a tool can be listed from its schema alone."""
    properties, shapes = schema.get("properties", {}), schema.get("$defs", {})
    return all(_few(properties[name], shapes) for name in schema.get("required", ()))


def _few(schema: Mapping[str, Any], shapes: Mapping[str, Any]) -> bool:
    schema = _resolved(schema, shapes)
    parts = schema.get("anyOf") or schema.get("oneOf")
    if parts:
        return all(_few(part, shapes) for part in parts)
    return "enum" in schema or "const" in schema or schema.get("type") in ("boolean", "null")


def _resolved(schema: Mapping[str, Any], shapes: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a ``$ref`` into the tool's own shapes stands for."""
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    found: Mapping[str, Any] = shapes.get(name, schema)
    return found


def _listed(view: MenuView, listed: Sequence[Any]) -> list[Choice | None]:
    """The environment's own actions: calls of its only tool, or texts as they are."""
    tools = [tool["function"] for tool in view.tools]
    slots: list[Choice | None] = []
    for action in listed:
        if isinstance(action, Mapping) and "name" in action:
            slots.append(view.call(str(action["name"]), action.get("arguments", {})))
        elif len(tools) == 1 and len(tools[0]["parameters"].get("properties", {})) == 1:
            [parameter] = tools[0]["parameters"]["properties"]
            slots.append(view.call(tools[0]["name"], {parameter: action}, str(action)))
        else:
            slots.append(Choice(str(action), str(action)))
    return slots


def _calls(view: MenuView, function: Mapping[str, Any], texts: Sequence[str]) -> Any:
    schema = function["parameters"]
    wanted, shapes = schema.get("required", []), schema.get("$defs", {})
    if "code" in wanted:
        return  # a program is nothing to be picked from a text
    pools = [_values(name, schema["properties"][name], texts, shapes) for name in wanted]
    for values in _together(pools):
        yield view.call(function["name"], dict(zip(wanted, values, strict=True)))


def _together(pools: Sequence[Sequence[Any]]) -> Any:
    """Combinations, those of neighbours that differ first: the two numbers of a sum, say."""
    every = itertools.product(*pools)
    first = list(itertools.islice(every, 64))
    if len(pools) < 2:
        return first
    return sorted(first, key=lambda values: len(set(map(repr, values))) < len(values))


def _values(
    name: str,
    schema: Mapping[str, Any],
    texts: Sequence[str],
    shapes: Mapping[str, Any],
    depth: int = 0,
) -> list[Any]:
    """Values of a parameter: those that its schema lists, or that stand in what was read."""
    schema = _resolved(schema, shapes)
    parts = schema.get("anyOf") or schema.get("oneOf")
    if depth > 4:
        return []  # a shape that holds itself
    if parts:
        return [value for part in parts for value in _values(name, part, texts, shapes, depth + 1)]
    if "enum" in schema:
        return list(schema["enum"])
    if "const" in schema:
        return [schema["const"]]
    kind = schema.get("type")
    if kind == "null":
        return [None]
    if kind == "boolean":
        return [True, False]
    if kind in ("integer", "number"):
        numbers = _once(texts, numbers_in)
        plain = [number.replace(",", "") for number in numbers if "/" not in number]
        if kind == "integer":
            return [int(number) for number in plain if "." not in number][:8]
        return [float(number) for number in plain][:8]
    if kind == "array":
        return [
            [value] for value in _values(name, schema.get("items", {}), texts, shapes, depth + 1)
        ]
    if kind == "object":
        inside, wanted = schema.get("properties", {}), schema.get("required", [])
        pools = [_values(one, inside[one], texts, shapes, depth + 1) for one in wanted]
        return [dict(zip(wanted, values, strict=True)) for values in _together(pools)[:8]]
    if kind == "string":
        addresses = _once(texts, _addresses_in)
        if "url" in name:
            return addresses[:6]
        return [*_once(texts, names_in), *addresses, *_once(texts, numbers_in)][:8]
    return []


# Answers from what was read -----------------------------------------------------------------------


def answer_candidates(view: MenuView, texts: Sequence[str], count: int) -> list[Choice | None]:
    """``count`` slots of answers: names, dates and numbers that stand in ``texts``, best match first.

    A candidate is ranked by the words that its sentence shares with the question.
    """
    asked = word_set(view.question)
    in_question = view.question.casefold()
    ranked: dict[str, tuple[float, str]] = {}
    for text in texts:
        for sentence, said, spans in _sentences(text):
            match = overlap(asked, said)
            for found in spans:
                if found.casefold() in in_question or (len(found) < 2 and not found.isdigit()):
                    continue
                if match > ranked.get(found, (-1.0, ""))[0]:
                    ranked[found] = (match, sentence)
    best = sorted(ranked.items(), key=lambda item: -item[1][0])[:count]
    slots: list[Choice | None] = [view.answer(text, sentence) for text, (_, sentence) in best]
    return slots + [None] * (count - len(slots))


# Environments that come with the package ----------------------------------------------------------

_LISTING = re.compile(r"^(Results for .*|\[\d+\] .*|\s*url: .*)$", re.MULTILINE)
_PAGE = re.compile(r"^\[\d+\] (.+)\n\s+url: (\S+)", re.MULTILINE)


def search_menu(view: MenuView) -> list[Choice | None]:
    """SearchQA: two searches for names of the question, four pages of the last results, ten answers."""
    names = sorted(names_in(view.question), key=len, reverse=True)[:2]
    slots: list[Choice | None] = [
        view.call("search", {"queries": [name], "top_k": 4}, f"search {name}") for name in names
    ]
    slots += [None] * (2 - len(slots))
    pages = [found for text in view.results for found in _PAGE.findall(text)][:4]
    opened: list[Choice | None] = [
        view.call("browse", {"url": url}, f"open {title}") for title, url in pages
    ]
    slots += opened + [None] * (4 - len(opened))
    prose = [_LISTING.sub("", text) for text in view.results]
    return slots + answer_candidates(view, prose, 10)


_PROGRAMS: Mapping[str, str] = {
    "greatest common divisor": "import math\nprint(math.gcd(*values))",
    "least common multiple": "import math\nprint(math.lcm(*values))",
    "product": "import math\nprint(math.prod(values))",
    "sum": "print(sum(values))",
    "set bits": "print(bin(values[0]).count('1'))",
    "primes between": (
        "low, high = sorted(values)[:2]\n"
        "print(sum(n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))"
        " for n in range(low, high + 1)))"
    ),
    "prime factors": (
        "n, d, found = values[0], 2, []\n"
        "while d * d <= n:\n"
        "    while n % d == 0:\n"
        "        found.append(d)\n"
        "        n //= d\n"
        "    d += 1\n"
        "print(', '.join(map(str, found + [n] * (n > 1))))"
    ),
    "lowest terms": "from fractions import Fraction\nprint(Fraction(values[0], values[1]))",
}
"""What it computes → a program over ``values``, the whole numbers of the question."""


def python_menu(view: MenuView) -> list[Choice | None]:
    """PythonMath: eight short programs over the question's numbers, and their last printed line.

    Kinds whose problems they solve: ``gcd lcm products count_bits count_primes prime_factorization
    fraction_simplification``. Which program a question asks for is what there is to learn.
    """
    values = [int(n) for n in re.findall(r"\d+", view.question)][:8]
    slots: list[Choice | None] = []
    for label, program in _PROGRAMS.items():
        code = f"values = {json.dumps(values)}\n{program}"
        slots.append(view.call("python", {"code": code}, label) if values else None)
    printed = [text.strip().splitlines()[-1] for text in view.results if text.strip()]
    return [*slots, view.answer(printed[-1], "answer what was printed") if printed else None]


_RECIPE = re.compile(r"^craft (\d+) (.+?) using (.+)$", re.MULTILINE)
_GOAL = re.compile(r"^Goal: craft (.+?)\.?$", re.MULTILINE)


def craft_menu(view: MenuView) -> list[Choice | None]:
    """TextCraft: four recipes, the goal's first and then those of its parts; eight things to fetch."""
    recipes = {item: (count, parts) for count, item, parts in _RECIPE.findall(view.question)}
    goal = _GOAL.search(view.question)
    wanted = [goal.group(1)] if goal else []
    needed: list[str] = []
    for item in wanted:  # grows: the parts of what is wanted are wanted too
        parts = recipes[item][1].split(", ") if item in recipes else []
        needed += [part for part in parts if part not in needed]
        names = (part.partition(" ")[2] for part in parts)
        wanted += [name for name in names if name not in wanted and len(wanted) < 20]
    crafts: list[Choice | None] = []
    crafts += [
        view.call("act", {"command": f"craft {recipes[item][0]} {item} using {recipes[item][1]}"})
        for item in wanted
        if item in recipes
    ][:4]
    gets: list[Choice | None] = [
        view.call("act", {"command": f"get {part}"}) for part in needed[:8]
    ]
    return [*crafts, *[None] * (4 - len(crafts)), *gets]


MENUS: Mapping[str, Menu] = {
    "reagent/SearchQA": search_menu,
    "reagent/HotpotQA": search_menu,
    "reagent/2Wiki": search_menu,
    "reagent/MuSiQue": search_menu,
    "reagent/Bamboogle": search_menu,
    "reagent/PythonMath": python_menu,
    "reagent/TextCraft": craft_menu,
}
"""Environment, without version → its menu; all others get :func:`proposed_calls`."""


def menu_for(env_id: str | None) -> Menu:
    """The menu of an environment's id, or :func:`proposed_calls`."""
    return MENUS.get((env_id or "").rpartition("-v")[0], proposed_calls)
