r"""Takes the dress off an answer: ``**$\text{Paris}$**.`` is ``Paris``, ``288^\circ`` is ``288°``.

The one place that knows how policies decorate an answer (LaTeX, Markdown, spaces of other widths).
Not here: what the answer then means (:mod:`reagent_env.quantities`, :mod:`reagent_env.graders`).
Everything is linear in the length of the text and total: any text gives a text.
"""

from __future__ import annotations

import re
import unicodedata

_TYPOGRAPHIC = str.maketrans(
    {"‘": "'", "’": "'", "“": '"', "”": '"', "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-"}
    | dict.fromkeys("\u00a0\u202f\u2007\u2009\u200a\u2002\u2003\u2005", "\u00a0")
    | dict.fromkeys("\u200b\u200c\u200d\ufeff\u2060\u00ad")
)
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_EMPHASIS = (("***", "***"), ("**", "**"), ("__", "__"), ("*", "*"), ("`", "`"))
_ROUNDS = 4
"""How deep wrappings may be nested, e.g. ``**$\\text{…}$**``."""

_NAMED_STYLE = (
    r"(?:text(?!superscript|subscript)|math)[a-z]*|operatorname|mbox|hbox|emph|boldsymbol|bm"
)
_STYLED = re.compile(rf"\\(?:{_NAMED_STYLE})\*?\s*\{{([^{{}}]*)\}}")
_SWITCH = re.compile(
    r"\\(?:rm|bf|it|tt|sf|sc|displaystyle|textstyle|left|right|[bB]igg?[lr]?)(?![A-Za-z])\s?"
)
_DEGREES = re.compile(
    r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z])\s*)|\s*\\degrees?(?![A-Za-z])\s*"
)
_NO_SPACE = re.compile(r"(?<!\\)\\!|\\negthinspace(?![A-Za-z])|\{\}")
_SPACE = re.compile(
    r"(?<!\\)\\(?:[,;:> ]|(?:quad|qquad|thinspace|enspace|medspace|space)(?![A-Za-z])\s?)|~"
)
_GROUPS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:(?:\\[,;: ]|~|\{,\}|\u00a0|')[0-9]{3})+(?![0-9])")
_BRACED_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?[0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}")
_BARE_FRACTION = re.compile(
    r"\\[dt]?frac(?:\s*([0-9])|\s*\{([0-9]+)\})(?:\s*([0-9])|\s*\{([0-9]+)\})"
)
_HALF_DOLLARS = re.compile(r"\$([^$]+)\$(?=[\s,]*[^\s$0-9][^$]*$)")
_ESCAPED = re.compile(r"\\([%$&#_])")


def without_delimiters(text: str) -> str:
    r"""The text without surrounding spaces, ``$…$``, emphasis and its closing full stop."""
    text = text.strip()
    for _ in range(_ROUNDS):
        before = text
        if text.endswith(".") and not text.endswith((r"\.", "..")):
            text = text[:-1].rstrip()
        for opening, closing in _DELIMITERS + _EMPHASIS:
            inner = text[len(opening) : -len(closing)]
            if (
                len(text) > len(opening) + len(closing)
                and text.startswith(opening)
                and text.endswith(closing)
                and opening not in inner
                and closing not in inner
            ):
                text = inner.strip()
                break
        if text == before:
            break
    return text


def undressed(text: str) -> str:
    r"""The text without decoration; its mathematics stays: ``\frac`` and powers are LaTeX still."""
    text = unicodedata.normalize("NFC", text).translate(_TYPOGRAPHIC)
    for _ in range(_ROUNDS):
        before = text
        text = without_delimiters(text)
        if "\\" in text or "{" in text:
            text = _STYLED.sub(r"\1", text)
            text = _SWITCH.sub("", text)
            text = _DEGREES.sub("°", text)
            text = _NO_SPACE.sub("", text)
        if text == before:
            break
    text = _GROUPS.sub(lambda found: re.sub(r"[^0-9]", "", found[0]), text)
    text = text[0] + _SPACE.sub(" ", text[1:]) if text else text
    return without_delimiters(text.replace("\u00a0", " ").replace("{,}", ","))


def plain_text(prediction: str) -> str:
    r"""A prediction as plain text: ``$\text{Paris}$`` is ``Paris``, ``5\%`` is ``5%``.

    Fractions of whole numbers are written with a stroke; a mixed number (``4½``,
    ``4\frac{1}{2}``) keeps its parts apart: ``4 1/2``.
    """
    text = undressed("".join(_spelt(char) for char in prediction))
    text = _HALF_DOLLARS.sub(r"\1", text, count=1) if text.startswith("$") else text
    if "\\" in text:
        text = _BRACED_FRACTION.sub(_stroke, text)
        text = _BARE_FRACTION.sub(_stroke, text)
        text = _ESCAPED.sub(r"\1", text)
    return text.strip()


def _spelt(char: str) -> str:
    if char < "\u00bc" or not unicodedata.decomposition(char).startswith("<fraction>"):
        return char
    top, _, bottom = unicodedata.normalize("NFKC", char).partition("\u2044")
    return f" {top}/{bottom}" if top and bottom else char


def _stroke(found: re.Match[str]) -> str:
    top, bottom = (part for part in found.groups() if part is not None)
    after_digit = found.start() and found.string[found.start() - 1].isdigit()
    return f"{' ' if after_digit else ''}{top}/{bottom}"


_NAME = re.compile(
    r"\\?[A-Za-z][A-Za-z' ]{0,60}(?:_(?:\w|\{\w{1,20}\}))?\s*(?:\([^()=]{0,200}\))?\s*"
    r"(?:=|≈|\\approx(?![A-Za-z]))(?![=<>])\s*(?P<rest>[^=≈]*)"
)
_ABOUT = re.compile(
    r"(?:=|≈|~|≃|(?:\\approx|\\sim|\\simeq)(?![A-Za-z])|(?:about|approximately|approx\.?|roughly|"
    r"around|circa|ca\.|exactly)(?=\s))\s*(?=[-+$€£]?\s?[.0-9])",
    re.IGNORECASE,
)
_NO_NAME = re.compile(
    r"\b(?:or|not|and|maybe|perhaps|either|if|zero|one|two|three|four|five|six|seven|eight|nine|ten|"
    r"eleven|twelve|twenty|\w+teen|\w+ty|hundred|thousand|million|dozen|half)\b",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"(?:the )?(?:final |correct )?(?:answer|result)(?: is\b|\s?[:=])[:=]?\s*(?=\S)", re.IGNORECASE
)


def without_label(text: str) -> str:
    """The text without a label such as ``answer =`` or ``The answer is`` before it.

    Other names stay: for a question whose answer is a name, ``London = Paris`` gives two.
    """
    return text[found.end() :] if (found := _LABEL.match(text)) else text


def without_name(text: str) -> str:
    """The text without one ``name =`` and one "about" before it: ``x = 5`` and ``≈5`` are ``5``.

    A chain such as ``x = 1 = 2`` and a relation of numbers such as ``1 = 2`` stay as they are.
    """
    text = without_label(text)
    named = _NAME.fullmatch(text)
    if named and named["rest"] and not _NO_NAME.search(text[: named.start("rest")]):
        text = named["rest"]
    about = _ABOUT.match(text)
    return text[about.end() :] if about else text
