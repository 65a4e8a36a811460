"""Controls of the judge's score: what they keep of it, and what they take away."""

from __future__ import annotations

import pytest

from reagent_env.trainers.sample import AttemptReturn
from reagent_env.trainers.score_controls import CONTROLS, controlled

GROUP = [
    (AttemptReturn(1.0, (0.2, 0.9)), AttemptReturn(0.0, (0.4,))),
    (AttemptReturn(0.0, (0.1, 0.5)), AttemptReturn(1.0, (0.8,))),
    (AttemptReturn(0.0, (0.3, 0.6, 0.7)), AttemptReturn(1.0, (None,))),
]


def finals(group: list[tuple[AttemptReturn, ...]], stage: int) -> list[float | None]:
    return [rollout[stage].score for rollout in group]


def test_none_changes_nothing() -> None:
    assert controlled([GROUP], "none", (0,)) == [GROUP]


@pytest.mark.parametrize("control", CONTROLS)
def test_outcomes_lengths_and_the_unscored_stay(control: str) -> None:
    [changed] = controlled([GROUP], control, (0,))
    for before, after in zip(GROUP, changed, strict=True):
        for one, other in zip(before, after, strict=True):
            assert (one.outcome, one.turns) == (other.outcome, other.turns)
    unscored = [score is None for score in finals(changed, 1)]
    assert sum(unscored) == 1
    if control != "shuffled":
        assert unscored == [False, False, True]


def test_shuffled_keeps_the_scores_of_a_stage_and_forgets_whose_they_are() -> None:
    seen = set()
    for seed in range(20):
        [changed] = controlled([GROUP], "shuffled", (seed,))
        assert sorted(finals(changed, 0)) == [0.5, 0.7, 0.9]
        inner = [level for one in changed for level in one[0].turn_scores[:-1]]
        assert sorted(inner) == [0.1, 0.2, 0.3, 0.6]
        seen.add(tuple(finals(changed, 0)))
    assert len(seen) == 6  # every order of three comes up


def test_groups_are_not_mixed() -> None:
    other = [(AttemptReturn(0.0, (0.01,)),), (AttemptReturn(0.0, (0.02,)),)]
    [first, second] = controlled([GROUP, other], "shuffled", (3,))
    assert sorted(finals(first, 0)) == [0.5, 0.7, 0.9]
    assert sorted(finals(second, 0)) == [0.01, 0.02]


def test_length_keeps_what_the_number_of_turns_tells() -> None:
    [changed] = controlled([GROUP], "length", (0,))
    assert finals(changed, 0) == [0.7, 0.7, 0.7]  # (0.9 + 0.5) / 2 twice, and one of three turns
    assert changed[2][0].turn_scores == (0.3, 0.6, 0.7)


def test_noise_is_drawn_by_its_seed() -> None:
    [one] = controlled([GROUP], "noise", (0, 7, 5))
    [again] = controlled([GROUP], "noise", (0, 7, 5))
    [other] = controlled([GROUP], "noise", (0, 8, 5))
    assert one == again != other


def test_an_unknown_control_is_refused() -> None:
    with pytest.raises(ValueError, match="known: shuffled, constant, noise, length, none"):
        controlled([GROUP], "permuted", (0,))
