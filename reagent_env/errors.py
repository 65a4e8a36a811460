"""Failures of the machinery around a policy, which must never count as the policy's own.

::

    InfrastructureError            masked: the episode has no outcome
    ├── ToolBackendError           a tool's own service is down
    ├── GraderError                the outcome could not be computed
    ├── TaskError                  the task itself is unusable
    ├── JudgeUnavailable           (reagent_env.reward_models) too many judgements are unscored
    ├── PolicyUnavailable          (reagent_env.agents.chat) the policy's server does not answer
    ├── ModelUnavailable           (reagent_env.agents.smollm2) no model to load
    ├── EngineFailed               (reagent_env.trainers.engines) the policy cannot be sampled from
    ├── RolloutWorkersGone         (reagent_env.trainers.ray_players) no Ray worker can play
    └── ServerFailed               (reagent_env.agents.serve) a model server did not start
    SandboxError                   (reagent_env.sandboxes.errors) the sandbox failed

``ToolError`` is the opposite: the policy's mistake, told to it as an observation.
"""

from __future__ import annotations

from reagent_env.sandboxes.errors import SandboxError


class InfrastructureError(Exception):
    """Something around the policy failed; the episode is masked, counted, and never scored 0."""


class ToolBackendError(InfrastructureError):
    """A service behind a tool (a search server, a model) cannot be reached or answered nonsense."""


class GraderError(InfrastructureError):
    """The outcome could not be computed, through no fault of the answer."""


class TaskError(InfrastructureError):
    """The task itself cannot be run, such as files that do not fit the sandbox."""


class ToolError(Exception):
    """What the model did wrong with a tool, in words for the model; becomes its observation."""


INFRASTRUCTURE_ERRORS = (InfrastructureError, SandboxError, ConnectionError)
"""What masks an episode; any other exception of a tool is shown to the model."""
