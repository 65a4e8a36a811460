"""The option ``distill``: what a second attempt found out is taught to the first.

A second attempt that is right, better than the first and free of talk about a critique is learned
under the plain prompt, by imitation. Never through a ratio: its tokens were drawn in another
context, under which their old log-probabilities mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from reagent_env.agents.refine import RIGHT, speaks_of_critique
from reagent_env.trainers.rendering import Renderer
from reagent_env.trainers.sample import Rollout, Sample


def distilled(rollouts: Sequence[Rollout], renderer: Renderer) -> list[Sample]:
    """Second attempts worth learning, each as if it were the first.

    Left out are those whose observations might have differed in a first attempt: where a tool acts
    in a sandbox, which keeps the first attempt's state.
    """
    found = []
    for rollout in rollouts:
        if len(rollout.attempts) < 2 or len(rollout.trajectory.attempts) < 2:
            continue
        first, second = rollout.attempts[:2]
        told = rollout.trajectory.attempts[1]
        if second.outcome < RIGHT or second.outcome <= first.outcome or speaks_of_critique(told):
            continue
        if _depends_on_the_first(rollout):
            continue
        found.append(_under_the_plain_prompt(rollout, renderer))
    return found


def _depends_on_the_first(rollout: Rollout) -> bool:
    """Whether the second attempt used a sandbox in which the first one had acted."""
    attempts = rollout.trajectory.attempts
    acted = [
        any(result.status is not None for turn in attempt.turns for result in turn.results)
        for attempt in attempts
    ]
    return acted[0] and acted[1]


def _under_the_plain_prompt(rollout: Rollout, renderer: Renderer) -> Sample:
    """The first prompt, then the second attempt's own tokens and observations."""
    whole = rollout.samples[-1]
    first_turn = rollout.attempts[0].turns
    if len(rollout.samples) > 1:  # an independent attempt stands under the plain prompt already
        return _numbered_from(whole, 0, first_turn)
    opening = next(index for index, turn in enumerate(whole.turn_of) if turn >= 0)
    start = whole.turn_of.index(first_turn)
    sample = Sample()
    sample.read(whole.ids[:opening])
    later = _numbered_from(whole, start, first_turn)
    sample.ids += later.ids
    sample.turn_of += later.turn_of
    sample.sampled_logprobs += later.sampled_logprobs
    sample.versions += later.versions
    return sample


def _numbered_from(whole: Sample, since: int, first_turn: int) -> Sample:
    """A copy of the tokens from ``since`` on, its turns counted from ``first_turn``."""
    return Sample(
        ids=whole.ids[since:],
        turn_of=[turn - first_turn if turn >= 0 else -1 for turn in whole.turn_of[since:]],
        sampled_logprobs=whole.sampled_logprobs[since:],
        versions=whole.versions[since:],
    )
