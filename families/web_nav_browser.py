"""One Chromium for all pages of a process: a context of its own for each, nothing of the network.

Playwright runs in an event loop on a thread of its own, so that callers may come from any thread and
pages advance side by side. Not here: what is on the pages or done with them (``web_nav_page.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import shutil
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from reagent_env.errors import ToolBackendError
from reagent_env.per_process import PerProcess

T = TypeVar("T")

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
"""Looked for on the PATH, in this order."""
OPTIONS = (
    "--host-resolver-rules=MAP * ~NOTFOUND",  # no name and no address leads anywhere
    "--disable-gpu",
    "--disable-dev-shm-usage",  # /dev/shm is small in containers
)
START_SECONDS = 120.0
CALL_SECONDS = 60.0
"""The longest that one call on a page may take before its episode is masked."""
CONTEXTS_A_BROWSER = 400
"""After so many, a fresh browser takes over and the old one ends with its last page."""
VIEWPORT = {"width": 500, "height": 320}

Route = Any
"""Playwright's ``Route``: a request on its way."""


class Browser:
    """A Chromium that starts when the first page is opened, and again after it crashed.

    Example::

        browser = shared_browser()
        page = browser.open(serve)             # serve(route): answers or aborts each request
        browser.call(page.goto("http://pages.invalid/"))
        browser.close_page(page)

    Raises:
        ToolBackendError: Chromium does not start, crashed, or is silent too long.
    """

    def __init__(self) -> None:
        self.started = 0
        """Browsers started so far."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="browser", daemon=True)
        self._thread.start()
        self._starting = asyncio.Lock()
        self._playwright: Any = None
        self._chromium: Any = None
        self._contexts_opened = 0
        self._background: set[asyncio.Future[None]] = set()
        self._closed = False

    def call(self, work: Coroutine[Any, Any, T], seconds: float = CALL_SECONDS) -> T:
        """Run a coroutine of Playwright's and wait for it, from any thread but the browser's own."""
        if self._closed:
            work.close()
            raise ToolBackendError("The browser of this process is closed.")
        playwright_error = importlib.import_module("playwright.async_api").Error
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds)
        except TimeoutError as error:
            future.cancel()
            raise ToolBackendError(f"The browser gave no answer in {seconds:.0f} s.") from error
        except playwright_error as error:
            first = str(error).partition("\n")[0]
            raise ToolBackendError(f"The browser failed: {first}") from error

    def open(self, serve: Callable[[Route], Awaitable[None]], *, block_network: bool = True) -> Any:
        """A Playwright page in a context of its own, every request of which goes to ``serve``.

        Args:
            serve: Answers a request from what it has, or aborts it.
            block_network: False only to show in a test what the block holds back.
        """
        return self.call(self._open(serve, block_network), START_SECONDS)

    def close_page(self, page: Any) -> None:
        """Close a page with its context; what is dead already stays dead."""
        with contextlib.suppress(ToolBackendError):
            self.call(self._close_page(page))

    def close(self) -> None:
        """End Chromium and Playwright. Twice is fine."""
        if self._closed:
            return
        with contextlib.suppress(ToolBackendError):
            self.call(self._stop(), 10.0)
        self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        if not self._thread.is_alive():
            self._loop.close()

    async def _open(self, serve: Callable[[Route], Awaitable[None]], block_network: bool) -> Any:
        chromium = await self._running(OPTIONS if block_network else OPTIONS[1:])
        self._contexts_opened += 1
        context = await chromium.new_context(
            viewport=VIEWPORT,
            device_scale_factor=2,
            locale="en-US",
            timezone_id="UTC",
            reduced_motion="reduce",
            service_workers="block",
            accept_downloads=False,
        )
        if block_network:
            await context.route("**/*", serve)
            await context.route_web_socket("**/*", lambda socket: socket.close())
        page = await context.new_page()
        context.on("page", lambda other: self._behind(other.close()))  # a window of its own

        return page

    async def _running(self, options: tuple[str, ...]) -> Any:
        async with self._starting:
            if self._chromium is not None and self._chromium.is_connected():
                if self._contexts_opened < CONTEXTS_A_BROWSER:
                    return self._chromium
                self._retire(self._chromium)
            self._chromium = None
            if self._playwright is None:
                playwright = importlib.import_module("playwright.async_api")
                self._playwright = await playwright.async_playwright().start()
            self._chromium = await self._playwright.chromium.launch(
                executable_path=chromium_program(), args=list(options)
            )
            self._contexts_opened = 0
            self.started += 1
            return self._chromium

    def _retire(self, chromium: Any) -> None:
        """Have an old browser end once its last context is closed."""

        def look(_: object = None) -> None:
            if not chromium.contexts:
                self._behind(chromium.close())

        for context in chromium.contexts:
            context.on("close", look)
        look()

    def _behind(self, work: Awaitable[object]) -> None:
        """Do it in the background; the loop itself would forget the task."""
        task = asyncio.ensure_future(_quietly(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _close_page(self, page: Any) -> None:
        await page.context.close()

    async def _stop(self) -> None:
        if self._chromium is not None:
            await _quietly(self._chromium.close())
        if self._playwright is not None:
            await _quietly(self._playwright.stop())


def chromium_program() -> str:
    """The path of the Chromium to run.

    Raises:
        ToolBackendError: there is none on the PATH.
    """
    for name in PROGRAMS:
        found = shutil.which(name)
        if found is not None:
            return found
    raise ToolBackendError(
        f"No {' or '.join(PROGRAMS)} on the PATH; on Debian: apt-get install -y chromium"
    )


async def _quietly(work: Awaitable[object]) -> None:
    with contextlib.suppress(Exception):
        await work


shared_browser = PerProcess(Browser)
"""The browser that all environments of this process share."""
