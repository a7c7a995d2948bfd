"""Qdrant Edge: Qdrant's engine inside this process, over a folder.

One process owns the folder. Calls release the GIL but block their caller, so they run on a worker thread.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.adapters import qdrant_layout as layout
from rag.adapters.durable_files import write_durably
from rag.adapters.qdrant_edge_filter import edge_filter
from rag.errors import StoreBusyError, StoreError
from rag.filters import Comparison, Filter
from rag.retrieval.store import CollectionSpec, Hidden, IndexedPassage, Query, search_at_one_moment
from rag.types import Passage, Ranking, SparseVector

if TYPE_CHECKING:
    from filelock import FileLock

_SPEC_FILE = "collection.json"
_HIDDEN_FILE = "hidden.json"
_SHARD_FOLDER = "shard"
_LOCK_FILE = "lock"
_SEGMENT_KILOBYTES = 50_000
"""Of dense vectors: some 32,000 of 384 dimensions."""

_UNOPTIMIZED_PASSAGES = 8192
"""So many may be written before they are moved out of memory, into segments on disk."""

_ALL = 2**31
"""A limit that no collection in one process reaches."""


class QdrantEdgeStore:
    """A `PassageStore` in a folder, made by `create` or `open`."""

    def __init__(self, shard: Any, spec: CollectionSpec, folder: Path, lock: FileLock) -> None:  # noqa: ANN401
        self._shard = shard  # the vendor's handle
        self._lock = lock
        self.spec = spec
        self._folder = folder
        self._unoptimized = 0
        # By tenant and source. Never changed but replaced, so that a search keeps what it began with.
        self._hidden: Mapping[str, Mapping[str, Hidden]] = _read_hidden(folder / _HIDDEN_FILE)

    @staticmethod
    def description(folder: Path) -> Path:
        """The file that makes a collection of what is in `folder`."""
        return folder / _SPEC_FILE

    @classmethod
    def exists(cls, folder: Path) -> bool:
        """Whether a collection was created in `folder`."""
        return cls.description(folder).is_file()

    @classmethod
    def create(cls, folder: Path, spec: CollectionSpec) -> QdrantEdgeStore:
        """Make an empty collection in `folder`; the description is written last, so a crash leaves nothing half made.

        Raises:
            StoreError: The folder cannot be written, or holds a collection already.
        """
        import qdrant_edge as edge

        if cls.exists(folder):
            raise StoreError(f"{folder} holds a collection already")
        _remove_leftover(folder / _SHARD_FOLDER)
        # Read from the disk's cache, which the system takes back when it needs to: a large collection then needs no
        # more memory of its own than a small one. Segments are bounded for the same reason.
        cold = edge.Memory.Cold
        config = edge.EdgeConfig(
            vectors={layout.DENSE: edge.EdgeVectorParams(spec.dimension, edge.Distance.Dot, memory=cold)},
            sparse_vectors={layout.BM25: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf, memory=cold)},
            payload_memory=cold,
            id_tracker_memory=cold,
            optimizers=edge.EdgeOptimizersConfig(max_segment_size=_SEGMENT_KILOBYTES),
        )
        (folder / _HIDDEN_FILE).unlink(missing_ok=True)
        try:
            (folder / _SHARD_FOLDER).mkdir(parents=True)
        except OSError as error:
            raise _translated(error, folder) from error
        with _owned(folder) as lock:
            shard = edge.EdgeShard.create(str(folder / _SHARD_FOLDER), config)
            schemas: dict[str, Any] = dict.fromkeys(layout.KEYWORD_INDEXES, edge.KeywordIndexParams(memory=cold))
            schemas |= dict.fromkeys(layout.INTEGER_INDEXES, edge.PayloadSchemaType.Integer)
            for name, schema in schemas.items():
                shard.update(edge.UpdateOperation.create_field_index(name, schema))
            write_durably(folder / _SPEC_FILE, json.dumps(layout.spec_to_json(spec), indent=2))
            return cls(shard, spec, folder, lock)

    @classmethod
    def open(cls, folder: Path) -> QdrantEdgeStore:
        """Open the collection in `folder`.

        Raises:
            StoreError: There is none.
            StoreBusyError: Another process has it open.
        """
        import qdrant_edge as edge

        spec = cls.read_spec(folder)
        with _owned(folder) as lock:
            return cls(edge.EdgeShard.load(str(folder / _SHARD_FOLDER)), spec, folder, lock)

    @classmethod
    def read_spec(cls, folder: Path) -> CollectionSpec:
        """What the collection in `folder` was built with.

        Raises:
            StoreError: There is none, or its description is damaged.
        """
        if not cls.exists(folder):
            raise StoreError(f"there is no collection in {folder}; restore it from a backup, or ingest anew")
        try:
            described = json.loads((folder / _SPEC_FILE).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{folder / _SPEC_FILE} cannot be read: {error}") from error
        return layout.spec_from_json(described, collection=folder.name)

    async def search(self, query: Query) -> Mapping[str, Ranking]:
        """See `PassageReader`."""

        async def search(hidden: frozenset[str]) -> Mapping[str, Ranking]:
            condition = edge_filter(layout.to_filter(query.tenant, query.filter, hidden=hidden))
            return await self._rank(query, dict.fromkeys(query.legs, (condition, query.retrieve_k)))

        async def read_hidden() -> Mapping[str, Hidden]:
            return self._hidden.get(query.tenant, {})

        found, _ = await search_at_one_moment(search, read_hidden, await read_hidden())
        return found

    async def score(self, query: Query, passage_ids: Mapping[str, Sequence[str]]) -> Mapping[str, Ranking]:
        """See `PassageReader`."""
        asked = {
            leg: (edge_filter(layout.to_ids_filter(query.tenant, ids)), len(ids))
            for leg, ids in passage_ids.items()
            if ids
        }
        return await self._rank(query, asked)

    async def _rank(self, query: Query, asked: Mapping[str, tuple[Any, int]]) -> Mapping[str, Ranking]:
        """The legs asked for, each with its filter and how many it returns at most."""
        import qdrant_edge as edge

        if not asked:
            return {}
        vectors: dict[str, Any] = {}
        if query.dense is not None:
            vectors[layout.DENSE] = query.dense.tolist()
        if query.lexical is not None:
            vectors[layout.BM25] = edge.SparseVector(list(query.lexical.indices), list(query.lexical.values))
        requests = [
            edge.QueryRequest(
                limit=limit,
                query=edge.Query.Nearest(vectors[leg], using=leg),
                filter=condition,
                with_payload=["document_id"],
            )
            for leg, (condition, limit) in asked.items()
        ]
        found = await self._run(self._shard.query_batch, edge.QueryBatchRequest(requests))
        return {leg: layout.to_ranking(points) for leg, points in zip(asked, found, strict=True)}

    async def fetch(self, tenant: str, passage_ids: Sequence[str]) -> Mapping[str, Passage]:
        """See `PassageReader`."""
        records = await self._run(self._shard.retrieve, list(passage_ids), True, False) if passage_ids else []  # noqa: FBT003
        passages = (layout.to_passage(record.id, record.payload) for record in records)
        return {passage.id: passage for passage in passages if passage.tenant == tenant}

    async def upsert(self, passages: Sequence[IndexedPassage]) -> None:
        """See `PassageWriter`."""
        import qdrant_edge as edge

        def write() -> None:
            points = [
                edge.Point(
                    item.passage.id,
                    {
                        layout.DENSE: item.dense.tolist(),
                        layout.BM25: edge.SparseVector(list(item.lexical.indices), list(item.lexical.values)),
                    },
                    layout.to_payload(item.passage),
                )
                for item in passages
            ]
            self._shard.update(edge.UpdateOperation.upsert_points(points))

        await self._run(write)
        self._unoptimized += len(passages)
        if self._unoptimized >= _UNOPTIMIZED_PASSAGES:
            await self.optimize()

    async def delete(self, tenant: str, filter: Filter) -> None:  # noqa: A002
        """See `PassageWriter`."""
        import qdrant_edge as edge

        condition = edge_filter(layout.to_filter(tenant, filter))
        await self._run(self._shard.update, edge.UpdateOperation.delete_points_by_filter(condition))

    async def count(self, tenant: str, filter: Filter | None = None) -> int:  # noqa: A002
        """See `PassageWriter`."""
        import qdrant_edge as edge

        condition = edge_filter(layout.to_filter(tenant, filter))
        return int(await self._run(self._shard.count, edge.CountRequest(exact=True, filter=condition)))

    async def hide(self, tenant: str, source: str, versions: Collection[str]) -> int:
        """See `PassageWriter`."""
        of_tenant = self._hidden.get(tenant, {})
        changed = Hidden(of_tenant.get(source, Hidden()).epoch + 1, frozenset(versions))
        hidden = {**self._hidden, tenant: {**of_tenant, source: changed}}
        await self._run(self._shard.flush)
        await self._run(write_durably, self._folder / _HIDDEN_FILE, _hidden_to_json(hidden))
        self._hidden = hidden
        return changed.epoch

    async def hidden(self, tenant: str, source: str) -> Hidden:
        """See `PassageWriter`."""
        return self._hidden.get(tenant, {}).get(source, Hidden())

    async def retrieve(self, tenant: str, passage_ids: Sequence[str]) -> Sequence[IndexedPassage]:
        """See `PassageReader`."""
        records = await self._run(self._shard.retrieve, list(passage_ids), True, True) if passage_ids else []  # noqa: FBT003
        stored = {item.passage.id: item for item in map(_to_indexed, records) if item.passage.tenant == tenant}
        return [stored[passage_id] for passage_id in passage_ids if passage_id in stored]

    async def versions(self, tenant: str, source: str) -> Mapping[str, int]:
        """See `PassageWriter`."""
        import qdrant_edge as edge

        of_source = edge_filter(layout.to_filter(tenant, Comparison("eq", "source", source)))
        request = edge.FacetRequest("version", limit=_ALL, exact=True, filter=of_source)
        return {hit.value: hit.count for hit in (await self._run(self._shard.facet, request)).hits}

    async def first_passage(self, tenant: str, version: str) -> Passage | None:
        """See `PassageWriter`."""
        import qdrant_edge as edge

        condition = edge_filter(layout.to_first_passage_filter(tenant, version))
        request = edge.ScrollRequest(limit=1, filter=condition, with_payload=True)
        points, _ = await self._run(self._shard.scroll, request)
        return layout.to_passage(points[0].id, points[0].payload) if points else None

    async def optimize(self) -> None:
        """See `PassageWriter`."""
        await self._run(self._shard.flush)
        await self._run(self._shard.optimize)
        await asyncio.to_thread(_return_freed_memory)
        self._unoptimized = 0

    async def close(self) -> None:
        """See `PassageReader`."""
        try:
            await self._run(self._shard.close)
        finally:
            self._lock.release()

    async def _run(self, call: Any, *arguments: Any) -> Any:  # noqa: ANN401 - any call of the vendor's handle
        try:
            return await asyncio.to_thread(call, *arguments)
        except StoreError:
            raise
        except Exception as error:
            raise _translated(error, None) from error


def _return_freed_memory() -> None:
    """Building segments frees much that the C library would keep; where it is another one, nothing is done."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _read_hidden(file: Path) -> Mapping[str, Mapping[str, Hidden]]:
    if not file.exists():
        return {}
    try:
        return {
            tenant: {source: Hidden(epoch, frozenset(versions)) for source, (epoch, versions) in sources.items()}
            for tenant, sources in json.loads(file.read_text("utf-8")).items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StoreError(f"{file} is damaged ({error}); restore the folder from a backup, or ingest anew") from error


def _hidden_to_json(hidden: Mapping[str, Mapping[str, Hidden]]) -> str:
    return json.dumps(
        {
            tenant: {source: (entry.epoch, sorted(entry.versions)) for source, entry in sources.items()}
            for tenant, sources in hidden.items()
        }
    )


def _to_indexed(record: Any) -> IndexedPassage:  # noqa: ANN401 - a qdrant_edge.Record
    sparse = record.vector[layout.BM25]
    return IndexedPassage(
        layout.to_passage(record.id, record.payload),
        np.array(record.vector[layout.DENSE], dtype=np.float32),
        SparseVector(tuple(sparse.indices), tuple(sparse.values)),
    )


def _remove_leftover(shard: Path) -> None:
    """A shard without a description is what a crash during `create` left; it never held an acknowledged write."""
    import shutil

    if shard.exists():
        shutil.rmtree(shard)


@contextmanager
def _owned(folder: Path) -> Iterator[FileLock]:
    """The folder's lock, taken, and given back when what follows fails; the engine's errors are translated.

    The engine itself notices another owner only after it has touched the files of that one.

    Raises:
        StoreBusyError: Another process has it, or another store of this one.
        StoreError: What follows failed.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / _LOCK_FILE, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise _busy(folder) from error
    try:
        yield lock
    except BaseException as error:
        lock.release()
        if isinstance(error, StoreError) or not isinstance(error, Exception):
            raise
        raise _translated(error, folder) from error


def _busy(folder: Path | None) -> StoreBusyError:
    return StoreBusyError(
        f"{folder} is in use by another process (a running `rag serve` or `rag ingest`). Stop it, or ask the "
        "server over HTTP; for several processes at once set store.url to a Qdrant server."
    )


def _translated(error: Exception, folder: Path | None) -> StoreError:
    """The engine raises bare exceptions, so their text decides."""
    if "WouldBlock" in str(error):
        return _busy(folder)
    if "No space left" in str(error):
        return StoreError(
            f"the disk is full: {error}. Make room and run it again; nothing that was searchable is lost."
        )
    return StoreError(f"the embedded store failed: {error}")
