"""Turns an episode into token ids, a turn at a time, by the tokenizer's own chat template.

What the policy sampled is never encoded again: a turn adds the sampled ids as they came, then the
tokens that the template puts between a completion and the next one. Not here: sampling
(``engines``), acting (``rollout.py``).

Append-only, always. Some templates rewrite a prompt once the conversation goes on: they drop the
thinking of earlier turns, or open a completion with words that its place in the history lacks
(``<think>``). Here the earlier turns stay as they were sampled, so that the policy is trained under
exactly the context it read; :attr:`Renderer.rewrites_history` says that a server which renders the
whole conversation by this template at each turn would show the model something else.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

PLAIN_TEMPLATE = (
    "{{ bos_token if bos_token else '' }}"
    "{% for message in messages %}{{ message['role'].capitalize() + ':\\n' + message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '' }}{{ '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\\n' }}{% endif %}"
)
"""For a tokenizer that has none (a base model): roles as words, the end-of-text token ends a turn."""

_ENDS_OF_TURN = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|end|>",
    "<|end_of_turn|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
)
"""Beside the tokenizer's own and the template's: where one is a special token, it ends a turn."""

_QUESTION, _ANSWER, _OBSERVATION = "qQ7wzxQq", "qA7wzxAq", "qO7wzxOq"
"""Stand-ins for contents: found in the rendered text to tell contents from template."""


class TemplateUnsupported(ValueError):
    """The chat template cannot be rendered turn by turn; the message says why, and what to pass."""


class Renderer:
    """Renders openings and replies for one tokenizer; safe to use from many threads.

    Example, ChatML (``·`` between what each call returns and what was sampled)::

        renderer = Renderer(tokenizer)
        ids = renderer.opening_ids([{"role": "user", "content": "2 + 3?"}])
        #   <|im_start|>user\\n2 + 3?<|im_end|>\\n<|im_start|>assistant\\n
        #   · <tool_call>…</tool_call><|im_end|>                             sampled, kept as it is
        ids += sampled + renderer.reply_ids("5", closed=True)
        #   · \\n<|im_start|>user\\n5<|im_end|>\\n<|im_start|>assistant\\n

    A special token written out in a content (``<|im_end|>`` on a web page) stays text: it is never
    encoded as the token. A template that refuses the system role gets the system message at the
    head of the first user message.
    """

    stop_ids: tuple[int, ...]
    """Ids that end a completion, ascending: end of turn, end of text."""
    rewrites_history: bool
    """Whether the template would show earlier turns otherwise than they were sampled."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, chat_template: str | None = None
    ) -> None:
        """Derive from the template what surrounds a reply.

        Args:
            tokenizer: A fast tokenizer; it is not changed.
            chat_template: Used in place of the tokenizer's own.

        Raises:
            TemplateUnsupported: no template, not a fast tokenizer, or contents cannot be told apart
                from template in what it renders.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise TemplateUnsupported(
                f"{type(tokenizer).__name__} is not a fast tokenizer; load one that has a "
                "tokenizer.json (AutoTokenizer does where there is one)."
            )
        if chat_template is None and not tokenizer.chat_template:
            raise TemplateUnsupported(
                "The tokenizer has no chat template; pass chat_template=, e.g. that of the model's "
                "chat variant, or reagent_env.trainers.rendering.PLAIN_TEMPLATE."
            )
        self._tokenizer = tokenizer
        self._template = chat_template
        # Copies: padding, truncation and the treatment of special tokens are state of the backend,
        # and other threads may switch it.
        self._backend = _plain_copy(backend, split_special=False)
        self._literal = _plain_copy(backend, split_special=True)
        self._specials = {
            token.content: index
            for index, token in tokenizer.added_tokens_decoder.items()
            if token.special
        }
        longest_first = sorted(self._specials, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

        question = {"role": "user", "content": _QUESTION}
        answer = {"role": "assistant", "content": _ANSWER}
        observation = {"role": "user", "content": f" \n{_OBSERVATION} \n"}
        opening = self._render([question])
        whole = self._render([question, answer, observation])
        if whole.count(_ANSWER) != 1 or whole.count(_OBSERVATION) != 1:
            raise TemplateUnsupported(
                "The chat template does not show each message once: a conversation of user, "
                f"assistant, user is rendered as {whole!r}. Pass another chat_template=."
            )
        before, tail = whole.split(_ANSWER)
        self._head, self._foot = tail.split(_OBSERVATION)
        self._trims_start = not self._head.endswith(" \n")
        self._trims_end = not self._foot.startswith(" \n")
        self._head = self._head if self._trims_start else self._head[:-2]
        self._foot = self._foot if self._trims_end else self._foot[2:]

        found = self._special.search(self._head)
        ends_turn = found is not None and not self._head[: found.start()].strip()
        self._end: int | None = None
        self._end_at = 0
        if found is not None and ends_turn:
            self._end = self._specials[found.group()]
            self._end_at = found.start()
        named = (self._specials[name] for name in _ENDS_OF_TURN if name in self._specials)
        ends = {self._end, tokenizer.eos_token_id, *named} - {None}
        self.stop_ids = tuple(sorted(int(end) for end in ends if end is not None))

        thought = {"role": "assistant", "content": f"<think>\n{_QUESTION}\n</think>\n\n{_ANSWER}"}
        told = self._render([question, thought, observation])
        # A blank that the template puts before a completion is the completion's to sample.
        self.rewrites_history = before.rstrip() != opening.rstrip() or told.count(_QUESTION) != 2

    def opening_ids(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """Tokens of the first prompt, up to where the policy begins to write.

        Args:
            messages: Chat messages, the last of them the user's, e.g. ``info["messages"]``.
            tools: Schemas for the template to show; None where the system message names the tools.

        Raises:
            TemplateUnsupported: the template refuses the messages, or it would show the tools
                elsewhere once the conversation goes on.
        """
        shown = [{**message, "content": _encodable(message["content"])} for message in messages]
        text = self._render(shown, tools)
        if tools:
            later = self._render([*shown, *_exchange()], tools)
            if not later.startswith(self._render(shown, tools, prompt=False).rstrip()):
                raise TemplateUnsupported(
                    "The chat template shows tools elsewhere once the conversation goes on; leave "
                    "tools out (the environment's system message names them)."
                )
        if not any(self._special.search(message["content"]) for message in shown):
            return self._encode([(text, True)])
        return self._encode(self._told_apart(text, shown, tools))

    def reply_ids(self, observation: str, *, closed: bool) -> list[int]:
        """Tokens between a completion and the next: end of turn, the observation, a new prompt.

        Args:
            observation: What the environment says: a tool's output, a critique.
            closed: Whether the sampled ids end with one of :attr:`stop_ids`
                (``generation.finish == "stop"``); then the end of turn is not added again.
        """
        text = _encodable(observation)
        text = text.lstrip() if self._trims_start else text
        text = text.rstrip() if self._trims_end else text
        # With the end of turn in front, closed or not: some tokenizers encode the start of a text
        # otherwise than what follows a special token.
        head = self._head[self._end_at :] if closed else self._head
        ids = self._encode([(head, True), (text, False), (self._foot, True)])
        return ids[1:] if closed and self._end is not None else ids

    def completion_text(self, ids: Sequence[int]) -> str:
        """What the policy wrote, without the end of turn; broken UTF-8 becomes U+FFFD.

        Other special tokens stay, as text: an agent that writes ``<|im_start|>`` is seen to.
        """
        kept = list(ids)
        if kept and kept[-1] in self.stop_ids:
            kept.pop()
        return str(self._backend.decode(kept, skip_special_tokens=False))

    def completion_ids(self, text: str) -> list[int]:
        """Tokens of a completion that nobody sampled: a demonstration, its end of turn included."""
        ids = self._encode([(_encodable(text), False)])
        end = self._end if self._end is not None else self._tokenizer.eos_token_id
        return ids if end is None else [*ids, int(end)]

    def _render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        prompt: bool = True,
    ) -> str:
        """The template's text, with the prompt to go on unless told otherwise."""
        options: dict[str, Any] = {
            "tools": None if tools is None else list(tools),
            "add_generation_prompt": prompt,
            "chat_template": self._template,
            "tokenize": False,
        }
        try:
            shown = [dict(message) for message in messages]
            return str(self._tokenizer.apply_chat_template(shown, **options))
        except TemplateError as error:
            if len(messages) < 2 or messages[0]["role"] != "system":
                raise TemplateUnsupported(f"The chat template refuses: {error}") from error
        system, first, *others = messages
        both = {**first, "content": f"{system['content']}\n\n{first['content']}"}
        return self._render([both, *others], tools, prompt=prompt)

    def _told_apart(
        self,
        text: str,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
    ) -> list[tuple[str, bool]]:
        """``text`` cut into template (True) and contents (False)."""
        marks = {f"qM{index}wzxMq": one["content"] for index, one in enumerate(messages)}
        marked = [{**one, "content": mark} for one, mark in zip(messages, marks, strict=True)]
        pieces: list[tuple[str, bool]] = []
        at = 0
        for piece in re.split("(" + "|".join(marks) + ")", self._render(marked, tools)):
            content = marks.get(piece)
            shown = (piece,) if content is None else (content, content.strip())
            fits = next((one for one in shown if text.startswith(one, at)), None)
            if fits is None:
                raise TemplateUnsupported(
                    f"A message holds a special token ({self._special.pattern[:60]}…) and the chat "
                    f"template changes its text: cannot find {shown[0][:80]!r} where it belongs."
                )
            pieces.append((fits, content is None))
            at += len(fits)
        return pieces

    def _encode(self, pieces: Sequence[tuple[str, bool]]) -> list[int]:
        """Ids of the joined text; only pieces marked True may hold special tokens."""
        if all(trusted or not self._special.search(text) for text, trusted in pieces):
            return list(
                self._backend.encode(
                    "".join(text for text, _ in pieces), add_special_tokens=False
                ).ids
            )
        ids: list[int] = []
        for text, special in self._runs(pieces):
            backend = self._backend if special else self._literal
            ids += backend.encode(text, add_special_tokens=False).ids
        return ids

    def _runs(self, pieces: Sequence[tuple[str, bool]]) -> Iterator[tuple[str, bool]]:
        """Special tokens of the template (True), and the text between two of them (False)."""
        run = ""
        for text, trusted in pieces:
            at = 0
            for found in self._special.finditer(text) if trusted else ():
                run += text[at : found.start()]
                if run:
                    yield run, False
                yield found.group(), True
                run, at = "", found.end()
            run += text[at:]
        if run:
            yield run, False


def _exchange() -> list[dict[str, str]]:
    return [
        {"role": "assistant", "content": _ANSWER},
        {"role": "user", "content": _OBSERVATION},
    ]


def _encodable(text: str) -> str:
    """``text`` with lone surrogates replaced, which no tokenizer can encode."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _plain_copy(backend: Any, *, split_special: bool) -> Any:
    twin = copy.deepcopy(backend)
    twin.no_padding()
    twin.no_truncation()
    twin.encode_special_tokens = split_special
    return twin
