"""What the small judge costs the demo: 64 episodes of MiniMix by `tiny`, judged in this process.

Prints processor seconds on one thread, apart for the view, its tokens and the writing, so that the
figures mean the same on a busy machine; then the same batch again, and a second batch over the same
tasks, of which some questions were answered before.

    python benchmarks/local_judge.py [--judge tiny-rrm] [--quick]

Bar: a batch in at most 2 s.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import torch
from machine import Watch
from rows import Row, arguments, deliver

from reagent_env.agents.evaluate import evaluate
from reagent_env.agents.making import AgentRequest, agent_maker
from reagent_env.reward_models import TINY_FOLDER, make_reward_model
from reagent_env.reward_models.local import load_model
from reagent_env.reward_models.marks import marked_messages
from reagent_env.trajectory import Trajectory

ENV = "reagent/MiniMix-v0"
EPISODES = 64
BAR_S = 2.0


def episodes(seed: int, count: int) -> list[Trajectory]:
    """Real ones, of the shipped policy at temperature 1; tasks are the same for every seed."""
    with contextlib.ExitStack() as shared, tempfile.TemporaryDirectory() as folder:
        request = AgentRequest("tiny", ENV, "compact", 1.0, 128, concurrency=32, seed=seed)
        return evaluate(
            lambda: gymnasium.make(ENV, disable_env_checker=True, sandbox="process"),
            agent_maker(request, shared),
            count,
            out=Path(folder),
            concurrency=32,
        )


def seconds(work: Callable[[], Any]) -> tuple[Any, float]:
    """What came of it, and the processor's seconds."""
    began = time.process_time()
    return work(), time.process_time() - began


def main() -> None:
    parser = arguments(__doc__, quick="eight episodes")
    parser.add_argument("--judge", default="tiny-rrm")
    given = parser.parse_args()
    watch, count = Watch(), 8 if given.quick else EPISODES
    judge: Any = make_reward_model(given.judge)
    first, second = episodes(0, count), episodes(1, count)
    torch.set_num_threads(1)
    judge.judge(second[:1])  # the first call of torch is slow
    views, viewing = seconds(lambda: [marked_messages(one) for one in first])
    shown = [view for view in views if view is not None]
    encode = load_model(TINY_FOLDER, "cpu").encode
    encoded, encoding = seconds(lambda: [encode(view) for view in shown])
    judgements, whole = seconds(lambda: judge.judge(first))
    _, again = seconds(lambda: judge.judge(first))
    others, further = seconds(lambda: judge.judge(second))
    unscored = sum(one.score is None for one in [*judgements, *others])
    different = len({tuple(ids) for ids in encoded})
    print(f"{count} episodes of tiny on {ENV}, processor seconds on one thread:")
    print(f"  view      {viewing:.3f}   a line a turn")
    print(f"  tokens    {encoding:.3f}   {max(map(len, encoded))} at most, {different} different")
    print(f"  judge     {whole:.3f}   all of it, {sum(one.tokens for one in judgements)} tokens")
    print(f"  again     {again:.3f}   every answer remembered")
    print(f"  others    {further:.3f}   the same tasks, other episodes")
    print(f"  unscored  {unscored} of {2 * count}")
    row = Row(
        name=f"{given.judge}, {count} episodes",
        compares="processor seconds to judge an update's episodes, on one thread",
        measured=whole,
        of="s",
        bar=BAR_S,
        most=True,
        note=f"the same tasks again, other episodes: {further:.2f} s",
    )
    deliver(given.json, "local_judge", [row], watch.machine())


if __name__ == "__main__":
    main()
