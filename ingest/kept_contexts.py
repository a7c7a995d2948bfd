"""Contexts that were written for passages and paid for, in the manifest's database.

They are kept before any document that has them is written; the manifest marks them as used when one is recorded.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass


@dataclass(frozen=True, slots=True)
class ContextKey:
    """What contexts were written for, and by whom.

    Attributes:
        spans: Names the passages that the content was divided into.
        writer: Names the model and the wording it was asked with.
    """

    content_hash: str
    spans: str
    writer: str


class KeptContexts:
    """The contexts of one collection name."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def keep(self, key: ContextKey, contexts: Sequence[str | None]) -> None:
        """Keep one for each passage, in place of those kept under the same key."""
        packed = zlib.compress(json.dumps(contexts, ensure_ascii=False).encode())
        self._connection.execute(
            "INSERT INTO contexts (content_hash, spans, writer, data) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET data = excluded.data",
            (*astuple(key), packed),
        )

    def find(self, key: ContextKey, count: int) -> list[str | None]:
        """The context of each of `count` passages in order; None for those that have none yet."""
        row = self._connection.execute(
            "SELECT data FROM contexts WHERE content_hash = ? AND spans = ? AND writer = ?", astuple(key)
        ).fetchone()
        contexts: list[str | None] = json.loads(zlib.decompress(row[0])) if row else [None] * count
        return contexts

    def has_any_by(self, writer: str) -> bool:
        """Whether any contexts by this writer are kept."""
        found = self._connection.execute("SELECT 1 FROM contexts WHERE writer = ? LIMIT 1", (writer,)).fetchone()
        return found is not None
