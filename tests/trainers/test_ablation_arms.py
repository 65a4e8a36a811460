"""Arms, sweeps, comparisons and plans: what is compared, and that nothing else differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reagent_env.trainers.ablation.arms import (
    ARMS,
    CONTROLS,
    CORE,
    SWEEPS,
    arm_config,
    chosen_arms,
    swept_arms,
)
from reagent_env.trainers.ablation.comparisons import STATED, Comparison, comparisons_of
from reagent_env.trainers.ablation.plan import (
    COMMON,
    ColdStart,
    Plan,
    cold_starts,
    judge_fingerprint,
    keep_plan,
)
from reagent_env.trainers.dry_run import dry_run

DIFFER = {"recipe", "judge", "attempts", "advantage", "weight", "feedback", "score_control"}
DIFFER |= {"group_size", "credit"}


def plan_of(root: Path, *rewards: str, seeds: int = 2, **common: Any) -> Plan:
    return Plan(
        root,
        "default",
        tuple(chosen_arms(rewards or ["outcome", "reagent-u"])),
        (ColdStart("tiny", "tiny", "aa"), ColdStart("other", "runs/other", "bb")),
        seeds,
        {**COMMON, "env": "reagent/MiniMix-v0", "max_policy_tokens": 1000, **common},
    )


def test_every_arm_differs_in_the_reward_alone_and_makes_as_many_attempts() -> None:
    common = {**COMMON, "max_policy_tokens": 1000}
    first = arm_config(ARMS["outcome"], common).to_json()
    for arm in ARMS.values():
        config = arm_config(arm, common)
        changed = {name for name, value in config.to_json().items() if value != first[name]}
        assert changed <= DIFFER, arm.name
        assert config.groups_per_update * config.group_size * config.attempts == 128, arm.name
        assert config.groups_in_flight == config.groups_per_update, arm.name


def test_the_core_is_two_by_two_beside_one_attempt() -> None:
    found = {}
    for name in CORE:
        config = arm_config(ARMS[name], COMMON)
        paid = config.weight if config.needs_judge else 0.0
        found[name] = (config.attempts, config.feedback if config.attempts > 1 else "", paid)
    assert found == {
        "outcome": (1, "", 0.0),
        "reagent-r": (1, "", 0.3),
        "retry": (2, "retry", 0.0),
        "retry-score": (2, "retry", 0.3),
        "critique": (2, "critique", 0.0),
        "reagent-u": (2, "critique", 0.3),
    }
    pooled = {arm_config(ARMS[name], COMMON).advantage for name in CORE[2:]}
    assert pooled == {"per_stage"}


def test_controls_keep_all_of_their_model_but_one_thing() -> None:
    for name in CONTROLS:
        model = ARMS["reagent-u" if name.startswith("u-") else "reagent-r"]
        mine, other = (arm_config(arm, COMMON).to_json() for arm in (ARMS[name], model))
        changed = {key for key, value in mine.items() if value != other[key]}
        assert changed in ({"feedback"}, {"score_control"}), name


def test_a_judge_of_all_arms_is_not_given_to_one_that_asks_none() -> None:
    common = {**COMMON, "judge": "noise"}
    assert arm_config(ARMS["reagent-u"], common).judge == "noise"
    assert not arm_config(ARMS["outcome"], common).needs_judge
    assert not arm_config(ARMS["retry"], common).needs_judge


def test_sets_and_names_are_chosen_once_each() -> None:
    assert [arm.name for arm in chosen_arms(["core"])] == list(CORE)
    assert [arm.name for arm in chosen_arms(["reagent-u", "core"])][:2] == ["reagent-u", "outcome"]
    assert len(chosen_arms(["headline", "core"])) == len(CORE) + len(CONTROLS)
    with pytest.raises(ValueError, match="Did you mean 'reagent-u'"):
        chosen_arms(["reagent-y"])


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_has_settings_that_are_accepted(name: str) -> None:
    arms = swept_arms(name)
    assert len(arms) >= 2
    values = [arm_config(arm, COMMON).to_json()[SWEEPS[name].setting] for arm in arms]
    assert values == list(SWEEPS[name].values)
    assert len(comparisons_of(arms)) == len(arms) - 1


def test_a_sweep_of_ones_own() -> None:
    arms = swept_arms("kl=0,0.01", base="reagent-r")
    assert [arm.name for arm in arms] == ["kl=0.0", "kl=0.01"]
    assert [arm_config(arm, COMMON).kl for arm in arms] == [0.0, 0.01]
    assert arm_config(arms[0], COMMON).attempts == 1
    with pytest.raises(ValueError, match="There is no sweep 'lambada'"):
        swept_arms("lambada")
    with pytest.raises(ValueError, match="needs two values"):
        swept_arms("kl=0.1")
    with pytest.raises(ValueError, match="Arm 'lambda=-1"):
        arm_config(swept_arms("lambda=-1,1")[0], COMMON)


def test_the_stated_comparisons_are_differences_of_arms_that_exist() -> None:
    assert len({one.name for one in STATED}) == len(STATED)
    for one in STATED:
        assert set(one.weights) <= set(ARMS)
    with pytest.raises(ValueError, match="must sum to 0"):
        Comparison("wrong", "?", {"outcome": 1.0})


def test_an_ablation_makes_the_comparisons_whose_arms_it_has() -> None:
    found = [one.name for one in comparisons_of(chosen_arms(["outcome", "reagent-r", "reagent-u"]))]
    assert found == ["reagent-u − outcome", "reagent-r − outcome", "reagent-u − reagent-r"]
    headline = comparisons_of(chosen_arms(["headline"]))
    assert [one.family for one in headline].count("headline") == 7
    assert [one.family for one in headline].count("controls") == 7
    controls = comparisons_of(chosen_arms(["controls"]))  # with what they are controls of
    assert {one.family for one in controls} == {"controls", "headline"}
    assert [one.name for one in controls if one.family == "headline"] == ["reagent-u − reagent-r"]
    [lonely] = comparisons_of(chosen_arms(["outcome", "u-noise-score"]))
    assert (lonely.name, lonely.family) == ("u-noise-score − outcome", "unstated")


def test_runs_go_seed_by_seed_so_that_arms_stay_level(tmp_path: Path) -> None:
    runs = list(plan_of(tmp_path).runs())
    assert [(run.seed, run.start, run.arm) for run in runs[:4]] == [
        (0, "tiny", "outcome"),
        (0, "tiny", "reagent-u"),
        (0, "other", "outcome"),
        (0, "other", "reagent-u"),
    ]
    assert len({run.path for run in runs}) == len(runs) == 8
    assert {run.config.policy for run in runs} == {"tiny", "runs/other"}
    assert [run.config.seed for run in runs] == [0] * 4 + [1] * 4


def test_a_folder_keeps_to_its_plan(tmp_path: Path) -> None:
    root = tmp_path / "ablation"
    keep_plan(plan_of(root))
    keep_plan(plan_of(root, "outcome", "critique", seeds=9))  # more arms and seeds are welcome
    kept = json.loads((root / "plan.json").read_text())
    assert set(kept["arms"]) == {"outcome", "reagent-u", "critique"}
    with pytest.raises(ValueError, match="max_policy_tokens 1000 there, 2000 now"):
        keep_plan(plan_of(root, max_policy_tokens=2000))
    changed = plan_of(root)
    other = Plan(
        root, "default", changed.arms, (ColdStart("tiny", "tiny", "cc"),), 2, changed.common
    )
    with pytest.raises(ValueError, match="weights 'aa' there, 'cc' now"):
        keep_plan(other)


def test_cold_starts_have_labels_that_differ_and_fingerprints(
    tmp_path: Path,
) -> None:
    for name, text in (("config.json", "{}"), ("model.safetensors", "weights")):
        (tmp_path / name).write_text(text)
    found = cold_starts(["tiny", str(tmp_path)])
    assert found[0].label == "tiny"
    assert all(len(one.weights) == 16 for one in found)
    assert found[0].weights != found[1].weights
    with pytest.raises(ValueError, match="named twice"):
        cold_starts(["tiny", "tiny"])


def test_a_judge_trained_anew_is_another_judge(tmp_path: Path) -> None:
    root, judge = tmp_path / "ablation", tmp_path / "judge"
    (judge / "sound").mkdir(parents=True)
    (judge / "model.safetensors").write_text("weights")
    keep_plan(plan_of(root, judge=str(judge)))
    keep_plan(plan_of(root, judge=str(judge)))
    (judge / "sound" / "model.safetensors").write_text("more")  # what corrects it counts as well
    with pytest.raises(ValueError, match="among the judges of"):
        keep_plan(plan_of(root, judge=str(judge)))
    kept = json.loads((root / "plan.json").read_text())
    (root / "plan.json").write_text(json.dumps({k: v for k, v in kept.items() if k != "judges"}))
    with pytest.raises(ValueError, match="does not say which judge's weights"):
        keep_plan(plan_of(root, judge=str(judge)))
    assert judge_fingerprint("rubric") == ""
    assert len(judge_fingerprint("tiny-rrm")) == 16


def test_the_sparse_task_has_three_look_ups_in_every_question() -> None:
    from reagent_env.trainers.ablation.tasks import TASKS
    from reagent_env.trainers.environments import has_splits, make_env

    env_id = TASKS["sparse"].env
    assert has_splits(env_id)
    for split, least in (("test", 1000),):
        env = make_env(env_id, split=split, sandbox="process")
        tasks = env.unwrapped.tasks  # type: ignore[attr-defined]
        assert len(tasks) >= least
        assert {task.metadata["hops"] for task in tasks} == {3}
        env.close()


def test_the_dry_run_of_a_run_names_its_budget() -> None:
    config = arm_config(ARMS["reagent-u"], {**COMMON, "max_policy_tokens": 80_000})
    text = dry_run(config)
    assert "stops at 80,000 policy tokens" in text
    assert "held out: 1000 of test after training" in text
