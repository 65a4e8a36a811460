"""Mathematical equality by math-verify, in a process of its own that can be stopped.

A process, because an expression such as ``9^{9^{9^9}}`` keeps the interpreter in one C call that
neither a thread nor a signal can end, and because math-verify's own bound needs the main thread.
Run as ``python -m reagent_env.math_checking`` it is that process; everybody else calls
:func:`mathematically_equal`. Not here: finding the answer in a completion.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import selectors
import subprocess
import sys
import threading
from fractions import Fraction
from typing import Any

from reagent_env.plain_text import plain_text, undressed, without_delimiters, without_name
from reagent_env.quantities import Quantity, parse_quantity, same_quantity

TIME_LIMIT_S = 3.0
"""Seconds for one comparison; a prediction that needs more is not equal."""
START_LIMIT_S = 60.0
"""Seconds for the checker to start (it imports sympy) and check the answer against itself."""
MEMORY_LIMIT_MB = 1_024
MAX_CHARS = 1_000
"""A longer expression is not compared: it is not equal."""
_MAX_DEPTH = 40


class CheckerFailed(Exception):
    """The checking process cannot be had or cannot read the answer: no verdict on the prediction."""


def _unreadable(gold: str) -> CheckerFailed:
    return CheckerFailed(
        f"math-verify cannot read the answer {gold!r}; write it as LaTeX or a number, or choose "
        "another grader for this task."
    )


class _Silent(Exception):
    """The process did not answer in time, or ended."""


class _Checker:
    """One checking process; started when first asked, replaced when it hangs or dies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._warm = False

    def equal(self, gold: str, prediction: str) -> bool:
        """Whether the two are equal; a prediction that exceeds the bounds is not.

        Raises:
            CheckerFailed: when a fresh process cannot find the answer equal to itself.
        """
        with self._lock:
            try:
                if not self._warm:
                    self._confirm(gold)
                verdict = self._ask(gold, prediction, TIME_LIMIT_S)
            except _Silent:
                # The prediction is to blame only if a fresh process finds the answer sound.
                self._stop()
                self._confirm(gold)
                return False
            if verdict is None:
                raise _unreadable(gold)
            return verdict

    def _confirm(self, gold: str) -> None:
        try:
            if self._ask(gold, gold, START_LIMIT_S) is None:
                raise _unreadable(gold)
        except _Silent as error:
            self._stop()
            raise CheckerFailed(
                f"The checking process did not confirm that {gold!r} equals itself within "
                f"{START_LIMIT_S:g} s: the machine is overloaded, or math-verify is not installed."
            ) from error
        self._warm = True

    def _ask(self, gold: str, prediction: str, limit_s: float) -> bool | None:
        if self._process is None or self._process.poll() is not None:
            self._stop()
            self._process = _start()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([gold, prediction]).encode() + b"\n")
            self._process.stdin.flush()
            line = _line_within(self._process.stdout, limit_s)
            return json.loads(line)  # type: ignore[no-any-return]
        except (OSError, ValueError) as error:
            raise _Silent from error

    def _stop(self) -> None:
        self._warm = False
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def close(self) -> None:
        """End the process; a later call starts another."""
        with self._lock:
            self._stop()


def _start() -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "reagent_env.math_checking"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
        )
    except OSError as error:
        raise CheckerFailed(f"The checking process cannot be started: {error}.") from error


def _line_within(pipe: Any, limit_s: float) -> bytes:
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        if not selector.select(limit_s):
            raise TimeoutError
    line: bytes = pipe.readline(64)
    if not line:
        raise BrokenPipeError
    return line


_checker: _Checker | None = None
_checker_pid = 0
_checker_lock = threading.Lock()


def _shared_checker() -> _Checker:
    """This process's checker; a fork makes its own rather than share its parent's pipes."""
    global _checker, _checker_pid
    with _checker_lock:
        if _checker is None or _checker_pid != os.getpid():
            _checker, _checker_pid = _Checker(), os.getpid()
            atexit.register(_checker.close)
        return _checker


def mathematically_equal(gold: str, prediction: str) -> bool:
    r"""Whether a prediction (LaTeX or plain) equals the answer, e.g. ``\frac{1}{2}`` and ``0.5``.

    Raises:
        CheckerFailed: when the answer cannot be read or the checking process cannot be had.
    """
    if len(prediction) > MAX_CHARS or _too_deep(prediction):
        return False
    wanted, given = without_delimiters(gold), without_delimiters(prediction)
    if not given:
        return False
    number = parse_quantity(plain_text(gold))
    if number is not None:
        return _is_number(number, prediction)
    if words := _WORDS.fullmatch(wanted):
        return _letters(words[1]) == _letters(undressed(prediction))
    if wanted == given:
        return True
    bare = undressed(prediction)
    if _hedged(given, wanted) or _hedged(bare, undressed(gold)):
        return False
    if set(_COMMAND.findall(given)) - _MATHEMATICS - set(_COMMAND.findall(wanted)):
        return False
    return _verdict(wanted, given)


def _is_number(gold: Quantity, prediction: str) -> bool:
    """Whether the prediction is written as one number and equals the answer.

    Nothing is calculated: otherwise echoing "2 + 3" would be the right answer to "What is 2 + 3?".
    """
    plain = without_name(plain_text(prediction))
    for opening, closing in (("(", ")"), ("{", "}"), (r"\{", r"\}")):
        if plain.startswith(opening) and plain.endswith(closing):
            plain = plain.removeprefix(opening).removesuffix(closing).strip()
    given = parse_quantity(plain)
    if given is None or (given.is_fraction and gold.value.denominator == 1):
        return False
    if given.unit and not gold.unit and _ALGEBRA.search(plain) and r"\text" not in prediction:
        return False  # 5x and 5 e are expressions, 5 apples is a number
    tolerance = abs(gold.value) * _TOLERANCE if gold.value.denominator != 1 else Fraction(0)
    if not gold.unit and given.unit != "%":
        return abs(given.value - gold.value) <= tolerance
    if gold.unit == "%" and not given.unit and abs(given.value * 100 - gold.value) <= tolerance:
        return True
    units = [gold.unit] if gold.unit else ["%"]
    return same_quantity(gold.value, units, given, tolerance) or (
        not gold.unit and abs(given.value / 100 - gold.value) <= tolerance
    )


@functools.lru_cache(maxsize=4_096)
def _verdict(wanted: str, given: str) -> bool:
    return _shared_checker().equal(wanted, given)


def _letters(text: str) -> str:
    return "".join(char for char in text.casefold() if char.isalnum() or char in "+-")


def _too_deep(text: str) -> bool:
    depth = 0
    for char in text:
        depth += (char in "{([") - (char in "})]")
        if depth > _MAX_DEPTH:
            return True
    return False


_WORDS = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mbox)\s*\{([^{}]*[A-Za-z][^{}]*)\}")
_ALGEBRA = re.compile(r"[0-9.)][A-Za-z]$|[0-9.)]\s+[a-zA-Z]$")
_TOLERANCE = Fraction(1, 10**6)
_COMMAND = re.compile(r"\\(?:[A-Za-z]+|.)", re.DOTALL)
_NAMES = (
    "frac dfrac tfrac sqrt cdot times div pi theta alpha beta gamma delta phi lambda mu omega "
    "sigma infty cup cap setminus emptyset varnothing circ degree pm left right big Big bigl "
    "bigr Bigl Bigr sin cos tan cot sec csc arcsin arccos arctan log ln exp binom dbinom tbinom "
    "overline text textbf textit textrm mathrm mathbf mathbb mathcal mathit mbox operatorname "
    "le leq ge geq lt gt ne neq in begin end lfloor rfloor lceil rceil langle rangle "
    "displaystyle dots ldots cdots { } , ; ! % $"
)
_MATHEMATICS = frozenset("\\" + name for name in _NAMES.split()) | {"\\ "}
"""LaTeX that a prediction may use whatever the answer: anything else could part two answers."""
_HEDGE = re.compile(
    r"\$|\\boxed|\\\(|\\\[|\n|;|~|\\(?:lor|vee|quad|qquad)\b|\b(?:or|and|either|maybe|perhaps|not|if)\b|\\\\"
    r"|[0-9]\s+[0-9]|[0-9]\s*\{\s*\}\s*[0-9]|[0-9]_"
)
_RELATION = re.compile(r"=|\\(?:leq?|geq?|neq?|approx|equiv|in|sim)(?![A-Za-z])|[<>≤≥≈]")


def _hedged(given: str, wanted: str) -> bool:
    """Whether the prediction offers more alternatives or relations than the answer has.

    One ``name =`` in front is allowed; ``1 = 2 = 3`` is not.
    """
    if any(found[0] not in wanted for found in _HEDGE.finditer(given)):
        return True
    if not given.isascii() and any(char.isdigit() and not char.isascii() for char in given):
        return True
    relations = _RELATION.findall(given)
    if len(relations) <= len(_RELATION.findall(wanted)):
        return False
    left, _, right = given.partition("=")
    named = re.fullmatch(r"\s*\\?[A-Za-z]+(?:_\{?\w+\}?)?(?:\([A-Za-z]\))?\s*", left)
    return not (named and relations == ["="] and right.strip())


def _serve() -> None:
    """Answer ``[gold, prediction]`` lines with ``true``, ``false``, or ``null`` (unreadable gold)."""
    import logging
    import resource

    limit = MEMORY_LIMIT_MB * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        gold, prediction = json.loads(line)
        out.write(json.dumps(_check(gold, prediction)).encode() + b"\n")


def _check(gold: str, prediction: str) -> bool | None:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    def read(text: str) -> list[Any]:
        expressions: list[Any] = parse(
            f"${text}$",
            extraction_config=[LatexExtractionConfig(), ExprExtractionConfig()],
            fallback_mode="no_fallback",
            parsing_timeout=None,
        )
        return expressions

    wanted = read(gold)
    if not wanted:
        return None
    try:
        return bool(verify(wanted, read(prediction), timeout_seconds=None))
    except Exception:
        return False


if __name__ == "__main__":
    _serve()
