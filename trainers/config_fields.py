"""Checks and reads the fields of a configuration by their annotations, and says what they are for.

Not here: the fields (``config.py``).
"""

from __future__ import annotations

import ast
import difflib
import inspect
import math
import textwrap
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from reagent_env.command_values import read_literal


@dataclass(frozen=True, slots=True)
class Within:
    """Bounds of a number, e.g. ``Within(0, 1)``; ``above`` leaves the lower bound itself out."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    def __contains__(self, number: float) -> bool:
        """Whether a number lies within; NaN and infinities never do."""
        if not math.isfinite(number) or number > self.high:
            return False
        return number > self.low if self.above else number >= self.low

    def __str__(self) -> str:
        left = f"{'above' if self.above else 'at least'} {self.low:g}"
        return left if self.high == math.inf else f"{left} and at most {self.high:g}"


@dataclass(frozen=True, slots=True)
class Named:
    """Names of a registry, e.g. ``Named(estimator_names)``; asked when a value is checked."""

    names: Callable[[], list[str]]


Count = Annotated[int, Within(1)]
Natural = Annotated[int, Within(0)]
Fraction = Annotated[float, Within(0, 1)]
NotNegative = Annotated[float, Within(0)]
Positive = Annotated[float, Within(0, above=True)]


def check_fields(config: Any) -> None:
    """Raise ``ValueError`` for the first field whose value its annotation does not allow."""
    for name, annotation in annotations_of(type(config)).items():
        check_value(name, getattr(config, name), annotation)


def check_value(name: str, given: object, annotation: Any) -> None:
    """Raise ``ValueError`` unless ``given`` is what the annotation of ``name`` allows."""
    kind, rules = _split(annotation)
    if get_origin(kind) is Literal:
        _check_choice(name, given, get_args(kind))
        return
    if not _is_a(given, kind):
        raise ValueError(f"{name} must be {_words(kind)}, got {given!r}.")
    for rule in rules:
        if isinstance(rule, Named):
            _check_choice(name, given, rule.names())
            continue
        numbers = given if isinstance(given, tuple) else (given,)
        if not all(number in rule for number in numbers):
            raise ValueError(f"{name} must be {rule}, got {given!r}.")


def read_value(text: str, annotation: Any) -> Any:
    """What ``text`` from a command line means for a field: ``"3e-4"`` → 0.0003, ``"true"`` → True.

    Raises:
        ValueError: it is nothing of the field's type.
    """
    kind, _ = _split(annotation)
    if kind is str or (get_origin(kind) is Literal and isinstance(get_args(kind)[0], str)):
        return text
    return coerced(read_literal(text), annotation)


def coerced(given: Any, annotation: Any) -> Any:
    """``given`` as the field keeps it: an integer as a float, a list as a tuple; else unchanged."""
    kind, _ = _split(annotation)
    if get_origin(kind) is tuple and isinstance(given, list):
        return tuple(coerced(one, get_args(kind)[0]) for one in given)
    if kind is float and isinstance(given, int) and not isinstance(given, bool):
        return float(given)
    return given


def unknown_key(name: str, known: Iterable[str], where: str = "setting") -> ValueError:
    """The error for a name that is no field; says the nearest ones."""
    hint = _nearest(name.replace("-", "_"), list(known))
    return ValueError(
        f"There is no {where} {name!r}.{hint} `reagent train --settings` lists them all."
    )


def annotations_of(config: type) -> Mapping[str, Any]:
    """Field name → its annotation, in the order of the fields."""
    hints = get_type_hints(config, include_extras=True)
    return types.MappingProxyType({one.name: hints[one.name] for one in fields(config)})


def docstrings_of(config: type) -> Mapping[str, str]:
    """Field name → the docstring beneath it, which the running class does not keep."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(config))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    name = ""
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            found[name] = " ".join(str(node.value.value).split())
            name = ""
        else:
            name = ""
    return types.MappingProxyType(found)


def defaults_of(config: type) -> dict[str, Any]:
    """Field name → its default."""
    return {
        one.name: one.default if one.default_factory is MISSING else one.default_factory()
        for one in fields(config)
    }


def choices_of(annotation: Any) -> list[str]:
    """The values a field can have, where they can be listed; else none."""
    kind, rules = _split(annotation)
    if get_origin(kind) is Literal:
        return [str(one) for one in get_args(kind)]
    return [name for rule in rules if isinstance(rule, Named) for name in rule.names()]


def _split(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """The type of an annotation, and the rules of ``Annotated``."""
    if get_origin(annotation) is Annotated:
        kind, *rules = get_args(annotation)
        return kind, tuple(rules)
    return annotation, ()


def _is_a(given: object, kind: Any) -> bool:
    origin = get_origin(kind)
    if origin is tuple:
        inner = get_args(kind)
        if not isinstance(given, tuple):
            return False
        return len(given) == len(inner) and all(map(_is_a, given, inner))
    if origin is not None:
        return isinstance(given, origin) and all(isinstance(key, str) for key in given)
    if kind is bool or isinstance(given, bool):
        return kind is bool and isinstance(given, bool)
    return isinstance(given, (int, float) if kind is float else kind)


def _words(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return f"{len(get_args(kind))} numbers, e.g. [0.9, 0.999]"
    if get_origin(kind) is not None:
        return "a table of names and values"
    return {int: "an integer", float: "a number", str: "a text", bool: "true or false"}[kind]


def _check_choice(name: str, given: object, known: Iterable[Any]) -> None:
    choices = list(known)
    if given not in choices:
        hint = _nearest(str(given), [str(one) for one in choices])
        raise ValueError(
            f"{name} must be one of {', '.join(map(str, choices))}; got {given!r}.{hint}"
        )


def _nearest(given: str, known: list[str]) -> str:
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
