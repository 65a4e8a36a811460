"""A MiniWoB++ page as an attempt: loaded, seeded, acted on, read as an accessibility tree.

The pages are the package ``miniwob``'s, played in a Chromium of ours instead of its own Selenium.
Not here: the browser (``web_nav_browser.py``), the tasks and tools (``web_nav.py``).

What makes a page the same in every process: its random numbers are seeded, its clock stands still
but for a second after each action, its date, time zone, language and size are fixed. What keeps it
to itself: every request is answered from the package's folder or aborted, and only scripts that the
package brings may run, so that text typed into a page cannot pay itself.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import io
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reagent_env.errors import TaskError, ToolBackendError, ToolError
from reagent_env.families.web_nav_browser import shared_browser

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ADDRESS = "http://pages.invalid/"
"""Where pages stand for the browser; no such host can exist."""
NOON = 1_480_593_600_000
"""2016-12-01 12:00 UTC in milliseconds, the pages' present."""
AFTER_ACTION_MS = 1000
"""How far a page's clock runs on after each action."""
ACTION_MS = 20_000
"""Real time after which an action on a page counts as the browser's failure."""
AREA = {"x": 0, "y": 0, "width": 160, "height": 210}
"""What a page draws on, in CSS pixels; a picture has twice as many each way."""

_KINDS = {
    ".css": "text/css",
    ".gif": "image/gif",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
_PRELOAD = """async () => {
  const sheets = Array.from(document.styleSheets).flatMap(sheet => Array.from(sheet.cssRules));
  const found = sheets.flatMap(rule => Array.from(rule.cssText.matchAll(/url\\("([^"]+)"\\)/g)));
  await Promise.all(found.map(([_, address]) => new Promise(loaded => {
    const image = new Image();
    image.onload = image.onerror = loaded;
    image.src = address;
  })));
}"""
"""An icon that changes under the mouse would vanish from under the click until its picture is there."""
_START = """([seed, mode]) => {
  core.EPISODE_MAX_TIME = 2 ** 31 - 1;
  Math.seedrandom(seed);
  core.setDataMode(mode);
  core.startEpisodeReal();
  core.hideDisplay();
}"""
_STATE = "() => [WOB_DONE_GLOBAL, WOB_RAW_REWARD_GLOBAL]"
_NAME_ICONS = """() => {
  for (const one of document.querySelectorAll('#wrap *')) {
    if (one.getAttribute('role') || !one.getClientRects().length) continue;
    if (one.matches('span.alink')) one.setAttribute('role', 'link');
    if (one.childElementCount || one.textContent.trim() || !one.matches('span, div, i, a, img')) continue;
    const name = one.className.toString().trim() || one.id;
    if (!name || name.startsWith('ui-')) continue;
    one.setAttribute('role', 'img');
    one.setAttribute('aria-label', name);
  }
}"""
"""The pages name their icons by class alone and draw links as mere text; people see both."""
_REFERENCE = re.compile(r"\[ref=(e\d+)\]")
_ADDRESS_LINE = re.compile(r"^\s*- /url: .*\n?", re.MULTILINE)


class Page:
    """One page from its start to its end.

    Example::

        page = Page("click-test", seed="7", mode="train")
        page.instruction            # "Click the button."
        page.tree                   # '- button "Click Me!" [ref=e5]'
        page.act("e5", lambda element: element.click(force=True))
        page.solved                 # True

    Raises:
        TaskError: the package has no such page.
        ToolBackendError: the browser does not start, crashed, or is silent too long.
    """

    def __init__(self, name: str, seed: str, mode: str, *, block_network: bool = True) -> None:
        if not (_folder() / "miniwob" / f"{name}.html").is_file():
            raise TaskError(f"The package miniwob has no page {name!r}.")
        self.over = False
        """True once the page says that its task is done or failed."""
        self.solved = False
        """True if it says so with full marks."""
        self.tree = ""
        """What is on the page now: one element a line, with the ids that actions take."""
        self._browser = shared_browser()
        self._page: Any = self._browser.open(_serve, block_network=block_network)
        try:
            self.instruction = self._browser.call(self._start(name, seed, mode))
        except BaseException:
            self.close()
            raise

    def act(self, reference: str | None, action: Any) -> None:
        """Do ``action`` to an element (or to the page, for None), and let the clock run on.

        Args:
            reference: An id of the current tree.
            action: Takes Playwright's locator of the element (or its page) and returns a coroutine.

        Raises:
            ToolError: there is no such element now, or none that can be acted on so: one out of sight.
            ToolBackendError: the browser crashed or is silent too long.
        """
        if reference is not None and reference not in _REFERENCE.findall(self.tree):
            raise ToolError(
                f"there is no element {reference!r} on the page; take an id shown there."
            )
        if self._page is None:
            raise ToolBackendError("The page of this episode is closed.")
        self._browser.call(self._act(reference, action))

    def picture(self) -> NDArray[np.uint8]:
        """The page's area as ``[420, 320, 3]`` bytes of red, green, blue."""
        import numpy as np
        from PIL import Image

        if self._page is None:
            raise ToolBackendError("The page of this episode is closed.")
        shot = self._browser.call(self._page.screenshot(clip=AREA, animations="disabled"))
        with Image.open(io.BytesIO(shot)) as image:
            return np.asarray(image.convert("RGB"))

    def close(self) -> None:
        """Close the page. Twice is fine."""
        page, self._page = self._page, None
        if page is not None:
            self._browser.close_page(page)

    async def _start(self, name: str, seed: str, mode: str) -> str:
        page = self._page
        page.set_default_timeout(ACTION_MS)
        await page.clock.install(time=NOON)
        await page.clock.pause_at(NOON + 3_600_000)  # of which none passes by itself
        await page.goto(f"{ADDRESS}miniwob/{name}.html")
        await page.evaluate(_PRELOAD)
        await page.evaluate(_START, [seed, mode])
        await self._look()
        said = await page.evaluate("() => core.getUtterance()")
        return str(said["utterance"] if isinstance(said, dict) else said)

    async def _act(self, reference: str | None, action: Any) -> None:
        target = self._page
        if reference is not None:
            target = self._page.locator(f"aria-ref={reference}")
        playwright = importlib.import_module("playwright.async_api")
        try:
            await action(target)
        except playwright.Error as error:
            late = isinstance(error, playwright.TimeoutError)
            if late and (reference is None or await target.count()):
                raise
            await self._look()  # fails as well if it was the browser
            why = str(error).partition("\n")[0].partition(": ")[2]  # after the method's name
            raise ToolError(
                f"{reference or 'the page'} cannot be acted on like that "
                f"({'it is gone' if late else why}); take something else."
            ) from error
        await self._look()

    async def _look(self) -> None:
        page = self._page
        await page.clock.run_for(AFTER_ACTION_MS)
        self.over, marks = await page.evaluate(_STATE)
        self.solved = self.over and marks >= 1
        if not self.over:
            await page.evaluate(_NAME_ICONS)
            self.tree = _ADDRESS_LINE.sub("", await page.locator("body").aria_snapshot(mode="ai"))


async def _serve(route: Any) -> None:
    """Answer a request from the package's folder; anything else goes nowhere."""
    request = route.request
    inside = request.url.startswith(ADDRESS) and request.method == "GET"
    found = _file(request.url[len(ADDRESS) :].partition("?")[0]) if inside else None
    again = request.is_navigation_request() and request.frame.url.startswith(ADDRESS)
    if found is None or again:  # a page that loads itself again would forget its task
        await route.abort()
        return
    body, headers = found
    await route.fulfill(body=body, headers=headers)


@functools.lru_cache(maxsize=512)
def _file(path: str) -> tuple[bytes, dict[str, str]] | None:
    """Body and headers of a file of the package; None where it has none."""
    file = (_folder() / path).resolve()
    if not file.is_relative_to(_folder()) or not file.is_file():
        return None
    headers = {"content-type": _KINDS.get(file.suffix, "application/octet-stream")}
    body = file.read_bytes()
    if file.suffix == ".html":
        mark = secrets.token_hex(16)
        body = re.sub(rb"<script\b", f'<script nonce="{mark}"'.encode(), body)
        headers["content-security-policy"] = (
            f"default-src 'none'; script-src 'nonce-{mark}'; style-src 'self' 'unsafe-inline'; "
            "img-src 'self' data:; font-src 'self' data:"
        )
    return body, headers


@functools.cache
def _folder() -> Path:
    library = importlib.util.find_spec("miniwob")
    assert library is not None
    assert library.origin is not None
    return (Path(library.origin).parent / "html").resolve()


def page_names() -> list[str]:
    """All pages of the package, sorted."""
    return sorted(file.stem for file in (_folder() / "miniwob").glob("*.html"))
