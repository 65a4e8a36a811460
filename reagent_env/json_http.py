"""One JSON question to an HTTP server of the user's choice, bounded in time and size.

Not for web pages or addresses that a policy writes (``tools/web_page.py``).
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

_PIECE = 1 << 16


class NoJson(Exception):
    """There is no JSON answer; the message says why: no connection, a status, too late, too long."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows none: a server is where its user says."""

    def redirect_request(self, *args: Any) -> None:
        """No request."""
        return


def ask_json(
    method: str,
    url: str,
    given: Mapping[str, Any],
    *,
    timeout_s: float = 60.0,
    most_bytes: int = 32 * 2**20,
) -> Any:
    """What the server answers; ``given`` is the body, or the query of a ``GET``.

    Example: ``ask_json("POST", "http://127.0.0.1:8000/step", {"id": 1, "action": "look"})``.

    Raises:
        NoJson: whatever else happens.
    """
    deadline = time.monotonic() + timeout_s
    body = None
    if method == "GET":
        url = f"{url}?{urllib.parse.urlencode(given)}" if given else url
    else:
        body = json.dumps(dict(given)).encode()
    request = urllib.request.Request(
        url, body, {"content-type": "application/json", "accept": "application/json"}, method=method
    )
    try:
        with urllib.request.build_opener(_Redirects).open(request, timeout=timeout_s) as reply:
            pieces: list[bytes] = []
            size = 0
            while piece := reply.read1(_PIECE):
                pieces.append(piece)
                size += len(piece)
                if size > most_bytes:
                    raise NoJson(f"its answer is longer than {most_bytes} bytes")
                if time.monotonic() > deadline:
                    raise NoJson(f"its answer took more than {timeout_s:g} s")
        return json.loads(b"".join(pieces))
    except urllib.error.HTTPError as error:
        with error:
            said = " ".join(error.read(2_000).decode("utf-8", "replace").split())[:200]
        raise NoJson(f"HTTP {error.code}: {said}") from error
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
        reason = getattr(error, "reason", None) or error
        raise NoJson(f"{type(error).__name__}: {reason}") from error
