"""The computations of ToolMix: how each is worded, what it comes to, and a program that does it.

Places in the wordings: ``{a}`` and ``{b}`` are quantities of things to look up, ``{m}`` a set of
things, ``{q}`` an attribute's name or a quantity of each row's thing, ``{p}`` and ``{n}`` numbers,
``{f}`` a file, ``{k}`` a kind, ``{g}`` a group of rows. The last wording is held out for test.
"""

from __future__ import annotations

import bisect
import datetime
import functools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

from reagent_env.task_sets.worlds_schema import Value

Numbers = Mapping[str, str]
"""The numbers of a question as written, e.g. ``{"p": "3.4", "n": "12"}``."""

PRIMES_BELOW = 200_000


@dataclass(frozen=True)
class Sum:
    """One sort of computation."""

    name: str
    takes: str
    """``pair`` or ``one`` (quantities), ``set`` (an attribute over a set), ``file`` (rates)."""
    frames: tuple[str, ...]
    compute: Callable[[Sequence[Value], Numbers], int | float | None]
    """The exact answer, or None where it would be trivial or ambiguous."""
    program: Callable[[Sequence[Value], Numbers], str]
    """Python code that prints ``answer = …``."""
    numbers: Callable[[random.Random], dict[str, str]] = lambda rng: {}
    value: str = "number"
    """Type of the values: ``number`` or ``date``."""
    decimals: int = 0
    """Digits after the point of the answer."""


def _days(values: Sequence[Value], numbers: Numbers) -> int | None:
    first, second = (datetime.date.fromisoformat(str(value)) for value in values)
    days = abs((first - second).days)
    return days if days >= 60 else None


def _days_program(values: Sequence[Value], numbers: Numbers) -> str:
    first, second = (str(value) for value in values)
    return (
        "from datetime import date\n"
        f'days = date.fromisoformat("{first}") - date.fromisoformat("{second}")\n'
        'print("answer =", abs(days.days))'
    )


def _growth(values: Sequence[Value], numbers: Numbers) -> int | None:
    factor = 1 + Fraction(numbers["p"]) / 100
    exact = int(values[0]) * factor ** int(numbers["n"])
    # Within a thousandth of a half, rounding would depend on how one computes.
    if abs(exact % 1 - Fraction(1, 2)) < Fraction(1, 1000) or exact > 10**12:
        return None
    return round(exact)


def _growth_program(values: Sequence[Value], numbers: Numbers) -> str:
    return (
        "from fractions import Fraction\n"
        f'factor = 1 + Fraction("{numbers["p"]}") / 100\n'
        f'print("answer =", round({values[0]} * factor ** {numbers["n"]}))'
    )


def _growth_numbers(rng: random.Random) -> dict[str, str]:
    return {"p": f"{rng.randint(11, 99) / 10:.1f}", "n": str(rng.randint(3, 25))}


def _multiple(values: Sequence[Value], numbers: Numbers) -> int | None:
    first, second = int(values[0]), int(values[1])
    common = math.lcm(first, second)
    return common if common not in (first, second) else None


def _multiple_program(values: Sequence[Value], numbers: Numbers) -> str:
    return f'import math\nprint("answer =", math.lcm({values[0]}, {values[1]}))'


def _rounded(exact: Fraction, decimals: int) -> float | None:
    scaled = exact * 10**decimals
    if abs(scaled % 1 - Fraction(1, 2)) < Fraction(1, 1000):
        return None
    return float(Decimal(round(scaled)).scaleb(-decimals))


def _ratio(values: Sequence[Value], numbers: Numbers) -> float | None:
    exact = Fraction(int(values[0]), int(values[1]))
    return _rounded(exact, 4) if Fraction(1, 50) < exact < 5000 and exact.denominator > 9 else None


def _ratio_program(values: Sequence[Value], numbers: Numbers) -> str:
    return f'print("answer =", round({values[0]} / {values[1]}, 4))'


def _power(values: Sequence[Value], numbers: Numbers) -> int | None:
    remainder = pow(int(values[0]), int(numbers["n"]), int(values[1]))
    return remainder if remainder > 9 else None


def _power_program(values: Sequence[Value], numbers: Numbers) -> str:
    return f'print("answer =", pow({values[0]}, {numbers["n"]}, {values[1]}))'


def _digits(values: Sequence[Value], numbers: Numbers) -> int | None:
    return sum(map(int, str(int(values[0]) ** int(numbers["n"]))))


def _digits_program(values: Sequence[Value], numbers: Numbers) -> str:
    return f'print("answer =", sum(map(int, str({values[0]} ** {numbers["n"]}))))'


@functools.cache
def _primes() -> list[int]:
    sieve = bytearray([1]) * PRIMES_BELOW
    sieve[:2] = b"\0\0"
    for factor in range(2, math.isqrt(PRIMES_BELOW) + 1):
        if sieve[factor]:
            sieve[factor * factor :: factor] = bytes(
                len(range(factor * factor, PRIMES_BELOW, factor))
            )
    return [number for number, prime in enumerate(sieve) if prime]


def _prime_count(values: Sequence[Value], numbers: Numbers) -> int | None:
    low, high = sorted(map(int, values))
    primes = _primes()
    first, last = bisect.bisect_left(primes, low), bisect.bisect_right(primes, high)
    if high >= PRIMES_BELOW or last - first < 20:
        return None
    # An end that is itself prime would make "between" ambiguous.
    return last - first if primes[first] != low and primes[last - 1] != high else None


def _prime_program(values: Sequence[Value], numbers: Numbers) -> str:
    low, high = sorted(map(int, values))
    return (
        "import math\n"
        f"count = sum(all(n % d for d in range(2, math.isqrt(n) + 1)) for n in range({low}, {high + 1}))\n"
        'print("answer =", count)'
    )


def _squares(values: Sequence[Value], numbers: Numbers) -> int | None:
    return sum(int(value) ** 2 for value in values)


def _squares_program(values: Sequence[Value], numbers: Numbers) -> str:
    return f'print("answer =", sum(v * v for v in {list(values)}))'


def _deviation(values: Sequence[Value], numbers: Numbers) -> float | None:
    counted = [int(value) for value in values]
    n = len(counted)
    variance = Fraction(sum(v * v for v in counted), n) - Fraction(sum(counted), n) ** 2
    if variance == 0:
        return None
    exact = (Decimal(variance.numerator) / Decimal(variance.denominator)).sqrt()
    return float(exact.quantize(Decimal("0.01"), ROUND_HALF_UP))


def _deviation_program(values: Sequence[Value], numbers: Numbers) -> str:
    return f'import statistics\nprint("answer =", round(statistics.pstdev({list(values)}), 2))'


def _weighted(values: Sequence[Value], numbers: Numbers) -> int | None:
    rates = [int(rate) for rate in numbers["rates"].split(",")]
    return sum(rate * int(value) for rate, value in zip(rates, values, strict=True))


def _weighted_program(values: Sequence[Value], numbers: Numbers) -> str:
    return (
        f"rates, values = [{numbers['rates']}], {list(values)}\n"
        'print("answer =", sum(r * v for r, v in zip(rates, values)))'
    )


SUMS = (
    Sum(
        "days_between",
        "pair",
        (
            "How many days lie between {a} and {b}?",
            "Count the days between {a} and {b}.",
            "What is the distance in days between {a} and {b}?",
            "Work out the number of days that separate {a} and {b}.",
            "By how many days are {a} and {b} apart?",
        ),
        _days,
        _days_program,
        value="date",
    ),
    Sum(
        "growth",
        "one",
        (
            "Suppose {a} grows by {p} percent a year. What is it after {n} years, rounded to the "
            "nearest whole number?",
            "Take {a} and let it grow by {p} percent a year for {n} years; give the value rounded "
            "to the nearest whole number.",
            "If {a} rises by {p} percent every year, how much is it after {n} years? Round to the "
            "nearest whole number.",
            "Compound {a} at {p} percent a year over {n} years and round to the nearest whole "
            "number.",
            "Let {a} increase yearly by {p} percent. State the value reached after {n} years, to "
            "the nearest whole number.",
        ),
        _growth,
        _growth_program,
        _growth_numbers,
    ),
    Sum(
        "common_multiple",
        "pair",
        (
            "What is the least common multiple of {a} and {b}?",
            "Find the least common multiple of {a} and {b}.",
            "Give the smallest positive number divisible by both {a} and {b}.",
            "Compute the least common multiple of {a} and {b}.",
            "Which is the smallest positive number that both {a} and {b} divide?",
        ),
        _multiple,
        _multiple_program,
    ),
    Sum(
        "ratio",
        "pair",
        (
            "Divide {a} by {b} and round to four decimals.",
            "What is {a} divided by {b}, to four decimals?",
            "Give the ratio of {a} to {b} to four decimals.",
            "What does one get on dividing {a} by {b}? Round to four decimals.",
            "Express {a} as a multiple of {b}, rounded to four decimals.",
        ),
        _ratio,
        _ratio_program,
        decimals=4,
    ),
    Sum(
        "power_remainder",
        "pair",
        (
            "Raise {a} to the power of {n}. What remainder is left on division by {b}?",
            "What is the remainder when {a} to the power of {n} is divided by {b}?",
            "Compute {a} to the power of {n} modulo {b}.",
            "Divide {a}, raised to the power of {n}, by {b} and give the remainder.",
            "Take {a} to the power of {n} and reduce it modulo {b}.",
        ),
        _power,
        _power_program,
        lambda rng: {"n": str(rng.randint(7, 60))},
    ),
    Sum(
        "digit_sum",
        "one",
        (
            "Raise {a} to the power of {n}. What is the sum of the digits of the outcome?",
            "What is the digit sum of {a} raised to the power of {n}?",
            "Compute {a} to the power of {n} and add up its digits.",
            "Add up all digits of {a} raised to the power of {n}.",
            "Write out {a} to the power of {n} and total the digits.",
        ),
        _digits,
        _digits_program,
        lambda rng: {"n": str(rng.randint(6, 24))},
    ),
    Sum(
        "prime_count",
        "pair",
        (
            "How many prime numbers lie between {a} and {b}?",
            "Count the primes between {a} and {b}.",
            "What is the number of primes that lie between {a} and {b}?",
            "Find out how many primes there are from {a} to {b}.",
            "Say how many prime numbers {a} and {b} enclose.",
        ),
        _prime_count,
        _prime_program,
    ),
    Sum(
        "sum_of_squares",
        "set",
        (
            "Square the {q} of each of the {m} and add up the squares. What is the total?",
            "What is the sum of the squares of the {q} over all {m}?",
            "For every one of the {m} take the {q}, square it, and give the sum.",
            "Add up the squared {q} of all {m}.",
            "Total the squares of the {q} taken over the {m}.",
        ),
        _squares,
        _squares_program,
    ),
    Sum(
        "deviation",
        "set",
        (
            "What is the standard deviation (dividing by n) of the {q} over all {m}, to two "
            "decimals?",
            "Compute, to two decimals, the standard deviation (dividing by n) of the {q} over all "
            "{m}.",
            "Over all {m}, how large is the standard deviation (dividing by n) of the {q}? Round "
            "to two decimals.",
            "Give the standard deviation (dividing by n) of the {q} of all {m}, rounded to two "
            "decimals.",
            "Find how far the {q} spreads over all {m}, as a standard deviation (dividing by n) to "
            "two decimals.",
        ),
        _deviation,
        _deviation_program,
        decimals=2,
    ),
    Sum(
        "weighted_total",
        "file",
        (
            "The file {f} gives a rate for each {k} it names. Multiply each rate by {q} and add up "
            "the products. What is the total?",
            "Read {f}: every {k} in it has a rate. What is the sum, over all rows, of the rate "
            "times {q}?",
            "For each {k} in the file {f}, multiply its rate by {q}; give the sum of these "
            "products.",
            "In {f} each {k} has a rate. Weight {q} with it and total the outcomes over all rows.",
            "Sum up rate times {q} over every {k} of the table in {f}.",
        ),
        _weighted,
        _weighted_program,
    ),
    Sum(
        "group_total",
        "file",
        (
            "The file {f} gives a rate for each {k} it names. For the rows of group {g} alone, "
            "multiply each rate by {q} and add up the products. What is the total?",
            "Read {f}: every {k} in it has a rate. What is the sum, over the rows of group {g}, of "
            "the rate times {q}?",
            "For each {k} of group {g} in the file {f}, multiply its rate by {q}; give the sum of "
            "these products.",
            "In {f} each {k} has a rate. Weight {q} with it and total the outcomes over the rows "
            "of group {g}.",
            "Sum up rate times {q} over every {k} in group {g} of the table in {f}.",
        ),
        _weighted,
        _weighted_program,
    ),
)
