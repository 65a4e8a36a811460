"""Fetch one public web page with limits, refusing every address that is not public.

The host is resolved once, every address it has is checked, and the connection goes to the address
that was checked: a name that resolves differently a moment later (DNS rebinding) gains nothing.
Each redirect goes through the same door. Proxy settings are not used. Not a crawler, and not a
browser: scripts do not run.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from reagent_env.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Callable

_TEXT_TYPES = ("text/", "application/xhtml", "application/xml", "application/json")
_CHARSET = re.compile(r"charset=[\"']?([\w.-]+)", re.IGNORECASE)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# All of IPv6 that is given out. Outside lie IPv4-compatible addresses (::/96) and private NAT64
# (64:ff9b:1::/48), which Python calls global and which can lead to any IPv4 address inside.
_GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")
# Public by its number, yet it answers only inside one cloud, with that cloud's secrets.
_CLOUD_SERVICE = ipaddress.ip_address("168.63.129.16")


@dataclass(frozen=True)
class FetchLimits:
    """What one fetch may cost, e.g. ``FetchLimits(seconds=5)``."""

    seconds: float = 15.0
    """For the whole fetch, redirects included."""
    max_bytes: int = 2_000_000
    """Longer bodies are cut here."""
    max_redirects: int = 5


@dataclass(frozen=True)
class WebPage:
    """A page as text."""

    url: str
    """Where it was found, after redirects."""
    title: str
    text: str
    cut: bool
    """True where the body was longer than the limit."""


def is_public(address: str) -> bool:
    """True if an IP address is on the public internet, also inside IPv6 wrappings of IPv4."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            wrapped = ipaddress.ip_address(int(ip) & 0xFFFFFFFF)  # type: ignore[assignment]
        if wrapped is not None:
            return is_public(str(wrapped))
        if ip not in _GLOBAL_IPV6:
            return False
    return ip.is_global and not ip.is_multicast and ip != _CLOUD_SERVICE


def fetch_page(
    url: str, *, allow_private: bool = False, limits: FetchLimits | None = None
) -> WebPage:
    """Get a page's main text.

    Args:
        url: An ``http`` or ``https`` url.
        allow_private: Also reach loopback, private and link-local addresses.
        limits: Time, size and redirects.

    Raises:
        ToolError: refused, not found, not text, too slow, or too many redirects.
    """
    limits = limits or FetchLimits()
    deadline = time.monotonic() + limits.seconds
    for _ in range(limits.max_redirects + 1):
        status, headers, body, cut = _get(url, allow_private, limits, deadline)
        location = headers.get("Location")
        if status in (301, 302, 303, 307, 308) and location:
            url = urljoin(url, location)
            continue
        if status != 200:
            raise ToolError(f"{url} answered with status {status}; try another url.")
        return _page(url, headers.get("Content-Type") or "text/html", body, cut)
    raise ToolError(f"{url}: more than {limits.max_redirects} redirects; try another url.")


def _get(
    url: str, allow_private: bool, limits: FetchLimits, deadline: float
) -> tuple[int, http.client.HTTPMessage, bytes, bool]:
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise ToolError(f"{url!r} is no valid url ({error}).") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ToolError(f"browse opens http and https urls only, got {url!r}.")
    if parts.username is not None or any(c <= " " or c == "\x7f" for c in url):
        raise ToolError(f"{url!r}: a url may hold no user name and no blanks.")
    address = _checked_address(parts.hostname, port, allow_private)
    pinned = functools.partial(_connect, address)
    connection = _PinnedConnection(
        parts.hostname, port, pinned, deadline, secure=parts.scheme == "https"
    )
    # A server that trickles its headers renews the socket's timeout with each byte; this does not.
    alarm = threading.Timer(max(0.0, deadline - time.monotonic()), connection.abort)
    alarm.daemon = True
    alarm.start()
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(
            "GET",
            target.encode("ascii", "ignore").decode(),
            headers={
                "User-Agent": "reagent-env",
                "Accept": "text/html, text/plain;q=0.9",
                "Accept-Encoding": "identity",
            },
        )
        response = connection.getresponse()
        if response.status != 200:
            return response.status, response.headers, b"", False
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding != "identity":
            raise ToolError(f"{url} came compressed ({encoding}), unasked; try another url.")
        body = b""
        while len(body) <= limits.max_bytes:
            connection.renew_timeout()
            # read1 returns what one receive brings, so a trickle cannot outlast the deadline.
            part = response.read1(65_536)
            if not part:
                break
            body += part
        if time.monotonic() >= deadline:
            raise TimeoutError
        return 200, response.headers, body[: limits.max_bytes], len(body) > limits.max_bytes
    except TimeoutError:
        raise ToolError(f"{url} took longer than {limits.seconds:g} s; try another url.") from None
    except (OSError, http.client.HTTPException) as error:
        if time.monotonic() >= deadline:
            raise ToolError(
                f"{url} took longer than {limits.seconds:g} s; try another url."
            ) from None
        raise ToolError(f"{url} could not be read ({error or type(error).__name__}).") from None
    finally:
        alarm.cancel()
        connection.close()


def _checked_address(host: str, port: int, allow_private: bool) -> tuple[int, tuple[str, int]]:
    """Family and socket address to connect to; every address of the host must be allowed."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ToolError(f"No address is known for the host {host!r} ({error}).") from None
    if not allow_private:
        for *_, place in found:
            if not is_public(str(place[0])):
                raise ToolError(
                    f"{host!r} leads to {place[0]}, which is not a public address; refused."
                )
    family, *_, place = found[0]
    return family, (str(place[0]), int(place[1]))


def _connect(address: tuple[int, tuple[str, int]], timeout: float) -> socket.socket:
    family, place = address
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(place)
    except BaseException:
        connection.close()
        raise
    return connection


class _PinnedConnection(http.client.HTTPConnection):
    """HTTP over a socket that goes to one checked address, while the host keeps its name."""

    def __init__(
        self,
        host: str,
        port: int,
        connect: Callable[[float], socket.socket],
        deadline: float,
        *,
        secure: bool,
    ) -> None:
        # A port that is the scheme's own is left out of the Host header.
        super().__init__(host, port)
        if port == (443 if secure else 80):
            self.default_port = port
        self._pinned_connect = connect
        self._deadline = deadline
        self._secure = secure

    def connect(self) -> None:
        raw = self._pinned_connect(self._remaining())
        if not self._secure:
            self.sock = raw
            return
        try:
            self.sock = ssl.create_default_context().wrap_socket(raw, server_hostname=self.host)
        except BaseException:
            raw.close()
            raise

    def abort(self) -> None:
        """End the connection from another thread; whoever reads from it sees its end."""
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)

    def renew_timeout(self) -> None:
        """Let the next receive wait no longer than what is left of the whole fetch."""
        remaining = self._remaining()
        if self.sock is not None:
            self.sock.settimeout(remaining)

    def _remaining(self) -> float:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        return remaining


def _page(url: str, content_type: str, body: bytes, cut: bool) -> WebPage:
    kind = content_type.lower()
    if not kind.startswith(_TEXT_TYPES):
        raise ToolError(f"{url} is {kind.split(';')[0]}, not a text page; try another url.")
    named = _CHARSET.search(content_type)
    if not kind.startswith(("text/html", "application/xhtml")):
        encoding = "utf-8"
        if named:
            with contextlib.suppress(LookupError):
                "".encode(named[1])
                encoding = named[1]
        return WebPage(url, url, body.decode(encoding, errors="replace").strip(), cut)
    try:
        import trafilatura
    except ImportError:
        raise RuntimeError(
            "Reading web pages needs trafilatura: pip install 'reagent-env[web]'."
        ) from None
    markup = trafilatura.utils.decode_file(body)
    found = trafilatura.bare_extraction(markup, url=url, with_metadata=True, favor_recall=True)
    text = (getattr(found, "text", None) or "").strip()
    if not text:
        text = (trafilatura.html2txt(markup) or "").strip()
    return WebPage(url, (getattr(found, "title", None) or url).strip(), text, cut)
