"""What was ingested, by content: one row per document, recorded after its passages are safely in the store."""

from __future__ import annotations

import sqlite3
from dataclasses import astuple, dataclass, fields
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One ingested document.

    Attributes:
        path: Where it was read from, absolute.
        content_hash: SHA-256 of its bytes and of how they were processed.
        passages: How many it became.
    """

    tenant: str
    document_id: str
    source: str
    path: str
    content_hash: str
    passages: int


_COLUMNS = ", ".join(field.name for field in fields(ManifestEntry))


class Manifest:
    """The manifest of one collection, in SQLite (WAL); made when it is first opened."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(file, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS documents (tenant TEXT, document_id TEXT, source TEXT NOT NULL, "
            "path TEXT NOT NULL, content_hash TEXT NOT NULL, passages INTEGER NOT NULL, "
            "PRIMARY KEY (tenant, document_id)) WITHOUT ROWID"
        )
        self._connection.execute("CREATE TABLE IF NOT EXISTS collection (id TEXT NOT NULL, adopted INTEGER NOT NULL)")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS unfinished (tenant TEXT, document_id TEXT, "
            "PRIMARY KEY (tenant, document_id)) WITHOUT ROWID"
        )

    @property
    def collection_id(self) -> str | None:
        """Id of the collection it describes; None when it describes none yet."""
        row = self._connection.execute("SELECT id FROM collection").fetchone()
        return row[0] if row else None

    @property
    def is_adopted(self) -> bool:
        """Whether the collection may hold documents that this manifest does not know, since another one wrote them."""
        return self._connection.execute("SELECT 1 FROM collection WHERE adopted").fetchone() is not None

    def begin_collection(self, collection_id: str, *, adopted: bool) -> None:
        """Describe this collection from now on, and forget what was said of any other."""
        with self._connection:
            self._connection.execute("BEGIN")
            self._forget()
            self._connection.execute("INSERT INTO collection VALUES (?, ?)", (collection_id, adopted))

    def forget(self) -> None:
        """Forget everything: the collection it described is gone."""
        with self._connection:
            self._connection.execute("BEGIN")
            self._forget()

    def _forget(self) -> None:
        for table in ("documents", "unfinished", "collection"):
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608 - own names

    def find(self, tenant: str, document_id: str) -> ManifestEntry | None:
        """The document's entry, if it was ingested."""
        row = self._connection.execute(
            f"SELECT {_COLUMNS} FROM documents WHERE tenant = ? AND document_id = ?",  # noqa: S608 - own names
            (tenant, document_id),
        ).fetchone()
        return ManifestEntry(*row) if row else None

    def begin(self, entries: list[ManifestEntry]) -> None:
        """Note that passages of these documents are about to be written, until `record` says that all are."""
        with self._connection:
            self._connection.execute("BEGIN")
            self._connection.executemany("INSERT OR IGNORE INTO unfinished VALUES (?, ?)", map(_key, entries))

    def is_unfinished(self, tenant: str, document_id: str) -> bool:
        """Whether a run that began to write the document died before it recorded it."""
        found = self._connection.execute(
            "SELECT 1 FROM unfinished WHERE tenant = ? AND document_id = ?", (tenant, document_id)
        ).fetchone()
        return found is not None

    def record(self, entries: list[ManifestEntry]) -> None:
        """Write entries in one transaction; those with the same document are replaced."""
        with self._connection:
            self._connection.execute("BEGIN")
            self._connection.executemany(
                f"INSERT OR REPLACE INTO documents ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608 - own names
                map(astuple, entries),
            )
            self._connection.executemany(
                "DELETE FROM unfinished WHERE tenant = ? AND document_id = ?", map(_key, entries)
            )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _key(entry: ManifestEntry) -> tuple[str, str]:
    return entry.tenant, entry.document_id
