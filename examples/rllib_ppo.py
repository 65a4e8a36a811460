"""RLlib's PPO learns which program a problem of PythonMath asks for.

pip install -e '.[rllib]' torch && python examples/rllib_ppo.py       # process: another sandbox
"""

import sys

import ray
from ray.rllib.algorithms.ppo import PPOConfig

from reagent_env.plugins.rllib import LeaveSpoiledOut, register_rllib
from reagent_env.task_sets.python_math import python_math

TASKS = python_math("train", kinds=("gcd", "lcm", "products", "count_bits"), levels=(1,))

ray.init(num_cpus=2, include_dashboard=False)
SANDBOX = sys.argv[1] if len(sys.argv) > 1 else "auto"
register_rllib("python", "reagent/PythonMath-v0", tasks=TASKS, sandbox=SANDBOX, max_turns=4, size=9)
algorithm = (
    PPOConfig()
    .environment("python")
    .env_runners(num_env_runners=1, batch_mode="complete_episodes")
    .training(train_batch_size_per_learner=1_024, minibatch_size=128, num_epochs=8, lr=1e-3)
    .callbacks(LeaveSpoiledOut)
    .build_algo()
)
for iteration in range(10):
    seen = algorithm.train()["env_runners"]
    print(f"iteration {iteration}: mean return {seen['episode_return_mean']:.2f}", flush=True)
algorithm.stop()
ray.shutdown()
