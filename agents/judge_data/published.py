"""Reads judge data in the shapes in which Agent-RRM's was described: chat messages and a judgement.

One JSON object a line (or one JSON array), each in one of these shapes::

    {"messages": [{"role": "system" | "user" | "assistant", "content": "…"}, …]}
    {"conversations": [{"from": "system" | "human" | "gpt", "value": "…"}, …]}
    {"instruction": "…", "input": "…", "output": "…"}               "system" may stand beside
    {"prompt": [messages] | "…", "response" | "answer" | "reward_model": {"ground_truth": …}}

The last text of the assistant is the judgement, ``<think>…</think><critique>…</critique>
<score>x</score>``; of the last shape it may also be a bare score. What does not read strictly as
a judgement is kept with the reason and no score. Not here: our own planted records
(``records.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reagent_env.judgement import Judgement
from reagent_env.reward_models.parse import parse_judgement

_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class PublishedExample:
    """One example, e.g. ``PublishedExample(({"role": "user", ...},), Judgement(score=0.3))``."""

    prompt: tuple[dict[str, str], ...]
    """What the judge is asked, as chat messages."""
    judgement: Judgement
    """What it is to answer; unscored where that cannot be read."""
    shape: str
    """``messages``, ``conversations``, ``instruction`` or ``prompt``."""


def read_published(path: str | Path) -> Iterator[PublishedExample]:
    """Yield a file's examples in order.

    Raises:
        ValueError: not JSON, or none of the shapes; the message has the record's number.
    """
    text = Path(path).read_text("utf-8")
    array = text.lstrip().startswith("[")
    try:
        records: Any = json.loads(text) if array else text.splitlines()
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}).") from None
    for number, given in enumerate(records, start=1):
        if isinstance(given, str) and not given.strip():
            continue
        try:
            record = json.loads(given) if isinstance(given, str) else given
            yield _example(record)
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(
                f"{path}, record {number}: not a judged example ({error}); the shapes are in the "
                "docstring of reagent_env.agents.judge_data.published."
            ) from None


def _example(record: Mapping[str, Any]) -> PublishedExample:
    if not isinstance(record, Mapping):
        raise ValueError(f"expected an object, got {type(record).__name__}")
    for shape in ("messages", "conversations"):
        if shape in record:
            messages = [_message(one) for one in record[shape]]
            if not messages or messages[-1]["role"] != "assistant":
                raise ValueError("the last message is not the assistant's")
            return PublishedExample(tuple(messages[:-1]), _judgement(messages[-1]), shape)
    if "instruction" in record and "output" in record:
        asked = "\n\n".join(str(record[key]) for key in ("instruction", "input") if record.get(key))
        system = (
            [{"role": "system", "content": str(record["system"])}] if "system" in record else []
        )
        prompt = (*system, {"role": "user", "content": asked})
        return PublishedExample(prompt, parse_judgement(str(record["output"])), "instruction")
    if "prompt" in record:
        return _rl_example(record)
    raise ValueError(f"no known shape; keys: {sorted(record)}")


def _rl_example(record: Mapping[str, Any]) -> PublishedExample:
    given = record["prompt"]
    if isinstance(given, str):
        messages = [{"role": "user", "content": given}]
    else:
        messages = [_message(one) for one in given]
    truth: Any = record.get("response", record.get("answer"))
    if truth is None:
        truth = record["reward_model"]["ground_truth"]
    if isinstance(truth, Mapping):
        truth = truth.get("score")
    if isinstance(truth, int | float) and not isinstance(truth, bool):
        text = f"<critique></critique><score>{float(truth)}</score>"
        judgement = parse_judgement(text, reasoning="given as a score alone")
    elif isinstance(truth, str) and "<" not in truth:
        text = f"<critique></critique><score>{truth.strip()}</score>"
        judgement = parse_judgement(text, reasoning="given as a score alone")
    else:
        judgement = parse_judgement(str(truth))
    return PublishedExample(tuple(messages), judgement, "prompt")


def _message(given: Mapping[str, Any]) -> dict[str, str]:
    role = given.get("role", given.get("from"))
    content = given.get("content", given.get("value"))
    if isinstance(content, list):  # parts, as multimodal chats have them
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise ValueError(f"a message has no text: {sorted(given)}")
    return {"role": _ROLES.get(str(role), str(role)), "content": content}


def _judgement(message: Mapping[str, str]) -> Judgement:
    return parse_judgement(message["content"])
