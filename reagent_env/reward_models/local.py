"""A judge in this process: a causal language model of transformers, from a folder.

It reads what every judge reads (``prompt.py``), through its tokenizer's chat template, writes
greedily, and is read strictly (``parse.py``). Many callers at once go through ``batched.py``, large
models through a server (``served.py``). torch is loaded when a judge is made.
"""

from __future__ import annotations

import array
import functools
import hashlib
import importlib
import json
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reagent_env.judgement import Judgement
from reagent_env.reward_models.base import Unscored, prefixes_of, unscored, up_to_attempt
from reagent_env.reward_models.certainty import Certainty, doubted
from reagent_env.reward_models.parse import parse_judgement
from reagent_env.reward_models.prompt import LEAST_MAX_CHARS, MAX_CHARS, judge_messages
from reagent_env.reward_models.turn_count import HeldList, TurnCount, held_lists
from reagent_env.trajectory import Trajectory

Messages = list[dict[str, str]]

SETTINGS_FILE = "judge.json"
"""In a model's folder: the arguments of :class:`LocalJudge` that this model was trained with."""
TURN_SCORES = ("own", "prefixes")
VIEWS = {"record": "", "marks": "reagent_env.reward_models.marks:marked_messages"}
"""What a model reads: the whole record, or the short view that a small model is trained on."""
_DEFAULTS: dict[str, Any] = {
    "max_new_tokens": 1_400,
    "batch_size": 8,
    "view": "record",
    "prior": None,
    "members": [],
}
REMEMBERED = 4_096
"""Answers that are kept: equal questions, as short views often are, are answered alike at once."""


class LocalJudge:
    """Judges with the model in ``folder``.

    Example::

        LocalJudge("/models/agent-rrm", device="cuda", batch_size=16).judge([trajectory])

    An attempt that does not fit the model's context is shown shorter, as far as ``prompt.py`` goes,
    and is unscored (``context_overflow``) beyond that; an answer cut off at ``max_new_tokens``, or
    one that is not exactly a judgement, is unscored (``unparsed``). There is no deadline: however
    busy the machine, the answer is waited for. Where the tokenizer allows it, lists are held to one
    entry a turn (``turn_count.py``).
    """

    patience_s = math.inf
    """How long ``BatchedJudge`` waits for it."""

    def __init__(
        self,
        folder: str | Path,
        *,
        max_new_tokens: int | None = None,
        batch_size: int | None = None,
        device: str | None = None,
        turn_scores: str = "own",
        view: str | None = None,
        max_chars: int = MAX_CHARS,
    ) -> None:
        """Load the model and its tokenizer.

        Args:
            folder: A transformers model: configuration, weights, tokenizer with a chat template.
            max_new_tokens: Room kept for the answer; by default what the folder's ``judge.json``
                says, else 1,400, as the published judge needs.
            batch_size: Attempts read at a time; by default what the folder says, else 8.
            device: Where it computes; by default ``cuda`` where there is one, else ``cpu``.
            turn_scores: ``own``: those that the model writes, if it writes any. ``prefixes``: φ_t
                is its score of the first t turns, one reading a turn; for models that write none,
                such as the published one.
            view: What it reads, of :data:`VIEWS`; by default what the folder says, else ``record``.
            max_chars: Most characters of an attempt's record.

        Raises:
            ValueError: no model in the folder, no chat template, or an argument out of range.
            ModuleNotFoundError: torch or transformers is missing; says which extra has them.
        """
        self.folder = Path(folder).expanduser()
        if not (self.folder / "config.json").is_file():
            raise ValueError(f"No model in {str(folder)!r}: a folder with config.json is wanted.")
        given = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "view": view}
        settings = _DEFAULTS | _stated(self.folder) | {k: v for k, v in given.items() if v}
        prior = settings["prior"]
        if prior is not None and not (isinstance(prior, int | float) and 0 <= prior <= 1):
            raise ValueError(f"{self.folder / SETTINGS_FILE}: prior lies in [0, 1], got {prior!r}.")
        if settings["view"] not in VIEWS:
            raise ValueError(f"view is one of {', '.join(VIEWS)}, got {settings['view']!r}.")
        if turn_scores not in TURN_SCORES:
            raise ValueError(
                f"turn_scores is one of {', '.join(TURN_SCORES)}, got {turn_scores!r}."
            )
        for name in ("max_new_tokens", "batch_size"):
            if not isinstance(settings[name], int) or settings[name] < 1 or given[name] == 0:
                raise ValueError(f"{name} is at least 1, got {given[name]!r}.")
        if max_chars < LEAST_MAX_CHARS:
            raise ValueError(f"max_chars is at least {LEAST_MAX_CHARS}, got {max_chars!r}.")
        self.max_new_tokens: int = settings["max_new_tokens"]
        self.batch_size: int = settings["batch_size"]
        self.view: str = settings["view"]
        self.prior: float | None = settings["prior"]
        self.turn_scores = turn_scores
        self.max_chars = max_chars
        self.device = device
        self._loaded = load_model(self.folder, device, verdicts=self.view == "marks")
        if prior is not None and self._loaded.closing is None:
            raise ValueError(
                f"{self.folder}: a prior needs a tokenizer that has one token </think>."
            )
        self._alone = threading.Lock()
        self._remembered: OrderedDict[bytes, _Written] = OrderedDict()

    def judge(self, trajectories: Sequence[Trajectory], *, attempt: int = -1) -> list[Judgement]:
        """One judgement a trajectory, in the same order; threads take turns.

        Raises:
            IndexError: a trajectory has attempts, but not this one.
        """
        asked = [up_to_attempt(each, attempt) for each in trajectories]
        if self.turn_scores == "own":
            return self._judge(asked)
        cut = [prefixes_of(each) for each in asked]
        judged = iter(self._judge([prefix for prefixes in cut for prefix in prefixes]))
        return [_as_turns([next(judged) for _ in prefixes]) for prefixes in cut]

    def _judge(self, trajectories: Sequence[Trajectory]) -> list[Judgement]:
        judgements: dict[int, Judgement] = {}
        prompts: dict[int, list[int]] = {}
        for index, trajectory in enumerate(trajectories):
            if not _turns(trajectory):
                judgements[index] = _none(Unscored.EMPTY, "the attempt has no turn")
            elif (prompt := self._prompt(trajectory)) is None:
                room = (
                    f"{self._loaded.context} tokens, {self.max_new_tokens} of them for the answer"
                )
                judgements[index] = _none(Unscored.CONTEXT_OVERFLOW, f"a context of {room}")
            else:
                prompts[index] = prompt
        turns = {index: _turns(trajectories[index]) for index in prompts}
        for index, answer, seconds in self._answers(prompts, turns):
            read = self._read(answer, turns[index])
            judgements[index] = replace(read, latency_s=seconds, tokens=answer.tokens)
        return [judgements[index] for index in range(len(trajectories))]

    def _answers(
        self, prompts: dict[int, list[int]], turns: dict[int, int]
    ) -> Iterator[tuple[int, _Written, float]]:
        """Each prompt's answer and the seconds it took; of equal questions, one is asked."""
        keys = {index: _key(ids, turns[index]) for index, ids in prompts.items()}
        asked: dict[bytes, int] = {}
        for index, key in keys.items():
            asked.setdefault(key, index)
        began = time.perf_counter()
        with self._alone:
            found = {key: self._remembered[key] for key in asked if key in self._remembered}
        took = dict.fromkeys(found, time.perf_counter() - began)
        waiting = [(key, index) for key, index in asked.items() if key not in found]
        # Alike in length, so that little of a batch is padding.
        waiting.sort(key=lambda each: (len(prompts[each[1]]), each[1]))
        for start in range(0, len(waiting), self.batch_size):
            part = waiting[start : start + self.batch_size]
            began = time.perf_counter()
            with self._alone:
                written = self._loaded.write(
                    [prompts[index] for _, index in part],
                    self.max_new_tokens,
                    [turns[index] for _, index in part],
                )
                for (key, _), answer in zip(part, written, strict=True):
                    found[key] = self._remembered[key] = answer
                while len(self._remembered) > REMEMBERED:
                    self._remembered.popitem(last=False)
            took |= dict.fromkeys((key for key, _ in part), time.perf_counter() - began)
        for index, key in keys.items():
            yield index, found[key], took[key]

    def _prompt(self, trajectory: Trajectory) -> list[int] | None:
        """The longest prompt that leaves room for the answer, or None."""
        for messages in self._questions(trajectory):
            ids = self._loaded.encode(messages)
            if len(ids) + self.max_new_tokens <= self._loaded.context:
                return ids
        return None

    def _questions(self, trajectory: Trajectory) -> Iterator[Messages]:
        """From the fullest prompt to the shortest."""
        if self.view != "record":
            shown = view_of(self.view)(trajectory)
            yield from [] if shown is None else [shown]
            return
        chars = self.max_chars
        while True:
            yield judge_messages(trajectory, max_chars=chars)
            if chars == LEAST_MAX_CHARS:
                return
            chars = max(LEAST_MAX_CHARS, chars * 2 // 3)

    def _read(self, answer: _Written, turns: int) -> Judgement:
        if not answer.ended:
            why = unscored(Unscored.UNPARSED, f"cut off at {self.max_new_tokens} tokens")
            return Judgement(reasoning=answer.text, unscored=why)
        read = parse_judgement(answer.text, turns)
        return read if self.prior is None else doubted(read, answer.certainty, self.prior)

    def __reduce__(self) -> tuple[Any, ...]:
        """The folder and the settings travel; the copy loads the model itself."""
        settings: dict[str, Any] = {
            "max_new_tokens": self.max_new_tokens,
            "batch_size": self.batch_size,
            "device": self.device,
            "turn_scores": self.turn_scores,
            "view": self.view,
            "max_chars": self.max_chars,
        }
        return functools.partial(LocalJudge, **settings), (self.folder,)

    def __repr__(self) -> str:
        """The folder."""
        return f"LocalJudge({str(self.folder)!r})"


# Attempts -----------------------------------------------------------------------------------------


def view_of(name: str) -> Callable[[Trajectory], Messages | None]:
    """What makes the view of that name; None of it is an attempt that has none.

    Raises:
        ValueError: no short view has that name.
    """
    module, _, function = VIEWS.get(name, "").partition(":")
    if not module:
        short = ", ".join(view for view, place in VIEWS.items() if place)
        raise ValueError(f"A short view is one of {short}, got {name!r}.")
    made: Callable[[Trajectory], Messages | None]
    made = getattr(importlib.import_module(module), function)
    return made


def _turns(trajectory: Trajectory) -> int:
    return len(trajectory.attempts[-1].turns) if trajectory.attempts else 0


def _as_turns(judgements: Sequence[Judgement]) -> Judgement:
    """The last one, with the scores of all as φ_1 … φ_T."""
    last = judgements[-1]
    cost: dict[str, Any] = {
        "latency_s": sum(each.latency_s for each in judgements),
        "tokens": sum(each.tokens for each in judgements),
    }
    if last.score is None:
        return replace(last, **cost)
    return replace(last, turn_scores=tuple(each.score for each in judgements), **cost)


def _key(prompt: Sequence[int], turns: int) -> bytes:
    """The same for questions that have the same answer."""
    return hashlib.blake2b(array.array("q", (turns, *prompt)).tobytes(), digest_size=16).digest()


def _none(kind: Unscored, detail: str) -> Judgement:
    return Judgement(unscored=unscored(kind, detail))


# The model ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Written:
    text: str
    """What the model wrote, without its end-of-turn token."""
    tokens: int
    """Tokens of it, that one included."""
    ended: bool
    """False where it was cut off."""
    certainty: float
    """Probability that the model gave to its own reasoning."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model and its tokenizer, which writes greedily."""

    model: Any
    tokenizer: Any
    context: int
    """Tokens that prompt and answer share."""
    lists: tuple[HeldList, ...] = ()
    """Those in which it is held to one entry a turn."""
    closing: int | None = None
    """The token that ends the reasoning, where that is one."""

    def encode(self, messages: Messages) -> list[int]:
        """The messages as token ids, up to where the answer begins."""
        from jinja2 import TemplateError

        template = functools.partial(
            self.tokenizer.apply_chat_template, add_generation_prompt=True, tokenize=False
        )
        try:
            text = template(messages)
        except TemplateError:  # some templates know no system role
            joined = "\n\n".join(message["content"] for message in messages)
            text = template([{"role": "user", "content": joined}])
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def write(
        self, prompts: Sequence[list[int]], max_new_tokens: int, turns: Sequence[int]
    ) -> list[_Written]:
        """The greedy continuation of each prompt, an attempt of ``turns`` turns."""
        import torch

        ends = _end_tokens(self.model, self.tokenizer)
        longest = max(map(len, prompts))
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else ends[0]
        gaps = [longest - len(ids) for ids in prompts]
        batch = [[pad] * gap + ids for gap, ids in zip(gaps, prompts, strict=True)]
        mask = [[0] * gap + [1] * (longest - gap) for gap in gaps]
        certainty = Certainty()
        held = [TurnCount(self.lists, turns, self.model.device)] if self.lists else []
        with torch.inference_mode():
            written = self.model.generate(
                input_ids=torch.tensor(batch, device=self.model.device),
                attention_mask=torch.tensor(mask, device=self.model.device),
                max_new_tokens=max_new_tokens,
                eos_token_id=ends,
                pad_token_id=pad,
                logits_processor=[*held, certainty],
            )
        answers = [ids[longest:] for ids in written.tolist()]
        sure = [certainty.of(row, ids, self.closing) for row, ids in enumerate(answers)]
        return [
            self._cut(ids, ends, prompt, probability)
            for ids, prompt, probability in zip(answers, prompts, sure, strict=True)
        ]

    def _cut(
        self, ids: list[int], ends: list[int], prompt: list[int], certainty: float
    ) -> _Written:
        length = next((place for place, token in enumerate(ids) if token in ends), len(ids))
        text = self.tokenizer.decode(ids[:length], clean_up_tokenization_spaces=False)
        if self.tokenizer.decode(prompt[-8:]).rstrip().endswith("<think>"):
            text = f"<think>{text}"  # the chat template opened the block
        ended = length < len(ids)
        return _Written(text, length + ended, ended, certainty)


def load_model(folder: Path, device: str | None, *, verdicts: bool = False) -> _Loaded:
    """The model in ``folder`` and its tokenizer.

    Args:
        folder: A transformers model with a chat template.
        device: Where it computes; by default ``cuda`` where there is one, else ``cpu``.
        verdicts: Whether its reasoning is a list with one verdict a turn.

    Raises:
        ValueError: the tokenizer has no chat template.
        ModuleNotFoundError: torch or transformers is missing; says which extra has them.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    except ImportError as error:
        raise ModuleNotFoundError(
            f"A judge from a folder needs {error.name}: python -m pip install 'reagent-env[train]'"
        ) from error
    from transformers.utils import logging as theirs

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not tokenizer.chat_template:
        raise ValueError(f"The tokenizer in {str(folder)!r} has no chat template.")
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    # No native bf16 on most CPUs: fp32 there, what the folder says elsewhere.
    dtype = torch.float32 if where == "cpu" else "auto"
    bars: Any = theirs
    drawn = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()  # a bar for every file would run through the caller's own
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True
        )
    finally:
        if drawn:
            bars.enable_progress_bar()
    ends = model.generation_config.eos_token_id
    # Greedy whatever the folder says of sampling, and without warnings about it.
    greedy: Any = GenerationConfig
    model.generation_config = greedy(do_sample=False, eos_token_id=ends)
    config = getattr(model.config, "text_config", model.config)
    context = getattr(config, "max_position_embeddings", None) or 2**31
    closing = tokenizer("</think>", add_special_tokens=False)["input_ids"]
    return _Loaded(
        model.to(where).eval(),
        tokenizer,
        context,
        held_lists(tokenizer, verdicts),
        closing[0] if len(closing) == 1 else None,
    )


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the model's, and the tokenizer's."""
    stated = model.generation_config.eos_token_id
    found = stated if isinstance(stated, list) else [stated]
    ends = [token for token in (*found, tokenizer.eos_token_id) if token is not None]
    return list(dict.fromkeys(ends))


def members_of(folder: Path) -> list[Path]:
    """A judge's folder, and those below it that its ``judge.json`` names as further ``members``.

    Raises:
        ValueError: ``members`` is no list of names of folders in it.
    """
    names = _stated(folder).get("members", [])
    if not isinstance(names, list) or not all(
        isinstance(one, str) and (folder / one).is_dir() and (folder / one).parent == folder
        for one in names
    ):
        raise ValueError(
            f"{folder / SETTINGS_FILE}: members is a list of folders beside it, got {names!r}."
        )
    return [folder, *(folder / one for one in names)]


def _stated(folder: Path) -> dict[str, Any]:
    """What the folder says of its judge; empty where it says nothing.

    Raises:
        ValueError: the file is not a JSON object of known settings.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    unknown = sorted(set(settings) - set(_DEFAULTS)) if isinstance(settings, dict) else ["…"]
    if unknown:
        raise ValueError(
            f"{path} holds {', '.join(unknown)}; known settings: {', '.join(_DEFAULTS)}."
        )
    return dict(settings)
