"""Stable-Baselines3 on our environments: text → Box, a menu of calls → Discrete.

``make_sb3_env`` is what one needs; :class:`ActionMenu` and :class:`Featurize` are its parts, plain
Gymnasium wrappers that need nothing but numpy. Leaving spoiled episodes out of SB3's own buffers is
``sb3_masking.py``'s; what a menu offers is ``menus.py``'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat, SupportsInt

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from reagent_env.env import ToolUseEnv
from reagent_env.plugins.building import EnvSource, TextEnv, build_env
from reagent_env.plugins.menus import (
    Choice,
    Menu,
    MenuView,
    menu_for,
    proposed_calls,
    proposed_size,
)
from reagent_env.plugins.text_features import Encoder, Vector, get_encoder, overlap, word_set
from reagent_env.tool_formats import get_tool_format
from reagent_env.trajectory import StopReason, ToolCall

SIZE = 16
"""Slots of a menu unless it wants more."""
SLOT_FEATURES = 4
"""A slot's features: is it filled, overlap with the question, with the last observation, was it chosen."""


class ActionMenu(gymnasium.Wrapper[str, np.int64, str, str], RecordConstructorArgs):
    """The action is a slot of a menu: ``Discrete(size)``, with :meth:`action_masks` for MaskablePPO.

    Example::

        env = ActionMenu(gym.make("reagent/SearchQA-v0"), size=16)
        observation, info = env.reset(seed=7)     # observation: text; info["choices"]: the labels
        observation, reward, terminated, truncated, info = env.step(0)

    An empty slot, chosen by a learner that knows no masks, is a call of a tool that does not exist:
    it costs a turn, is answered as such, and ends nothing.
    """

    def __init__(
        self, env: TextEnv, menu: Menu | Sequence[str] | None = None, size: int | None = None
    ) -> None:
        """Wrap ``env``.

        Args:
            env: An environment of texts.
            menu: From what was read to choices; or a fixed list of completions; by default the
                menu of the environment's id, else :func:`~reagent_env.plugins.menus.proposed_calls`.
            size: Slots; what a menu offers beyond them is cut off. By default 16, or as many as a fixed
                list or the tools' proposed calls want.

        Raises:
            ValueError: ``size`` is below 1.
        """
        RecordConstructorArgs.__init__(self, menu=menu, size=size, _disable_deepcopy=True)
        gymnasium.Wrapper.__init__(self, env)
        if size is not None and size < 1:
            raise ValueError(f"size must be at least 1, got {size!r}.")
        inner = env.unwrapped
        self._tool_use = inner if isinstance(inner, ToolUseEnv) else None
        self.tool_format = (
            get_tool_format("hermes") if self._tool_use is None else self._tool_use.tool_format
        )
        if menu is None:
            self.menu = menu_for(None if env.spec is None else env.spec.id)
        elif callable(menu):
            self.menu = menu
        else:
            fixed = tuple(menu)
            self.menu = lambda view: fixed
            size = max(SIZE, len(fixed)) if size is None else size
        if size is None and self.menu is proposed_calls and self._tool_use is not None:
            size = max(SIZE, proposed_size([one.schema for one in self._tool_use.tools.values()]))
        self.size = SIZE if size is None else size
        self.action_space = spaces.Discrete(self.size)
        self.empty_slot = self.tool_format.render_calls([ToolCall("empty_slot", {})])
        """The completion that an empty slot stands for."""
        self.choices: list[Choice | None] = []
        """What the slots hold now."""
        self.view: MenuView | None = None
        """What the menu was made from."""
        self._question = ""
        self._tools: tuple[Mapping[str, Any], ...] = ()
        self._chosen: list[str] = []
        self._read: list[str] = []
        self._made: dict[Any, Choice] = {}

    def reset(self, **kwargs: Any) -> tuple[str, dict[str, Any]]:
        """Begin an episode and offer its first menu."""
        observation, info = self.env.reset(**kwargs)
        messages = info.get("messages") or [{"content": observation}]
        self._question = str(messages[-1]["content"])
        self._tools = tuple(info.get("tools", ()))
        self._chosen, self._made = [], {}
        self._offer(observation, info)
        return observation, info

    def step(self, action: SupportsInt) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take the completion in a slot; ``info["completion"]`` says which it was.

        Raises:
            ValueError: no such slot.
        """
        slot = int(action)
        if not 0 <= slot < self.size:
            raise ValueError(f"There are slots 0 to {self.size - 1}, got {slot}.")
        choice = self.choices[slot] if self.choices else None
        completion = self.empty_slot if choice is None else choice.completion
        observation, reward, terminated, truncated, info = self.env.step(completion)
        self._chosen.append(completion)
        if info.get("attempt_ended"):
            self._chosen = []
        info["completion"] = completion
        if not (terminated or truncated):
            self._offer(observation, info)
        return observation, reward, terminated, truncated, info

    def action_masks(self) -> NDArray[np.bool_]:
        """``[size]`` True where a slot is filled; all True where the menu is empty."""
        filled = np.array([choice is not None for choice in self.choices], np.bool_)
        return filled if filled.any() else np.ones(self.size, np.bool_)

    def _offer(self, observation: str, info: dict[str, Any]) -> None:
        limit = None if self._tool_use is None else self._tool_use.max_turns
        if self._chosen:  # else what was read belongs to nothing that this attempt did
            unframed = [str(one["content"]) for one in info.get("tool_results", ())]
            results = tuple(unframed) or (observation,)
            self._read = [*results, *self._read]
        else:
            results, self._read = (), []
        self.view = MenuView(
            question=self._question,
            observation=observation,
            results=results,
            read=tuple(self._read),
            chosen=tuple(self._chosen),
            tools=self._tools,
            tool_format=self.tool_format,
            turns_left=None if limit is None else limit - len(self._chosen),
            info=info,
            made=self._made,
        )
        offered = [Choice(one) if isinstance(one, str) else one for one in self.menu(self.view)][
            : self.size
        ]
        self.choices = offered + [None] * (self.size - len(offered))
        info["choices"] = [
            None if one is None else one.label or one.completion for one in self.choices
        ]
        info["action_mask"] = self.action_masks()


class Featurize(gymnasium.Wrapper[Vector, Any, str, Any], RecordConstructorArgs):
    """Text → a Box of ``2·dim + 1`` values in [-1, 1], and four more a slot where a menu is inside.

    They are the question's features, the last observation's, the share of turns used up, and of each
    slot: filled or not, overlap of its words with the question's and the observation's, chosen
    before or not. The text itself is ``info["text"]``.

    Example::

        env = Featurize(ActionMenu(gym.make("reagent/SearchQA-v0")), dim=64)
        env.observation_space        # Box(-1, 1, (193,)): 2 · 64 + 1 + 4 · 16
    """

    def __init__(
        self, env: gymnasium.Env[str, Any], encoder: str | Encoder = "hash", dim: int = 64
    ) -> None:
        """Wrap ``env``.

        Args:
            env: An environment of texts, in an ``ActionMenu`` or not.
            encoder: ``hash``, ``minilm`` (extra ``sb3-embed``, 384 values), or a function from a
                text to a vector in [-1, 1] with an attribute ``dim``.
            dim: Of ``hash``.
        """
        RecordConstructorArgs.__init__(self, encoder=encoder, dim=dim, _disable_deepcopy=True)
        gymnasium.Wrapper.__init__(self, env)
        self.encoder = get_encoder(encoder, dim)
        self.dim = int(self.encoder.dim)
        self.menu = _menu_in(env)
        slots = 0 if self.menu is None else self.menu.size * SLOT_FEATURES
        self.observation_space = spaces.Box(-1.0, 1.0, (2 * self.dim + 1 + slots,), np.float32)
        self._question = np.zeros(self.dim, np.float32)
        self._question_words: frozenset[str] = frozenset()
        self._turns = 0

    def reset(self, **kwargs: Any) -> tuple[Vector, dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(**kwargs)
        messages = info.get("messages") or [{"content": observation}]
        question = str(messages[-1]["content"])
        self._question = self.encoder(question)
        self._question_words = word_set(question)
        self._turns = 0
        info["text"] = observation
        return self.features(question), info

    def step(self, action: Any) -> tuple[Vector, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step, and describe what was read."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._turns = 0 if info.get("attempt_ended") else self._turns + 1
        info["text"] = observation
        info["left_out"] = math.isnan(float(reward))
        return self.features(observation), float(reward), terminated, truncated, info

    def features(self, text: str) -> Vector:
        """``[2·dim + 1 + 4·size]`` features, were ``text`` the last observation."""
        limit = getattr(self.env.unwrapped, "max_turns", None) or 32
        parts = [
            self._question,
            self.encoder(text),
            np.array([min(1.0, self._turns / limit)], np.float32),
        ]
        if self.menu is not None and self.menu.view is not None:
            parts.append(self._slots(self.menu.choices, text, self.menu.view.chosen))
        return np.concatenate(parts)

    def _slots(self, choices: Sequence[Choice | None], text: str, chosen: Sequence[str]) -> Vector:
        read, before = word_set(text), set(chosen)
        found: list[float] = []
        for choice in choices:
            if choice is None:
                found += (0.0,) * SLOT_FEATURES
            else:
                said = choice.words
                found += (
                    1.0,
                    overlap(said, self._question_words),
                    overlap(said, read),
                    float(choice.completion in before),
                )
        return np.array(found, np.float32)


class SplitAttempts(gymnasium.Wrapper[str, str, str, str], RecordConstructorArgs):
    """Each attempt of a refined episode is an episode of its own to the library.

    SB3 knows no discount of 0 in mid-episode. So the last step of an attempt says ``terminated`` (or
    ``truncated``), and the ``reset`` that follows hands over the critique and goes on; a ``reset``
    with a seed or options starts anew. Each attempt's return then closes with it.
    """

    def __init__(self, env: TextEnv) -> None:
        RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)
        self._next: tuple[str, dict[str, Any]] | None = None
        self._opening: dict[str, Any] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """The next attempt where one waits, else the next episode."""
        if self._next is not None and seed is None and not options:
            waiting, self._next = self._next, None
            return waiting
        self._next = None
        observation, info = self.env.reset(seed=seed, options=options)
        self._opening = {key: info[key] for key in ("messages", "tools", "sandbox") if key in info}
        return observation, info

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step; where an attempt ends and another follows, end."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if not (terminated or truncated) and info.get("attempt_ended"):
            begun = {"task_id": info["task_id"], "turn": 0, "attempt": info["attempt"] + 1}
            self._next = (observation, {**self._opening, **begun})
            terminated = info["stop_reason"] in (StopReason.ANSWERED, StopReason.FINISHED)
            truncated = not terminated
        return observation, reward, terminated, truncated, info


class LimitIsEnd(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """A task's own limits end it: ``terminated`` where turns or time ran out, for SB3's bootstrapping.

    SB3 adds the value of the last state to a truncated episode, as if it could have gone on. The
    turn limit is part of the task and pays 0: a policy that were paid for what might have come
    would dawdle. ``info["stop_reason"]`` stays, and spoiled episodes stay truncated.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step; a limit of the task's own is an end."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if truncated and info.get("stop_reason") in (StopReason.MAX_TURNS, StopReason.WALL_TIME):
            terminated, truncated = True, False
        return observation, reward, terminated, truncated, info


def make_sb3_env(
    source: EnvSource,
    *,
    menu: Menu | Sequence[str] | None = None,
    size: int | None = None,
    encoder: str | Encoder = "hash",
    dim: int = 64,
    limit_is_end: bool = True,
    **build: Any,
) -> gymnasium.Env[Vector, np.int64]:
    """An environment that Stable-Baselines3, sb3-contrib and RLlib can learn in.

    Example::

        env = make_sb3_env("reagent/SearchQA-v0", judge="rubric", weight=0.3)
        model = MaskablePPO("MlpPolicy", env, rollout_buffer_class=MaskedMaskableRolloutBuffer)

    Args:
        source: A registered id, an environment, or a function that makes one.
        menu: As in :class:`ActionMenu`.
        size: As in :class:`ActionMenu`.
        encoder: As in :class:`Featurize`.
        dim: As in :class:`Featurize`.
        limit_is_end: As in :class:`LimitIsEnd`; False keeps Gymnasium's ``truncated``.
        **build: ``judge``, ``weight``, ``credit``, ``when``, ``attempts``, and the environment's own
            arguments, as in :func:`~reagent_env.plugins.building.build_env`.

    An episode that infrastructure spoiled ends with a reward of NaN and ``info["left_out"]`` True;
    the buffers of ``sb3_masking`` leave it out of the update.
    """
    text: Any = SplitAttempts(build_env(source, **build))
    if limit_is_end:
        text = LimitIsEnd(text)
    return Featurize(ActionMenu(text, menu, size), encoder, dim)


def _menu_in(env: gymnasium.Env[Any, Any]) -> ActionMenu | None:
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, ActionMenu):
            return env
        env = env.env
    return None
