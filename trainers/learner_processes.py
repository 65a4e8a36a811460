"""The learner's processes: this one, or those that ``accelerate launch`` began.

The first process does everything that a run does (rollouts, advantages, log, checkpoints); the others
repeat its learner's calls on their shares of the samples, and accelerate adds up the gradients: DDP,
or FSDP where its configuration says so. Nothing of that is ours. Not here: the update (``learner.py``).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from reagent_env.trainers.token_tree import Ids, tree_micro_batches, tree_shares
from reagent_env.trainers.training_batch import micro_batches

LONGEST_WAIT = timedelta(days=2)
"""How long a process waits for the first one, which may be collecting rollouts."""

P = ParamSpec("P")
R = TypeVar("R")
Item = TypeVar("Item")


class Processes:
    """Who else computes an update; by default nobody.

    Example::

        processes = launched_processes()         # one, unless under `accelerate launch`
        learner = Learner(policy, config, fixed_length=256, processes=processes)
    """

    def __init__(self, accelerator: Any = None) -> None:
        """Of an ``accelerate.Accelerator``, or alone."""
        self.accelerator = accelerator
        self.count: int = 1 if accelerator is None else accelerator.num_processes
        self.index: int = 0 if accelerator is None else accelerator.process_index

    @property
    def sharded(self) -> bool:
        """Whether no process holds all weights (FSDP)."""
        return self.accelerator is not None and (
            str(self.accelerator.distributed_type).endswith("FSDP")
        )

    def prepare(self, module: Any, optimiser: Any) -> tuple[Any, Any]:
        """Both as accelerate wants them."""
        if self.accelerator is None:
            return module, optimiser
        prepared = self.accelerator.prepare(module, optimiser)
        return prepared[0], prepared[1]

    def shares(
        self,
        sequences: Sequence[Ids],
        chosen: Sequence[int],
        max_tokens: int,
        *,
        trees: bool = False,
    ) -> Iterator[tuple[list[int], bool]]:
        """This process's micro-batches of ``chosen``, and whether each counts.

        Every process gets as many (a forward pass of FSDP needs all of them): one that has fewer
        repeats one that does not count. Sequences of like length are dealt out in turn; for passes
        over ``trees``, those that begin alike stay together.
        """
        cut = tree_micro_batches if trees else micro_batches
        if self.count == 1:
            for rows in cut(sequences, chosen, max_tokens):
                yield rows, True
            return
        ordered = sorted(chosen, key=lambda index: (len(sequences[index]), index))
        if trees:
            parts = tree_shares(sequences, chosen, self.count)
        else:
            parts = [ordered[index :: self.count] for index in range(self.count)]
        dealt = [list(cut(sequences, part, max_tokens)) for part in parts]
        for number in range(max(map(len, dealt))):
            mine = dealt[self.index]
            if number < len(mine):
                yield mine[number], True
            else:
                yield ordered[:1], False

    def adding_up(self, module: Any, *, last: bool) -> AbstractContextManager[Any]:
        """Around a backward pass: gradients are added over processes in the last one only."""
        if self.accelerator is None or last:
            return nullcontext()
        context: AbstractContextManager[Any] = self.accelerator.no_sync(module)
        return context

    def gathered(self, items: list[Item]) -> list[Item]:
        """The lists of all processes, one after another."""
        if self.count == 1:
            return items
        from accelerate.utils import gather_object

        found: list[Item] = gather_object(items)
        return found

    def lead(self, call: tuple[str, Any, Any]) -> None:
        """On the first process: have the others make the same call. Elsewhere nothing."""
        if self.count > 1 and self.index == 0:
            self._broadcast(call)

    def follow(self) -> tuple[str, Any, Any]:
        """On another process: the call that the first one makes next."""
        call: tuple[str, Any, Any] = self._broadcast(None)
        return call

    def _broadcast(self, call: Any) -> Any:
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([call], from_process=0)[0]


class _HasProcesses(Protocol):
    processes: Processes


Self = TypeVar("Self", bound=_HasProcesses)


def together(method: Callable[Concatenate[Self, P], R]) -> Callable[Concatenate[Self, P], R]:
    """A method that all processes call when the first one does."""

    @functools.wraps(method)
    def call(self: Self, *args: P.args, **kwargs: P.kwargs) -> R:
        self.processes.lead((method.__name__, args, kwargs))
        return method(self, *args, **kwargs)

    return cast("Callable[Concatenate[Self, P], R]", call)


def launched_processes() -> Processes:
    """Those of this run: more than one where ``accelerate launch`` (or ``torchrun``) says so.

    Raises:
        ValueError: ``accelerate launch --cpu --num_processes N``, which starts one process, not N.
    """
    asked_for_more = {"ACCELERATE_USE_CPU", "MASTER_ADDR"} <= os.environ.keys()
    if asked_for_more and "WORLD_SIZE" not in os.environ:
        raise ValueError(
            "accelerate launch --cpu --num_processes N starts one process on a machine without MPI, "
            "and this one is it. Without GPUs as with them: accelerate launch --multi_gpu "
            "--num_processes N (the processes then talk by gloo), or --num_processes 1."
        )
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    import torch
    from accelerate import Accelerator, InitProcessGroupKwargs

    waiting = InitProcessGroupKwargs(timeout=LONGEST_WAIT)
    return Processes(Accelerator(cpu=not torch.cuda.is_available(), kwargs_handlers=[waiting]))
