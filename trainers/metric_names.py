"""What the numbers in ``metrics.jsonl`` are called; progress and report look for these names.

A run may log others beside them. Those that a run has no use for (a second attempt's, a judge's)
are left out, never 0.
"""

from __future__ import annotations

SECONDS = "seconds"
"""Training time so far, evaluations left out."""
SUCCESS = "train/outcome"
"""Mean outcome of first attempts."""
SECOND = "train/outcome_2"
"""Mean outcome of second attempts."""
GAIN = "train/gain"
"""Mean of R² − R¹ over rollouts with both."""
SCORE = "reward/score"
"""Mean score of the judge over scored attempts."""
PROCESS = "reward/process"
"""Mean of λ·score, what the process paid."""
UNSCORED = "unscored"
"""Share of the update's judged attempts without a score; counts by kind: ``unscored/kind/<kind>``."""
MASKED = "rollout/masked"
"""Rollouts left out since infrastructure failed; counts by kind:
``rollout/masked/kind/<kind>``."""
TURNS = "rollout/turns"
"""Mean turns an episode."""
TOKENS = "rollout/tokens"
"""Tokens the policy sampled for this update."""
TOKENS_TOTAL = "rollout/tokens_total"
"""Tokens the policy has sampled since the run began."""
SPEED = "rollout/tokens_per_second"
"""Sampled tokens a second of the whole update."""
ENTROPY = "loss/entropy"
"""Mean entropy of the policy, nats a token."""
KL = "loss/approx_kl"
"""KL of the policy before the update to the one after, nats a token (k3)."""
CLIPPED = "loss/clip_fraction"
"""Share of tokens whose ratio was clipped."""
MISMATCH = "sampler/k3"
"""KL of the sampler to the learner, nats a token (k3)."""
IMITATION = "loss/imitation"
"""Loss of demonstrations or of distillation, nats a token."""
HELD_OUT = "eval/outcome"
"""Success of the evaluation while training: one pass, no judge."""
HELD_OUT_N = "eval/n"
"""Episodes of it that were not masked."""
CRITIQUE_TALK = "eval/critique_talk"
"""Share of its episodes that speak of feedback or of an earlier attempt."""

BY_KIND = {UNSCORED: "unscored/kind/", MASKED: "rollout/masked/kind/"}
"""Where the counts by kind stand."""
