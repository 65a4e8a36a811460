"""RLlib on our environments: the featurised menu of ``sb3.py``, registered by name.

RLlib has no action masks of its own, and learns from the same Box. An episode that infrastructure
spoiled raises :class:`EpisodeSpoiled`; with ``fault_tolerance(restart_failed_sub_environments=True)``
RLlib throws away what its runner is sampling and makes the environment anew, so that nothing of it
reaches the loss; failures have to be rare, since sound episodes of that sample go with it.
"""

from __future__ import annotations

import math
from typing import Any, SupportsFloat

import gymnasium

from reagent_env.errors import InfrastructureError
from reagent_env.plugins.building import EnvSource
from reagent_env.plugins.sb3 import make_sb3_env

try:
    from ray.tune.registry import register_env
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "RLlib is not installed: pip install 'reagent-env[rllib]'."
    ) from error


class EpisodeSpoiled(InfrastructureError):
    """Infrastructure failed in mid-episode: RLlib is to drop the episode, not to learn from it."""


class RaiseSpoiled(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Raises where the environment pays NaN, which RLlib would average into everything."""

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step.

        Raises:
            EpisodeSpoiled: infrastructure failed; the message is the environment's.
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        if math.isnan(float(reward)):
            raise EpisodeSpoiled(info.get("infrastructure_error", "the episode was spoiled"))
        return observation, reward, terminated, truncated, info


def make_rllib_env(
    source: EnvSource, *, on_spoiled: str = "raise", **make: Any
) -> gymnasium.Env[Any, Any]:
    """What :func:`register_rllib` registers, for use without a registry.

    Args:
        source: As in :func:`~reagent_env.plugins.sb3.make_sb3_env`.
        on_spoiled: ``raise``, or ``nan`` to pass the environment's NaN on.
        **make: As in ``make_sb3_env``: menu, encoder, judge, attempts, ….

    Raises:
        ValueError: another ``on_spoiled``.
    """
    if on_spoiled not in ("raise", "nan"):
        raise ValueError(f"on_spoiled must be 'raise' or 'nan', got {on_spoiled!r}.")
    env = make_sb3_env(source, **make)
    return RaiseSpoiled(env) if on_spoiled == "raise" else env


def register_rllib(name: str, source: EnvSource, **make: Any) -> None:
    """Register an environment with RLlib; ``env_config`` overrides ``make`` key by key.

    Example::

        register_rllib("searchqa", "reagent/SearchQA-v0", judge="rubric")
        config = (
            PPOConfig()
            .environment("searchqa", env_config={"size": 24})
            .fault_tolerance(restart_failed_sub_environments=True)
        )
    """

    def create(context: Any) -> gymnasium.Env[Any, Any]:
        return make_rllib_env(source, **{**make, **dict(context)})

    register_env(name, create)
