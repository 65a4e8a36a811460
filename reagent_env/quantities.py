"""Reads one number with an optional unit from text, strictly, and compares two of them.

Not a general unit library: it knows the SI multiples and everyday units that tasks ask for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

_MAX_DIGITS = 1_000
_MAX_EXPONENT = 400

_DIGITS = r"(?:[0-9]{1,3}(?P<sep>,|\{,\}|\\,|_| )[0-9]{3}(?:(?P=sep)[0-9]{3})*(?![0-9])|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)"
_POWER = (
    r"(?:[eE](?P<e>[+-]?[0-9]{1,4})"
    r"|\s*(?:\\times|\\cdot|×|\*|x)\s*10\s*(?:\^|\*\*)\s*\{?(?P<ten>[+-]?[0-9]{1,4})\}?)"
)


def _listed(words: str) -> tuple[str, ...]:
    return tuple(words.split())


_WORDS = _listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
)
_WORD = "|".join(
    form
    for word in sorted(_WORDS, key=len, reverse=True)
    for form in (word, word.capitalize(), word.upper())
)
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?P<currency>[$€£]?)\s*(?:"
    rf"\\[dt]?frac\{{\s*(?P<top>[0-9]+)\s*\}}\{{\s*(?P<bottom>[0-9]+)\s*\}}"
    rf"|(?:(?P<whole>[0-9]+) )?(?P<over>[0-9]+)\s*/\s*(?P<under>[0-9]+)"
    rf"|(?P<before>[0-9]*)\.(?P<once>[0-9]*)\\overline\{{(?P<again>[0-9]+)\}}"
    rf"|(?P<decimal>{_DECIMAL}){_POWER}?"
    rf"|(?P<word>{_WORD})(?![\w-])(?!\.\w))"
    r"\s*(?P<unit>.*)",
    re.DOTALL,
)
_UNIT = re.compile(
    r"[^\W\d_]+\.?(?:[ /·-]?(?:[^\W\d_]+\.?|\([^\W\d_]+\))){0,5}(?:[²³]|\^?[23]|\^\{[23]\})?"
    r"|[%$€£°]C?F?"
)
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9}
_NOT_UNITS = (
    frozenset(_WORDS)
    | frozenset(_SCALES)
    | frozenset(
        _listed(
            "thirty forty fifty sixty seventy eighty ninety trillion dozen half pi π infinity or and "
            "to through versus vs plus minus about if not maybe perhaps possibly probably else "
            "otherwise either neither nor but unless than without except oder und nicht vielleicht ou "
            "et peut ni o u y no quizá forse null eins zwei drei vier fünf sechs sieben acht neun "
            "zehn elf zwölf un deux trois quatre cinq sept huit neuf dix uno dos tres cuatro cinco "
            "seis siete ocho nueve diez"
        )
    )
)
"""Words that no unit has: they would make one number two, or take it back."""

_FACTORS: dict[str, dict[str, Fraction]] = {
    "length": {
        "nm": Fraction(1, 10**9), "µm": Fraction(1, 10**6), "mm": Fraction(1, 1000),
        "cm": Fraction(1, 100), "dm": Fraction(1, 10), "m": Fraction(1), "km": Fraction(1000),
    },
    "mass": {
        "mg": Fraction(1, 1000), "g": Fraction(1), "kg": Fraction(1000), "t": Fraction(10**6),
    },
    "time": {
        "ms": Fraction(1, 1000), "s": Fraction(1), "min": Fraction(60), "h": Fraction(3600),
        "d": Fraction(86400),
    },
    "volume": {"ml": Fraction(1, 1000), "cl": Fraction(1, 100), "dl": Fraction(1, 10), "l": Fraction(1)},
    "area": {
        "mm²": Fraction(1, 10**6), "cm²": Fraction(1, 10**4), "m²": Fraction(1),
        "ha": Fraction(10**4), "km²": Fraction(10**6),
    },
    "share": {"%": Fraction(1, 100)},
}  # fmt: skip
_NAMES = {
    "nanometre": "nm", "micrometre": "µm", "um": "µm", "μm": "µm", "millimetre": "mm",
    "centimetre": "cm", "decimetre": "dm", "metre": "m", "kilometre": "km",
    "milligram": "mg", "gram": "g", "kilogram": "kg", "kilo": "kg",
    "tonne": "t", "millisecond": "ms", "second": "s", "sec": "s", "minute": "min", "hour": "h",
    "hr": "h", "day": "d", "millilitre": "ml", "centilitre": "cl", "decilitre": "dl", "litre": "l",
    "hectare": "ha", "percent": "%", "per cent": "%", "pct": "%", "dollar": "$", "usd": "$",
    "euro": "€", "eur": "€", "gbp": "£", "degree": "°", "deg": "°", "arc degree": "°",
    "people": "person", "persons": "person", "person": "person",
}  # fmt: skip


@dataclass(frozen=True)
class Quantity:
    """An exact number and its unit, e.g. ``Quantity(Fraction(12), "km")``; ``""`` is no unit."""

    value: Fraction
    unit: str = ""
    is_fraction: bool = field(default=False, compare=False)
    """Written as a fraction, such as ``24/2``."""


def parse_quantity(text: str) -> Quantity | None:
    """The one quantity that the whole text is, or None; ASCII digits only, no NaN, no infinity.

    Example: ``parse_quantity("1,200.5 km")`` is ``Quantity(Fraction(2401, 2), "km")``; a list
    (``"12, 13"``), a range (``"10-20"``) and a sentence are None.
    """
    stripped = text.strip().replace("−", "-").replace("\\%", "%").replace("\\$", "$")
    stripped = stripped.removesuffix(".") if stripped.endswith(".") else stripped
    if not stripped or len(stripped) > _MAX_DIGITS:
        return None
    found = _NUMBER.fullmatch(stripped)
    if not found:
        return None
    value = _value(found)
    if value is None:
        return None
    if found["sign"] == "-":
        value = -value
    unit = re.sub(r"\\(?:text|mathrm|textrm)\{([^{}]*)\}", r"\1", found["unit"])
    unit = " ".join(re.sub(r"\\[ ,;]|~", " ", unit).split())
    first, _, rest = unit.partition(" ")
    if first.lower() in _SCALES:
        value *= _SCALES[first.lower()]
        unit = rest
    if unit and not _is_unit(unit):
        return None
    if found["currency"]:
        if unit and unit_name(unit) != found["currency"]:
            return None
        unit = found["currency"]
    is_fraction = bool(found["over"] or found["top"])
    return Quantity(value, unit, is_fraction=is_fraction)


def _value(found: re.Match[str]) -> Fraction | None:
    if found["word"]:
        return Fraction(_WORDS.index(found["word"].lower()))
    if found["again"]:
        once, again = found["once"], found["again"]
        shifted = Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(once))
        return Fraction(int(found["before"] + once or "0"), 10 ** len(once)) + shifted
    if found["decimal"]:
        exponent = int(found["e"] or found["ten"] or 0)
        if abs(exponent) > _MAX_EXPONENT:
            return None
        digits = re.sub(r"[,_{}\\ ]", "", found["decimal"])
        return Fraction(digits + ("0" if digits.endswith(".") else "")) * Fraction(10) ** exponent
    top, bottom = int(found["over"] or found["top"]), int(found["under"] or found["bottom"])
    if bottom == 0 or (found["whole"] and top >= bottom):
        return None
    return Fraction(int(found["whole"] or 0)) + Fraction(top, bottom)


def _is_unit(text: str) -> bool:
    """Whether words after a number can be its unit: no number, no numeral, no second thought."""
    if not _UNIT.fullmatch(text) or any(char.isnumeric() for char in text.rstrip("²³23}")):
        return False
    return not set(re.findall(r"[^\W_]+", text.lower())) & _NOT_UNITS


_AREA = re.compile(r"(?:square|sq) (?P<first>\w+)|(?P<last>\w+)(?: squared|²)")


def unit_name(unit: str) -> str:
    """A unit's short name: ``Kilometers`` is ``km``, ``sq. km`` and ``km^2`` are ``km²``.

    An unknown unit is itself, singular.
    """
    plain = unit.strip().rstrip(".").replace(".", "")
    plain = re.sub(r"\^?\{?([23])\}?$", lambda found: "²³"[int(found[1]) - 2], plain)
    if any(plain in table for table in _FACTORS.values()):
        return plain  # symbols are case-sensitive: Mg is not mg
    lowered = re.sub(r"(met|lit)er(s?)\b", r"\1re\2", plain.lower())
    for name in (lowered, lowered.removesuffix("s"), lowered.removesuffix("es")):
        if name in _NAMES:
            return _NAMES[name]
    if area := _AREA.fullmatch(lowered):
        return unit_name(area["first"] or area["last"]) + "²"
    if lowered in ("l", "ml", "cl", "dl"):
        return lowered
    if plain.isupper() or len(plain) <= 2:
        return plain
    return lowered.removesuffix("s")


def same_quantity(
    gold: Fraction, units: Sequence[str], given: Quantity, tolerance: Fraction
) -> bool:
    """Whether ``given`` equals ``gold`` (in any of ``units``, synonyms) within ``tolerance``.

    No unit given counts as the right one; a unit of the same kind is converted; another is wrong.
    """
    if not given.unit:
        return abs(given.value - gold) <= tolerance
    name = unit_name(given.unit)
    names = [unit_name(unit) for unit in units]
    if name in names:
        return abs(given.value - gold) <= tolerance
    for table in _FACTORS.values():
        for wanted in names or [""]:
            if name in table and (wanted in table or (not names and name == "%")):
                factor = table[name] / table.get(wanted, Fraction(1))
                return abs(given.value * factor - gold) <= tolerance
    return False
