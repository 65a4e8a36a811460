"""WebNav: follow an instruction on a web page, by its accessibility tree (MiniWoB++, arXiv 1802.08802).

Each page of the package ``miniwob`` is a kind of task, each seed of it another task. Not here: how a
page is kept and read (``web_nav_page.py``), the expert (``web_nav_solver.py``), the sites of WebArena
(``web_nav_browsergym.py``).

The outcome is 1 for what the page itself gives full marks, else 0; its marks for haste are not used.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from reagent_env.errors import TaskError, ToolError
from reagent_env.families.web_nav_page import Page, page_names
from reagent_env.needs import require
from reagent_env.simulator import Simulator
from reagent_env.task import SPLITS, Task
from reagent_env.task_sets.phrasing import check_split
from reagent_env.tool_definition import tool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ENV_ID = "reagent/WebNav-v0"
SIZES = {"train": 100, "validation": 10, "test": 20}
"""Seeds of each page, by split; no seed is in two."""
MAX_TYPED_CHARS = 500
KEYS = (
    *("Enter", "Tab", "Escape", "Backspace", "Delete", "Space", "Home", "End"),
    *("PageUp", "PageDown", "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"),
)

PAGES: Mapping[str, int] = MappingProxyType(
    {
        "click-button": 1,
        "click-dialog": 1,
        "click-dialog-2": 1,
        "click-link": 1,
        "click-tab": 1,
        "click-test": 1,
        "click-test-2": 1,
        "focus-text": 1,
        "focus-text-2": 1,
        "unicode-test": 1,
        "choose-list": 2,
        "click-button-sequence": 2,
        "click-collapsible": 2,
        "click-option": 2,
        "click-scroll-list": 2,
        "email-inbox-delete": 2,
        "email-inbox-important": 2,
        "enter-date": 2,
        "enter-text": 2,
        "enter-text-2": 2,
        "enter-text-dynamic": 2,
        "enter-time": 2,
        "find-greatest": 2,
        "find-word": 2,
        "read-table": 2,
        "scroll-text": 2,
        "scroll-text-2": 2,
        "simple-algebra": 2,
        "simple-arithmetic": 2,
        "social-media": 2,
        "text-transform": 2,
        "choose-date": 3,
        "click-checkboxes": 3,
        "click-checkboxes-large": 3,
        "click-collapsible-2": 3,
        "click-tab-2": 3,
        "email-inbox-forward": 3,
        "email-inbox-reply": 3,
        "enter-password": 3,
        "guess-number": 3,
        "login-user": 3,
        "navigate-tree": 3,
        "odd-or-even": 3,
        "read-table-2": 3,
        "search-engine": 3,
        "social-media-all": 3,
        "social-media-some": 3,
        "use-autocomplete": 3,
        "use-spinner": 3,
    }
)
"""Pages that the expert plays → level: 1 for one action, 2 for two or three, 3 for more."""
LEVELS = (1, 2, 3)
OTHER_LEVEL = 3
"""Of pages that have no expert."""


def web_nav(
    split: str | None = None,
    *,
    pages: str | Sequence[str] = tuple(PAGES),
    levels: Sequence[int] = LEVELS,
    sizes: Mapping[str, int] = MappingProxyType(SIZES),
) -> list[Task]:
    """Pages of MiniWoB++ under many seeds each.

    Example: ``web_nav("test", pages=("login-user", "search-engine"))``. Pages take turns.

    Args:
        split: ``train``, ``validation``, ``test``, or None for all.
        pages: Names of the package's pages, or ``all``: also those that show what to do in shapes and
            colours, which no accessibility tree says.
        levels: Only pages of these levels, 1 to 3.
        sizes: Seeds of each page, by split, up to :data:`MOST_SEEDS`.

    Raises:
        NeedMissing: ``miniwob``, ``playwright`` or Chromium is not installed.
        ValueError: an unknown split, page or level, or none left.
    """
    check_split(split)
    from reagent_env.registration import ENVIRONMENTS  # which Gymnasium's import imports

    require(ENV_ID, *ENVIRONMENTS[ENV_ID]["needs"])
    known = page_names()
    chosen = known if pages == "all" else [pages] if isinstance(pages, str) else list(pages)
    unknown = [page for page in chosen if page not in known]
    unknown_levels = [level for level in levels if level not in LEVELS]
    if unknown or unknown_levels:
        raise ValueError(
            f"Unknown {unknown or unknown_levels}; levels: 1, 2, 3; pages: {', '.join(known)}."
        )
    names = [page for page in chosen if PAGES.get(page, OTHER_LEVEL) in levels]
    tasks = [
        _task(page, seed, part)
        for part in SPLITS
        if split in (None, part)
        for seed in _seeds(part, sizes.get(part, 0))
        for page in names
    ]
    if not tasks:
        raise ValueError(f"No page of {chosen} has a level of {list(levels)}, or no seed of it.")
    return tasks


MOST_SEEDS = 1_000_000
"""Seeds that a split has of each page."""


def _seeds(split: str, count: int) -> range:
    if not 0 <= count <= MOST_SEEDS:
        raise ValueError(f"A split has 0 to {MOST_SEEDS} seeds of a page, got {count!r}.")
    first = SPLITS.index(split) * MOST_SEEDS
    return range(first, first + count)


@functools.lru_cache(maxsize=16384)
def _task(page: str, seed: int, split: str) -> Task:
    return Task(
        f"Do on the web page below what its instruction says ({page}, {seed}).",
        None,
        "simulator",
        metadata={
            "kind": page,
            "seed": seed,
            "level": PAGES.get(page, OTHER_LEVEL),
            "split": split,
        },
    )


class WebNav(Simulator):
    """One page in a browser that all episodes of the process share."""

    def __init__(self, task: Task) -> None:
        """Load the page and start its task.

        Raises:
            TaskError: the package has no such page.
            ToolBackendError: the browser does not start or crashed.
        """
        name, seed = task.metadata.get("kind"), task.metadata.get("seed")
        if not isinstance(name, str) or not isinstance(seed, int):
            raise TaskError(
                "A WebNav task has metadata 'kind' and 'seed', e.g. 'click-test' and 0; "
                f"got {name!r} and {seed!r}."
            )
        self._page = Page(name, str(seed), "test" if task.split == "test" else "train")
        self.opening = f"Instruction: {self._page.instruction}\n\n{self.view()}"

    @property
    def over(self) -> bool:
        """Whether the page says that its task is done or failed."""
        return self._page.over

    @property
    def score(self) -> float:
        """1 for full marks, else 0."""
        return float(self._page.solved)

    def act(self, element: str | None, action: Any) -> str:
        """Act on an element or the page, and see what is there then."""
        self._page.act(element, action)
        return self.view()

    def view(self) -> str:
        """What the policy sees of the page."""
        return "The page took that as final." if self.over else f"Page:\n{self._page.tree}"

    def render(self) -> NDArray[np.uint8]:
        """A picture of the page."""
        return self._page.picture()

    def close(self) -> None:
        """Close the page."""
        self._page.close()


@tool(timeout_s=None)
def click(element: str, *, web: WebNav) -> str:
    """Click on an element of the page.

    Args:
        element: Its id, e.g. "e5".
    """

    async def act(target: Any) -> None:
        await target.hover(force=True)  # what the mouse does to the page, before it is pressed
        await target.click(force=True)

    return web.act(element, act)


@tool(name="type", timeout_s=None)
def type_text(element: str, text: str, *, web: WebNav) -> str:
    """Type into a text field in place of what it holds.

    Args:
        element: Its id, e.g. "e5".
        text: What to type.
    """
    if len(text) > MAX_TYPED_CHARS:
        raise ToolError(f"at most {MAX_TYPED_CHARS} characters can be typed, got {len(text)}.")
    typed = text.encode("utf-8", "replace").decode()

    async def act(target: Any) -> None:
        if not await target.evaluate(_IS_FIELD):
            raise ToolError(f"{element} is no text field that can be typed into.")
        if await target.evaluate("field => field.type") in _WHOLE:
            try:
                await target.fill(typed, force=True)
            except Exception as error:
                if "Malformed value" in str(error):
                    raise ToolError(_MALFORMED) from error
                raise
            if typed and not await target.input_value():
                raise ToolError(_MALFORMED)
            return
        await target.fill("", force=True)
        await target.press_sequentially(typed)

    return web.act(element, act)


@tool(timeout_s=None)
def select(element: str, options: list[str], *, web: WebNav) -> str:
    """Choose from a list: one option of a drop-down, or several where the list allows it.

    Args:
        element: The list's id, e.g. "e5".
        options: The options' texts.
    """

    async def act(target: Any) -> None:
        offered = await target.evaluate(_OPTIONS)
        if offered is None:
            raise ToolError(f"{element} is no list to choose from; click on things instead.")
        unknown = [option for option in options if option not in offered]
        if unknown or not options:
            raise ToolError(f"no option {unknown}; there are {', '.join(offered)}.")
        await target.select_option(label=options, force=True)

    return web.act(element, act)


@tool(timeout_s=None)
def scroll(element: str, direction: Literal["up", "down"], *, web: WebNav) -> str:
    """Scroll an element by most of its height.

    Args:
        element: Its id, e.g. "e5".
        direction: "up" or "down".
    """
    part = 0.9 if direction == "down" else -0.9
    return web.act(element, lambda target: target.evaluate(_SCROLL, part))


@tool(timeout_s=None)
def press(key: str, *, web: WebNav) -> str:
    """Press a key, such as Enter in the field typed into last.

    Args:
        key: Enter, Tab, Escape, Backspace, Delete, Space, Home, End, PageUp, PageDown or
            Arrow with Up, Down, Left or Right.
    """
    if key not in KEYS:
        raise ToolError(f"there is no key {key[:20]!r}; keys: {', '.join(KEYS)}.")
    return web.act(None, lambda page: page.keyboard.press(key))


@tool(timeout_s=None)
def wait(*, web: WebNav) -> str:
    """Do nothing for a second of the page's time."""

    async def nothing(_: Any) -> None:
        return

    return web.act(None, nothing)


_WHOLE = ("date", "time", "month", "week", "datetime-local", "color", "range")
"""Types of input that take their value as a whole."""
_MALFORMED = (
    "that is no value for this field; a date is written 2016-12-31, a time 18:09, a number 5."
)
_IS_FIELD = """field => (field.isContentEditable
  || field.tagName === 'TEXTAREA'
  || (field.tagName === 'INPUT'
      && !['button', 'submit', 'checkbox', 'radio', 'file', 'image', 'reset'].includes(field.type)))
  && !field.readOnly && !field.disabled"""
_OPTIONS = """list => list.tagName !== 'SELECT' || list.disabled ? null
  : Array.from(list.options).filter(one => one.matches(':enabled')).map(one => one.label)"""
_SCROLL = """(element, part) => {
  element.scrollTop += part * element.clientHeight;
  element.dispatchEvent(new Event('scroll'));
}"""
