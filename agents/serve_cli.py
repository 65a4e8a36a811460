"""``reagent serve``: a thin layer over ``serve.py``."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

_EXAMPLES = """
Examples:

  reagent serve smollm2

  reagent serve runs/my-run/checkpoints/0100 --name mine --port 8000

Arguments after -- are vLLM's own: reagent serve FOLDER -- --enable-lora
"""


def serve(
    model: Annotated[str, typer.Argument(help="smollm2 | a model's folder | a hub name")],
    vllm_arguments: Annotated[
        list[str] | None, typer.Argument(help="After --: passed on to vLLM.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    name: Annotated[str | None, typer.Option(help="The model's name in requests.")] = None,
    max_model_len: Annotated[int | None, typer.Option(min=1, help="Tokens of context.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="On a CPU; default half.")] = None,
    deadline: Annotated[float, typer.Option(min=1.0, help="Seconds until it answers.")] = 900.0,
    log: Annotated[Path | None, typer.Option(help="Keep vLLM's log here.")] = None,
) -> None:
    """Serve a model with vLLM on this machine until Ctrl-C; prints its URL."""
    from reagent_env.agents.serve import VLLMServer
    from reagent_env.agents.smollm2 import say_on_stderr, smollm2_folder

    served: str | Path = model
    if model == "smollm2":
        served = smollm2_folder()
    elif model.startswith((".", "/", "~")) or Path(model).exists():
        served = Path(model).expanduser()
        if not (served / "config.json").is_file():
            raise typer.BadParameter(f"{model} holds no config.json: it is not a model's folder.")
    signal.signal(signal.SIGTERM, _interrupt)  # ended by a supervisor: as by Ctrl-C
    server = VLLMServer(
        served,
        port=port,
        served_name=name or Path(model).name,
        max_model_len=max_model_len,
        extra_args=vllm_arguments or (),
        threads=threads,
        deadline_s=deadline,
        log_path=log,
        say=say_on_stderr,
    )
    try:
        with server:
            spec = f"{server.base_url}#{server.served_name}"
            typer.echo(spec)
            say_on_stderr(
                f"\n  reagent eval reagent/PythonMath-v0 --agent {spec}\n\nCtrl-C ends it."
            )
            server.wait()
    except KeyboardInterrupt:
        say_on_stderr("Ended.")


serve.__doc__ = f"{serve.__doc__}\n{_EXAMPLES}"


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
