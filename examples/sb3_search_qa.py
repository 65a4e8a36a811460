"""Stable-Baselines3 learns to search: MaskablePPO on a menu of SearchQA's calls (about a minute).

pip install -e '.[sb3]' && python examples/sb3_search_qa.py
"""

from sb3_contrib import MaskablePPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from reagent_env.plugins.sb3 import make_sb3_env
from reagent_env.plugins.sb3_masking import MaskedMaskableRolloutBuffer
from reagent_env.task_sets.search_qa import search_qa

TASKS = search_qa("train", levels=(1,), size=300)
REWARD = {"judge": "rubric", "weight": 0.3}  # or {}: the outcome alone


def make() -> Monitor:
    """One member of the vector."""
    return Monitor(make_sb3_env("reagent/SearchQA-v0", tasks=TASKS, max_turns=6, **REWARD))


model = MaskablePPO(
    "MlpPolicy",
    DummyVecEnv([make] * 8),
    n_steps=64,
    learning_rate=1e-3,
    gamma=0.95,
    rollout_buffer_class=MaskedMaskableRolloutBuffer,
)
for _ in range(8):
    model.learn(2_048, reset_num_timesteps=False)
    last = [episode["r"] for episode in model.ep_info_buffer]
    print(
        f"{model.num_timesteps:6d} steps: return {sum(last) / len(last):.2f} of the last episodes"
    )
