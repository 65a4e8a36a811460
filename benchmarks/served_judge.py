"""How much of a judge server's capacity a batch of judgements uses, and what asking in turn costs.

A scripted server in a process of its own answers after 50 ms, 32 requests at once: 640 judgements a
second at best. Prints three rates from one run: that bound, one batch of 256 trajectories, and the
same trajectories one after another. Prompts, HTTP, parsing and counting are all inside the times;
no cache. Run it on a machine that does nothing else: the client has 1.6 ms a judgement.

    .venv/bin/python benchmarks/served_judge.py [--quick]

Bars: 0.8 of that bound, and 10 times as fast as one after another.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import replace

from machine import Watch
from rows import Row, arguments, deliver, spread

from reagent_env.reward_models import make_reward_model
from reagent_env.reward_models.parse import render_judgement
from reagent_env.testing import ChatReply, ScriptedChatServer, example_trajectory
from reagent_env.trajectory import Trajectory

LATENCY_S = 0.05
SLOTS = 32
BATCH = 256
IN_TURN = 32
REPEATS = 5
OF_IDEAL, OF_IN_TURN = 0.8, 10.0
REPLY = ChatReply(render_judgement("The calls serve the question.", "Stop once it is known.", 0.8))


def serve() -> None:
    """Answer until standard input ends."""
    with ScriptedChatServer(lambda _: REPLY, latency_s=LATENCY_S, slots=SLOTS) as server:
        print(server.base_url, flush=True)
        sys.stdin.read()


def trajectories(count: int) -> list[Trajectory]:
    """Different questions over the same four turns."""
    base = example_trajectory(4)
    return [
        replace(base, task=replace(base.task, question=f"What is {n} + 4?")) for n in range(count)
    ]


def measure(base_url: str, repeats: int) -> list[Row]:
    batch = trajectories(BATCH)
    # Twice the slots in flight: the next request waits at the server, not behind this client's own work.
    with make_reward_model(f"{base_url}#judge", concurrency=2 * SLOTS) as judge:  # type: ignore[attr-defined]
        judge.judge(batch[: 2 * SLOTS])  # connections
        rates, processor = [], time.process_time()
        for _ in range(repeats):
            began = time.perf_counter()
            judgements = judge.judge(batch)
            rates.append(BATCH / (time.perf_counter() - began))
            assert all(judgement.score == 0.8 for judgement in judgements)
        processor = (time.process_time() - processor) / (repeats * BATCH)
        began = time.perf_counter()
        for trajectory in batch[:IN_TURN]:
            judge.judge([trajectory])
        in_turn = IN_TURN / (time.perf_counter() - began)
    ideal = SLOTS / LATENCY_S
    best, median = max(rates), sorted(rates)[repeats // 2]
    print(f"ideal            {ideal:7.1f} judgements/s   ({SLOTS} slots, {LATENCY_S * 1e3:.0f} ms)")
    print(f"one batch of {BATCH} {median:7.1f} judgements/s   median of {repeats}, best {best:.1f}")
    print(f"one by one       {in_turn:7.1f} judgements/s")
    print(f"client           {processor * 1e3:7.2f} ms of processor time a judgement")
    print(f"share of ideal   {median / ideal:7.2f}                  best {best / ideal:.2f}")
    print(
        f"against one by one {median / in_turn:5.1f} x                best {best / in_turn:.1f} x"
    )
    return [
        _row(
            "served judge, share of the server",
            "the server's slots all at work",
            rates,
            ideal,
            OF_IDEAL,
        ),
        _row("served judge, a batch", "one trajectory after another", rates, in_turn, OF_IN_TURN),
    ]


def _row(name: str, beside: str, rates: list[float], other: float, bar: float) -> Row:
    measured, quartiles = spread([rate / other for rate in rates])
    return Row(
        name=name,
        compares=f"a batch of {BATCH} trajectories / {beside}",
        measured=measured,
        quartiles=quartiles,
        bar=bar,
        ours=sorted(rates)[len(rates) // 2],
        other=other,
        unit="judgements/s",
    )


def main() -> None:
    parser = arguments(__doc__, quick="two batches")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve()
        return
    watch = Watch()
    with subprocess.Popen(
        [sys.executable, __file__, "--serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        rows = measure(server.stdout.readline().strip(), 2 if given.quick else REPEATS)
        assert server.stdin is not None
        server.stdin.close()
    deliver(given.json, "served_judge", rows, watch.machine())


if __name__ == "__main__":
    main()
