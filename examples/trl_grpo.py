"""TRL trains the tiny policy on reagent/MiniMix-v0, and its reward rises.

    scripts/make-plugin-venv trl
    .venv-plugin-trl/bin/python examples/trl_grpo.py --steps 24 --out docs/plugins/trl

``--road environment`` leaves the loop to TRL (``environment_factory``); by default it is ours.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from reagent_env.plugins.trl import (
    TurnCreditGRPOTrainer,
    make_environment_factory,
    make_rollout_func,
)
from reagent_env.plugins.trl_template import with_tool_calls
from reagent_env.trainers.policies import load_policy


def make_trainer(given: argparse.Namespace) -> GRPOTrainer:
    """TRL's trainer of ``tiny``, by one of the two roads."""
    policy = load_policy("tiny")
    reward = {"judge": given.judge, "weight": 0.3}  # judge=None: the outcome alone
    where = {"split": "train", "sandbox": given.sandbox}
    args = GRPOConfig(
        output_dir=str(given.out / "run"),
        max_steps=given.steps,
        per_device_train_batch_size=8 * given.prompts,
        num_generations=8,
        max_completion_length=1024,
        learning_rate=given.lr,
        lr_scheduler_type="constant",
        seed=given.seed,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
        activation_checkpointing=False,
        disable_tqdm=True,
    )
    if given.road == "environment":
        factory = make_environment_factory("reagent/MiniMix-v0", answer="text", **reward, **where)
        return GRPOTrainer(
            policy.model,
            environment_factory=factory,
            reward_funcs=factory.reward_funcs,
            train_dataset=factory.dataset(given.steps * given.prompts, seed=given.seed),
            processing_class=with_tool_calls(policy.tokenizer),
            args=args,
        )
    play = make_rollout_func("reagent/MiniMix-v0", max_tokens=96, **reward, **where)
    return TurnCreditGRPOTrainer(
        policy.model,
        estimator="turn",  # each turn is paid for its own share of the judged process
        rollout_func=play,
        reward_funcs=play.reward_funcs,
        train_dataset=play.dataset(given.steps * given.prompts, seed=given.seed),
        processing_class=policy.tokenizer,
        args=args,
    )


class Curve(TrainerCallback):
    """Writes what TRL logs after every step, and at the end a picture of it."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.steps: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """One more step."""
        if "rewards/outcome_reward/mean" in (logs or {}):
            self.steps.append(
                {
                    "step": state.global_step,
                    "outcome": float(logs["rewards/outcome_reward/mean"]),
                    "process": float(logs["rewards/process_reward/mean"]),
                    "cpu_seconds": round(time.process_time(), 1),
                }
            )
            settings = {k: str(v) for k, v in vars(self.given).items() if k != "out"}
            told = {"settings": settings, "steps": self.steps}
            (self.given.out / "curve.json").write_text(json.dumps(told, indent=1) + "\n")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draw them all."""
        draw(self.steps, self.given.out / "curve.png")


def draw(steps: list[dict[str, float]], path: Path) -> None:
    """Outcome and process over the steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5))
    for name in ("outcome", "process"):
        axes.plot([one["step"] for one in steps], [one[name] for one in steps], label=name)
    axes.set(xlabel="step", ylabel="mean of the step's rollouts", ylim=(0, 1))
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--road", choices=("rollout", "environment"), default="rollout")
    parser.add_argument(
        "--judge", default="rubric", type=lambda name: name if name != "none" else None
    )
    parser.add_argument("--sandbox", default="auto")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--prompts", type=int, default=8, help="groups of 8 rollouts a step")
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/trl"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    trainer = make_trainer(given)
    trainer.add_callback(Curve(given))
    trainer.train()


if __name__ == "__main__":
    main()
