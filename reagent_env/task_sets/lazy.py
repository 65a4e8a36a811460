"""A sequence of tasks that makes each task when it is asked for.

Not here: what the tasks are. A maker is a function of split and index alone.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import overload

from reagent_env.task import SPLITS, Task
from reagent_env.task_sets.phrasing import check_split

_KEPT_TASKS = 64


class LazyTaskSet(Sequence[Task]):
    """Tasks by index, e.g. ``LazyTaskSet("gcds", {"train": 800, "test": 100}, make, "train")[3]``.

    ``make(split, index)`` must give the same task in every process. With ``split=None`` the splits
    follow each other in the order of ``sizes``. The last tasks made are kept.
    """

    def __init__(
        self,
        name: str,
        sizes: Mapping[str, int],
        make: Callable[[str, int], Task],
        split: str | None = None,
    ) -> None:
        check_split(split)
        self.name = name
        self.split = split
        self._sizes = {s: sizes.get(s, 0) for s in SPLITS if split in (None, s)}
        self._make = make
        self._kept: OrderedDict[int, Task] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sum(self._sizes.values())

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = int(index) + len(self) if index < 0 else int(index)
        if not 0 <= place < len(self):
            raise IndexError(f"Task {index} of {len(self)} in {self!r}.")
        with self._lock:
            if place in self._kept:
                self._kept.move_to_end(place)
                return self._kept[place]
        within = place
        for split, size in self._sizes.items():
            if within < size:
                task = self._make(split, within)
                break
            within -= size
        with self._lock:
            self._kept[place] = task
            while len(self._kept) > _KEPT_TASKS:
                self._kept.popitem(last=False)
        return task

    def __iter__(self) -> Iterator[Task]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self)} tasks, split {self.split or 'all'}>"

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in vars(self).items() if key not in ("_kept", "_lock")}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _kept=OrderedDict(), _lock=threading.Lock())
