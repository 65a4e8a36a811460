"""TRL's own loop on an environment of ours: the tools are methods, the reward swaps in one line."""

from trl import GRPOConfig, GRPOTrainer

from reagent_env.plugins.trl import make_environment_factory
from reagent_env.plugins.trl_template import with_tool_calls
from reagent_env.trainers.policies import load_policy

policy = load_policy("tiny")
factory = make_environment_factory("reagent/MiniMix-v0", judge="rubric", weight=0.3, answer="text")
trainer = GRPOTrainer(
    policy.model,
    environment_factory=factory,
    reward_funcs=factory.reward_funcs,
    train_dataset=factory.dataset(64),
    processing_class=with_tool_calls(
        policy.tokenizer
    ),  # a model whose template knows tools needs none
    args=GRPOConfig("runs/trl-short", max_steps=2, per_device_train_batch_size=8, bf16=False),
)
trainer.train()
