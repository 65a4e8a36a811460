"""Learning curves of Stable-Baselines3 on menus, over seeds, with the process reward on and off.

    python examples/sb3_curves.py                     # every run that is not there yet; then the plot
    python examples/sb3_curves.py --only search       # runs whose name begins so
    python examples/sb3_curves.py --plot              # the plot and the JSON from what is there

A run is a JSON file of its own under runs/sb3-curves/, written when it is done, so that stopping
loses at most the run that was going. The plot and all curves go to docs/plugins/.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import DummyVecEnv

from reagent_env.plugins.sb3 import make_sb3_env
from reagent_env.plugins.sb3_masking import MaskedMaskableRolloutBuffer, MaskedReplayBuffer
from reagent_env.sandboxes.contract import Limits
from reagent_env.task_sets.python_math import python_math
from reagent_env.task_sets.search_qa import search_qa

RUNS = Path("runs/sb3-curves")
DOCS = Path(__file__).parent.parent / "docs" / "plugins"
EVERY = 1_024
"""Steps between two points of a curve."""
HELD_OUT = 100
"""Episodes on validation tasks, before and after."""

SOLVABLE = ("gcd", "lcm", "products", "count_bits", "count_primes", "prime_factorization")
"""Kinds of PythonMath problem that the menu's programs solve."""


def search(split: str, reward: dict[str, Any]) -> gym.Env[Any, Any]:
    """SearchQA, one hop, over a world of 300 things."""
    tasks = search_qa(split, levels=(1,), size=300)
    return make_sb3_env("reagent/SearchQA-v0", tasks=tasks, max_turns=6, **reward)


def python(split: str, reward: dict[str, Any]) -> gym.Env[Any, Any]:
    """PythonMath of six kinds; which program a question asks for is what there is to learn.

    A program for another kind's numbers may search for minutes: it is stopped after half a second.
    """
    tasks = python_math(split, kinds=SOLVABLE, levels=(1,))
    return make_sb3_env(
        "reagent/PythonMath-v0",
        tasks=tasks,
        sandbox="process",
        sandbox_limits=Limits(timeout_s=0.5),
        max_turns=4,
        size=9,
        **reward,
    )


def textcraft(split: str, reward: dict[str, Any]) -> gym.Env[Any, Any]:
    """TextCraft's goals of one and two crafts."""
    from reagent_env.families.text_craft import text_craft

    tasks = text_craft(split, levels=(1, 2))
    return make_sb3_env("reagent/TextCraft-v0", tasks=tasks, max_turns=10, size=12, **reward)


@dataclass(frozen=True)
class Plan:
    """What is learned, by what, for how long."""

    make: Callable[[str, dict[str, Any]], gym.Env[Any, Any]]
    """From a split and the reward to an environment."""
    steps: int
    """Environment steps."""
    seeds: int
    """Runs, one a seed."""
    reward: tuple[tuple[str, Any], ...] = ()
    """Keyword arguments of the reward: the one line that differs."""
    learner: str = "ppo"
    """``ppo`` (MaskablePPO) or ``dqn``."""


PROCESS = (("judge", "rubric"), ("weight", 0.3))
PLANS = {
    "search": Plan(search, 16_384, 5),
    "search-process": Plan(search, 16_384, 5, PROCESS),
    "python": Plan(python, 12_288, 3),
    "python-dqn": Plan(python, 12_288, 1, learner="dqn"),
    "textcraft": Plan(textcraft, 16_384, 3),
}


def learner(plan: Plan, seed: int) -> Any:
    """The model, fresh."""
    members = 8 if plan.learner == "ppo" else 1
    vector = DummyVecEnv([lambda: plan.make("train", dict(plan.reward))] * members)
    if plan.learner == "dqn":
        return DQN(
            "MlpPolicy",
            vector,
            learning_rate=1e-3,
            gamma=0.95,
            learning_starts=500,
            target_update_interval=500,
            exploration_fraction=0.5,
            replay_buffer_class=MaskedReplayBuffer,
            seed=seed,
        )
    return MaskablePPO(
        "MlpPolicy",
        vector,
        n_steps=EVERY // members,
        batch_size=128,
        n_epochs=6,
        learning_rate=1e-3,
        ent_coef=0.01,
        gamma=0.95,
        rollout_buffer_class=MaskedMaskableRolloutBuffer,
        seed=seed,
    )


def held_out(model: Any, plan: Plan) -> float:
    """The mean outcome of the greedy policy on validation tasks; the judge has no say in it."""
    env = plan.make("validation", {})
    outcomes = []
    for seed in range(HELD_OUT):
        box, _ = env.reset(seed=seed)
        over = False
        while not over:
            masked = {} if plan.learner == "dqn" else {"action_masks": get_action_masks(env)}
            action, _ = model.predict(box, deterministic=True, **masked)
            box, reward, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
        outcomes.append(float(reward))
    env.close()
    return float(np.nanmean(outcomes))


def run(name: str, seed: int) -> dict[str, Any]:
    """One run: outcomes of the episodes while learning, and the held-out outcome before and after."""
    plan = PLANS[name]
    model = learner(plan, seed)
    began = time.process_time()
    before = held_out(model, plan)
    ended: list[tuple[int, float, int]] = []

    def note(given: dict[str, Any], _: dict[str, Any]) -> bool:
        now = given["self"].num_timesteps
        over = [info for info in given["infos"] if "reward/outcome" in info]
        ended.extend((now, info["reward/outcome"], info["turn"]) for info in over)
        return True

    model.learn(plan.steps, callback=note)
    points = []
    for start in range(0, plan.steps, EVERY):
        part = [(o, t) for step, o, t in ended if start < step <= start + EVERY]
        if part:
            outcome, turns = np.mean(part, axis=0)
            points.append([start + EVERY, round(float(outcome), 4), round(float(turns), 3)])
    return {
        "plan": name,
        "seed": seed,
        "reward": dict(plan.reward),
        "learner": plan.learner,
        "steps_outcome_turns": points,
        "held_out": {"before": before, "after": held_out(model, plan), "episodes": HELD_OUT},
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def plot() -> None:
    """All curves there are, to docs/plugins/sb3-curves.json and .png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    runs = [json.loads(path.read_text()) for path in sorted(RUNS.glob("*.json"))]
    (DOCS / "sb3-curves.json").write_text(
        "[\n" + ",\n".join(json.dumps(one) for one in runs) + "\n]\n", encoding="utf-8"
    )
    panels = {
        "SearchQA, PPO: process reward on and off": ("search", "search-process"),
        "PythonMath: PPO and DQN": ("python", "python-dqn"),
        "TextCraft, PPO": ("textcraft",),
    }
    shown = {
        title: names for title, names in panels.items() if any(r["plan"] in names for r in runs)
    }
    figure, axes = pyplot.subplots(1, len(shown), figsize=(5 * len(shown), 3.6), squeeze=False)
    for axis, (title, names) in zip(axes[0], shown.items(), strict=True):
        for colour, name in zip(("C0", "C1"), names, strict=False):
            curves = [one["steps_outcome_turns"] for one in runs if one["plan"] == name]
            for curve in curves:
                axis.plot(*np.array(curve).T[:2], color=colour, alpha=0.25, linewidth=0.8)
            if curves:
                shortest = min(map(len, curves))
                mean = np.mean([curve[:shortest] for curve in curves], axis=0)
                axis.plot(*mean.T[:2], color=colour, label=f"{name}, {len(curves)} seeds")
        axis.set(title=title, xlabel="environment steps", ylabel="outcome while learning")
        axis.set_ylim(0, 1)
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(DOCS / "sb3-curves.png", dpi=110)
    for name in sorted({one["plan"] for one in runs}):
        parts = [one["held_out"] for one in runs if one["plan"] == name]
        before, after = ([part[key] for part in parts] for key in ("before", "after"))
        each = " ".join(f"{value:.2f}" for value in after)
        print(
            f"{name}: {len(parts)} seeds, held out {np.mean(before):.2f} → {np.mean(after):.2f} ({each})"
        )
    effect(runs)


T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36)
"""Student's t for a 95 % interval of 2, 3, … 8 differences."""


def effect(runs: list[dict[str, Any]]) -> None:
    """What the process reward changes, seed by seed, with a 95 % interval over the seeds."""
    by_plan: dict[str, dict[int, dict[str, Any]]] = {"search": {}, "search-process": {}}
    for one in runs:
        by_plan.get(one["plan"], {})[one["seed"]] = one
    without, with_process = by_plan.values()
    seeds = sorted(set(without) & set(with_process))
    if len(seeds) < 2:
        return
    measures = {
        "held-out outcome": lambda one: one["held_out"]["after"],
        "outcome while learning, mean of the curve": lambda one: np.mean(
            [outcome for _, outcome, _ in one["steps_outcome_turns"]]
        ),
        "turns of the last points' episodes": lambda one: np.mean(
            [turns for _, _, turns in one["steps_outcome_turns"][-4:]]
        ),
    }
    for name, measure in measures.items():
        differences = [measure(with_process[seed]) - measure(without[seed]) for seed in seeds]
        half = T95[len(seeds) - 2] * np.std(differences, ddof=1) / len(seeds) ** 0.5
        mean = np.mean(differences)
        print(
            f"process reward on − off, {name}: {mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}],"
            f" {len(seeds)} seeds"
        )


def main() -> None:
    """Run what is missing, then plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="runs whose name begins so")
    parser.add_argument("--plot", action="store_true", help="plot what is there and end")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    RUNS.mkdir(parents=True, exist_ok=True)
    for name, plan in PLANS.items():
        for seed in range(plan.seeds):
            path = RUNS / f"{name}-{seed}.json"
            if arguments.plot or path.exists() or not path.stem.startswith(arguments.only):
                continue
            done = run(name, seed)
            path.write_text(json.dumps(done) + "\n", encoding="utf-8")
            print(
                f"{path.stem}: held out {done['held_out']}, {done['cpu_seconds']} CPU s", flush=True
            )
    plot()


if __name__ == "__main__":
    main()
