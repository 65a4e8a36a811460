"""``reagent serve`` and ``reagent serve-judge``: a thin layer over ``serve.py``."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

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
    _serve(
        model,
        lambda spec: f"\n  reagent eval reagent/PythonMath-v0 --agent {spec}\n",
        port=port,
        served_name=name,
        max_model_len=max_model_len,
        extra_args=vllm_arguments or (),
        threads=threads,
        deadline_s=deadline,
        log_path=log,
    )


serve.__doc__ = f"{serve.__doc__}\n{_EXAMPLES}"


def serve_judge(
    model: Annotated[str, typer.Argument(help="A folder or hub name, e.g. of Agent-RRM; smollm2")],
    vllm_arguments: Annotated[
        list[str] | None, typer.Argument(help="After --: passed on to vLLM.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    max_model_len: Annotated[
        int, typer.Option(min=1, help="Tokens of context: a whole trajectory and the verdict.")
    ] = 16_384,
    threads: Annotated[int | None, typer.Option(min=1, help="On a CPU; default half.")] = None,
    deadline: Annotated[float, typer.Option(min=1.0, help="Seconds until it answers.")] = 900.0,
    log: Annotated[Path | None, typer.Option(help="Keep vLLM's log here.")] = None,
) -> None:
    """Serve a reward model with vLLM until Ctrl-C; prints what --judge takes, and tries it once."""
    _serve(
        model,
        _tried,
        port=port,
        served_name=None,
        max_model_len=max_model_len,
        extra_args=vllm_arguments or (),
        threads=threads,
        deadline_s=deadline,
        log_path=log,
    )


def _tried(spec: str) -> str:
    """What one judgement of an example trajectory came to: a model may answer, and not as a judge."""
    from reagent_env.reward_models import Unscored, make_reward_model
    from reagent_env.reward_models.base import kind_of
    from reagent_env.testing import example_trajectory

    (judgement,) = make_reward_model(spec).judge([example_trajectory(3)])
    if judgement.score is not None:
        verdict = (
            f"It judges: an example scored {judgement.score:g} in {judgement.latency_s:.1f} s."
        )
    elif kind_of(judgement) is Unscored.TRANSPORT:
        verdict = f"It could not be tried: {judgement.unscored}. On a CPU a verdict takes minutes."
    else:
        verdict = (
            f"It answers, but not as a judge: {judgement.unscored}. Rewards from it would all be "
            "unscored; is this a reasoning reward model?"
        )
    return f"{verdict}\n\n  reagent eval reagent/SearchQA-v0 --refine critique --judge {spec}\n"


def _serve(model: str, announce: Callable[[str], str], **options: Any) -> None:
    """Serve until interrupted; ``announce`` makes the text shown once the model answers."""
    from reagent_env.agents.serve import VLLMServer
    from reagent_env.agents.smollm2 import say_on_stderr, smollm2_folder

    served: str | Path = model
    if model == "smollm2":
        served = smollm2_folder()
    elif model.startswith((".", "/", "~")) or Path(model).exists():
        served = Path(model).expanduser()
        if not (served / "config.json").is_file():
            raise typer.BadParameter(f"{model} holds no config.json: it is not a model's folder.")
    options["served_name"] = options["served_name"] or Path(model).name
    signal.signal(signal.SIGTERM, _interrupt)  # ended by a supervisor: as by Ctrl-C
    try:
        with VLLMServer(served, say=say_on_stderr, **options) as server:
            spec = f"{server.base_url}#{server.served_name}"
            say_on_stderr(f"{announce(spec)}\nCtrl-C ends it.")
            typer.echo(spec)  # last: who waits for this line has all of it
            server.wait()
    except KeyboardInterrupt:
        say_on_stderr("Ended.")


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
