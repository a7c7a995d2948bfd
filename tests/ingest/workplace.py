"""A data folder as a user has it: the real embedded store and manifest, a small embedder, and no processes."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from ingest import reindex as reindexing
from ingest import sync
from ingest.discover import Discovery, discover
from ingest.manifest import DocumentRecord, Manifest
from ingest.reindex import Reindexed
from ingest.report import Report
from ingest.run import MANIFEST_FILE, Observer
from ingest.sync import Pruning, SyncPlan
from rag.bootstrap import collection_dir, live_generation
from rag.settings import Chunking, Data, Settings
from tests.ingest.bench import SOURCE, TENANT, FragileEmbedder, InProcessPool
from tests.ingest.kill_schedule import Seen, Verdict, judge_rerun, see, wanted_texts

_TABLES = ("items", "documents", "contents", "epochs", "generations")


class Workplace:
    """See the module.

    Attributes:
        docs: Files of the source `docs`.
        sentences: Per passage; another number makes a reindex build something else.
        embedder: Of the next run.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.docs = folder / SOURCE
        self.docs.mkdir()
        self.sentences = 2
        self.embedder = FragileEmbedder()
        monkeypatch.setattr("ingest.run.WorkerPool", InProcessPool)
        for module in ("run", "reindex"):
            monkeypatch.setattr(f"ingest.{module}.build_embedder", lambda *_: self.embedder)

    @property
    def settings(self) -> Settings:
        return Settings(data=Data(dir=self.folder / "data"), chunking=Chunking(sentences=self.sentences, max_tokens=60))

    def write(self, name: str, text: str) -> Path:
        file = self.docs / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    async def sync(
        self,
        *,
        prune: bool = False,
        force: bool = False,
        found: Discovery | None = None,
        observer: Observer = Observer(),
    ) -> Report:
        found = found or discover([self.docs], None)
        return await sync.ingest_files(self.settings, found, Pruning(wanted=prune, force=force), "rag ingest", observer)

    async def stream(self, *records: Any, source: str = "feed", prune: bool = False, force: bool = False) -> Report:
        """A record that is bytes is a line as it is."""
        lines = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]
        pruning = Pruning(wanted=prune, force=force)
        data = io.BytesIO(b"\n".join(lines))
        return await sync.ingest_stream(self.settings, data, source, pruning, "rag ingest -", Observer())

    async def plan(self, *, prune: bool = False, force: bool = False) -> SyncPlan:
        return await sync.plan_files(self.settings, discover([self.docs], None), Pruning(wanted=prune, force=force))

    async def reindex(self, *, force: bool = False, observer: Observer = Observer()) -> Reindexed:
        return await reindexing.reindex(self.settings, "rag reindex", observer, force=force)

    async def drop_former(self) -> list[str]:
        return await reindexing.drop_former(self.settings, "rag reindex --drop-former")

    async def see(self) -> Seen | None:
        return await see(self.settings)

    async def texts(self) -> dict[str, str]:
        """What is searchable of the source, each document once."""
        seen = await self.see()
        texts = {} if seen is None else seen.texts
        assert all(len(versions) == 1 for versions in texts.values()), texts
        return {document_id: versions[0] for document_id, versions in sorted(texts.items())}

    async def judged(self) -> Verdict:
        """How far the collection is from what the text files say."""
        verdict = Verdict()
        judge_rerun(await self.see(), wanted_texts(self.docs), verdict)
        return verdict

    async def documents(self, generation: str | None = None) -> list[DocumentRecord]:
        generation = generation or await live_generation(self.settings) or ""
        manifest = Manifest(self.manifest_file)
        try:
            return list(manifest.documents(generation, TENANT))
        finally:
            manifest.close()

    async def state(self) -> tuple[Seen | None, dict[str, Sequence[Any]]]:
        """Everything but the log of runs."""
        manifest = Manifest(self.manifest_file)
        try:
            rows = {
                table: manifest.connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall()
                if table not in ("contents", "generations")
                else manifest.connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
                for table in _TABLES
            }
        finally:
            manifest.close()
        return await self.see(), rows

    @property
    def manifest_file(self) -> Path:
        return collection_dir(self.settings) / MANIFEST_FILE


def copy_folder(source: Path, target: Path) -> None:
    """Copy with the holes, of which most of an embedded store consists."""
    shutil.copytree(source, target, copy_function=_copy_file)


def _copy_file(source: str, target: str) -> None:
    with Path(source).open("rb") as reading, Path(target).open("wb") as writing:
        size = os.fstat(reading.fileno()).st_size
        writing.truncate(size)
        start = _next(reading, 0, size, os.SEEK_DATA)
        while start < size:
            end = _next(reading, start, size, os.SEEK_HOLE)
            reading.seek(start)
            writing.seek(start)
            writing.write(reading.read(end - start))
            start = _next(reading, end, size, os.SEEK_DATA)


def _next(file: BinaryIO, offset: int, size: int, what: int) -> int:
    try:
        return os.lseek(file.fileno(), offset, what)
    except OSError:  # there is no data up to the end
        return size


class StoppingEmbedder(FragileEmbedder):
    """Has the run stopped when it is called for the n-th time, counted from 0; give `observer` to the run."""

    def __init__(self, stops_at: int) -> None:
        super().__init__()
        self._stops_at = stops_at
        self._stop = lambda: None
        self.observer = Observer(on_start=self._remember)

    def _remember(self, stop) -> None:
        self._stop = stop

    async def embed_passages(self, texts):
        if self.calls == self._stops_at:
            self._stop()
        await asyncio.sleep(0)
        return await super().embed_passages(texts)
