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
from typing import Any

from reagent_env.quantities import parse_quantity

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
                raise CheckerFailed(
                    f"math-verify cannot read the answer {gold!r}; write it as LaTeX or a number, "
                    "or choose another grader for this task."
                )
            return verdict

    def _confirm(self, gold: str) -> None:
        try:
            if self._ask(gold, gold, START_LIMIT_S) is None:
                raise CheckerFailed(f"math-verify cannot read the answer {gold!r}.")
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
    wanted, given = _undressed(gold), _undressed(prediction)
    if not given or len(given) > MAX_CHARS or _too_deep(given):
        return False
    if _hedged(given, wanted) or _unevaluated(given, wanted):
        return False
    if wanted == given:
        return True
    return _verdict(wanted, given)


@functools.lru_cache(maxsize=4_096)
def _verdict(wanted: str, given: str) -> bool:
    return _shared_checker().equal(wanted, given)


def _undressed(text: str) -> str:
    text = text.strip().rstrip(".").strip()
    for opening, closing in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        if len(text) > 2 * len(opening) and text.startswith(opening) and text.endswith(closing):
            return text[len(opening) : -len(closing)].strip()
    return text


def _too_deep(text: str) -> bool:
    depth = 0
    for char in text:
        depth += (char in "{([") - (char in "})]")
        if depth > _MAX_DEPTH:
            return True
    return False


_HEDGE = re.compile(
    r"\$|\\boxed|\\\(|\\\[|\n|;|\\(?:lor|vee|quad|qquad)\b|\b(?:or|and|either|maybe)\b|\\\\|[0-9]\s+[0-9]"
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


_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?")
_POWER_OF_TEN = re.compile(r"\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*\{?[+-]?[0-9]+\}?")
_OPERATION = re.compile(
    r"(?<=[^\s=({\[])\s*[-+](?=\s*[\w\\(.])|[*^!%]\s*[\w\\({]|!|"
    r"\\(?:times|cdot|div|sqrt|sum|prod|int|lim|d?binom|log|ln|sin|cos|tan|exp|gcd|lcm|max|min)"
)


def _unevaluated(given: str, wanted: str) -> bool:
    """Whether a number is due and the prediction still has something to calculate.

    Otherwise echoing "2 + 3" would be the right answer to "What is 2 + 3?".
    """
    number = parse_quantity(wanted)
    if number is None or number.unit:
        return False
    plain = _POWER_OF_TEN.sub("", _DEGREES.sub("", given.rpartition("=")[2].strip()))
    if number.value.denominator == 1 and ("/" in plain or "frac" in plain):
        return True
    return bool(_OPERATION.search(plain)) or plain.count("/") + plain.count("frac") > 1


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
