"""WebNav: MiniWoB++ pages by their accessibility trees, the same in every process, cut off from all else."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from reagent_env.env import ToolUseEnv
from reagent_env.errors import TaskError, ToolBackendError, ToolError
from reagent_env.families import web_nav_browser, web_nav_page
from reagent_env.families.web_nav import (
    PAGES,
    WebNav,
    click,
    press,
    scroll,
    select,
    type_text,
    wait,
    web_nav,
)
from reagent_env.families.web_nav_browser import Browser, shared_browser
from reagent_env.families.web_nav_page import Page, page_names
from reagent_env.families.web_nav_solver import SCRIPTS, solve, wander
from reagent_env.families.web_nav_tree import read_tree
from reagent_env.registration import ENVIRONMENTS
from reagent_env.task import SPLITS, Task
from reagent_env.testing import SimulatorContract
from reagent_env.testing.simulator_contract import play
from reagent_env.trajectory import ToolCall

ENV_ID = "reagent/WebNav-v0"
TOOLS = (click, type_text, select, scroll, press, wait)


class TestContract(SimulatorContract):
    env_id = ENV_ID
    solver = "reagent_env.families.web_nav_solver:solve"
    idle = ToolCall("click", {"element": "e999"})
    seeds = (0, 1, 11)


@pytest.fixture(scope="module", autouse=True)
def _ended() -> Iterator[None]:
    """Leave no browser to the tests that follow."""
    yield
    shared_browser().close()
    shared_browser._forget()


def env_of(*pages: str, **kwargs: Any) -> ToolUseEnv:
    kwargs = {"max_turns": 30, "max_calls_per_turn": 1, **kwargs}
    return ToolUseEnv(web_nav("train", pages=pages), TOOLS, simulator=WebNav, **kwargs)


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


# The tasks ----------------------------------------------------------------------------------------


def test_the_package_has_130_pages_and_49_of_them_have_an_expert() -> None:
    assert len(page_names()) == 130
    assert len(PAGES) == 49
    assert set(PAGES) == set(SCRIPTS) <= set(page_names())
    assert {split: len(web_nav(split)) for split in SPLITS} == {
        "train": 4900,
        "validation": 490,
        "test": 980,
    }


def test_splits_share_no_seed_and_pages_take_turns() -> None:
    seeds = {split: {task.metadata["seed"] for task in web_nav(split)} for split in SPLITS}
    assert not seeds["train"] & seeds["test"]
    assert not seeds["train"] & seeds["validation"]
    assert not seeds["validation"] & seeds["test"]
    assert len({task.metadata["kind"] for task in web_nav("test")[:49]}) == 49


def test_pages_and_levels_can_be_chosen_and_unknown_ones_are_named() -> None:
    assert {task.metadata["level"] for task in web_nav("test", levels=(1,))} == {1}
    assert len(web_nav("test", pages="all")) == 130 * 20
    with pytest.raises(ValueError, match=r"Unknown \['click-tset'\]"):
        web_nav(pages=("click-tset",))
    with pytest.raises(ValueError, match=r"Unknown \[4\]"):
        web_nav(levels=(4,))
    with pytest.raises(ValueError, match="No page of"):
        web_nav(pages="click-test", levels=(3,))


def test_what_the_id_needs_is_what_the_browser_looks_for() -> None:
    *_, program = ENVIRONMENTS[ENV_ID]["needs"]
    assert program.names == web_nav_browser.PROGRAMS


# Playing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", ["choose-list", "scroll-text-2", "enter-date", "use-autocomplete", "social-media"]
)
def test_the_expert_plays_each_kind_of_action(page: str) -> None:
    env = env_of(page)
    assert list(play(env, solve, task=0))[-1][1:4] == (1.0, True, False)
    env.close()


def test_the_prompt_has_the_instruction_and_the_page() -> None:
    env = env_of("click-test-2")
    prompt, _ = env.reset(options={"task": 0})
    assert "Instruction: Click button ONE." in prompt
    assert '- button "ONE" [ref=e5]' in prompt
    env.close()


def test_a_wrong_click_is_final_and_worth_nothing() -> None:
    env = env_of("click-test-2")
    env.reset(options={"task": 0})
    observation, reward, terminated, _, info = env.step(call("click", element="e6"))
    assert (reward, terminated, info["stop_reason"]) == (0.0, True, "finished")
    assert "The page took that as final." in observation
    env.close()


@pytest.mark.parametrize(
    ("page", "action", "told"),
    [
        ("click-test", call("click", element="e999"), "there is no element 'e999'"),
        ("click-test", call("click", element="body"), "there is no element 'body'"),
        ("click-test", call("type", element="e5", text="x"), "no text field"),
        ("enter-text", call("type", element="e6", text="x" * 501), "at most 500 characters"),
        ("enter-date", call("type", element="e6", text="soon"), "a date is written 2016-12-31"),
        ("choose-list", call("select", element="e5", options=["Mars"]), "no option ['Mars']"),
        ("click-test", call("select", element="e5", options=["x"]), "no list to choose from"),
        ("click-test", call("press", key="F12"), "there is no key 'F12'"),
        ("click-test", call("scroll", element="e5", direction="left"), "'up' or 'down'"),
    ],
)
def test_a_wrong_action_is_explained_at_once(page: str, action: str, told: str) -> None:
    env = env_of(page)
    env.reset(options={"task": 0})
    observation, reward, terminated, truncated, _ = env.step(action)
    assert told in observation
    assert (reward, terminated, truncated) == (0.0, False, False)
    env.close()


def test_a_click_on_what_is_out_of_sight_is_the_policys_mistake_and_masks_nothing() -> None:
    """The page says to screen readers alone, far outside what is seen, that a search found nothing."""
    env = env_of("use-autocomplete", max_turns=3)
    env.reset(options={"task": 0})
    observation, *_ = env.step(call("type", element="e5", text="ref"))
    told = re.search(r"\[ref=(e\d+)\]: No search results", observation)
    assert told is not None
    observation, reward, terminated, truncated, _ = env.step(call("click", element=told[1]))
    assert f"{told[1]} cannot be acted on like that (Element is outside" in observation
    assert (reward, terminated, truncated) == (0.0, False, False)
    observation, reward, _, truncated, info = env.step(call("wait"))
    assert "No search results" in observation
    assert (reward, truncated, info["stop_reason"]) == (0.0, True, "max_turns")
    env.close()


def test_an_element_that_goes_away_before_the_click_masks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web_nav_page, "ACTION_MS", 500)
    page = Page("click-test", "0", "train")

    async def act(element: Any) -> None:
        await element.evaluate("element => element.remove()")
        await element.click(force=True)

    with pytest.raises(ToolError, match=r"e5 cannot be acted on like that \(it is gone\)"):
        page.act("e5", act)
    assert "e5" not in page.tree
    page.close()


def test_an_action_that_a_living_element_never_takes_is_the_browsers_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web_nav_page, "ACTION_MS", 500)
    page = Page("click-test", "0", "train")
    with pytest.raises(ToolBackendError, match="Timeout 500ms"):
        page.act("e5", lambda element: element.wait_for(state="hidden"))
    page.close()


def test_random_actions_seldom_get_there() -> None:
    env = env_of("login-user", "search-engine", "click-checkboxes-large", max_turns=8)
    rewards = [list(play(env, wander, task=n))[-1][1] for n in range(3)]
    assert rewards == [0.0, 0.0, 0.0]
    env.close()


def test_a_page_that_the_package_does_not_have_masks_the_episode() -> None:
    unknown = Task("x", None, "simulator", metadata={"kind": "no-such-page", "seed": 0})
    env = ToolUseEnv([unknown], TOOLS, simulator=WebNav)
    env.reset(seed=0)
    _, reward, _, truncated, info = env.step(call("wait"))
    assert (reward != reward, truncated) == (True, True)
    assert "no page 'no-such-page'" in info["infrastructure_error"]
    env.close()
    with pytest.raises(TaskError, match="metadata 'kind' and 'seed'"):
        WebNav(Task("x", None, "simulator"))


def test_a_picture_shows_the_page_also_after_the_end() -> None:
    env = env_of("click-test", render_mode="rgb_array")
    env.reset(options={"task": 0})
    picture = env.render()
    assert (picture.shape, picture.dtype) == ((420, 320, 3), np.uint8)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10
    env.step("That is all.")
    assert env.render().shape == (420, 320, 3)
    env.close()


# The page's time ----------------------------------------------------------------------------------


def test_a_pages_clock_stands_still_between_actions() -> None:
    page = Page("click-test", "1", "train")
    now = "() => Date.now()"
    before = page._browser.call(page._page.evaluate(now))
    time.sleep(0.3)
    assert page._browser.call(page._page.evaluate(now)) == before
    page.act(None, lambda target: target.keyboard.press("Tab"))
    assert page._browser.call(page._page.evaluate(now)) == before + 1000
    page.close()


def test_waiting_brings_what_a_page_does_later() -> None:
    env = env_of("use-autocomplete")
    prompt, _ = env.reset(options={"task": 0})
    field = read_tree(prompt).all("textbox")[0]
    start = prompt.partition('starts with "')[2].partition('"')[0]
    env.step(call("type", element=field.id, text=start))
    observation, *_ = env.step(call("wait"))
    assert start in observation
    assert len(read_tree(observation).elements) > len(read_tree(prompt).elements)
    env.close()


# Nothing of the network, nothing of the policy's ---------------------------------------------------


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """A server on this machine, and what was asked of it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


REACH = """async address => {
  try { await fetch(address + '/fetched', {mode: 'no-cors'}); } catch (refused) { }
  await new Promise(done => {
    const image = new Image();
    image.onload = image.onerror = done;
    image.src = address + '/image';
  });
}"""


@pytest.mark.parametrize("blocked", [True, False])
def test_no_page_reaches_the_network(listener: tuple[str, list[str]], blocked: bool) -> None:
    """Without the block, the same page asks the server twice."""
    address, asked = listener
    browser = Browser()
    try:
        page = browser.open(web_nav_page._serve, block_network=blocked)
        browser.call(page.evaluate(REACH, address))
        browser.close_page(page)
    finally:
        browser.close()
    assert sorted(asked) == ([] if blocked else ["/fetched", "/image"])


@pytest.mark.parametrize("guarded", [True, False])
def test_markup_that_gets_into_a_page_cannot_pay_itself(
    guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages put typed text into themselves; without the policy of scripts it would run."""
    if not guarded:
        body, headers = web_nav_page._file("miniwob/click-test.html") or (b"", {})
        plain = {"content-type": headers["content-type"]}
        original = web_nav_page._file
        monkeypatch.setattr(
            web_nav_page,
            "_file",
            lambda path: (body, plain) if path.endswith("click-test.html") else original(path),
        )
    page = Page("click-test", "1", "train")
    markup = "<img src=x onerror='core.endEpisode(1)'>"
    inject = "markup => { document.getElementById('area').innerHTML += markup; }"
    page._browser.call(page._page.evaluate(inject, markup))
    deadline = time.monotonic() + (1.0 if guarded else 20.0)
    while not page.over and time.monotonic() < deadline:
        page.act(None, lambda target: target.keyboard.press("Tab"))
    assert page.over is not guarded
    page.close()


# One browser for all ------------------------------------------------------------------------------


def test_eight_pages_at_once_share_one_browser_and_leave_nothing_behind() -> None:
    browser = shared_browser()
    before = browser.started
    names = ["login-user", "click-test", "enter-text", "click-option"] * 2

    def episode(number: int) -> float:
        env = env_of(names[number])
        reward = list(play(env, solve, task=number))[-1][1]
        env.close()
        return reward

    with ThreadPoolExecutor(8) as workers:
        assert list(workers.map(episode, range(8))) == [1.0] * 8
    assert browser.started - before <= 1
    assert browser._chromium.contexts == []


def crash(browser: Browser) -> None:
    """End Chromium as a crash would."""

    async def crashing() -> None:
        session = await browser._chromium.new_browser_cdp_session()
        await web_nav_browser._quietly(session.send("Browser.crash"))

    with contextlib.suppress(ToolBackendError):
        browser.call(crashing(), 20.0)


def test_a_crashed_browser_masks_its_episodes_and_is_replaced() -> None:
    env = env_of("click-test")
    env.reset(options={"task": 0})
    browser = shared_browser()
    before = browser.started
    crash(browser)
    _, reward, terminated, truncated, info = env.step(call("wait"))
    assert reward != reward  # NaN: no reward of 0
    assert (terminated, truncated) == (False, True)
    assert info["stop_reason"] == "infrastructure_failure"
    assert "The browser failed" in info["infrastructure_error"]
    assert list(play(env, solve, task=0))[-1][1] == 1.0
    assert browser.started == before + 1
    env.close()


def test_a_used_browser_is_replaced_while_its_pages_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_nav_browser, "CONTEXTS_A_BROWSER", 1)
    browser = Browser()
    try:
        first = browser.open(web_nav_page._serve)
        old = browser._chromium
        second = browser.open(web_nav_page._serve)
        assert browser.started == 2
        assert browser.call(first.evaluate("() => 6 * 7")) == 42
        browser.close_page(first)
        deadline = time.monotonic() + 20
        while old.is_connected() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not old.is_connected()
        assert browser.call(second.evaluate("() => 6 * 7")) == 42
    finally:
        browser.close()


def test_a_machine_without_chromium_is_told_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path("/nowhere")))
    with pytest.raises(ToolBackendError, match="apt-get install -y chromium"):
        web_nav_browser.chromium_program()


def test_the_id_makes_the_environment() -> None:
    env = gym.make(ENV_ID)
    assert len(env.unwrapped.tasks) == 4900  # type: ignore[attr-defined]
    env.close()
