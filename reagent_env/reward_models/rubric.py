r"""A judge without a language model: it finds flaws turn by turn and says what to do instead.

It reads the question, the schemas of the tools, completions, calls and results; never the task's
answer, metadata, grader or files, nor an outcome or a reward. It judges how an attempt was made:
whether calls are well formed and new, arguments come from what was shown, errors are heeded, and
the answer stands in evidence that leads back to the question. It cannot tell a right plan from a
wrong one where both look alike from outside. The checks are the functions in :data:`CHECKS`.

The score
=========
For an attempt of T turns, φ_0 = 0 and::

    φ_t = C · G_t · Q_t          score = φ_T = C · G_T · Q_T

C is 0.95, or 0.97 where two different calls show the final answer.

**Quality** Q_t = ∏ (1 - s · 0.5^k) over the findings charged to turns up to t, s a finding's
severity and k the number of earlier findings of its kind: a further finding always costs, and
each of a kind half as much as the one before.

**Progress** G_t. A turn's use u_t in [0, 1] is 1 for a result that shows something new and leads
back to the question, 0.35 for new but unlinked, 0.1 for a result with nothing new, 0 where every
call failed; times (1 - the worst severity found in the turn). A final answer closes the attempt:
G_T = 1. An attempt that goes on, or ran out, has

    G_t = 0.8 · (1 - 0.55^(u_1 + … + u_t)).

So a prefix without evidence has φ near 0, good steps raise it, a clean finished attempt has 0.95.

**Hindsight** (the default, for finished attempts): the same G_T is shared among the turns by use,
G_t = G_T · (u_1 + … + u_t) / (u_1 + … + u_T), the answering turn counting 1 times (1 - its worst
severity), and a turn whose result nothing later used a third; flaws that only later turns reveal
are charged to the turn at fault. A flawed turn therefore shows a drop or the least gain.

**Causal** (``causal=True``, and always for a prefix): φ_t is exactly the score of the prefix of t
turns, so it can be paid out at each step; flaws seen in hindsight are charged to the last turn.
Both ways end in the same score.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from reagent_env.judgement import Judgement
from reagent_env.reward_models import (
    rubric_checks_answer,
    rubric_checks_calls,
    rubric_checks_grounds,
    rubric_checks_queries,
    rubric_checks_talk,
    rubric_checks_world,
)
from reagent_env.reward_models.base import Unscored, judged_attempt, unscored, up_to_attempt
from reagent_env.reward_models.rubric_finding import Check, Finding, Quality
from reagent_env.reward_models.rubric_text import tokens
from reagent_env.reward_models.rubric_view import TurnView, View, view_of
from reagent_env.trajectory import Trajectory

_OF_QUESTIONS: tuple[Check, ...] = (
    rubric_checks_talk.claims_without_results,
    rubric_checks_calls.repeated_calls,
    rubric_checks_calls.idle_code,
    rubric_checks_calls.unused_results,
    rubric_checks_calls.blank_results,
    rubric_checks_grounds.made_up_places,
    rubric_checks_grounds.made_up_words,
    rubric_checks_grounds.made_up_numbers,
    rubric_checks_grounds.code_off_topic,
    rubric_checks_grounds.unit_factors,
    rubric_checks_answer.end_of_attempt,
    rubric_checks_answer.premature_answer,
    rubric_checks_answer.answer_without_evidence,
    rubric_checks_answer.answer_of_wrong_kind,
    rubric_checks_answer.parts_ignored,
    rubric_checks_answer.too_few_steps,
    rubric_checks_answer.stale_values,
    rubric_checks_answer.partial_reading,
    rubric_checks_answer.incomplete_list,
    rubric_checks_queries.names_not_there,
    rubric_checks_queries.queries_beside_the_question,
    rubric_checks_queries.conditions_left_out,
    rubric_checks_queries.values_scaled,
    rubric_checks_queries.answer_from_the_query,
)
"""What makes no sense where no answer is asked for: left out in a world."""
_OF_WORLDS: tuple[Check, ...] = (
    rubric_checks_world.repeated_commands,
    rubric_checks_world.things_not_there,
    rubric_checks_world.steps_too_early,
    rubric_checks_world.brought_for_nothing,
    rubric_checks_world.detours,
    rubric_checks_world.reports_nobody_gave,
    rubric_checks_world.end_in_a_world,
)
"""What looks at commands to a world."""
CHECKS: tuple[Check, ...] = (
    rubric_checks_talk.talk_to_the_judge,
    rubric_checks_talk.invented_results,
    rubric_checks_talk.guesses,
    rubric_checks_calls.broken_calls,
    rubric_checks_calls.errors_left_behind,
    *_OF_QUESTIONS,
    *_OF_WORLDS,
)
"""What is looked for; pass others, or more, to :class:`RubricJudge`."""

CEILING = 0.95
"""φ_T of a clean finished attempt."""
CONFIRMED = 0.97
"""The same where two different calls show the final answer."""
_RUNNING = 0.8
_DECAY = 0.55


class RubricJudge:
    """Scores attempts by :data:`CHECKS`, e.g. ``RubricJudge().judge([trajectory])[0].score``."""

    def __init__(self, *, causal: bool = False, checks: Sequence[Check] = CHECKS) -> None:
        """Make a judge.

        Args:
            causal: Give each turn the score of the prefix that ends with it, as step-wise rewards
                need; else turn scores are in hindsight.
            checks: The checks to run.
        """
        self.causal = causal
        self.checks = tuple(checks)

    def judge(self, trajectories: Sequence[Trajectory], attempt: int = -1) -> list[Judgement]:
        """Judge one attempt of each trajectory, the last by default, in the same order."""
        return [self._judge(trajectory, attempt) for trajectory in trajectories]

    def findings(self, trajectory: Trajectory) -> list[Finding]:
        """The flaws of the last attempt, by turn."""
        return self._find(view_of(trajectory))

    def _find(self, view: View) -> list[Finding]:
        idle = _OF_QUESTIONS if view.world else _OF_WORLDS
        found = [f for check in self.checks if check not in idle for f in check(view)]
        return sorted(found, key=lambda finding: finding.turn)

    def _judge(self, trajectory: Trajectory, attempt: int) -> Judgement:
        start = time.perf_counter()
        judged = judged_attempt(trajectory, attempt)
        if judged is None or not judged.turns:
            return Judgement(unscored=unscored(Unscored.EMPTY, "the attempt has no turn"))
        if len(trajectory.attempts) > 1:
            trajectory = up_to_attempt(trajectory, attempt)
        view = view_of(trajectory)
        findings = self._find(view)
        in_hindsight = view.finished and not self.causal
        scores = (
            _hindsight_scores(view, findings) if in_hindsight else _causal_scores(view, findings)
        )
        return Judgement(
            reasoning=_reasoning(view, findings, scores),
            critique=_critique(findings),
            score=scores[-1],
            turn_scores=tuple(scores),
            latency_s=time.perf_counter() - start,
        )


def _causal_scores(view: View, findings: Sequence[Finding]) -> list[float]:
    """φ of every prefix; hindsight findings are charged to the last turn."""
    last = len(view.turns) - 1
    moved = [replace(f, turn=last) if f.hindsight else f for f in findings]
    by_turn = _by_turn(moved, last + 1)
    quality = Quality()
    used = 0.0
    scores = []
    for turn, charged in zip(view.turns, by_turn, strict=True):
        for finding in charged:
            quality.add(finding)
        used += _use(turn, charged)
        ends = (view.answered or view.decided) and turn.index == last
        ceiling = _ceiling(view) if ends else CEILING
        progress = 1.0 if ends else _RUNNING * (1.0 - _DECAY**used)
        scores.append(_bounded(ceiling * progress * quality.value))
    return scores


def _hindsight_scores(view: View, findings: Sequence[Finding]) -> list[float]:
    """φ_t of a finished attempt, its progress shared among the turns by their use."""
    end = _causal_scores(view, findings)[-1]
    by_turn = _by_turn(findings, len(view.turns))
    quality = Quality()
    shares = []
    qualities = []
    for turn, charged in zip(view.turns, by_turn, strict=True):
        for finding in charged:
            quality.add(finding)
        qualities.append(quality.value)
        use = _use(turn, charged)
        if any(f.kind in ("unused_result", "needless_call") for f in charged):
            use /= 3.0
        if any(f.idle for f in charged):
            use = 0.0
        if view.answered and turn is view.turns[-1]:
            use = 1.0 - _worst(charged)
        shares.append(use)
    total = sum(shares)
    if total <= 0.0:
        shares, total = [1.0] * len(shares), float(len(shares))
    scores = []
    reached = 0.0
    for share, value in zip(shares, qualities, strict=True):
        reached += share
        scores.append(_bounded(end / max(qualities[-1], 1e-300) * (reached / total) * value))
    return [*scores[:-1], end]


def _by_turn(findings: Sequence[Finding], turns: int) -> list[list[Finding]]:
    by_turn: list[list[Finding]] = [[] for _ in range(turns)]
    for finding in findings:
        by_turn[min(max(finding.turn, 0), turns - 1)].append(finding)
    return by_turn


def _use(turn: TurnView, charged: Sequence[Finding]) -> float:
    best = 0.0
    for call in turn.calls:
        if call.error is None and not call.trivial_code:
            best = max(best, (1.0 if call.linked else 0.35) if call.informative else 0.1)
    return best * (1.0 - _worst(f for f in charged if not f.hindsight))


def _worst(findings: Iterable[Finding]) -> float:
    return max((f.severity for f in findings), default=0.0)


def _ceiling(view: View) -> float:
    answer = set(tokens(view.final_answer or ""))
    if not answer:
        return CEILING
    holding = {
        call.key
        for call in view.calls
        if call.error is None and not call.trivial_code and answer <= call.shown
    }
    return CONFIRMED if len(holding) > 1 else CEILING


def _bounded(value: float) -> float:
    return min(1.0, max(0.0, value))


def _reasoning(view: View, findings: Sequence[Finding], scores: Sequence[float]) -> str:
    lines = []
    by_turn = _by_turn(findings, len(view.turns))
    for turn, charged, score in zip(view.turns, by_turn, scores, strict=True):
        lines += [
            f"Turn {turn.index + 1}: {finding.explanation} "
            f"[{finding.kind}, severity {finding.severity:.2f}]."
            for finding in charged
        ]
        if not charged:
            lines.append(f"Turn {turn.index + 1}: no flaw found.")
        lines.append(f"  Quality of the process so far: {score:.3f}.")
    return "\n".join(lines)


def _critique(findings: Sequence[Finding]) -> str:
    """The worst flaws, at most three, each with what to do instead; fixed words and turn numbers."""
    worst: dict[str, list[Finding]] = {}
    for finding in sorted(findings, key=lambda f: (-f.severity, f.turn)):
        worst.setdefault(finding.kind, []).append(finding)
    if not worst:
        return (
            "No flaw stands out. Keep each step grounded in what the tools showed, and check the "
            "result once more against the question."
        )
    parts = []
    for same in list(worst.values())[:3]:
        turns = sorted({finding.turn + 1 for finding in same})[:4]
        where = "Turn" if len(turns) == 1 else "Turns"
        parts.append(f"{where} {', '.join(map(str, turns))}: {same[0].advice}")
    return "\n".join(parts)
