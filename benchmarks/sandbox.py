"""The sandbox beside plain Docker: ``reagent sandbox bench``, its bars as rows.

python benchmarks/sandbox.py [--quick]          # needs a Docker engine
"""

from __future__ import annotations

from machine import Watch
from rows import Row, arguments, deliver

from reagent_env.sandboxes.bench import render_bench, run_bench

OF = {"MiB": "MiB", "dirty resets that left": "share"}
"""What a bar counts, by how its description begins; ``×`` where none fits."""


def main() -> None:
    parser = arguments(__doc__, quick="five rounds")
    parser.add_argument("--samples", type=int, help="rounds; by default 40")
    given = parser.parse_args()
    watch = Watch()
    measured = run_bench(
        given.samples or (5 if given.quick else 40), lambda line: print(line, flush=True)
    )
    print(render_bench(measured))
    rows = [
        Row(
            name=bar["what"],
            compares=f"medians of {measured['samples']} interleaved rounds",
            measured=bar["value"],
            of=next((of for begins, of in OF.items() if bar["what"].startswith(begins)), "×"),
            bar=bar["limit"],
            most=not bar["at_least"],
        )
        for bar in measured["bars"]
    ]
    deliver(given.json, "sandbox", rows, watch.machine(), measured)


if __name__ == "__main__":
    main()
