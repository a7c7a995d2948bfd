"""What was ingested: items of sources, the documents they hold, their extracted content. SQLite in WAL mode.

It describes the store and is written after it. Each batch of changes is one transaction, which also records the
store's epoch: where the two differ, a run died in between (or the file lost its last writes), and the manifest is
brought in line with the store before anything else happens.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal

from rag.errors import StoreError

_SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE items (
    tenant TEXT, source TEXT, item_id TEXT, location TEXT NOT NULL, bytes_hash TEXT NOT NULL,
    documents INTEGER NOT NULL, error TEXT, PRIMARY KEY (tenant, source, item_id)) WITHOUT ROWID;
CREATE TABLE documents (
    generation TEXT, tenant TEXT, document_id TEXT, source TEXT NOT NULL, item_id TEXT NOT NULL,
    content_hash TEXT NOT NULL, version TEXT NOT NULL, passages INTEGER NOT NULL,
    PRIMARY KEY (generation, tenant, document_id)) WITHOUT ROWID;
CREATE INDEX documents_by_item ON documents (generation, tenant, source, item_id);
CREATE INDEX documents_by_content ON documents (content_hash);
CREATE TABLE contents (content_hash TEXT PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE contexts (
    content_hash TEXT, spans TEXT, writer TEXT, used INTEGER NOT NULL DEFAULT 0, data BLOB NOT NULL,
    PRIMARY KEY (content_hash, spans, writer));
CREATE INDEX contexts_by_writer ON contexts (writer);
CREATE TABLE epochs (
    generation TEXT, tenant TEXT, source TEXT, epoch INTEGER NOT NULL,
    PRIMARY KEY (generation, tenant, source)) WITHOUT ROWID;
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, started TEXT NOT NULL, ended TEXT, process INTEGER NOT NULL,
    command TEXT NOT NULL, state TEXT NOT NULL, report TEXT NOT NULL, error TEXT);
CREATE TABLE failures (run INTEGER, location TEXT, reason TEXT NOT NULL, PRIMARY KEY (run, location));
CREATE TABLE generations (id TEXT PRIMARY KEY, state TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """A file, or whatever else a source lists, as it was last read.

    Attributes:
        location: Where it was read from.
        bytes_hash: Of its bytes and of how they were parsed; empty if it was never read whole.
        documents: How many it holds.
        error: Why the last attempt to read it failed; None when it did not.
    """

    tenant: str
    source: str
    item_id: str
    location: str
    bytes_hash: str
    documents: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """A document that is searchable in one generation of the collection.

    Attributes:
        version: Under which its passages are stored; shared by documents of the same content. Empty when the store
            lost them and they are to be written again.
        passages: How many there are.
    """

    generation: str
    tenant: str
    document_id: str
    source: str
    item_id: str
    content_hash: str
    version: str
    passages: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What one transaction records of one source.

    Attributes:
        epoch: Of the store, after the same change there.
        gone: Ids of documents that are no longer searchable.
        gone_items: Ids of items that are no longer there.
    """

    epoch: int
    documents: Sequence[DocumentRecord] = ()
    gone: Sequence[str] = ()
    items: Sequence[ItemRecord] = ()
    gone_items: Sequence[str] = ()


_ITEM = ", ".join(field.name for field in fields(ItemRecord))
_DOCUMENT = ", ".join(field.name for field in fields(DocumentRecord))


class Manifest:
    """The manifest of one collection name, in all its generations.

    Raises:
        StoreError: The file was written by another release.
        sqlite3.Error: It is damaged, or the disk is full.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.connection = sqlite3.connect(file, isolation_level=None, timeout=30)
        try:
            self._prepare(file)
        except BaseException:
            self.connection.close()
            raise

    def _prepare(self, file: Path) -> None:
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = FULL")
        self.connection.execute(
            "CREATE TEMP TABLE listed (source TEXT, item_id TEXT, location TEXT, PRIMARY KEY (source, item_id))"
        )
        version = self.connection.execute("PRAGMA user_version").fetchone()[0]
        if version == _SCHEMA_VERSION:
            return
        if self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise StoreError(
                f"{file} was written by another release of this service; delete the folder {file.parent} and ingest "
                "again, or choose another store.collection"
            )
        self.connection.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {_SCHEMA_VERSION};COMMIT;")

    def item(self, tenant: str, source: str, item_id: str) -> ItemRecord | None:
        """The item as it was last read."""
        row = self.connection.execute(
            f"SELECT {_ITEM} FROM items WHERE tenant = ? AND source = ? AND item_id = ?",  # noqa: S608 - own names
            (tenant, source, item_id),
        ).fetchone()
        return ItemRecord(*row) if row else None

    def items(self, tenant: str, *, failed: bool = False) -> Iterator[ItemRecord]:
        """All items, or those whose last attempt failed, in order of source and id."""
        condition = " AND error IS NOT NULL" if failed else ""
        rows = self.connection.execute(
            f"SELECT {_ITEM} FROM items WHERE tenant = ?{condition} ORDER BY source, item_id",  # noqa: S608 - own names
            (tenant,),
        )
        return (ItemRecord(*row) for row in rows)

    def document(self, generation: str, tenant: str, document_id: str) -> DocumentRecord | None:
        """The document, if it is searchable in that generation."""
        return next(
            self._documents("generation = ? AND tenant = ? AND document_id = ?", generation, tenant, document_id), None
        )

    def documents(self, generation: str, tenant: str, source: str | None = None) -> Iterator[DocumentRecord]:
        """All documents, or a source's, in order of id."""
        if source is None:
            return self._documents("generation = ? AND tenant = ? ORDER BY document_id", generation, tenant)
        condition = "generation = ? AND tenant = ? AND source = ? ORDER BY document_id"
        return self._documents(condition, generation, tenant, source)

    def documents_of_item(self, generation: str, tenant: str, source: str, item_id: str) -> list[DocumentRecord]:
        """The documents that an item holds."""
        condition = "generation = ? AND tenant = ? AND source = ? AND item_id = ?"
        return list(self._documents(condition, generation, tenant, source, item_id))

    def documents_with_content(
        self, generation: str, tenant: str, source: str, content_hash: str
    ) -> list[DocumentRecord]:
        """The documents of a source that have this content."""
        condition = "content_hash = ? AND generation = ? AND tenant = ? AND source = ?"
        return list(self._documents(condition, content_hash, generation, tenant, source))

    def lost(self, generation: str, tenant: str, source: str) -> list[DocumentRecord]:
        """The documents of a source whose passages the store lost."""
        condition = "generation = ? AND tenant = ? AND source = ? AND version = ''"
        return list(self._documents(condition, generation, tenant, source))

    def _documents(self, condition: str, *values: str) -> Iterator[DocumentRecord]:
        rows = self.connection.execute(f"SELECT {_DOCUMENT} FROM documents WHERE {condition}", values)  # noqa: S608 - own names
        return (DocumentRecord(*row) for row in rows)

    def sources(self, generation: str) -> list[tuple[str, str]]:
        """(tenant, source) of all documents in a generation, in order."""
        rows = self.connection.execute(
            "SELECT DISTINCT tenant, source FROM documents WHERE generation = ? ORDER BY 1, 2", (generation,)
        )
        return rows.fetchall()

    def versions(self, generation: str, tenant: str, source: str) -> Mapping[str, int]:
        """Every version that should be stored, with its number of passages."""
        rows = self.connection.execute(
            "SELECT DISTINCT version, passages FROM documents "
            "WHERE generation = ? AND tenant = ? AND source = ? AND version != ''",
            (generation, tenant, source),
        )
        return dict(rows)

    def epoch(self, generation: str, tenant: str, source: str) -> int:
        """The store's epoch at the last recorded change of the source; 0 before the first."""
        row = self.connection.execute(
            "SELECT epoch FROM epochs WHERE generation = ? AND tenant = ? AND source = ?", (generation, tenant, source)
        ).fetchone()
        return row[0] if row else 0

    def record(self, generation: str, tenant: str, source: str, changes: Changes) -> None:
        """Record changes that the store already holds, in one transaction."""
        with self._transaction() as connection:
            self._record_items(tenant, source, changes)
            connection.executemany(
                "DELETE FROM documents WHERE generation = ? AND tenant = ? AND document_id = ?",
                ((generation, tenant, document_id) for document_id in changes.gone),
            )
            connection.executemany(
                f"INSERT OR REPLACE INTO documents ({_DOCUMENT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - own names
                map(astuple, changes.documents),
            )
            connection.executemany(
                "UPDATE contexts SET used = 1 WHERE content_hash = ? AND NOT used",
                {(document.content_hash,) for document in changes.documents},
            )
            connection.execute(
                "INSERT OR REPLACE INTO epochs VALUES (?, ?, ?, ?)", (generation, tenant, source, changes.epoch)
            )

    def record_epoch(self, generation: str, tenant: str, source: str, epoch: int) -> None:
        """Record that the store changed what it hides and nothing else."""
        self.record(generation, tenant, source, Changes(epoch))

    def record_items(self, items: Sequence[ItemRecord]) -> None:
        """Record items whose documents did not change."""
        with self._transaction():
            for item in items:
                self._record_items(item.tenant, item.source, Changes(0, items=[item]))

    def _record_items(self, tenant: str, source: str, changes: Changes) -> None:
        self.connection.executemany(
            f"INSERT OR REPLACE INTO items ({_ITEM}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - own names
            map(astuple, changes.items),
        )
        self.connection.executemany(
            "DELETE FROM items WHERE tenant = ? AND source = ? AND item_id = ?",
            ((tenant, source, item_id) for item_id in changes.gone_items),
        )

    def doubt_items(self, tenant: str, source: str, item_ids: Iterable[str]) -> None:
        """Have these items read anew by the next run unless this one comes to record them.

        To be said before any of their documents is shown: what they were read as last is no longer what is searchable.
        """
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE items SET bytes_hash = '' WHERE tenant = ? AND source = ? AND item_id = ?",
                ((tenant, source, item_id) for item_id in item_ids),
            )

    def keep_contents(self, contents: Iterable[tuple[str, bytes]]) -> None:
        """Keep packed contents by their hashes, before a document that has them is written."""
        with self._transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO contents VALUES (?, ?)", contents)

    def content(self, content_hash: str) -> bytes | None:
        """The packed content; None where it is not kept."""
        row = self.connection.execute("SELECT data FROM contents WHERE content_hash = ?", (content_hash,)).fetchone()
        return row[0] if row else None

    def unkept(self, generation: str) -> list[str]:
        """Ids of the documents of a generation whose content is not kept, in order."""
        rows = self.connection.execute(
            "SELECT document_id FROM documents WHERE generation = ? AND NOT EXISTS "
            "(SELECT 1 FROM contents WHERE contents.content_hash = documents.content_hash) ORDER BY document_id",
            (generation,),
        )
        return [document_id for (document_id,) in rows]

    def forget_unused_contents(self) -> None:
        """Drop contents that no document of any generation has, and contexts of those that no document has any more.

        Contexts that were paid for and belong to no document yet stay, for the run that continues.
        """
        unused = "content_hash NOT IN (SELECT content_hash FROM documents)"
        self.connection.execute(f"DELETE FROM contents WHERE {unused}")  # noqa: S608 - own words
        self.connection.execute(f"DELETE FROM contexts WHERE used AND {unused}")  # noqa: S608 - own words

    def forget_generation(self, generation: str) -> None:
        """Drop what is said of a generation that is dropped."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM documents WHERE generation = ?", (generation,))
            connection.execute("DELETE FROM epochs WHERE generation = ?", (generation,))
            connection.execute("DELETE FROM generations WHERE id = ?", (generation,))

    def generations(self) -> Mapping[str, str]:
        """The generations beside the live one: `building`, or `former` for one that is kept."""
        return dict(self.connection.execute("SELECT id, state FROM generations"))

    def mark_generation(self, generation: str, state: Literal["building", "former"] | None) -> None:
        """Say what a generation is; None for the live one, and for none."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM generations WHERE id = ?", (generation,))
            if state is not None:
                connection.execute("INSERT INTO generations VALUES (?, ?)", (generation, state))

    def note_listed(self, source: str, item_id: str, location: str) -> bool:
        """Note that this run's listing holds the item; False if it holds another of the same id."""
        self.connection.execute("INSERT OR IGNORE INTO listed VALUES (?, ?, ?)", (source, item_id, location))
        row = self.connection.execute(
            "SELECT location FROM listed WHERE source = ? AND item_id = ?", (source, item_id)
        ).fetchone()
        return bool(row[0] == location)

    def is_listed(self, source: str, item_id: str) -> bool:
        """Whether this run's listing holds the item, as far as it was noted."""
        row = self.connection.execute(
            "SELECT 1 FROM listed WHERE source = ? AND item_id = ?", (source, item_id)
        ).fetchone()
        return row is not None

    def vanished(self, generation: str, tenant: str, source: str) -> list[str]:
        """Ids of items of the source that have documents and are not in this run's listing."""
        rows = self.connection.execute(
            "SELECT DISTINCT item_id FROM documents AS known WHERE generation = ?1 AND tenant = ?2 AND source = ?3 "
            "AND NOT EXISTS (SELECT 1 FROM listed WHERE listed.source = ?3 AND listed.item_id = known.item_id) "
            "ORDER BY 1",
            (generation, tenant, source),
        )
        return [item_id for (item_id,) in rows]

    def known_items(self, generation: str, tenant: str, source: str) -> int:
        """How many items of the source have documents."""
        count: int = self.connection.execute(
            "SELECT count(DISTINCT item_id) FROM documents WHERE generation = ?1 AND tenant = ?2 AND source = ?3",
            (generation, tenant, source),
        ).fetchone()[0]
        return count

    def forget_vanished_failures(self, generation: str, tenant: str, source: str) -> None:
        """Forget items that never became documents and are not in this run's listing."""
        self.connection.execute(
            "DELETE FROM items WHERE tenant = ?2 AND source = ?3 AND NOT EXISTS "
            "(SELECT 1 FROM listed WHERE listed.source = ?3 AND listed.item_id = items.item_id) AND NOT EXISTS "
            "(SELECT 1 FROM documents AS held WHERE held.generation = ?1 AND held.tenant = ?2 AND held.source = ?3 "
            "AND held.item_id = items.item_id)",
            (generation, tenant, source),
        )

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
        except BaseException:
            # SQLite has done so itself where the disk was full.
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")
