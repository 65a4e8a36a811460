"""A second attempt after a critique of the first (Reagent-C and -U, arXiv 2601.22154)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, SupportsFloat

import gymnasium

from reagent_env.judgement import Judgement
from reagent_env.reward_models.base import RewardModel, told
from reagent_env.trajectory import Trajectory
from reagent_env.wrappers.judging import JudgingWrapper, attempt_ended, shown

NEUTRAL = (
    "Look over the whole attempt again: whether each call was needed and well aimed, and whether "
    "the final answer rests on what the tools returned."
)
"""What stands in for a critique that cannot be shown, and for every critique in the control."""

_FRAME = (
    "A reviewer read your attempt and wrote:\n{critique}\n\n"
    "Now solve the task once more from the start, with the tools as before, and end with a final "
    "answer."
)

Feedback = Callable[[Trajectory, Judgement], str]
"""From the record of the attempts so far, and the judgement of the last, to a critique."""

FEEDBACKS = ("critique", "retry", "independent")
_TELLING = 4
"""Letters from which a single word of an answer counts as telling it."""
_LONGEST_NUMBER = 400
_NUMBER = re.compile(
    r"(?<![\w.])[0-9]+(?:(?:\{,\}|\\[,!]|[,'\u00a0\u202f ])[0-9]{3}(?![0-9]))*(?:\.[0-9]+)?"
)
_WORD = re.compile(r"[^\W_]+(?:[.,][0-9]+)*")
_KEPT = (
    "attempt",
    "turn",
    "stop_reason",
    "final_answer",
    "judgement",
    "reward/outcome",
    "reward/process",
    "reward/turns",
)


class CritiqueRefine(JudgingWrapper):
    """After an attempt ends, the critique is the next observation, and another attempt begins.

    Every attempt but the last is refined, right or wrong, and the policy is told neither outcome.
    The last step of an earlier attempt returns that attempt's own reward with
    ``terminated=False`` and ``info["attempt_ended"] = True``; the last attempt's ends the episode,
    and its ``info["attempts"]`` lists them all. Each attempt closes its own return: discount by 0
    across the boundary. The sandbox keeps its state over the attempts of an episode.

    Example::

        env = CritiqueRefine(ProcessReward(env, judge), judge)   # one judgement, shared

    A critique that holds an answer which stands in neither question, opening nor attempt is replaced,
    whole and unmarked, by a neutral one: ``info["critique_replaced"]`` counts it, the policy cannot tell.
    """

    inside = ("CritiqueRefine",)
    why = "attempts are counted once; give attempts=3 to one wrapper instead."

    def __init__(
        self,
        env: gymnasium.Env[str, str],
        judge: RewardModel,
        attempts: int = 2,
        feedback: str | Feedback = "critique",
    ) -> None:
        """Wrap ``env``.

        Args:
            env: A tool-use environment, wrapped or not.
            judge: Any reward model.
            attempts: Attempts an episode, at least 1.
            feedback: ``critique``; or a control: ``retry`` (the same neutral words for every
                attempt), ``independent`` (a new attempt from the prompt alone, in a fresh sandbox:
                the observation is the prompt again, ``info["messages"]`` as after ``reset``); or a
                function from trajectory and judgement to a critique. The judge is asked, and its
                judgement recorded, in all but ``independent``.

        Raises:
            ValueError: an argument or the order of wrappers makes no sense.
        """
        super().__init__(env, judge, attempts=attempts, feedback=feedback)
        if attempts < 1:
            raise ValueError(f"attempts must be at least 1, got {attempts!r}.")
        if not callable(feedback) and feedback not in FEEDBACKS:
            raise ValueError(f"Unknown feedback {feedback!r}; known: {', '.join(FEEDBACKS)}.")
        self.attempts = attempts
        self.feedback = feedback
        self.inner.max_attempts = attempts
        self._closed: list[dict[str, Any]] = []

    def reset(self, **kwargs: Any) -> tuple[str, dict[str, Any]]:
        """Begin an episode with its first attempt."""
        self._closed = []
        return self.env.reset(**kwargs)

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step; where that ends an attempt before the last, hand over the critique."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        info["attempt_ended"] = terminated or truncated
        if not (terminated or truncated):
            return observation, reward, terminated, truncated, info
        goes_on = (
            len(self._closed) + 1 < self.attempts
            and attempt_ended(terminated, truncated, info)
            and info["stop_reason"] is not None  # else a limit around the episode cut it short
        )
        critique: str | None = None
        if goes_on and self.feedback != "independent":
            judgement = self.judgement()
            info["judgement"] = shown(judgement)
            critique = self._critique(judgement, info)
        self._closed.append(_summary(reward, info))
        if not goes_on:
            info["attempts"] = list(self._closed)
            return observation, reward, terminated, truncated, info
        if critique is None:
            self.inner.begin_attempt(None)
            trajectory = self.inner.trajectory
            info.update(self.inner.opening(trajectory.task))
            return trajectory.prompt, reward, False, False, info
        message = _FRAME.format(critique=critique)
        self.inner.begin_attempt(message, replaced=info.get("critique_replaced", False))
        if observation:
            message = f"{observation}\n\n{message}"
        return message, reward, False, False, info

    def _critique(self, judgement: Judgement, info: dict[str, Any]) -> str:
        if self.feedback == "retry":
            return NEUTRAL
        trajectory = self.inner.trajectory
        critique = (
            self.feedback(trajectory, judgement) if callable(self.feedback) else judgement.critique
        )
        if not critique.strip():
            return NEUTRAL
        info["critique_replaced"] = gives_answer_away(critique, trajectory)
        return NEUTRAL if info["critique_replaced"] else critique.strip()


def gives_answer_away(critique: str, trajectory: Trajectory) -> bool:
    """Whether a critique holds an answer, or a telling word of one, that its reader has not seen.

    Seen is what stands in the question, a world's opening, the completions and the observations.
    Words are compared whole and without case, numbers by value (``46,147.0`` is 46147).
    """
    answer = trajectory.task.answer
    if answer is None:  # a simulator's task: its goal is to be reached, not told
        return False
    if isinstance(answer, Mapping):
        answers = [str(part) for part in answer.values()]
    elif isinstance(answer, list | tuple):
        answers = [str(part) for part in answer]
    else:
        answers = [str(answer)]
    seen_texts = [told(trajectory)]
    for turn in trajectory.turns:
        seen_texts += [turn.completion, turn.observation]
    seen = "\n".join(seen_texts)
    new_numbers = _numbers(critique) - _numbers(seen)
    if any(_numbers(text) & new_numbers for text in answers):
        return True
    seen_words, critique_words = _words(seen), _words(critique)
    for text in answers:
        telling = [f" {word} " for word in _words(text).split() if len(word) >= _TELLING]
        for wanted in (_words(text), *telling):
            if wanted.strip() and wanted in critique_words and wanted not in seen_words:
                return True
    return False


def _numbers(text: str) -> set[Fraction]:
    """The values of the numbers in a text, thousands separators or not."""
    found = set()
    for digits in _NUMBER.findall(text):
        plain = re.sub(r"[^0-9.]", "", digits)
        if len(plain) <= _LONGEST_NUMBER:
            found.add(Fraction(plain))
    return found


def _words(text: str) -> str:
    """The words of a text between single spaces, to be searched for whole words."""
    return " ".join(["", *_WORD.findall(text.casefold()), ""])


def _summary(reward: SupportsFloat, info: Mapping[str, Any]) -> dict[str, Any]:
    """What ``info["attempts"]`` says of one attempt."""
    return {"reward": float(reward), **{key: info[key] for key in _KEPT if key in info}}
