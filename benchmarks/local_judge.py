"""What the small judge costs the demo: 64 episodes of MiniMix by `tiny`, judged in this process.

Prints processor seconds on one thread, apart for the view, its tokens and the writing, so that the
figures mean the same on a busy machine; then the same batch again, and a second batch over the same
tasks, of which some questions were answered before. The aim is under 2 s a batch.

    python benchmarks/local_judge.py [JUDGE]
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import torch

from reagent_env.agents.evaluate import evaluate
from reagent_env.agents.making import AgentRequest, agent_maker
from reagent_env.reward_models import make_reward_model
from reagent_env.reward_models.marks import marked_messages
from reagent_env.trajectory import Trajectory

ENV = "reagent/MiniMix-v0"
EPISODES = 64


def episodes(seed: int) -> list[Trajectory]:
    """Real ones, of the shipped policy at temperature 1; tasks are the same for every seed."""
    with contextlib.ExitStack() as shared, tempfile.TemporaryDirectory() as folder:
        request = AgentRequest("tiny", ENV, "compact", 1.0, 128, concurrency=32, seed=seed)
        return evaluate(
            lambda: gymnasium.make(ENV, disable_env_checker=True, sandbox="process"),
            agent_maker(request, shared),
            EPISODES,
            out=Path(folder),
            concurrency=32,
        )


def seconds(work: Callable[[], Any]) -> tuple[Any, float]:
    """What came of it, and the processor's seconds."""
    began = time.process_time()
    return work(), time.process_time() - began


def main() -> None:
    judge: Any = make_reward_model(sys.argv[1] if sys.argv[1:] else "tiny-rrm")
    first, second = episodes(0), episodes(1)
    torch.set_num_threads(1)
    judge.judge(second[:1])  # the first call of torch is slow
    views, viewing = seconds(lambda: [marked_messages(one) for one in first])
    shown = [view for view in views if view is not None]
    encoded, encoding = seconds(lambda: [judge._loaded.encode(view) for view in shown])
    judgements, whole = seconds(lambda: judge.judge(first))
    _, again = seconds(lambda: judge.judge(first))
    others, further = seconds(lambda: judge.judge(second))
    unscored = sum(one.score is None for one in [*judgements, *others])
    different = len({tuple(ids) for ids in encoded})
    print(f"{EPISODES} episodes of tiny on {ENV}, processor seconds on one thread:")
    print(f"  view      {viewing:.3f}   a line a turn")
    print(f"  tokens    {encoding:.3f}   {max(map(len, encoded))} at most, {different} different")
    print(f"  judge     {whole:.3f}   all of it, {sum(one.tokens for one in judgements)} tokens")
    print(f"  again     {again:.3f}   every answer remembered")
    print(f"  others    {further:.3f}   the same tasks, other episodes")
    print(f"  unscored  {unscored} of {2 * EPISODES}")


if __name__ == "__main__":
    main()
