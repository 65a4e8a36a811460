"""Replies of judges on disk, by a hash of the question: one SQLite file of JSON.

Replies rather than judgements, so that what is read back passes the parser again; JSON rather than
pickles, so that a file from elsewhere can hold nothing worse than a wrong reply. A cache that
cannot be read or written is a slow cache: it is logged once, never an error.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from dataclasses import asdict
from pathlib import Path

from reagent_env.reward_models.chat_call import ChatText

logger = logging.getLogger(__name__)

FILE_NAME = "judge-replies.sqlite"


class ReplyCache:
    """A dictionary from hash to reply; used from one thread, shared by any number of processes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder.expanduser() / FILE_NAME
        self._connection: sqlite3.Connection | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=5.0, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT) STRICT"
            )
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def get(self, key: str) -> ChatText | None:
        """The reply kept under ``key``, or None."""
        if self._connection is None:
            return None
        try:
            row = self._connection.execute(
                "SELECT reply FROM replies WHERE key = ?", (key,)
            ).fetchone()
            return None if row is None else _checked(json.loads(row[0]))
        except sqlite3.Error as error:
            self._give_up(error)
        except (ValueError, TypeError, KeyError):  # not something that put() wrote
            pass
        return None

    def put(self, key: str, reply: ChatText) -> None:
        """Keep ``reply`` under ``key``."""
        if self._connection is None:
            return
        try:
            self._connection.execute(
                "INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, json.dumps(asdict(reply)))
            )
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the file. Twice is fine."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _give_up(self, error: Exception) -> None:
        logger.warning("Judge replies are not cached any more: %s: %s", self.path, error)
        self.close()


def _checked(record: dict[str, object]) -> ChatText:
    reply = ChatText(**record)  # type: ignore[arg-type]
    texts = (reply.content, reply.reasoning or "", reply.finish_reason or "")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a text of a cached reply is not a string")
    if not all(isinstance(n, int) for n in (reply.prompt_tokens, reply.completion_tokens)):
        raise ValueError("a count of a cached reply is not an integer")
    return reply
