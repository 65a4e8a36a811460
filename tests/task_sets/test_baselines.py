"""Blind guesses earn next to nothing on our task sets, and something on a bad one."""

import pytest

from reagent_env.task import Task
from reagent_env.task_sets import load_task_set
from reagent_env.task_sets.baselines import GUESSES, measure_baselines

SIZES = {"train": 400, "test": 100}


@pytest.mark.parametrize("name", ["python_math", "file_qa"])
def test_no_blind_guess_earns_more_than_one_in_twenty(name):
    train, test = (list(load_task_set(name, split=s, sizes=SIZES)) for s in ("train", "test"))
    found = measure_baselines(name, train, test)
    assert {baseline.guess for baseline in found} == set(GUESSES)
    for baseline in found:
        assert baseline.tasks == 100
        assert baseline.mean_score <= 0.05, baseline


def test_a_guessable_task_set_is_found_out():
    tasks = [Task(f"Is {n} odd?", "yes" if n % 3 else "no", "yes_no") for n in range(60)]
    by_name = {b.guess: b.mean_score for b in measure_baselines("odd", tasks[:30], tasks[30:])}
    assert by_name["majority"] == pytest.approx(2 / 3)


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="got 0 and 0"):
        measure_baselines("none", [], [])
