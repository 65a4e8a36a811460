"""A plain word on each comparison: better, worse, no difference, or inconclusive; and what it rests on."""

from __future__ import annotations

import math

from reagent_env.trainers.ablation.inference import ALPHA, MARGIN, Difference

HEADLINE_SEEDS = 10
"""Seeds from which a comparison is more than a first look: five cannot reach p < .0625 by their signs."""
HEADLINE_STARTS = 2
"""Cold starts, likewise."""

WORDS = ("better", "worse", "no difference", "inconclusive", "not measured")


def verdict(difference: Difference) -> str:
    """One of :data:`WORDS`.

    Better and worse are by Holm's p; a difference may at the same time be smaller than the margin,
    which :func:`explained` then says. Not being better is not being equal: that takes the two
    one-sided tests.
    """
    if difference.seeds < 2:
        return "not measured"
    if math.isnan(difference.p):
        return "inconclusive"
    if difference.p_holm < ALPHA:
        return "better" if difference.mean > 0 else "worse"
    return "no difference" if difference.p_equivalent < ALPHA else "inconclusive"


def explained(difference: Difference, starts: int) -> str:
    """The verdict with its numbers in one sentence, for a table or a terminal.

    Example: ``inconclusive: +1.2 points [-2.0, +4.4], Holm's p = 0.42; 10 seeds find 4.1 points``.

    Args:
        difference: What the seeds say.
        starts: Cold starts that every seed was run from.
    """
    word = verdict(difference)
    if word == "not measured":
        there = "one" if difference.seeds else "none"
        return f"not measured: an interval needs two seeds, and there is {there}"
    text = f"{word}: {100 * difference.mean:+.1f} points"
    if math.isnan(difference.p):
        return f"{text} in each of {difference.seeds} seeds, which leaves no spread to infer from"
    text += (
        f" [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}], "
        f"Holm's p = {difference.p_holm:.2g}"
    )
    if word in ("better", "worse") and difference.p_equivalent < ALPHA:
        text += f", and smaller than {100 * MARGIN:g} points"
    if word == "no difference":
        text += f"; within ± {100 * MARGIN:g} points (p = {difference.p_equivalent:.2g})"
    if word == "inconclusive":
        text += f"; so many seeds find {100 * difference.detectable:.1f} points in 4 of 5 cases"
        if math.isfinite(difference.seeds_for_margin):
            text += f", {difference.seeds_for_margin:.0f} would find {100 * MARGIN:g}"
    if difference.seeds < HEADLINE_SEEDS or starts < HEADLINE_STARTS:
        text += (
            f" (a first look: {difference.seeds} seeds, {starts} "
            f"cold start{'s' if starts != 1 else ''})"
        )
    return text
