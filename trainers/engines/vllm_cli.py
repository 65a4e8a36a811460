"""``reagent serve-policy``: a thin layer over ``training_server``."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

_EXAMPLES = """
Examples:

  reagent serve-policy smollm2 --lora-rank 16 --port 8000

  reagent train outcome --policy smollm2 --lora-rank 16 --engine vllm --engine-url http://127.0.0.1:8000/v1

Arguments after -- are vLLM's own.
"""


def serve_policy(
    policy: Annotated[
        str, typer.Argument(help="smollm2 | a model's, run's or checkpoint's folder | a hub id")
    ],
    vllm_arguments: Annotated[
        list[str] | None, typer.Argument(help="After --: passed on to vLLM.")
    ] = None,
    lora_rank: Annotated[
        int | None, typer.Option(min=1, help="Of the adapters that will be pushed.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    max_model_len: Annotated[int | None, typer.Option(min=1, help="Tokens of context.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="On a CPU; default half.")] = None,
    deadline: Annotated[float, typer.Option(min=1.0, help="Seconds until it answers.")] = 900.0,
    log: Annotated[Path | None, typer.Option(help="Keep vLLM's log here.")] = None,
) -> None:
    """Serve a policy with vLLM until Ctrl-C, its weights to be changed by training."""
    from reagent_env.agents.smollm2 import say_on_stderr
    from reagent_env.trainers.engines.vllm_server import training_server

    source = _source(policy)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the server ends with us
    try:
        with training_server(
            source,
            lora_rank=lora_rank,
            served_name="policy",
            port=port,
            max_model_len=max_model_len,
            extra_args=vllm_arguments or (),
            threads=threads,
            deadline_s=deadline,
            log_path=log,
            say=say_on_stderr,
        ) as server:
            adapters = f" --lora-rank {lora_rank}" if lora_rank else ""
            typer.echo(
                f"{server.base_url}\n\n  reagent train outcome --policy {policy}{adapters} "
                f"--engine vllm --engine-url {server.base_url}\n"
            )
            server.wait()
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


serve_policy.__doc__ = f"{serve_policy.__doc__}\n{_EXAMPLES}"


def _source(policy: str) -> str | Path:
    """The folder, or hub id, that vLLM loads."""
    from reagent_env.agents.smollm2 import smollm2_folder
    from reagent_env.trainers.policies import UnknownPolicy, checkpoint_folder

    if policy == "smollm2":
        return smollm2_folder()
    if not Path(policy).is_dir():
        if policy == "tiny" or policy.startswith((".", "/", "~")) or "/" not in policy:
            raise typer.BadParameter(
                f"{policy!r} is no folder and no hub id; save the policy into a folder first."
            )
        return policy
    try:
        folder = checkpoint_folder(Path(policy))
    except UnknownPolicy as error:
        raise typer.BadParameter(str(error)) from error
    if not (folder / "config.json").exists():
        raise typer.BadParameter(
            f"{folder} holds adapters alone; serve their base model with --lora-rank, training "
            "pushes the adapters."
        )
    return folder
