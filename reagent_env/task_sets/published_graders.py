"""GAIA's published rule for a right answer: the same number, the same list, or the same text.

As its leaderboard scores: what is right decides how it is compared. Not here: the other benchmarks'
graders, which are general (``reagent_env/graders.py``), and judges (``reagent_env/correctness.py``).
"""

from __future__ import annotations

import math
import re
import string
from typing import Any

from reagent_env.errors import GraderError

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def gaia(answer: Any, prediction: str) -> float:
    """1 where the prediction equals the answer under GAIA's rule, else 0.

    A number is compared as a number, ``$``, ``%`` and thousands commas left out; an answer with a
    comma or a semicolon as a list of as many items in the same order; all else as text without
    case, spaces and punctuation. A list's texts keep their punctuation.

    Example: for ``17``, ``$17.0`` is right; for ``egg, milk``, ``Egg; milk`` is.
    """
    if not isinstance(answer, str) or not answer.strip():
        raise GraderError(f"Grader 'gaia' needs a text as answer, got {answer!r}.")
    if _plain_number(answer) is not None:
        return float(_number(prediction) == _plain_number(answer))
    if re.search(r"[,;]", answer):
        wanted, given = _items(answer), _items(prediction)
        return float(
            len(wanted) == len(given)
            and all(_same_item(a, b) for a, b in zip(wanted, given, strict=True))
        )
    return float(_bare(answer) == _bare(prediction))


def _same_item(wanted: str, given: str) -> bool:
    number = _plain_number(wanted)
    if number is not None:
        return _number(given) == number
    return "".join(wanted.lower().split()) == "".join(given.lower().split())


def _items(text: str) -> list[str]:
    return re.split(r"[,;]", text)


def _plain_number(text: str) -> float | None:
    """What Python reads as a finite number; the underscores it allows are no number here."""
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _number(text: str) -> float | None:
    return _plain_number(re.sub(r"[$%,]", "", text))


def _bare(text: str) -> str:
    return "".join(text.lower().split()).translate(_PUNCTUATION)
