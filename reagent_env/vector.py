"""A vector of environments whose members step at the same time, so that slow tools overlap.

``gym.make_vec`` uses it for every id of ours. Judging finished members is the wrappers' part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, cast

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from reagent_env.env import ToolUseEnv

if TYPE_CHECKING:
    from reagent_env.sandboxes.pool import SandboxPool

Member = gymnasium.Env[str, str]
Step = tuple[str, float, bool, bool, dict[str, Any]]


class ToolUseVectorEnv(SyncVectorEnv):
    """``num_envs`` environments stepped concurrently in threads; tools and sandboxes do the waiting.

    Observations and actions are tuples of texts. The autoreset modes are Gymnasium's:
    ``NextStep`` (default), ``SameStep`` (the ended episode's last observation and info are
    ``infos["final_obs"]`` and ``infos["final_info"]``) and ``Disabled`` (reset members yourself
    with ``reset(options={"reset_mask": mask})``).

    Example::

        envs = gym.make_vec("reagent/PythonMath-v0", num_envs=8, sandbox="auto")
        observations, infos = envs.reset(seed=0)
        observations, rewards, terminated, truncated, infos = envs.step([r"\\boxed{1}"] * 8)
    """

    def __init__(
        self,
        num_envs: int,
        *,
        make_env: Callable[..., Member] = ToolUseEnv,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        **kwargs: Any,
    ) -> None:
        """Make the members and set sandboxes aside for them.

        Args:
            num_envs: How many members.
            make_env: Makes one member from ``kwargs``.
            autoreset_mode: What happens to a member whose episode has ended.
            **kwargs: Given to every member.

        Raises:
            SandboxUnavailable: the pool can never hold a sandbox for every member at once, in
                which case members would wait for each other for ever.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}.")
        tasks = kwargs.get("tasks")
        if isinstance(tasks, Iterator):
            kwargs["tasks"] = tuple(tasks)  # it can be read once, and every member needs them
        self._reserved: list[tuple[SandboxPool, int]] = []
        super().__init__(
            [lambda: make_env(**kwargs) for _ in range(num_envs)],
            copy=False,
            autoreset_mode=autoreset_mode,
        )
        try:
            self._reserve()
        except BaseException:
            for member in self.envs:
                member.close()
            raise
        self._spec: EnvSpec | None = None
        self._texts = [""] * num_envs
        self._threads = ThreadPoolExecutor(num_envs, thread_name_prefix="vector member")

    @property
    def spec(self) -> EnvSpec | None:
        """The specification this was made from; members have it too, for their records."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = spec
        for member in self.envs:
            member.unwrapped.spec = spec

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Reset all members, or those that ``options["reset_mask"]`` (``[num_envs]`` bools) marks."""
        if self.closed:
            raise ClosedEnvironmentError("The vector environment is closed; make a new one.")
        seeds = self._seeds(seed)
        given = dict(options or {})
        mask = given.pop("reset_mask", None)
        chosen = self._marked(mask) if mask is not None else np.ones(self.num_envs, dtype=np.bool_)
        self._terminations[chosen] = False
        self._truncations[chosen] = False
        self._autoreset_envs[chosen] = False

        def reset_one(index: int) -> tuple[str, dict[str, Any]]:
            return self.envs[index].reset(seed=seeds[index], options=given or None)

        infos: dict[str, Any] = {}
        for index, begun in self._each(reset_one, np.flatnonzero(chosen)):
            if isinstance(begun, BaseException):
                raise begun
            observation, info = begun
            self._texts[index] = observation
            infos = self._add_info(infos, info, index)
        return tuple(self._texts), infos

    def step(
        self, actions: Sequence[str]
    ) -> tuple[
        tuple[str, ...],
        NDArray[np.float64],
        NDArray[np.bool_],
        NDArray[np.bool_],
        dict[str, Any],
    ]:
        """Step every member with its completion; returns when the slowest has answered.

        Raises:
            ResetNeeded: a member's episode is over and ``autoreset_mode`` is ``Disabled``.
            ValueError: not one action a member.
        """
        if self.closed:
            raise ClosedEnvironmentError("The vector environment is closed; make a new one.")
        if len(actions) != self.num_envs:
            raise ValueError(f"Expected {self.num_envs} actions, one a member, got {len(actions)}.")
        for index, action in enumerate(actions):
            if not isinstance(action, str):  # before any member has taken its step
                raise TypeError(
                    f"Action {index} is {type(action).__name__}; a completion is a str."
                )
        if self.autoreset_mode is AutoresetMode.DISABLED and self._autoreset_envs.any():
            over = np.flatnonzero(self._autoreset_envs).tolist()
            raise ResetNeeded(
                f"Members {over} are over; reset them with options={{'reset_mask': mask}} first."
            )

        def step_one(index: int) -> tuple[Step, Mapping[str, Any]]:
            member = self.envs[index]
            if self.autoreset_mode is AutoresetMode.NEXT_STEP and self._autoreset_envs[index]:
                observation, info = member.reset()
                return (observation, 0.0, False, False, info), {}
            last = cast(Step, member.step(actions[index]))
            if self.autoreset_mode is AutoresetMode.SAME_STEP and (last[2] or last[3]):
                observation, info = member.reset()
                final = {"final_obs": last[0], "final_info": last[4]}
                return (observation, last[1], last[2], last[3], info), final
            return last, {}

        infos: dict[str, Any] = {}
        failure: BaseException | None = None
        for index, stepped in self._each(step_one, range(self.num_envs)):
            if isinstance(stepped, BaseException):  # the others' steps count all the same
                failure = failure or stepped
                self._terminations[index], self._truncations[index] = False, True
                continue
            outcome, final = stepped
            self._texts[index] = outcome[0]
            self._rewards[index] = outcome[1]
            self._terminations[index] = outcome[2]
            self._truncations[index] = outcome[3]
            if final:
                infos = self._add_info(infos, dict(final), index)
            infos = self._add_info(infos, outcome[4], index)
        self._autoreset_envs = np.logical_or(self._terminations, self._truncations)
        if failure is not None:
            raise failure
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            self._autoreset_envs[:] = False
        return (
            tuple(self._texts),
            self._rewards.copy(),
            self._terminations.copy(),
            self._truncations.copy(),
            infos,
        )

    def close_extras(self, **kwargs: Any) -> None:
        """Close the members, give reserved sandboxes back, end the threads."""
        for member in self.envs:
            member.close()
        while self._reserved:
            pool, count = self._reserved.pop()
            pool.unreserve(count)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _each(self, act: Callable[[int], Any], members: Any) -> list[tuple[int, Any]]:
        """What ``act`` returned, or raised, for every member, all at once."""
        futures = [(int(index), self._threads.submit(act, int(index))) for index in members]
        wait([future for _, future in futures])
        return [(index, future.exception() or future.result()) for index, future in futures]

    def _reserve(self) -> None:
        wanted: dict[SandboxPool, int] = {}
        for member in self.envs:
            inner = member.unwrapped
            if isinstance(inner, ToolUseEnv) and inner.sandbox_pool is not None:
                wanted[inner.sandbox_pool] = wanted.get(inner.sandbox_pool, 0) + 1
        for pool, count in wanted.items():
            pool.reserve(count)
            self._reserved.append((pool, count))

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int):
            return [seed + index for index in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"Expected {self.num_envs} seeds, one a member, got {len(seed)}.")
        return list(seed)

    def _marked(self, mask: Any) -> NDArray[np.bool_]:
        if (
            not isinstance(mask, np.ndarray)
            or mask.dtype != np.bool_
            or mask.shape != (self.num_envs,)
        ):
            raise TypeError(
                f"options['reset_mask'] must be a bool array of shape ({self.num_envs},), got {mask!r}."
            )
        if not mask.any():
            raise ValueError("options['reset_mask'] marks no member; mark at least one.")
        return mask
