"""The kinds of PythonMath problem: which generator, how it is asked, graded and solved.

Not here: drawing and splitting (``python_math.py``). A kind is left out when its generator's answers
can be guessed (yes or no, weekdays), when several answers are right but only one is known, or when
echoing the question would be graded equal to the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from reagent_env.task_sets.python_math import Kind

Item = Mapping[str, Any]
Facts = Callable[[Item], Mapping[str, str] | None]


def _joined(values: Any) -> str:
    return ", ".join(map(str, values))


def _rows(matrix: Any) -> str:
    return "\n".join(" ".join(map(str, row)) for row in matrix)


def _flat(matrix: Any) -> list[str]:
    return [str(value) for row in matrix for value in row]


def _only_if(keep: Callable[[Item], bool], facts: Callable[[Item], Mapping[str, str]]) -> Facts:
    return lambda item: facts(item) if keep(item) else None


def _meta(item: Item, name: str) -> Any:
    return item["metadata"][name]


def _day(text: str) -> str:
    day = datetime.fromisoformat(text)
    return f"{day.day} {day:%B} {day.year}"


_HOW_MANY = {"exact": "exactly", "at_least": "at least"}
_NUMBERS = "import math\nvalues = [int(part) for part in numbers.split(',')]\n"
_GRID = "cells = [[int(c) for c in row.split()] for row in grid.split('\\n')]\n"
_DATES = (
    "from datetime import date, datetime, timedelta\n"
    "first, last = (datetime.strptime(text, '%d %B %Y').date() for text in (start, end))\n"
)

KINDS: tuple[Kind, ...] = (
    Kind(
        "gcd",
        "gcd",
        (
            {"min_numbers": 2, "max_numbers": 2, "max_value": 5_000},
            {"min_numbers": 2, "max_numbers": 2, "max_value": 10**7},
            {"min_numbers": 2, "max_numbers": 2, "max_value": 10**13},
        ),
        _only_if(
            lambda item: _meta(item, "result") > 11,
            lambda item: {"numbers": _joined(_meta(item, "numbers"))},
        ),
        (
            "What is the greatest common divisor of {numbers}? Answer with a whole number.",
            "Find the largest whole number that divides each of these: {numbers}.",
            "Compute gcd({numbers}). The answer is one whole number.",
            "These numbers are given: {numbers}. State their greatest common factor.",
            "Lengths of {numbers} are to be cut into equal pieces with nothing left. "
            "How long can a piece be at most? Answer with a whole number.",
        ),
        _NUMBERS + "print(math.gcd(*values))",
    ),
    Kind(
        "lcm",
        "lcm",
        (
            {"min_numbers": 2, "max_numbers": 2, "max_value": 500},
            {"min_numbers": 3, "max_numbers": 3, "max_value": 1_000},
            {"min_numbers": 4, "max_numbers": 5, "max_value": 2_000},
        ),
        lambda item: {"numbers": _joined(_meta(item, "numbers"))},
        (
            "What is the least common multiple of {numbers}? Answer with a whole number.",
            "Find the smallest positive whole number that each of {numbers} divides.",
            "Compute lcm({numbers}). The answer is one whole number.",
            "These numbers are given: {numbers}. State their lowest common multiple.",
            "Signals repeat every {numbers} seconds and start together. "
            "After how many seconds do they all coincide next? Answer with a whole number.",
        ),
        _NUMBERS + "print(math.lcm(*values))",
    ),
    Kind(
        "prime_factorization",
        "prime_factorization",
        (
            {"min_value": 1_000, "max_value": 20_000},
            {"min_value": 10**5, "max_value": 10**6},
            {"min_value": 10**7, "max_value": 10**8},
        ),
        _only_if(
            lambda item: len(_meta(item, "factors")) > 2,
            lambda item: {"number": str(_meta(item, "number"))},
        ),
        (
            "Factor {number} into primes. Give all prime factors, repeated ones as often as they "
            "occur, separated by commas.",
            "Which primes have the product {number}? List each as often as it divides, with commas "
            "between them.",
            "Write {number} as a product of prime numbers and give the factors as a "
            "comma-separated list, with repetition.",
            "List the prime factors of {number} with multiplicity, separated by commas.",
            "Break {number} down into its prime factors; answer with a comma-separated list in "
            "which a prime stands once for each time that it divides.",
        ),
        "n, p, out = int(number), 2, []\n"
        "while p * p <= n:\n"
        "    while n % p == 0:\n"
        "        out.append(p)\n"
        "        n //= p\n"
        "    p += 1\n"
        "print(', '.join(map(str, out + [n] * (n > 1))))",
        answer=lambda item: [str(factor) for factor in _meta(item, "factors")],
        grader="set",
    ),
    Kind(
        "count_primes",
        "count_primes",
        ({"max_n": 2_000}, {"min_n": 1_000, "max_n": 20_000}, {"min_n": 10_000, "max_n": 100_000}),
        _only_if(
            lambda item: _meta(item, "solution") > 3,
            lambda item: {"low": str(_meta(item, "start")), "high": str(_meta(item, "end"))},
        ),
        (
            "How many prime numbers are there from {low} to {high}, both included?",
            "Count the primes p with {low} <= p <= {high}. Answer with a whole number.",
            "Give the number of primes between {low} and {high} inclusive.",
            "Of the whole numbers {low} to {high} (inclusive), how many are prime?",
            "Someone writes down every prime that is at least {low} and at most {high}. "
            "How many numbers stand on the page?",
        ),
        "low, high = int(low), int(high)\n"
        "sieve = bytearray([1]) * (high + 1)\n"
        "sieve[:2] = b'\\0' * 2\n"
        "for p in range(2, int(high ** 0.5) + 1):\n"
        "    if sieve[p]:\n"
        "        sieve[p * p :: p] = bytes(len(range(p * p, high + 1, p)))\n"
        "print(sum(sieve[low:]))",
        grader_options={"any_unit": True},
    ),
    Kind(
        "count_bits",
        "count_bits",
        (
            {"min_n": 2**30, "max_n": 2**40},
            {"min_n": 2**60, "max_n": 2**90},
            {"min_n": 2**120, "max_n": 2**200},
        ),
        lambda item: {"number": str(_meta(item, "number"))},
        (
            "How many ones does the binary form of {number} have?",
            "Write {number} in base 2 and count the digits 1. Answer with a whole number.",
            "What is the number of set bits in {number}?",
            "Give the population count (1 bits) of the integer {number}.",
            "If {number} is written in binary, how often does the digit 1 occur?",
        ),
        "print(bin(int(number)).count('1'))",
        grader_options={"any_unit": True},
    ),
    Kind(
        "base_conversion",
        "base_conversion",
        (
            {"min_value": 100, "max_value": 10_000},
            {"min_value": 10_000, "max_value": 10**6, "max_base": 20},
            {"min_value": 10**6, "max_value": 10**10, "max_base": 36},
        ),
        _only_if(
            lambda item: _meta(item, "source_base") != _meta(item, "target_base"),
            lambda item: {
                "number": _meta(item, "source_repr"),
                "old": str(_meta(item, "source_base")),
                "new": str(_meta(item, "target_base")),
            },
        ),
        (
            "Convert {number} from base {old} to base {new}. Use lower-case letters for digits "
            "above 9.",
            "The base-{old} number {number} is to be written in base {new}, with lower-case letters "
            "for digits above 9. What is it?",
            "Write {number} (base {old}) in base {new}; digits above 9 are lower-case letters.",
            "What does {number} in base {old} look like in base {new}? Digits above 9 are "
            "lower-case letters.",
            "In base {old} a number reads {number}. How does it read in base {new}, with "
            "lower-case letters for digits above 9?",
        ),
        "n, base, out = int(number, int(old)), int(new), ''\n"
        "while n:\n"
        "    n, digit = divmod(n, base)\n"
        "    out = '0123456789abcdefghijklmnopqrstuvwxyz'[digit] + out\n"
        "print(out or '0')",
        grader="exact",
        aliases=lambda item: [f"{item['answer']}_{{{_meta(item, 'target_base')}}}"],
    ),
    Kind(
        "bitwise_arithmetic",
        "bitwise_arithmetic",
        ({"difficulty": 1}, {"difficulty": 2}, {"difficulty": 4}),
        lambda item: {"expression": _meta(item, "problem")},
        (
            "Evaluate {expression} with integers of any size. Answer in hexadecimal, as 0x1f or "
            "-0x1f.",
            "What is {expression}? The integers are signed and unbounded; answer in hexadecimal "
            "(0x1f, or -0x1f when negative).",
            "Compute this expression over unbounded signed integers: {expression}. Give the value "
            "in hexadecimal with 0x in front.",
            "Give the hexadecimal value (such as 0x1f or -0x1f) of {expression}.",
            "An unbounded integer register is set to {expression}. What does it hold, written in "
            "hexadecimal with 0x in front?",
        ),
        "print(hex(eval(expression)))",
        grader="exact",
    ),
    Kind(
        "basic_arithmetic",
        "basic_arithmetic",
        (
            {"min_terms": 3, "max_terms": 4, "min_digits": 2, "max_digits": 3},
            {"min_terms": 5, "max_terms": 7, "min_digits": 2, "max_digits": 4},
            {"min_terms": 8, "max_terms": 12, "min_digits": 3, "max_digits": 6},
        ),
        lambda item: {"expression": _meta(item, "expression")},
        (
            "Calculate {expression}. Answer with a whole number.",
            "What is the value of {expression}?",
            "Evaluate this expression and give a whole number: {expression}",
            "Work out {expression}; the value is a whole number.",
            "On a calculator somebody types {expression} and presses the equals key. "
            "Which whole number appears?",
        ),
        "print(eval(expression.replace('/', '//')))",
    ),
    Kind(
        "decimal_chain_sum",
        "decimal_chain_sum",
        (
            {"min_terms": 3, "max_terms": 4, "min_digits": 2},
            {"min_terms": 5, "max_terms": 8, "min_digits": 2},
            {"min_terms": 10, "max_terms": 16, "min_digits": 3, "max_digits": 7},
        ),
        lambda item: {"expression": _meta(item, "expression")},
        (
            "What is {expression}? Give the exact decimal number.",
            "Add up exactly: {expression}",
            "Compute {expression} without rounding.",
            "Give the exact decimal value of {expression}.",
            "An account sees these movements: {expression}. What is the exact balance of them all?",
        ),
        "import re\n"
        "from decimal import Decimal\n"
        "print(eval(re.sub(r'[0-9.]+', lambda m: f\"Decimal('{m[0]}')\", expression)))",
        grader_options={"rel_tol": 0.0},
    ),
    Kind(
        "decimal_arithmetic",
        "decimal_arithmetic",
        (
            {"min_terms": 3, "max_terms": 4},
            {"min_terms": 5, "max_terms": 7},
            {"min_terms": 8, "max_terms": 12},
        ),
        lambda item: {"expression": item["question"].rsplit("\n", 1)[1].removesuffix(" = ?")},
        (
            "Evaluate {expression} to at least ten significant digits.",
            "What is {expression}? Give ten significant digits or more.",
            "Compute {expression} as a decimal number with no fewer than ten significant digits.",
            "Give the decimal value of {expression}, correct to ten significant digits.",
            "A formula reads {expression}. Which number does it give, to ten significant digits?",
        ),
        "import re\n"
        "from decimal import Decimal\n"
        "print(eval(re.sub(r'[0-9.]+', lambda m: f\"Decimal('{m[0]}')\", expression)))",
        grader_options={"rel_tol": 1e-8},
    ),
    Kind(
        "fraction_simplification",
        "fraction_simplification",
        (
            {"styles": ("plain",), "min_factor": 2},
            {"styles": ("plain",), "min_value": 500, "max_value": 20_000, "min_factor": 10},
            {
                "styles": ("plain",),
                "min_value": 10**4,
                "max_value": 10**6,
                "min_factor": 100,
                "max_factor": 9_999,
            },
        ),
        _only_if(
            lambda item: _meta(item, "simplified_denominator") > 1,
            lambda item: {"fraction": f"{_meta(item, 'numerator')}/{_meta(item, 'denominator')}"},
        ),
        (
            "Reduce {fraction} to lowest terms. Answer in the form a/b.",
            "Simplify the fraction {fraction} fully; answer as a/b.",
            "Which fraction a/b in lowest terms equals {fraction}?",
            "Cancel {fraction} as far as possible and give a/b.",
            "Two whole numbers without a common factor have the same ratio as {fraction}. "
            "Give that ratio in the form a/b.",
        ),
        "from fractions import Fraction\n"
        "value = Fraction(fraction)\n"
        "print(f'{value.numerator}/{value.denominator}')",
        grader="exact",
    ),
    Kind(
        "power_function",
        "power_function",
        (
            {"min_base": 1.5, "max_base": 100.0, "min_exponent": 2, "max_exponent": 4},
            {"min_base": 1.5, "max_base": 1000.0, "min_exponent": 4, "max_exponent": 9},
            {"min_base": 1.5, "max_base": 2000.0, "min_exponent": 9, "max_exponent": 16},
        ),
        _only_if(
            lambda item: abs(_meta(item, "exponent")) > 1,
            lambda item: {
                "base": str(_meta(item, "base")),
                "exponent": str(_meta(item, "exponent")),
            },
        ),
        (
            "Raise {base} to the power {exponent}. Give five significant digits or more; "
            "scientific notation such as 1.2345e+6 is fine.",
            "What is {base} to the power {exponent}, to at least five significant digits "
            "(1.2345e+6 or plain)?",
            "Compute ({base})^({exponent}) to five significant digits, as 1.2345e+6 or plain.",
            "Give the value of {base} raised to the exponent {exponent} with at least five "
            "significant digits, in the form 1.2345e+6 or plain.",
            "With b = {base} and k = {exponent}, what is b to the k, to five significant digits "
            "(1.2345e+6 or plain)?",
        ),
        "print(f'{float(base) ** int(exponent):.12e}')",
        grader_options={"rel_tol": 1e-4},
    ),
    Kind(
        "products",
        "products",
        (
            {"min_terms": 2, "max_terms": 2, "min_digits": 3, "max_digits": 4},
            {"min_terms": 3, "max_terms": 3, "min_digits": 3, "max_digits": 5},
            {"min_terms": 4, "max_terms": 5, "min_digits": 4, "max_digits": 8},
        ),
        lambda item: {"expression": _meta(item, "expression")},
        (
            "Multiply: {expression}. Give all digits.",
            "What is the exact product {expression}?",
            "Compute {expression} exactly.",
            "Give every digit of {expression}.",
            "A box measures {expression} in millimetres. What is that product exactly?",
        ),
        "print(eval(expression))",
    ),
    Kind(
        "simple_equation",
        "simple_equations",
        (
            {"max_terms": 3, "max_value": 200},
            {"min_terms": 4, "max_terms": 6, "max_value": 1_000},
            {"min_terms": 6, "max_terms": 9, "max_value": 10_000},
        ),
        lambda item: {"variable": _meta(item, "variable"), "equation": _meta(item, "equation")},
        (
            "Solve for {variable}: {equation}. Answer with the number alone.",
            "Which number {variable} satisfies {equation}? Give the number alone.",
            "Find {variable} if {equation}. Answer with the number.",
            "The equation {equation} has one solution {variable}. Which number is it?",
            "Somebody thinks of a number {variable} and notes that {equation}. Which number is it?",
        ),
        "from fractions import Fraction\n"
        "left, right = equation.split('=')\n"
        "gap = lambda x: eval(f'({left}) - ({right})', {variable: Fraction(x)})\n"
        "print(-gap(0) / (gap(1) - gap(0)))",
    ),
    Kind(
        "dice",
        "dice",
        (
            {"num_dice": 3, "max_dice_size": 12},
            {"num_dice": 4, "max_dice_size": 20},
            {"num_dice": 5, "max_dice_size": 24},
        ),
        lambda item: {
            "dice": _meta(item, "puzzle")["dice_str"],
            "target": str(_meta(item, "puzzle")["target"]),
        },
        (
            "The dice {dice} are rolled once (1d6 is one six-sided die). What is the probability "
            "that the sum is {target} or more? Answer with a fraction a/b.",
            "What are the chances of a total of at least {target} with the dice {dice} (1d6 is one "
            "six-sided die)? Give a fraction a/b.",
            "Rolling {dice} together, where 1d6 means one die with six sides, how likely is a sum "
            "of {target} or higher? Answer as a fraction a/b.",
            "Give, as a fraction a/b, the probability that {dice} (1d6: one six-sided die) sum to "
            "no less than {target}.",
            "A player wins with a total of {target} or more on the dice {dice}; 1d6 is one "
            "six-sided die. What is the probability of winning, as a fraction a/b?",
        ),
        "from collections import Counter\n"
        "from fractions import Fraction\n"
        "ways = Counter({0: 1})\n"
        "for die in dice.split(','):\n"
        "    count, sides = map(int, die.strip().split('d'))\n"
        "    for _ in range(count):\n"
        "        ways, old = Counter(), ways\n"
        "        for total, many in old.items():\n"
        "            for face in range(1, sides + 1):\n"
        "                ways[total + face] += many\n"
        "print(Fraction(sum(m for t, m in ways.items() if t >= int(target)), sum(ways.values())))",
    ),
    Kind(
        "coin_flips",
        "coin_flip",
        (
            {"min_trials": 10, "max_trials": 30},
            {"min_trials": 31, "max_trials": 80},
            {"min_trials": 81, "max_trials": 200},
        ),
        _only_if(
            lambda item: 0.001 < float(item["answer"]) < 0.999,
            lambda item: {
                "heads": f"{_HOW_MANY[_meta(item, 'problem_type')]} {_meta(item, 'k_heads')}",
                "flips": str(_meta(item, "num_trials")),
            },
        ),
        (
            "A fair coin is flipped {flips} times. What is the probability of {heads} heads? "
            "Answer with a decimal number of at least six significant digits.",
            "How likely are {heads} heads in {flips} flips of a fair coin? Give a decimal "
            "number with six or more significant digits.",
            "Give the probability of {heads} heads among {flips} tosses of a fair coin, as a "
            "decimal number to six significant digits.",
            "In {flips} tosses of a fair coin, find the probability that {heads} are heads "
            "(a decimal number, six significant digits).",
            "{flips} people each guess one of two equally likely sides. What is the probability "
            "that {heads} of them are right, to six significant digits?",
        ),
        "import math\n"
        "n, k = int(flips), int(heads.split()[-1])\n"
        "last = n if 'least' in heads else k\n"
        "print(f'{sum(math.comb(n, i) for i in range(k, last + 1)) / 2**n:.10g}')",
        grader_options={"rel_tol": 1e-4},
    ),
    Kind(
        "number_filtering",
        "number_filtering",
        (
            {"min_numbers": 6, "max_numbers": 10},
            {"min_numbers": 15, "max_numbers": 25},
            {"min_numbers": 30, "max_numbers": 50},
        ),
        _only_if(
            lambda item: 1 < len(_meta(item, "result")) < len(_meta(item, "original_numbers")),
            lambda item: {
                "numbers": _joined(_meta(item, "original_numbers")),
                "verb": _meta(item, "operation").split("_")[0],
                "side": _meta(item, "operation").split("_")[1],
                "bound": str(_meta(item, "filter_value")),
            },
        ),
        (
            "Take the numbers {numbers}. Then {verb} all that are {side} than {bound}. List what is "
            "left in order, separated by commas.",
            "From this list, {verb} every number {side} than {bound}: {numbers}. Give the rest in "
            "their order with commas between them.",
            "Here is a list: {numbers}. If you {verb} each number {side} than {bound}, which "
            "comma-separated list remains?",
            "Filter {numbers}: {verb} what is {side} than {bound}. Answer with the remaining "
            "numbers, comma-separated, in the same order.",
            "A sensor reported {numbers}. The rule is to {verb} readings {side} than {bound}. "
            "Which readings remain? Separate them by commas and keep their order.",
        ),
        "from decimal import Decimal\n"
        "limit = Decimal(bound)\n"
        "keep = []\n"
        "for text in numbers.split(', '):\n"
        "    hit = Decimal(text) > limit if side == 'larger' else Decimal(text) < limit\n"
        "    if hit == (verb == 'keep'):\n"
        "        keep.append(text)\n"
        "print(', '.join(keep))",
        answer=lambda item: list(_meta(item, "result")),
        grader="list",
    ),
    Kind(
        "number_sorting",
        "number_sorting",
        (
            {"min_numbers": 6, "max_numbers": 10},
            {"min_numbers": 15, "max_numbers": 25},
            {"min_numbers": 30, "max_numbers": 50},
        ),
        lambda item: {
            "numbers": _joined(_meta(item, "original_numbers")),
            "direction": _meta(item, "direction"),
        },
        (
            "Sort in {direction} order: {numbers}. Answer with a comma-separated list.",
            "Put these numbers in {direction} order, separated by commas: {numbers}.",
            "Give {numbers} in {direction} order as a comma-separated list.",
            "Arrange the list {numbers} so that it is {direction}; separate the numbers by commas.",
            "Measurements came in as {numbers}. Write them down in {direction} order with commas "
            "between them.",
        ),
        "values = sorted(numbers.split(', '), key=float, reverse=direction == 'descending')\n"
        "print(', '.join(values))",
        answer=lambda item: list(_meta(item, "sorted_numbers")),
        grader="list",
    ),
    Kind(
        "spiral_matrix",
        "spiral_matrix",
        ({"min_n": 3, "max_n": 4}, {"min_n": 5, "max_n": 7}, {"min_n": 8, "max_n": 11}),
        lambda item: {"grid": _rows(_meta(item, "matrix"))},
        (
            "Read this matrix clockwise in a spiral from its top left corner inwards and list the "
            "numbers, separated by commas:\n{grid}",
            "List the entries of the matrix in clockwise spiral order, starting at the top left "
            "and separated by commas.\n{grid}",
            "Matrix:\n{grid}\nGo along the top row to the right, down, left, up and so on inwards. "
            "Give the numbers in that order, separated by commas.",
            "Unroll the following matrix in a clockwise spiral that starts at the top left; answer "
            "with a comma-separated list.\n{grid}",
            "A snail starts on the top left field and walks right, always turning clockwise and "
            "inwards, until it has seen every field:\n{grid}\nWhich numbers does it see, in order "
            "and separated by commas?",
        ),
        _GRID + "out = []\n"
        "while cells:\n"
        "    out += cells.pop(0)\n"
        "    cells = [list(row) for row in zip(*cells)][::-1]\n"
        "print(', '.join(map(str, out)))",
        answer=lambda item: [str(value) for value in _meta(item, "solution")],
        grader="list",
    ),
    Kind(
        "rotate_matrix",
        "rotate_matrix",
        (
            {"min_n": 3, "max_n": 3, "min_rotations": 1, "max_rotations": 3},
            {"min_n": 4, "max_n": 6, "min_rotations": 1, "max_rotations": 9},
            {"min_n": 7, "max_n": 9, "min_rotations": 5, "max_rotations": 40},
        ),
        _only_if(
            lambda item: _meta(item, "num_rotations") % 4 != 0,
            lambda item: {
                "turns": str(_meta(item, "num_rotations")),
                "grid": _rows(_meta(item, "matrix")),
            },
        ),
        (
            "Turn this matrix clockwise by 90 degrees, {turns} times in all. List the resulting "
            "numbers row by row, separated by commas:\n{grid}",
            "Number of clockwise quarter turns: {turns}. Apply them to the matrix and list the "
            "outcome row by row with commas.\n{grid}",
            "After {turns} quarter turns to the right, which numbers does this matrix hold? List "
            "them row by row, separated by commas.\n{grid}",
            "Matrix:\n{grid}\nRotate it {turns} times by a right angle clockwise and give the "
            "numbers row by row as one comma-separated list.",
            "A board is turned clockwise by a quarter {turns} times:\n{grid}\nRead it row by row "
            "afterwards and separate the numbers by commas.",
        ),
        _GRID + "for _ in range(int(turns) % 4):\n"
        "    cells = [list(row) for row in zip(*cells[::-1])]\n"
        "print(', '.join(str(c) for row in cells for c in row))",
        answer=lambda item: _flat(_meta(item, "solution")),
        grader="list",
    ),
    Kind(
        "distance_to_zero",
        "binary_matrix",
        ({"min_n": 4, "max_n": 4}, {"min_n": 5, "max_n": 7}, {"min_n": 8, "max_n": 10}),
        _only_if(
            lambda item: max(map(max, _meta(item, "solution"))) > 1,
            lambda item: {"grid": _rows(_meta(item, "matrix"))},
        ),
        (
            "For each cell of this matrix find the taxicab distance to the nearest 0. List the "
            "distances row by row, separated by commas:\n{grid}",
            "How far is each cell from its nearest 0, moving up, down, left and right? Answer row "
            "by row with a comma-separated list.\n{grid}",
            "Matrix:\n{grid}\nReplace each entry by its Manhattan distance to the closest 0 and "
            "list all entries row by row with commas.",
            "Give the Manhattan distances to the nearest 0 of all cells below, row by row and "
            "separated by commas.\n{grid}",
            "Zeros are wells and people walk along rows and columns:\n{grid}\nHow many steps is it "
            "from each cell to the nearest well? List the steps row by row, separated by commas.",
        ),
        _GRID
        + "zeros = [(i, j) for i, row in enumerate(cells) for j, c in enumerate(row) if not c]\n"
        "out = [min(abs(i - a) + abs(j - b) for a, b in zeros)\n"
        "       for i, row in enumerate(cells) for j, _ in enumerate(row)]\n"
        "print(', '.join(map(str, out)))",
        answer=lambda item: _flat(_meta(item, "solution")),
        grader="list",
    ),
    Kind(
        "letter_counting",
        "letter_counting",
        (
            {"min_words": 60, "max_words": 90},
            {"min_words": 120, "max_words": 180},
            {"min_words": 200, "max_words": 300},
        ),
        _only_if(
            lambda item: int(item["answer"]) > 4,
            lambda item: {
                "letter": _meta(item, "target_letter"),
                "text": " ".join(_meta(item, "span")),
            },
        ),
        (
            'How often does the letter "{letter}" (upper or lower case) occur in this text?\n{text}',
            'Count the letter "{letter}", in either case, in the following words:\n{text}',
            'Text: {text}\nHow many times does it hold the letter "{letter}", capitals included?',
            'Give the number of occurrences of "{letter}" (any case) in:\n{text}',
            'A typesetter needs one piece for each "{letter}", capital or not, in this line:\n'
            "{text}\nHow many pieces is that?",
        ),
        "print(text.lower().count(letter.lower()))",
        grader_options={"any_unit": True},
    ),
    Kind(
        "largest_island",
        "largest_island",
        (
            {
                "min_rows": 8,
                "max_rows": 10,
                "min_cols": 8,
                "max_cols": 10,
                "min_num_islands": 3,
                "max_num_islands": 8,
                "min_island_size": 4,
                "max_island_size": 20,
            },
            {
                "min_rows": 12,
                "max_rows": 16,
                "min_cols": 12,
                "max_cols": 16,
                "min_num_islands": 5,
                "max_num_islands": 12,
                "min_island_size": 6,
                "max_island_size": 40,
            },
            {
                "min_rows": 18,
                "max_rows": 24,
                "min_cols": 18,
                "max_cols": 24,
                "min_num_islands": 8,
                "max_num_islands": 16,
                "min_island_size": 8,
                "max_island_size": 80,
            },
        ),
        _only_if(
            lambda item: _meta(item, "solution") > 4,
            lambda item: {"grid": _rows(_meta(item, "grid"))},
        ),
        (
            "In this grid 1 is land and 0 is water. Land cells that share a side form an island. "
            "How many cells has the largest island?\n{grid}",
            "Find the size of the largest group of ones joined by sides in this grid:\n{grid}",
            "Grid:\n{grid}\nOnes that touch up, down, left or right belong together. How many ones "
            "has the biggest group?",
            "What is the area of the largest island (ones connected by sides) below?\n{grid}",
            "A map marks fields of wood by 1:\n{grid}\nWoods join across the sides of fields, not "
            "across corners. How many fields has the largest wood?",
        ),
        _GRID + "left = {(i, j) for i, row in enumerate(cells) for j, c in enumerate(row) if c}\n"
        "best = 0\n"
        "while left:\n"
        "    todo, size = [left.pop()], 0\n"
        "    while todo:\n"
        "        i, j = todo.pop()\n"
        "        size += 1\n"
        "        for cell in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):\n"
        "            if cell in left:\n"
        "                left.remove(cell)\n"
        "                todo.append(cell)\n"
        "    best = max(best, size)\n"
        "print(best)",
        grader_options={"any_unit": True},
    ),
    Kind(
        "polygon_angle",
        "simple_geometry",
        (
            {"min_sides": 3, "max_sides": 5},
            {"min_sides": 6, "max_sides": 8},
            {"min_sides": 9, "max_sides": 14},
        ),
        lambda item: {
            "sides": str(_meta(item, "n_sides")),
            "angles": _joined(f"{angle:g}" for angle in _meta(item, "known_angles")),
        },
        (
            "A polygon with {sides} sides has these interior angles but one, in degrees: {angles}. "
            "What is the missing angle in degrees?",
            "All but one of the interior angles of a polygon with {sides} sides are known: {angles} "
            "(degrees). How many degrees has the last?",
            "Find the last interior angle, in degrees, of a {sides}-sided polygon whose others are "
            "{angles}.",
            "Interior angles of {angles} degrees and one more make up a polygon of {sides} sides. "
            "Give the remaining angle in degrees.",
            "A surveyor walks round a field with {sides} corners and measures inside angles of "
            "{angles} degrees, then stops before the last. What must it be, in degrees?",
        ),
        "print(180 * (int(sides) - 2) - sum(int(angle) for angle in angles.split(',')))",
        grader_options={"unit": "°"},
    ),
    Kind(
        "leg_counting",
        "leg_counting",
        (
            {"min_animals": 4, "max_animals": 6},
            {"min_animals": 8, "max_animals": 12, "max_instances": 40},
            {"min_animals": 14, "max_animals": 20, "max_instances": 200},
        ),
        lambda item: {
            "animals": _joined(f"{many} x {name}" for name, many in _meta(item, "animals").items())
        },
        (
            "How many legs do these animals have in all (a starfish has 5 and a woodlouse 14)? "
            "{animals}",
            "Count the legs of: {animals}. Take 5 for a starfish and 14 for a woodlouse.",
            "A zoo keeps {animals}. How many legs is that, with 5 to a starfish and 14 to a "
            "woodlouse?",
            "Animals: {animals}. Give the total number of legs; starfish have 5, woodlice 14.",
            "Each leg in this company needs one sock: {animals}. How many socks is that? Starfish "
            "take 5, woodlice 14.",
        ),
        "legs = {\n"
        "    0: 'snake, sea slug, jellyfish, flatworm, leech',\n"
        "    2: 'chicken, bird, human, duck',\n"
        "    4: 'dog, cat, cow, horse, lion, elephant, giraffe, tiger, deer, sheep',\n"
        "    5: 'starfish',\n"
        "    6: 'insect, ant, butterfly, beetle, bee, wasp, grasshopper, cricket, cockroach, '\n"
        "       'praying mantis, firefly',\n"
        "    8: 'spider, scorpion',\n"
        "    10: 'crab, lobster, shrimp',\n"
        "    14: 'woodlouse',\n"
        "}\n"
        "of = {name: n for n, names in legs.items() for name in names.split(', ')}\n"
        "parts = [part.split(' x ') for part in animals.split(', ')]\n"
        "print(sum(int(many) * of[name] for many, name in parts))",
        grader_options={"any_unit": True},
    ),
    Kind(
        "days_between",
        "time_intervals",
        (
            {"task_types": ["date"], "max_date_difference_days": 1_000},
            {"task_types": ["date"], "max_date_difference_days": 10_000},
            {"task_types": ["date"], "max_date_difference_days": 100_000},
        ),
        _only_if(
            lambda item: int(item["answer"].split()[0]) > 20,
            lambda item: {
                "start": _day(_meta(item, "start_time")),
                "end": _day(_meta(item, "end_time")),
            },
        ),
        (
            "How many days is it from {start} to {end}?",
            "Count the days from {start} until {end} (the first day is not counted).",
            "Give the number of days between the dates {start} and {end}.",
            "What is the difference in days of {end} and {start}?",
            "A loan runs from {start} and is due on {end}. For how many days does it run?",
        ),
        _DATES + "print(abs((last - first).days))",
        answer=lambda item: item["answer"].split()[0],
        grader_options={"unit": "days"},
    ),
    Kind(
        "business_days",
        "calendar_arithmetic",
        tuple({"tasks": ["count_business_days"], "year": year} for year in (2024, 2037, 1903)),
        _only_if(
            lambda item: int(item["answer"]) > 10,
            lambda item: {
                "start": _day(_meta(item, "start_date")),
                "end": _day(_meta(item, "end_date")),
            },
        ),
        (
            "How many days from Monday to Friday are there from {start} to {end}, both included?",
            "Count the weekdays (Monday to Friday) from {start} to {end} inclusive.",
            "Leaving out Saturdays and Sundays, how many days are there from {start} to {end}, with "
            "both ends?",
            "Give the number of business days (Monday to Friday, no holidays) between {start} and "
            "{end} inclusive.",
            "An office opens on every Monday to Friday. On how many days does it open from {start} "
            "to {end}, both included?",
        ),
        _DATES + "days = ((first + timedelta(n)) for n in range((last - first).days + 1))\n"
        "print(sum(day.weekday() < 5 for day in days))",
        grader_options={"unit": ["days", "working days", "business days", "weekdays", "workdays"]},
    ),
)
