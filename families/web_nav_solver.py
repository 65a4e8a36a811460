"""Plays MiniWoB++ pages from what the policy sees: a short script a kind of page, and a wanderer."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType
from typing import Any

from reagent_env.families.web_nav import KEYS
from reagent_env.families.web_nav_tree import Element, Tree, read_tree
from reagent_env.task_sets.phrasing import stable_random
from reagent_env.task_sets.solving import Calls

Action = tuple[str, dict[str, Any]]
Script = Generator[Action, Tree, None]
"""Yields one action at a time and is sent the tree that it led to."""

_KIND = re.compile(r"\(([\w-]+), \d+\)")
_INSTRUCTION = re.compile(r"^Instruction: (.*)$", re.MULTILINE)
_MOST_LOOKS = 12
"""Pages of results, tabs or months that a script turns before it gives up."""


def solve(prompt: str) -> Generator[Calls, list[str], str]:
    """Play the page that the prompt names, by its script; give up where there is none."""
    kind, said = _KIND.search(prompt), _INSTRUCTION.search(prompt)
    if kind is None or said is None or kind[1] not in SCRIPTS:
        return ""
    script = SCRIPTS[kind[1]](said[1], read_tree(prompt))
    try:
        action = next(script)
        while True:
            results = yield [action]
            action = script.send(read_tree(results[0]))
    except (
        StopIteration,
        _NotThere,
        IndexError,
        KeyError,
        RuntimeError,
    ):  # the page is not as the script has it
        return ""


def wander(prompt: str) -> Generator[Calls, list[str], str]:
    """Random clicks, words and keys on what is there, for as long as it lasts."""
    rng = stable_random("wander", prompt)
    tree, words = read_tree(prompt), re.findall(r"\w+", prompt[prompt.find("Instruction:") :])
    while True:
        elements = [one for one in tree.elements if one.id]
        fields = [one for one in elements if one.role in ("textbox", "spinbutton", "searchbox")]
        lists = [one for one in elements if one.role in ("combobox", "listbox")]
        action: Action = ("press", {"key": rng.choice(KEYS)})
        if fields and rng.random() < 0.3:
            action = _type(rng.choice(fields), rng.choice(words))
        elif lists and rng.random() < 0.3:
            options = [one.words for one in tree.elements if one.role == "option"]
            action = _select(rng.choice(lists), rng.choice(options or words))
        elif elements and rng.random() < 0.95:
            action = _click(rng.choice(elements))
        results = yield [action]
        if "Page:" in results[0]:
            tree = read_tree(results[0])


def _click(element: Element) -> Action:
    return "click", {"element": element.id}


def _type(element: Element, text: str) -> Action:
    return "type", {"element": element.id, "text": text}


def _select(element: Element, *options: str) -> Action:
    return "select", {"element": element.id, "options": list(options)}


def _found(element: Element | None) -> Element:
    """The element, or the end of the script."""
    if element is None:
        raise _NotThere
    return element


class _NotThere(Exception):
    """What a script looks for is not on the page."""


def _said(pattern: str, instruction: str) -> str:
    found = re.search(pattern, instruction)
    if found is None:
        raise _NotThere
    return found[1]


def _quoted(instruction: str) -> list[str]:
    return re.findall(r'"([^"]*)"', instruction)


# Scripts ------------------------------------------------------------------------------------------


def _submit(tree: Tree) -> Script:
    yield _click(_found(tree.find("Submit", "button") or tree.find("Login", "button")))


def _enter(tree: Tree, *texts: str) -> Script:
    """Type into the text fields in order, then submit."""
    for field, text in zip(tree.all("textbox", "spinbutton"), texts, strict=False):
        tree = yield _type(field, text)
    yield from _submit(tree)


def _named_button(said: str, tree: Tree) -> Script:
    name = _quoted(said)[0] if _quoted(said) else _said(r"button (\w+)", said)
    yield _click(_found(tree.find({"x": "Close"}.get(name, name), "button")))


def _only_button(said: str, tree: Tree) -> Script:
    yield _click(tree.all("button")[0])


def _buttons_in_order(said: str, tree: Tree) -> Script:
    for name in re.findall(r"button (\w+)", said):
        tree = yield _click(_found(tree.find(name, "button")))


def _link(said: str, tree: Tree) -> Script:
    yield _click(_found(tree.find(_quoted(said)[0], "link")))


def _link_behind(*roles: str) -> Callable[[str, Tree], Script]:
    """A link that one of several tabs or sections holds."""

    def script(said: str, tree: Tree) -> Script:
        wanted = _quoted(said)[0]
        for number in range(_MOST_LOOKS):
            link = tree.find(wanted, "link")
            if link is not None:
                yield _click(link)
                return
            tabs = tree.all(*roles)
            if number >= len(tabs):
                return
            tree = yield _click(tabs[number])

    return script


def _tab(said: str, tree: Tree) -> Script:
    yield _click(_found(tree.find(_said(r"(Tab #\d+)", said), "link")))


def _expand(said: str, tree: Tree) -> Script:
    if not any("expanded" in tab.marks for tab in tree.all("tab")):
        tree = yield _click(tree.all("tab")[0])
    yield from _submit(tree)


def _focus(said: str, tree: Tree) -> Script:
    number = re.search(r"(\d)(?:st|nd|rd|th)", said)
    yield _click(tree.all("textbox")[int(number[1]) - 1 if number else 0])


def _tick(said: str, tree: Tree) -> Script:
    names = _said(r"Select (.*?)(?: and click Submit)", said)
    for name in [] if names == "nothing" else names.split(", "):
        tree = yield _click(_found(tree.find(name, "checkbox", "radio")))
    yield from _submit(tree)


def _choose(said: str, tree: Tree) -> Script:
    names = _said(r"Select (.*?) from the (?:scroll )?list", said)
    several = bool(tree.all("listbox"))
    options = names.split(", ") if several else [names]
    tree = yield _select(tree.all("listbox", "combobox")[0], *options)
    yield from _submit(tree)


def _enter_quoted(said: str, tree: Tree) -> Script:
    text = _quoted(said)[0]
    if "lower case" in said:
        text = text.lower()
    if "upper case" in said:
        text = text.upper()
    yield from _enter(tree, *[text] * len(tree.all("textbox")))


def _log_in(said: str, tree: Tree) -> Script:
    yield from _enter(tree, *_quoted(said))


def _enter_date(said: str, tree: Tree) -> Script:
    month, day, year = _said(r"(\d+/\d+/\d+)", said).split("/")
    yield from _enter(tree, f"{year}-{month}-{day}")


def _enter_time(said: str, tree: Tree) -> Script:
    hour, minute = map(int, _said(r"(\d+:\d+)", said).split(":"))
    yield from _enter(tree, f"{hour % 12 + 12 * ('PM' in said):02}:{minute:02}")


def _last_word(said: str, tree: Tree) -> Script:
    text, field = tree.all("textbox")[:2]
    tree = yield _type(field, text.text.split()[-1])
    yield from _submit(tree)


def _scroll_down(said: str, tree: Tree) -> Script:
    way = _said(r"to the (\w+)", said)
    for _ in range(_MOST_LOOKS):
        direction = "down" if way == "bottom" else "up"
        tree = yield "scroll", {"element": tree.all("textbox")[0].id, "direction": direction}
    yield from _submit(tree)


def _nth_word(said: str, tree: Tree) -> Script:
    words = re.findall(r"\w+", tree.all("paragraph")[0].text)
    yield from _enter(tree, words[int(_said(r"the (\d+)", said)) - 1])


def _table(tree: Tree) -> dict[str, str]:
    cells = [cell.words for cell in tree.elements if cell.role == "cell"]
    return dict(zip(cells[::2], cells[1::2], strict=True))


def _read_table(said: str, tree: Tree) -> Script:
    yield from _enter(tree, _table(tree)[_said(r"value of (.*?) into", said)])


def _fill_from_table(said: str, tree: Tree) -> Script:
    labels = [one.text for one in tree.elements if one.text.endswith(":")]
    yield from _enter(tree, *[_table(tree)[label.rstrip(":")] for label in labels])


_OPERATIONS = {"+": operator.add, "-": operator.sub, "x": operator.mul, "*": operator.mul}


def _arithmetic(said: str, tree: Tree) -> Script:
    shown = next(one.text for one in tree.elements if one.text.endswith("="))
    left, sign, right = shown.rstrip("= ").split()
    yield from _enter(tree, str(_OPERATIONS[sign](int(left), int(right))))


def _algebra(said: str, tree: Tree) -> Script:
    shown = next(one.text for one in tree.elements if re.search(r"= -?\d+$", one.text))
    left, sign, right, _, total = shown.split()
    sought = next(
        x
        for x in range(-1000, 1001)
        if _OPERATIONS[sign](*(x if part == "x" else int(part) for part in (left, right)))
        == int(total)
    )
    yield from _enter(tree, str(sought))


def _shown_letters(said: str, tree: Tree) -> Script:
    field = tree.all("textbox")[0]
    letters = [one.text for one in tree.elements if one.role == "generic" and len(one.text) == 1]
    tree = yield _type(field, "".join(letters))
    yield from _submit(tree)


def _greatest(said: str, tree: Tree) -> Script:
    cards = [one for one in tree.all("generic") if one.text.isdigit()]
    tree = yield _click(max(cards, key=lambda card: int(card.text)))
    yield from _submit(tree)


def _odd_or_even(said: str, tree: Tree) -> Script:
    numbers = [one for one in tree.all("generic") if re.fullmatch(r"-?\d+", one.text)]
    places = [tree.elements.index(one) for one in numbers]
    buttons = []
    for one, place in zip(numbers, places, strict=True):
        if int(one.text) % 2:
            buttons.append(next(b for b in tree.elements[place::-1] if b.name == "Odd"))
        else:
            buttons.append(next(b for b in tree.elements[place:] if b.name == "Even"))
    for button in buttons:
        tree = yield _click(button)
    yield from _submit(tree)


def _guess(said: str, tree: Tree) -> Script:
    low, high = 0, 9
    while low <= high:
        guess = (low + high) // 2
        tree = yield _type(tree.all("spinbutton", "textbox")[0], str(guess))
        tree = yield _click(_found(tree.find("Submit", "button")))
        shown = " ".join(one.words for one in tree.elements)
        if "higher" in shown:
            low = guess + 1
        else:
            high = guess - 1


def _choose_date(said: str, tree: Tree) -> Script:
    month, day, _ = map(int, _said(r"(\d+/\d+/\d+)", said).split("/"))
    tree = yield _click(tree.all("textbox")[0])
    for _ in range(_MOST_LOOKS):
        shown = " ".join(one.words for one in tree.elements)
        if _MONTHS[month - 1] in shown.replace(said, ""):
            break
        tree = yield _click(_found(tree.find("Prev")))
    tree = yield _click(_found(tree.find(str(day), "link")))
    yield from _submit(tree)


_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def _spin(said: str, tree: Tree) -> Script:
    steps = int(_said(r"Select (-?\d+)", said))
    up, down, _ = tree.all("button")
    for _ in range(abs(steps)):
        tree = yield _click(up if steps > 0 else down)
    yield from _submit(tree)


def _search(said: str, tree: Tree) -> Script:
    wanted = int(_said(r"the (\d+)", said)) - 1
    tree = yield _type(tree.all("textbox")[0], _quoted(said)[0])
    tree = yield _click(_found(tree.find("Search", "button")))
    for _ in range(_MOST_LOOKS):
        hits = [one for one in tree.all("link") if not re.fullmatch(r"\d+|[<>]", one.name)]
        if wanted < len(hits):
            yield _click(hits[wanted])
            return
        wanted -= len(hits)
        tree = yield _click(_found(tree.find(">", "link")))


def _open_mail(said: str, tree: Tree) -> Element:
    return _found(tree.find(_said(r"by (\w+)", said)))


def _icon_after(tree: Tree, start: Element, name: str) -> Element:
    return next(one for one in tree.following(start) if name in one.name.split() and one.id)


def _mail_icon(name: str) -> Callable[[str, Tree], Script]:
    def script(said: str, tree: Tree) -> Script:
        yield _click(_icon_after(tree, _open_mail(said, tree), name))

    return script


def _forward(said: str, tree: Tree) -> Script:
    tree = yield _click(_open_mail(said, tree))
    tree = yield _click(_found(tree.find("Forward") or tree.find("forward")))
    tree = yield _type(tree.all("textbox")[0], _said(r"to (\w+)\.", said))
    yield _click(_found(tree.find("send") or tree.find("send-forward")))


def _reply(said: str, tree: Tree) -> Script:
    tree = yield _click(_open_mail(said, tree))
    tree = yield _click(_found(tree.find("Reply") or tree.find("reply")))
    tree = yield _type(tree.all("textbox")[-1], _quoted(said)[0])
    yield _click(_found(tree.find("send") or tree.find("send-reply")))


def _posts_of(said: str, tree: Tree) -> list[Element]:
    user = _said(r"(@\w+)", said)
    first = next(one for one in tree.elements if said[:20] in one.words)
    return [one for one in tree.following(first) if one.text.endswith(user)]


def _social(said: str, tree: Tree) -> Script:
    post = _posts_of(said, tree)[0]
    action = _quoted(said)[0]
    icon = {"Like": "like", "Reply": "reply", "Retweet": "retweet"}.get(action)
    if icon is None:
        tree = yield _click(_icon_after(tree, post, "more"))
        yield _click(next(one for one in tree.all("listitem") if one.words.startswith(action)))
    else:
        yield _click(_icon_after(tree, post, icon))


def _social_several(said: str, tree: Tree) -> Script:
    action = _quoted(said)[0].lower()
    number = re.search(r"on (\d+) posts?", said)
    count = int(number[1]) if number else len(_posts_of(said, tree))
    for n in range(count):
        tree = yield _click(_icon_after(tree, _posts_of(said, tree)[n], action))
    yield from _submit(tree)


def _navigate(said: str, tree: Tree) -> Script:
    wanted, opened = _quoted(said)[0], set[str]()
    for _ in range(2 * _MOST_LOOKS):
        here = [one for one in tree.all("generic", "listitem") if one.text == wanted]
        if here:
            tree = yield _click(here[-1])
            return
        folders = [one for one in tree.all("img") if "expandable-hitarea" in one.name.split()]
        closed = [one for one in folders if one.id not in opened]
        if not closed:
            return
        opened.add(closed[0].id)
        tree = yield _click(closed[0])


def _autocomplete(said: str, tree: Tree) -> Script:
    start, *end = _quoted(said)
    tree = yield _type(tree.all("textbox")[0], start)
    tree = yield "wait", {}
    offers = [one for one in tree.all("listitem", "menuitem", "option", "generic") if one.words]
    fits = [o for o in offers if o.words.startswith(start) and o.words.endswith("".join(end))]
    tree = yield _click(fits[-1])
    yield from _submit(tree)


SCRIPTS: Mapping[str, Callable[[str, Tree], Script]] = MappingProxyType(
    {
        "choose-date": _choose_date,
        "choose-list": _choose,
        "click-button": _named_button,
        "click-button-sequence": _buttons_in_order,
        "click-checkboxes": _tick,
        "click-checkboxes-large": _tick,
        "click-collapsible": _expand,
        "click-collapsible-2": _link_behind("tab"),
        "click-dialog": _named_button,
        "click-dialog-2": _named_button,
        "click-link": _link,
        "click-option": _tick,
        "click-scroll-list": _choose,
        "click-tab": _tab,
        "click-tab-2": _link_behind("tab"),
        "click-test": _only_button,
        "click-test-2": _named_button,
        "email-inbox-delete": _mail_icon("trash"),
        "email-inbox-forward": _forward,
        "email-inbox-important": _mail_icon("star"),
        "email-inbox-reply": _reply,
        "enter-date": _enter_date,
        "enter-password": _enter_quoted,
        "enter-text": _enter_quoted,
        "enter-text-2": _enter_quoted,
        "enter-text-dynamic": _enter_quoted,
        "enter-time": _enter_time,
        "find-greatest": _greatest,
        "find-word": _nth_word,
        "focus-text": _focus,
        "focus-text-2": _focus,
        "guess-number": _guess,
        "login-user": _log_in,
        "navigate-tree": _navigate,
        "odd-or-even": _odd_or_even,
        "read-table": _read_table,
        "read-table-2": _fill_from_table,
        "scroll-text": _last_word,
        "scroll-text-2": _scroll_down,
        "search-engine": _search,
        "simple-algebra": _algebra,
        "simple-arithmetic": _arithmetic,
        "social-media": _social,
        "social-media-all": _social_several,
        "social-media-some": _social_several,
        "text-transform": _shown_letters,
        "unicode-test": _named_button,
        "use-autocomplete": _autocomplete,
        "use-spinner": _spin,
    }
)
"""Page → its script."""
