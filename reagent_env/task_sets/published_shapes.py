"""Reads one record of a published data set into what a task needs: a small function a shape.

Each reader takes a record and gives a :class:`Question`. Column names are those of the data sets'
pages, with the other spellings under which copies circulate. Not here: where records come from
(``published_records.py``), which shape a data set has (``published_table.py``).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from reagent_env.answers import boxed_values
from reagent_env.task_sets.published_cipher import decrypted


@dataclass(frozen=True)
class Question:
    """What a record says, e.g. ``Question("2 + 3?", "5", metadata={"level": 1})``."""

    text: str
    """What is asked."""
    answer: Any
    """A text, or a list of forms of it."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """``level``, ``kind``, ``source_id`` and the like; never the way to the answer."""
    file_name: str | None = None
    """The file it is about, which stands beside the records."""
    file_place: str | None = None
    """That file's path in the data set, where the record says it."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Files that stand in the record itself."""
    grader: str | None = None
    """In place of the data set's."""

    @property
    def has_media(self) -> bool:
        """Whether it is about a file or a picture."""
        return bool(self.files) or self.file_name is not None


Reader = Callable[[Mapping[str, Any]], Question]


def _first(record: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The first of these columns that holds anything; None where none does."""
    for name in names:
        value = record.get(name)
        if value is not None and value != "":
            return value
    return None


def _text(record: Mapping[str, Any], *names: str) -> str:
    value = _first(record, names)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f"no text under {' or '.join(map(repr, names))}; columns: {_shown(record)}."
        )
    return value.strip()


def _shown(record: Mapping[str, Any]) -> str:
    return ", ".join(sorted(map(str, record))[:20])


def _facts(record: Mapping[str, Any], **columns: tuple[str, ...]) -> dict[str, Any]:
    """Metadata name → the first of its columns that holds a text or a number."""
    facts = {name: _first(record, columns[name]) for name in columns}
    facts["source_id"] = _first(record, ("id", "_id", "task_id", "unique_id", "ID"))
    return {name: value for name, value in facts.items() if isinstance(value, str | int)}


def _level(value: Any) -> int | str | None:
    found = re.search(r"\d+", str(value)) if value is not None else None
    return int(found[0]) if found else value


def gsm8k(record: Mapping[str, Any]) -> Question:
    """GSM8K: the answer is what follows the last ``####``."""
    worked = _text(record, "answer")
    final = worked.rpartition("####")[2].strip().replace("$", "").replace(",", "")
    return Question(_text(record, "question", "problem"), final, _facts(record))


def math(record: Mapping[str, Any]) -> Question:
    """MATH-500 and AIME: ``problem`` and ``answer``, else the box of ``solution``."""
    if _first(record, ("answer", "Answer")) is not None:
        answer = _text(record, "answer", "Answer")
    else:
        boxes = boxed_values(_text(record, "solution", "Solution"))
        if not boxes:
            raise ValueError("neither an answer nor a \\boxed one in the solution.")
        answer = boxes[-1]
    facts = _facts(record, kind=("subject", "type"))
    level = _level(record.get("level"))
    if level is not None:
        facts["level"] = level
    return Question(_text(record, "problem", "Problem", "question"), answer, facts)


_ANSWERS = ("answer", "Answer", "golden_answers", "possible_answers", "answers", "ground_truth")


def qa(record: Mapping[str, Any]) -> Question:
    """HotpotQA, 2WikiMultihopQA, MuSiQue, Bamboogle, NQ, TriviaQA, PopQA, also as FlashRAG has them."""
    given = _first(record, _ANSWERS)
    if isinstance(given, str) and given.startswith("[") and "possible_answers" in record:
        given = json.loads(given)  # PopQA writes the list as JSON text
    forms = list(dict.fromkeys([*_forms(given), *_forms(record.get("answer_aliases"))]))
    if not forms:
        raise ValueError(f"no answer; columns: {_shown(record)}.")
    inner = record.get("metadata")
    whole = {**inner, **record} if isinstance(inner, Mapping) else record
    facts = _facts(whole, kind=("type", "prop"), level=("level",))
    titles = list(dict.fromkeys(_supporting(whole)))
    if titles:
        facts["supporting_titles"] = titles
    hops = re.match(r"(\d)hop", str(facts.get("source_id", "")))
    if hops:  # MuSiQue's ids begin with the hops
        facts["level"] = int(hops[1])
    return Question(
        _text(record, "question", "Question"), forms if len(forms) > 1 else forms[0], facts
    )


def _forms(given: Any) -> list[str]:
    if isinstance(given, Mapping):  # TriviaQA, Search-R1
        aliases = [*(given.get("aliases") or ()), *(given.get("target") or ())]
        given = [given.get("value"), *aliases]
    values = given if isinstance(given, list | tuple) else [given]
    return [str(value).strip() for value in values if value is not None and str(value).strip()]


def _supporting(record: Mapping[str, Any]) -> Iterable[str]:
    facts = record.get("supporting_facts")
    if isinstance(facts, Mapping):
        yield from (str(title) for title in facts.get("title", ()))
    elif isinstance(facts, list):
        yield from (str(fact[0]) for fact in facts if isinstance(fact, list) and fact)
    for paragraph in record.get("paragraphs") or ():
        if isinstance(paragraph, Mapping) and paragraph.get("is_supporting"):
            yield str(paragraph.get("title"))


def gaia(record: Mapping[str, Any]) -> Question:
    """GAIA: ``Question``, ``Final answer``, ``Level`` and perhaps a file."""
    answer = _text(record, "Final answer", "answer")
    if answer == "?":
        raise ValueError("the answer is withheld ('?'): this is the test split; use validation.")
    name = _first(record, ("file_name",))
    place = _first(record, ("file_path",))
    facts = _facts(record)
    facts["level"] = _level(_first(record, ("Level", "level")))
    return Question(
        _text(record, "Question", "question"),
        answer,
        facts,
        file_name=name.strip() if isinstance(name, str) and name.strip() else None,
        file_place=place if isinstance(place, str) else None,
    )


def webwalker(record: Mapping[str, Any]) -> Question:
    """WebWalkerQA: ``question``, ``answer``, ``root_url`` and ``info``, in either case."""
    lowered = {str(key).lower(): value for key, value in record.items()}
    info = lowered.get("info")
    facts = {str(k).lower(): v for k, v in info.items()} if isinstance(info, Mapping) else lowered
    metadata = _facts(
        {**lowered, **facts},
        level=("difficulty_level",),
        kind=("type", "hop"),
        language=("lang", "language"),
        domain=("domain",),
        root_url=("root_url",),
    )
    return Question(_text(lowered, "question"), _text(lowered, "answer"), metadata)


def hle(record: Mapping[str, Any]) -> Question:
    """Humanity's Last Exam: ``image`` is a data URI or empty."""
    image = _first(record, ("image",))
    facts = _facts(record, kind=("category",), answer_type=("answer_type",))
    return Question(
        _text(record, "question"),
        _text(record, "answer"),
        facts,
        files={} if image is None else _picture(image),
    )


_DATA_URI = re.compile(r"data:image/(png|jpeg|jpg|gif|webp);base64,(.*)", re.DOTALL)


def _picture(uri: Any) -> dict[str, bytes]:
    found = _DATA_URI.fullmatch(uri) if isinstance(uri, str) else None
    if found is None:
        raise ValueError(f"the image is no data URI of a picture: {str(uri)[:60]!r}.")
    try:
        return {f"image.{found[1]}": base64.b64decode(found[2], validate=True)}
    except binascii.Error as error:
        raise ValueError(f"the image's base64 is damaged ({error}).") from error


def xbench(record: Mapping[str, Any]) -> Question:
    """xbench-DeepSearch: encrypted where there is a canary, else plain."""
    canary = _first(record, ("canary",))
    question = _text(record, "prompt", "question")
    answer = _text(record, "answer")
    if isinstance(canary, str):
        question, answer = decrypted(question, canary), decrypted(answer, canary)
    return Question(question.strip(), answer.strip(), _facts(record, kind=("type",)))


def reagent_rl(record: Mapping[str, Any]) -> Question:
    """Reagent's mixture for reinforcement learning: ``question``, ``ground_truth``, ``category``."""
    facts = _facts(record, kind=("category", "data_source"))
    meta = record.get("meta_info")
    if isinstance(meta, Mapping) and isinstance(meta.get("source"), str):
        facts["source_set"] = meta["source"]
    forms = _forms(_first(record, ("ground_truth", "answer")))
    if not forms:
        raise ValueError(f"no ground_truth; columns: {_shown(record)}.")
    mathematical = "math" in str(facts.get("kind", "")).lower()
    return Question(
        _text(record, "question"),
        forms if len(forms) > 1 else forms[0],
        facts,
        grader="math" if mathematical else None,
    )


READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "gsm8k": gsm8k,
        "math": math,
        "qa": qa,
        "gaia": gaia,
        "webwalker": webwalker,
        "hle": hle,
        "xbench": xbench,
        "reagent_rl": reagent_rl,
    }
)
"""Shape → its reader."""
