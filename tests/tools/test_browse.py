"""The browse tool: documents by page and question; web pages only from where they may come."""

from __future__ import annotations

import http.server
import socket
import threading
import time

import pytest

from reagent_env.corpus import Corpus, Document
from reagent_env.errors import ToolError
from reagent_env.tools import web_page
from reagent_env.tools.browse import make_browse_tool, split_pages
from reagent_env.tools.web_page import FetchLimits, fetch_page, is_public

LONG = "\n\n".join(f"Paragraph {i}. " + "Filler text goes here. " * 20 for i in range(20))
CORPUS = Corpus(
    [
        Document("Velmora", "wiki://Velmora", "Velmora is a city. It has 12,400 people."),
        Document("Long", "wiki://Long", LONG),
    ],
    cache=False,
)
BROWSE = make_browse_tool(CORPUS)


def test_a_document_opens_by_url_or_title():
    expected = "Velmora\nurl: wiki://Velmora\n\nVelmora is a city. It has 12,400 people."
    assert BROWSE("wiki://Velmora") == expected
    assert BROWSE("velmora") == expected


def test_a_query_shows_the_passages_about_it():
    assert "- It has 12,400 people." in BROWSE("wiki://Velmora", "people", 1)


def test_long_documents_come_in_pages_that_lose_no_word():
    pages = split_pages(LONG)
    assert all(len(page) <= 3000 for page in pages)
    assert " ".join(" ".join(pages).split()) == " ".join(LONG.split())
    assert BROWSE("wiki://Long", page=2).endswith(f"[page 2 of {len(pages)}]")
    with pytest.raises(ToolError, match=f"has {len(pages)} page"):
        BROWSE("wiki://Long", page=99)


def test_a_text_without_breaks_is_cut_all_the_same():
    assert [len(page) for page in split_pages("x" * 7000)] == [3000, 3000, 1000]


def test_an_unknown_url_names_near_ones():
    with pytest.raises(ToolError, match=r"Near: Velmora \(wiki://Velmora\)"):
        BROWSE("wiki://Velmara")


def test_the_web_is_off_by_default():
    with pytest.raises(ToolError, match="switched off"):
        BROWSE("http://127.0.0.1:1/")


def test_no_corpus_and_no_web_is_refused():
    with pytest.raises(ValueError, match="allow_web"):
        make_browse_tool(None)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "0.0.0.0", "224.0.0.1", "255.255.255.255", "168.63.129.16", "::1", "::", "fe80::1",
        "fe80::1%eth0", "fd00:ec2::254", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1",
        # IPv4-compatible, private NAT64, IPv4-translated, Teredo of 127.0.0.1 and of 10.0.0.1
        "::127.0.0.1", "::10.0.0.1", "64:ff9b:1::7f00:1", "64:ff9b:1:7f00:0:100::",
        "::ffff:0:127.0.0.1", "2001:0:808:808::80ff:fffe", "2001:0:808:808::f5ff:fffe",
        "2002:a00:1::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)
def test_addresses_that_are_public(address):
    assert is_public(address)


PAGE = (
    "<html><head><title>The Oska</title></head><body><nav>Menu</nav><article><h1>The Oska</h1>"
    + "<p>The Oska is a river of 412 km that crosses the plain of Tarn.</p>" * 3
    + "<script>alert(1)</script></article></body></html>"
)


class _Site(http.server.BaseHTTPRequestHandler):
    """A page, a redirect, a loop, a picture, a flood, a trickle and an error."""

    def do_GET(self) -> None:
        self.server.paths.append(self.path)  # type: ignore[attr-defined]
        name = self.path.partition("?")[0]
        if name == "/page":
            self._send(200, "text/html; charset=utf-8", PAGE.encode())
        elif name == "/plain":
            self._send(200, "text/plain; charset=latin-1", b"caf\xe9")
        elif name == "/moved":
            self._send(302, "text/plain", b"", Location="/page")
        elif name == "/inward":
            self._send(302, "text/plain", b"", Location="http://169.254.169.254/latest/meta-data/")
        elif name == "/file":
            self._send(302, "text/plain", b"", Location="file:///etc/passwd")
        elif name == "/loop":
            self._send(302, "text/plain", b"", Location="/loop")
        elif name == "/picture":
            self._send(200, "image/png", b"\x89PNG")
        elif name == "/packed":
            self._send(200, "text/html", b"\x1f\x8b", **{"Content-Encoding": "gzip"})
        elif name == "/flood":
            self._send(200, "text/plain", b"x" * 300_000)
        elif name == "/slow-headers":
            try:
                self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
                while not self.server.closing.wait(0.05):  # type: ignore[attr-defined]
                    self.wfile.write(b"x")
            except OSError:
                pass
        elif name == "/trickle":
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            try:
                while not self.server.closing.wait(0.05):  # type: ignore[attr-defined]
                    self.wfile.write(b"x")
            except OSError:
                pass
        else:
            self._send(404, "text/plain", b"no")

    def _send(self, status: int, kind: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    server.daemon_threads = True
    server.paths = []  # type: ignore[attr-defined]
    server.closing = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.closing.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def home(site):
    return f"http://127.0.0.1:{site.server_address[1]}"


def test_a_local_page_is_refused_and_never_asked_for(site, home):
    browse = make_browse_tool(CORPUS, allow_web=True)
    for url in (f"{home}/secret", f"http://localhost:{site.server_address[1]}/secret"):
        with pytest.raises(ToolError, match="not a public address"):
            browse(url)
    assert "/secret" not in site.paths


def test_a_local_page_is_read_where_allowed(home):
    pytest.importorskip("trafilatura")
    browse = make_browse_tool(None, allow_web=True, allow_private=True)
    shown = browse(f"{home}/page")
    assert shown.startswith("The Oska\n")
    assert "a river of 412 km" in shown
    assert "alert" not in shown
    assert "412 km" in browse(f"{home}/page", query="how long is the river")


def test_a_second_page_costs_no_second_fetch(site, home):
    browse = make_browse_tool(None, allow_web=True, allow_private=True)
    browse(f"{home}/flood?once")
    assert browse(f"{home}/flood?once", page=2)
    assert site.paths.count("/flood?once") == 1


def test_redirects_are_followed_and_counted(home):
    pytest.importorskip("trafilatura")
    assert fetch_page(f"{home}/moved", allow_private=True).url == f"{home}/page"
    with pytest.raises(ToolError, match="more than 5 redirects"):
        fetch_page(f"{home}/loop", allow_private=True)


def test_every_hop_of_a_redirect_is_checked(home, monkeypatch):
    # The first hop is let through as if it were public; the second must still be refused.
    real = web_page.is_public
    monkeypatch.setattr(web_page, "is_public", lambda a: a == "127.0.0.1" or real(a))
    with pytest.raises(ToolError, match=r"169\.254\.169\.254, which is not a public address"):
        fetch_page(f"{home}/inward")


def test_every_address_of_a_host_is_checked(monkeypatch):
    def two_faced(host: str, port: int, **_: object) -> list[object]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("8.8.8.8", port)), (*kind, ("10.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", two_faced)
    with pytest.raises(ToolError, match=r"10\.0\.0\.1"):
        fetch_page("http://two-faced.example/")


def test_the_connection_goes_to_the_address_that_was_checked(site, monkeypatch):
    # A name that answers differently the second time (DNS rebinding) is asked only once.
    port = site.server_address[1]
    answers = iter(["127.0.0.1", "127.0.0.2", "127.0.0.3"])
    asked: list[str] = []

    def rebinding(host: str, port: int, *_: object, **__: object) -> list[object]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    page = fetch_page(f"http://rebinding.example:{port}/plain", allow_private=True)
    assert page.text == "café"
    assert asked == ["rebinding.example"]


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "0177.0.0.1", "[::ffff:7f00:1]", "127.1"])
def test_odd_spellings_of_local_addresses_are_refused(site, host):
    with pytest.raises(ToolError, match="not a public address"):
        fetch_page(f"http://{host}:{site.server_address[1]}/secret")
    assert "/secret" not in site.paths


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/file", "http and https urls only"),
        ("/picture", "image/png, not a text page"),
        ("/packed", "compressed"),
        ("/nowhere", "status 404"),
    ],
)
def test_what_cannot_be_read_is_told_to_the_model(home, path, told):
    with pytest.raises(ToolError, match=told):
        fetch_page(home + path, allow_private=True)


@pytest.mark.parametrize(
    "url",
    ["ftp://example.com/", "http://", "http://a:b@example.com/", "http://e.com/a b",
     "http://e.com/\r\nX: y", "http://e.com:99999/", "http://no-such-host.invalid/"],
)  # fmt: skip
def test_odd_urls_are_refused(url):
    with pytest.raises(ToolError):
        fetch_page(url)


def test_a_flood_is_cut_at_the_limit(home):
    page = fetch_page(f"{home}/flood", allow_private=True, limits=FetchLimits(max_bytes=1000))
    assert (len(page.text), page.cut) == (1000, True)


@pytest.mark.parametrize("path", ["/trickle", "/slow-headers"])
def test_a_trickle_ends_at_the_deadline(home, path):
    started = time.monotonic()
    with pytest.raises(ToolError, match=r"longer than 0\.4 s"):
        fetch_page(home + path, allow_private=True, limits=FetchLimits(seconds=0.4))
    assert time.monotonic() - started < 3
