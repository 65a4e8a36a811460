"""Says how right a final answer is: small functions ``(answer, prediction, **options) -> float``.

Not here: finding the answer in a completion (:mod:`reagent_env.answers`), and judging the process
(reward models). A grader is total over predictions: whatever a policy writes gets a number in
[0, 1]. What a grader cannot do (a broken task, a dead checker) raises :class:`GraderError`, which
is infrastructure: the rollout is masked, never scored 0.

Graders: ``exact``, ``qa``, ``f1``, ``number``, ``math``, ``choice``, ``yes_no``, ``list``, ``set``,
those added with :func:`register_grader` or the entry-point group ``reagent_env.graders``, and, for
tasks made in code, any importable function as ``"module:function"`` (:func:`is_registered`).
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import inspect
import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from reagent_env.errors import GraderError
from reagent_env.math_checking import CheckerFailed, mathematically_equal
from reagent_env.plain_text import plain_text, without_label, without_name
from reagent_env.quantities import Quantity, parse_quantity, same_quantity
from reagent_env.task import Task

Grader = Callable[..., float]

ENTRY_POINT_GROUP = "reagent_env.graders"
MAX_PREDICTION_CHARS = 10_000
"""A longer prediction is no final answer and scores 0 in every grader."""


_GRADERS: dict[str, Grader] = {}


def register_grader(name: str) -> Callable[[Grader], Grader]:
    """Add a grader under a name that tasks can give; a name taken already is refused.

    Example::

        @register_grader("starts_with")
        def starts_with(answer: str, prediction: str) -> float:
            return float(prediction.startswith(answer))
    """

    def add(grader: Grader) -> Grader:
        if _GRADERS.get(name, grader) is not grader:
            raise ValueError(f"A grader named {name!r} exists already; choose another name.")
        _GRADERS[name] = grader
        return grader

    return add


def grader_names() -> list[str]:
    """The names of all graders that can be had, those of entry points included."""
    found = {entry.name for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}
    return sorted(found | set(_GRADERS))


def is_registered(name: str) -> bool:
    """Whether a grader of this name is built in, registered, or an installed package's.

    What comes from outside (a file of tasks) may name these alone: any other ``module:function``
    would be imported and called, so the file could run code here. Code may name anything.
    """
    return name in _GRADERS or any(
        entry.name == name for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    )


def get_grader(name: str) -> Grader:
    """The grader of that name, or the function that ``module:function`` names, imported.

    Ask :func:`is_registered` first about a name that you did not write yourself.

    Raises:
        GraderError: when there is none; the message names the nearest.
    """
    if name in _GRADERS:
        return _GRADERS[name]
    for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        if entry.name == name:
            try:
                return register_grader(name)(entry.load())
            except Exception as error:
                raise GraderError(f"Grader {name!r} ({entry.value}) cannot be loaded.") from error
    if ":" in name:
        return _imported(name)
    near = difflib.get_close_matches(name, grader_names(), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise GraderError(
        f"Unknown grader {name!r}.{hint} Known: {', '.join(grader_names())}; "
        'or give a function as "module:function".'
    )


@functools.lru_cache(maxsize=128)
def _imported(name: str) -> Grader:
    module_name, _, attribute = name.partition(":")
    try:
        grader: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            grader = getattr(grader, part)
    except Exception as error:
        raise GraderError(f"Grader {name!r} cannot be imported: {error}.") from error
    if not callable(grader):
        raise GraderError(f"Grader {name!r} is a {type(grader).__name__}, not a function.")
    return grader  # type: ignore[no-any-return]


def grade(task: Task, final_answer: str | None) -> float:
    """How right a final answer is, in [0, 1]; no answer is 0.

    Example: ``grade(Task(question="2 + 3?", answer="5", grader="number"), "5.0")`` is ``1.0``.
    Options of the grader stand in ``task.metadata["grader_options"]``.

    Raises:
        GraderError: when the grader is unknown, fails, or returns no number in [0, 1].
    """
    grader = get_grader(task.grader)
    if final_answer is None:
        return 0.0
    if not isinstance(final_answer, str):
        raise TypeError(f"A final answer is text or None, got {type(final_answer).__name__}.")
    if len(final_answer) > MAX_PREDICTION_CHARS or not final_answer.strip():
        return 0.0
    options = task.metadata.get("grader_options") or {}
    if not isinstance(options, Mapping):
        raise GraderError(
            f'metadata["grader_options"] must be a mapping, got {type(options).__name__}.'
        )
    try:
        score = grader(task.answer, final_answer, **options)
    except GraderError:
        raise
    except Exception as error:
        raise GraderError(
            f"Grader {task.grader!r} failed on task {task.id}: {type(error).__name__}: {error}"
        ) from error
    if (
        isinstance(score, complex)
        or not isinstance(score, int | float)
        or not (math.isfinite(score) and 0 <= score <= 1)
    ):
        raise GraderError(f"Grader {task.grader!r} returned {score!r}; a number in [0, 1] is due.")
    return float(score)


def problem_with(task: Task, *, allow_import: bool = False) -> str | None:
    """What keeps this task from ever being graded right, in a sentence, or None.

    For whoever loads tasks: an unknown grader, unknown options, an answer that the grader cannot
    take or does not accept from an agent. Total, and it neither imports nor calls what the task
    names, unless ``allow_import``; ``math`` reads its answer only when it grades.

    Example: a task with answer ``"Paris"`` and grader ``number`` gives ``"Grader 'number' needs a
    number as answer, got 'Paris'."``.
    """
    if not isinstance(task.grader, str) or not (allow_import or is_registered(task.grader)):
        return (
            f"Unknown grader {task.grader!r}; known: {', '.join(grader_names())}. Functions of "
            "your own must be registered before tasks from a file can name them."
        )
    options = task.metadata.get("grader_options") or {}
    if not isinstance(options, Mapping):
        return f'metadata["grader_options"] must be a mapping, got {type(options).__name__}.'
    try:
        grader = get_grader(task.grader)
        signature = inspect.signature(grader)
    except GraderError as error:
        return str(error)
    except (TypeError, ValueError):  # some functions written in C do not tell
        return None
    try:
        signature.bind(task.answer, "", **options)
    except TypeError as error:
        taken = ", ".join(list(signature.parameters)[2:]) or "none"
        return f"Grader {task.grader!r}: {error}; its options: {taken}."
    if task.grader not in _BUILT_IN:
        return None
    try:
        own = _own_text(task.answer, task.grader)
        if task.grader == "math":
            if any(not plain_text(gold) for gold in _aliases(task.answer)):
                return "Grader 'math' needs an answer with something in it."
        elif grade(task, own) != 1.0:
            return f"Grader {task.grader!r} does not accept the task's own answer {own[:80]!r}."
    except GraderError as error:
        return str(error)
    return None


def _own_text(answer: Any, grader: str) -> str:
    if answer is None or isinstance(answer, Mapping):
        raise GraderError(f"The answer must be a text, a number or a list of them, got {answer!r}.")
    if answer is True or answer is False:
        return "yes" if answer else "no"
    if isinstance(answer, list | tuple):
        return (
            str(answer[0])
            if answer and grader not in ("list", "set")
            else ", ".join(map(str, answer))
        )
    return str(answer)


# --- text ---------------------------------------------------------------------------------------

_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_BASE = re.compile(r"(?<=[0-9A-Za-z)])_(?:\{\s*([0-9]+)\s*\}|(?<=[0-9]_)([0-9]+))")
_BETWEEN_DIGITS = re.compile(r"(?<=[0-9])[^\w\s./](?=[0-9])|(?<=[0-9])\.(?=[0-9]+\.)")
_PUNCTUATION = re.compile(f"[{re.escape(string.punctuation)}]")
_KEPT_MARK = re.compile(r"(?<=[0-9])[./](?=[0-9])|(?<![\w.])[-.](?=[.]?[0-9])")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalised(text: str) -> str:
    """SQuAD's normal form: lower case, no punctuation, no articles, single spaces.

    Unlike SQuAD's, numbers stay apart: ``3.14`` is not ``314``, ``12,13`` not ``1213``,
    ``10-20`` not ``1020``, ``-5`` not ``5``; ``1,200`` is ``1200``.
    """
    lowered = plain_text(text).lower()
    lowered = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), lowered)
    lowered = _BASE.sub(lambda found: f" {found[1] or found[2]}", lowered)
    lowered = _BETWEEN_DIGITS.sub(" ", lowered)
    kept = {found.start() for found in _KEPT_MARK.finditer(lowered)}
    bare = "".join(
        char
        for place, char in enumerate(lowered)
        if place in kept or not _PUNCTUATION.fullmatch(char)
    )
    return " ".join(_ARTICLES.sub(" ", bare).split())


def _aliases(answer: Any) -> list[str]:
    values = answer if isinstance(answer, list | tuple) else [answer]
    if not values or any(isinstance(value, dict | list | tuple) for value in values):
        raise GraderError(f"The answer must be a text or a list of aliases, got {answer!r}.")
    return [str(value) for value in values]


def _equal_texts(gold: str, prediction: str) -> bool:
    wanted = normalised(gold)
    if not wanted:  # all articles or punctuation, such as "A" or "+": nothing may be dropped
        return plain_text(gold).casefold() == plain_text(prediction).casefold()
    return wanted == normalised(prediction)


_VARIABLE = re.compile(r"^[A-Za-z]\s*=\s*(?=[^=]*$)")


@register_grader("exact")
def exact(answer: Any, prediction: str, aliases: Sequence[str] = ()) -> float:
    """1 when the prediction equals the answer, or one of its aliases, in SQuAD's normal form.

    A label in front ("answer =", "x =") is left out; another name stays ("London = Paris").

    Args:
        answer: the answer, or a list of forms of it.
        prediction: what the agent answered.
        aliases: further forms, for a task whose answer is to stay one text.
    """
    if isinstance(aliases, str):
        raise GraderError(f"aliases must be a list of texts, got {aliases!r}.")
    bare = without_label(plain_text(prediction))
    unnamed = _VARIABLE.sub("", bare)
    return float(
        any(
            _equal_texts(gold, prediction) or _equal_texts(gold, unnamed if len(gold) > 1 else bare)
            for gold in [*_aliases(answer), *_aliases(list(aliases) or answer)]
        )
    )


def token_overlap(gold: str, prediction: str) -> tuple[float, float]:
    """Precision and recall of the prediction's tokens against the answer's, SQuAD normalised."""
    wanted, given = normalised(gold).split(), normalised(prediction).split()
    shared = sum((Counter(wanted) & Counter(given)).values())
    return (shared / len(given), shared / len(wanted)) if shared else (0.0, 0.0)


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@register_grader("f1")
def f1(answer: Any, prediction: str) -> float:
    """SQuAD's token F1, the best over aliases. A measure: lists of guesses gain from it; see ``qa``."""
    if exact(answer, prediction):
        return 1.0
    return max(_f1(*token_overlap(gold, prediction)) for gold in _aliases(answer))


@register_grader("qa")
def qa(answer: Any, prediction: str, threshold: float = 0.3, published: bool = False) -> float:
    """Exact match 1, else, for a form of the name, F1 times precision from ``threshold`` on, else 0.

    The published rule pays F1 as it is, so a box with the right answer and k - 1 wrong ones earns
    2 / (k + 1), more than the 1 / k of an honest guess, and "River" alone earns 2 / 3 for any
    river. Here alternatives ("A or B", "A / B") earn 0; F1 is multiplied by precision, which stays
    below 1 / k; and the prediction must share at least half of the words that tell the answer from
    others (not "river", "mount", "university", months), more than half if it puts others in their
    place. ``published=True`` gives the rule as published.

    Example: for ``Ada Lovelace``, ``Lovelace`` earns 2 / 3 and ``Ada Byron`` nothing.
    """
    if exact(answer, prediction):
        return 1.0
    best = 0.0
    for gold in _aliases(answer):
        precision, recall = token_overlap(gold, prediction)
        overlap = _f1(precision, recall)
        if overlap < threshold:
            continue
        if published:
            best = max(best, overlap)
        elif _alternatives(prediction) <= _alternatives(gold) and _same_thing(gold, prediction):
            best = max(best, overlap * precision)
    return best


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_GENERIC = _words(
    "river mount mountain lake sea ocean bay gulf island islands isle city town village county "
    "state country republic kingdom empire province district region north south east west "
    "northern southern eastern western new old great saint st mt university college school "
    "institute academy library museum church cathedral castle palace bridge street road avenue "
    "station airport park company corporation corp inc ltd limited group party press house "
    "books band orchestra team club league cup award prize war battle film movie series show "
    "album song book novel king queen prince princess president sir lord lady dr mr mrs ms john "
    "james william january february march april may june july august september october november "
    "december of in on at to for from and by with de la le du von van der di da i ii iii first "
    "second third people born years year"
)
"""Words that many answers share: naming one of them names no answer."""


def _same_thing(gold: str, prediction: str) -> bool:
    wanted, given = set(normalised(gold).split()), set(normalised(prediction).split())
    telling = wanted - _GENERIC or wanted
    shared = len(telling & given)
    replaced = bool(given - wanted - _GENERIC) and shared < len(telling)
    return 2 * shared > len(telling) if replaced else 2 * shared >= len(telling)


_ALTERNATIVE = re.compile(
    r"\b(?:or|either|vs|versus|and/or|perhaps|maybe|possibly)\b|[;|/\n]|\\(?:lor|vee)\b",
    re.IGNORECASE,
)


def _alternatives(text: str) -> int:
    return len(_ALTERNATIVE.findall(text.strip()))


# --- closed forms -------------------------------------------------------------------------------

_YES = frozenset({"yes", "true", "y", "yeah", "yep", "correct"})
_NO = frozenset({"no", "false", "n", "nope", "incorrect"})
_FIRST_WORD = re.compile(r"\s*([A-Za-z]+)\s*(?:$|[,.:;!-]\s*(.*)$)", re.DOTALL)


@register_grader("yes_no")
def yes_no(answer: Any, prediction: str) -> float:
    """1 when the prediction says yes or no as the answer does: the word alone, or before a comma.

    "unknown", "no idea", "yes and no" and "yes. No." say neither.
    """
    wanted = _yes_or_no("yes" if answer is True else "no" if answer is False else str(answer))
    if wanted is None:
        raise GraderError(f"Grader 'yes_no' needs a yes or no as answer, got {answer!r}.")
    return float(_yes_or_no(prediction) is wanted)


def _yes_or_no(text: str) -> bool | None:
    found = _FIRST_WORD.fullmatch(plain_text(text))
    if not found:
        return None
    first = found[1].lower()
    rest = set(re.findall(r"[a-z]+", (found[2] or "").lower()))
    if rest & (_YES | _NO) - {first} or rest & {"or", "maybe", "but", "perhaps", "not"}:
        return None
    return True if first in _YES else False if first in _NO else None


_LETTER = re.compile(
    r"(?:(?:the\s+)?(?:correct\s+)?(?:option|choice|answer)(?:\s+is)?[:\s]+)?"
    r"[(\[]?([A-Za-z])[)\]]?(?:$|[.):]?\s*$|[.):]\s*(.+)$|\s+-\s+(.+)$)",
    re.DOTALL | re.IGNORECASE,
)


@register_grader("choice")
def choice(
    answer: Any, prediction: str, options: list[str] | dict[str, str] | None = None
) -> float:
    """1 when the prediction names the right option by its letter, by its text, or by both alike.

    Args:
        answer: the letter or the text of the right option.
        prediction: such as ``B``, ``(b)``, ``B. Paris`` or ``Paris``.
        options: texts in order (lettered from A) or a mapping letter → text; without it only
            letters count.
    """
    lettered = (
        {str(letter).upper(): str(text) for letter, text in options.items()}
        if isinstance(options, Mapping)
        else dict(zip(string.ascii_uppercase, map(str, options or []), strict=False))
    )
    wanted = _chosen(str(answer), lettered)
    if wanted is None:
        raise GraderError(f"The answer {answer!r} is none of the options {lettered!r}.")
    return float(_chosen(prediction, lettered) == wanted)


def _chosen(text: str, lettered: Mapping[str, str]) -> str | None:
    plain = plain_text(text)
    letter = _LETTER.fullmatch(plain)
    if letter and (not lettered or letter[1].upper() in lettered):
        named = letter[1].upper()
        described = letter[2] or letter[3]
        if described is None:
            return named
        if _equal_texts(lettered.get(named, ""), described):
            return named
    same = [name for name, option in lettered.items() if _equal_texts(option, plain)]
    return same[0] if len(same) == 1 else None


@register_grader("list")
def list_of(answer: Any, prediction: str) -> float:
    """1 when the prediction lists exactly the answer's items in their order, else 0."""
    wanted = _items(answer)
    given = _split_items(prediction, wanted)
    return float(
        len(given) == len(wanted)
        and all(_equal_items(a, b) for a, b in zip(wanted, given, strict=True))
    )


@register_grader("set")
def set_of(answer: Any, prediction: str) -> float:
    """1 when the prediction lists exactly the answer's items in any order, else 0."""
    wanted = _items(answer)
    left = _split_items(prediction, wanted)
    if len(left) != len(wanted):
        return 0.0
    for gold in wanted:
        found = next((i for i, given in enumerate(left) if _equal_items(gold, given)), None)
        if found is None:
            return 0.0
        del left[found]
    return 1.0


def _items(answer: Any) -> list[str]:
    if not isinstance(answer, list | tuple):
        raise GraderError(f"Graders 'list' and 'set' need a list as answer, got {answer!r}.")
    return [str(item) for item in answer]


def _split_items(prediction: str, wanted: Iterable[str]) -> list[str]:
    text = without_label(plain_text(prediction))
    if any(parse_quantity(item) for item in wanted):
        text = without_name(text)
    text = text.replace(r"\{", "{").replace(r"\}", "}").strip()
    if len(text) > 1 and text[0] in "[({" and text[-1] in "])}":
        text = text[1:-1]
    separator = r"\s*[,;\n]\s*(?:and\s+)?|\s+and\s+"
    if not re.search(r"[,;\n]|\band\b", text) and not any(" " in item for item in wanted):
        separator = r"\s+"
    return [item.strip("\"'` ") for item in re.split(separator, text.strip()) if item.strip()]


def _equal_items(gold: str, given: str) -> bool:
    gold_number, given_number = parse_quantity(gold), parse_quantity(given)
    if gold_number and given_number:
        return gold_number == given_number
    return _equal_texts(gold, given)


# --- numbers and mathematics --------------------------------------------------------------------


_YEAR = re.compile(r"^(?:in )?(?:the year )?(?:AD |A\.D\. ?|CE )?(?=[0-9]{3,4}\b)", re.IGNORECASE)


@register_grader("number")
def number(
    answer: Any,
    prediction: str,
    unit: str | list[str] | None = None,
    rel_tol: float | None = None,
    abs_tol: float = 0.0,
    any_unit: bool = False,
) -> float:
    """1 when the prediction is one number equal to the answer, with the right unit or none.

    Thousands separators, percents, powers of ten, fractions, words up to twenty, "x = 5" and
    "about 5" are read; lists, ranges, NaN and infinity are no number, and a fraction is no whole
    number ("24/2" would echo a question).
    Whole-number answers must match exactly unless a tolerance is given.

    Args:
        answer: a number, or text such as ``"1,200.50"`` or ``"12 km"``.
        prediction: what the agent answered.
        unit: the unit of the answer (or several names of it); the prediction may leave it out.
            A prediction in another unit of the same kind (``m`` for ``km``) is converted.
        rel_tol: largest difference relative to the answer; by default 1e-6, or 0 for a whole one.
        abs_tol: largest difference, in the answer's unit.
        any_unit: accept any words after the number (for data sets that do not tell the unit).
    """
    gold = parse_quantity(plain_text(str(answer)))
    if isinstance(answer, bool) or gold is None:
        raise GraderError(f"Grader 'number' needs a number as answer, got {answer!r}.")
    units = [unit] if isinstance(unit, str) else list(unit or [])
    if gold.unit:
        units.append(gold.unit)
    bare = without_name(plain_text(prediction))
    given = parse_quantity(_YEAR.sub("", bare))
    if given is None or (given.is_fraction and gold.value.denominator == 1):
        return 0.0
    if rel_tol is None:
        rel_tol = 0.0 if gold.value.denominator == 1 else 1e-6
    tolerance = max(Fraction(abs_tol), abs(gold.value) * Fraction(rel_tol))
    if any_unit and not units:
        given = Quantity(given.value, "")
    return float(same_quantity(gold.value, units, given, tolerance))


@register_grader("math")
def math_equal(answer: Any, prediction: str) -> float:
    """1 when the prediction is mathematically equal to the answer (LaTeX or plain), else 0.

    Checked by math-verify in a process of its own with bounds on time and memory: an expression
    that exceeds them scores 0, a checker that cannot check the answer itself is a GraderError.
    A number must be written as one number (a unit may follow): ``2 + 3`` is not 5. Where the form
    of an expression matters (expanded, factored), equality says too little: take ``exact`` or a
    function of your own.
    """
    try:
        return float(any(mathematically_equal(gold, prediction) for gold in _aliases(answer)))
    except CheckerFailed as error:
        raise GraderError(str(error)) from error


_BUILT_IN = frozenset(_GRADERS)
