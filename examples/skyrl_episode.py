"""SkyRL-gym plays our environment: the expert in SearchQA, its rewards turn by turn.

pip install -e '.[skyrl]' && python examples/skyrl_episode.py
"""

import skyrl_gym

from reagent_env.agents.expert import ExpertAgent, solver_of
from reagent_env.plugins.skyrl import dataset_rows, register_skyrl

ID = "reagent/SearchQA-v0"
register_skyrl("searchqa", ID, judge="rubric", weight=0.3, when="step")

for row, _ in zip(dataset_rows("searchqa", ID), range(5), strict=False):
    env = skyrl_gym.make("searchqa", extras={**row, "max_turns": 12})
    messages, info = env.init(row["prompt"])
    agent = ExpertAgent(solver_of(ID))
    agent.begin(info)
    text, done, rewards = messages[-1]["content"], False, []
    while not done:
        step = env.step(agent.act(text, info))
        info, done = step["metadata"], step["done"]
        rewards.append(round(step["reward"], 3))
    print(f"{messages[-1]['content'][:60]}… rewards {rewards}, {env.get_metrics()}")
    env.close()
