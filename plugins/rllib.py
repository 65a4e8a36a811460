"""RLlib on our environments: the featurised menu of ``sb3.py``, registered by name.

RLlib has no action masks of its own, and learns from the same Box. An episode that infrastructure
spoiled is taken out of what the runner hands to the learner by :class:`LeaveSpoiledOut`, a callback.
Without it the environment raises :class:`EpisodeSpoiled`, so that no NaN ever reaches the loss: then the
run stops, or, with ``fault_tolerance(restart_failed_sub_environments=True)``, RLlib throws away all
that its runner was sampling, sound episodes too.
"""

from __future__ import annotations

import math
from typing import Any, SupportsFloat

import gymnasium

from reagent_env.errors import InfrastructureError
from reagent_env.plugins.building import EnvSource
from reagent_env.plugins.sb3 import make_sb3_env

try:
    from ray.rllib.callbacks.callbacks import RLlibCallback
    from ray.tune.registry import register_env
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "RLlib is not installed: pip install 'reagent-env[rllib]'."
    ) from error


class EpisodeSpoiled(InfrastructureError):
    """Infrastructure failed in mid-episode: RLlib is to drop the episode, not to learn from it."""


class RaiseSpoiled(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Raises where the environment pays NaN, unless somebody takes such episodes out."""

    raises_spoiled = True
    """False lets the NaN through; :class:`LeaveSpoiledOut` sets it."""

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step.

        Raises:
            EpisodeSpoiled: infrastructure failed; the message is the environment's.
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self.raises_spoiled and math.isnan(float(reward)):
            raise EpisodeSpoiled(info.get("infrastructure_error", "the episode was spoiled"))
        return observation, reward, terminated, truncated, info


class LeaveSpoiledOut(RLlibCallback):  # type: ignore[misc]  # Any where Ray is not installed
    """Takes spoiled episodes out of a sample, and out of its metrics; all others stay.

    Example::

        PPOConfig().environment("searchqa").callbacks(LeaveSpoiledOut)

    Part of an episode may have gone into an earlier sample, which ended in the middle of it: nothing
    spoils those turns. ``env_runners(batch_mode="complete_episodes")`` cuts none.
    """

    def on_environment_created(self, *, env: Any, **kwargs: Any) -> None:
        """Have the environments let their NaN through."""
        env.set_attr("raises_spoiled", False)

    def on_sample_end(self, *, env_runner: Any, samples: list[Any], **kwargs: Any) -> None:
        """Take them out of the list, and count them: ``env_runners/spoiled_episodes``."""
        spoiled = {one.id_ for one in samples if math.isnan(one.get_return())}
        env_runner.metrics.log_value("spoiled_episodes", len(spoiled), reduce="sum")
        samples[:] = [one for one in samples if one.id_ not in spoiled]
        ended = env_runner._done_episodes_for_metrics  # else their NaN is the mean return
        ended[:] = [one for one in ended if one.id_ not in spoiled]
        for name in spoiled:
            env_runner._ongoing_episodes_for_metrics.pop(name, None)


def make_rllib_env(source: EnvSource, **make: Any) -> gymnasium.Env[Any, Any]:
    """What :func:`register_rllib` registers, for use without a registry.

    Args:
        source: As in :func:`~reagent_env.plugins.sb3.make_sb3_env`.
        **make: As in ``make_sb3_env``: menu, encoder, judge, attempts, ….
    """
    return RaiseSpoiled(make_sb3_env(source, **make))


def register_rllib(name: str, source: EnvSource, **make: Any) -> None:
    """Register an environment with RLlib; ``env_config`` overrides ``make`` key by key.

    Example::

        register_rllib("searchqa", "reagent/SearchQA-v0", judge="rubric")
        config = (
            PPOConfig()
            .environment("searchqa", env_config={"size": 24})
            .callbacks(LeaveSpoiledOut)
        )
    """

    def create(context: Any) -> gymnasium.Env[Any, Any]:
        return make_rllib_env(source, **{**make, **dict(context)})

    register_env(name, create)
