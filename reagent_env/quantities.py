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

_DIGITS = r"(?:[0-9]{1,3}(?:(?:,|\{,\}|\\,|_)[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)"
_POWER = (
    r"(?:[eE](?P<e>[+-]?[0-9]{1,4})"
    r"|\s*(?:\\times|\\cdot|×|\*|x)\s*10\s*(?:\^|\*\*)\s*\{?(?P<ten>[+-]?[0-9]{1,4})\}?)"
)
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?P<currency>[$€£]?)\s*(?:"
    rf"\\[dt]?frac\{{\s*(?P<top>[0-9]+)\s*\}}\{{\s*(?P<bottom>[0-9]+)\s*\}}"
    rf"|(?P<over>[0-9]+)\s*/\s*(?P<under>[0-9]+)"
    rf"|(?P<decimal>{_DECIMAL}){_POWER}?)"
    r"\s*(?P<unit>.*)",
    re.DOTALL,
)
_UNIT = re.compile(
    r"[^\W\d_][^\W\d_]*\.?(?:[ /·-]?(?:[^\W\d_]+\.?|\([^\W\d_]+\))){0,3}(?:[²³]|\^?[23])?|[%$€£°]C?F?"
)
_NOT_UNITS = frozenset({"or", "and", "to", "through", "versus", "vs", "plus", "minus", "about"})
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9}

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
    "share": {"%": Fraction(1, 100)},
}  # fmt: skip
_NAMES = {
    "nanometer": "nm", "nanometre": "nm", "micrometer": "µm", "micrometre": "µm", "um": "µm",
    "μm": "µm", "millimeter": "mm", "millimetre": "mm", "centimeter": "cm", "centimetre": "cm",
    "decimeter": "dm", "decimetre": "dm", "meter": "m", "metre": "m", "kilometer": "km",
    "kilometre": "km", "milligram": "mg", "gram": "g", "kilogram": "kg", "kilo": "kg",
    "tonne": "t", "millisecond": "ms", "second": "s", "sec": "s", "minute": "min", "hour": "h",
    "hr": "h", "day": "d", "milliliter": "ml", "millilitre": "ml", "centiliter": "cl",
    "centilitre": "cl", "deciliter": "dl", "decilitre": "dl", "liter": "l", "litre": "l",
    "percent": "%", "per cent": "%", "pct": "%", "dollar": "$", "usd": "$", "euro": "€",
    "eur": "€", "gbp": "£",
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
    if found["decimal"]:
        exponent = int(found["e"] or found["ten"] or 0)
        if abs(exponent) > _MAX_EXPONENT:
            return None
        digits = re.sub(r"[,_{}\\]", "", found["decimal"])
        value = Fraction(digits + ("0" if digits.endswith(".") else "")) * Fraction(10) ** exponent
    else:
        bottom = int(found["bottom"] or found["under"])
        if bottom == 0:
            return None
        value = Fraction(int(found["top"] or found["over"]), bottom)
    if found["sign"] == "-":
        value = -value
    unit = re.sub(r"\\(?:text|mathrm|textrm)\{([^{}]*)\}", r"\1", found["unit"])
    unit = " ".join(unit.replace("\\", " ").replace("~", " ").split())
    first, _, rest = unit.partition(" ")
    if first.lower() in _SCALES:
        value *= _SCALES[first.lower()]
        unit = rest
    if unit and (not _UNIT.fullmatch(unit) or set(re.findall(r"\w+", unit.lower())) & _NOT_UNITS):
        return None
    if found["currency"]:
        if unit and unit_name(unit) != found["currency"]:
            return None
        unit = found["currency"]
    return Quantity(value, unit, is_fraction=found["decimal"] is None)


def unit_name(unit: str) -> str:
    """A unit's short name: ``Kilometres`` is ``km``; an unknown unit is itself, singular."""
    plain = unit.strip().rstrip(".")
    if any(plain in table for table in _FACTORS.values()):
        return plain  # symbols are case-sensitive: Mg is not mg
    lowered = plain.lower()
    for name in (lowered, lowered.removesuffix("s"), lowered.removesuffix("es")):
        if name in _NAMES:
            return _NAMES[name]
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
