"""Qdrant Edge: Qdrant's engine inside this process, over a folder.

One process owns the folder. Calls release the GIL but block their caller, so they run on a worker thread.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag.adapters import qdrant_layout as layout
from rag.errors import ConfigurationError, StoreBusyError, StoreError
from rag.filters import Filter
from rag.retrieval.store import CollectionSpec, IndexedPassage, Query
from rag.types import Passage, Ranking

_SPEC_FILE = "collection.json"
_SHARD_FOLDER = "shard"


class QdrantEdgeStore:
    """A `PassageStore` in a folder, made by `create` or `open`."""

    def __init__(self, shard: Any, spec: CollectionSpec) -> None:  # noqa: ANN401 - the vendor's handle
        self._shard = shard
        self.spec = spec

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether a collection was created in `folder`."""
        return (folder / _SPEC_FILE).is_file()

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
        config = edge.EdgeConfig(
            vectors={layout.DENSE: edge.EdgeVectorParams(size=spec.dimension, distance=edge.Distance.Dot)},
            sparse_vectors={layout.BM25: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        )
        try:
            (folder / _SHARD_FOLDER).mkdir(parents=True)
            shard = edge.EdgeShard.create(str(folder / _SHARD_FOLDER), config)
            for name in layout.KEYWORD_INDEXES:
                shard.update(edge.UpdateOperation.create_field_index(name, edge.PayloadSchemaType.Keyword))
            for name in layout.INTEGER_INDEXES:
                shard.update(edge.UpdateOperation.create_field_index(name, edge.PayloadSchemaType.Integer))
            unfinished = folder / f"{_SPEC_FILE}.new"
            unfinished.write_text(json.dumps(layout.spec_to_json(spec), indent=2), encoding="utf-8")
            unfinished.replace(folder / _SPEC_FILE)
        except Exception as error:
            raise _translated(error, folder) from error
        return cls(shard, spec)

    @classmethod
    def open(cls, folder: Path) -> QdrantEdgeStore:
        """Open the collection in `folder`.

        Raises:
            ConfigurationError: There is none.
            StoreBusyError: Another process has it open.
        """
        import qdrant_edge as edge

        if not cls.exists(folder):
            raise ConfigurationError(f"nothing is ingested yet: no collection in {folder}. Run: rag ingest PATH")
        try:
            spec = layout.spec_from_json(json.loads((folder / _SPEC_FILE).read_text("utf-8")), collection=folder.name)
            return cls(edge.EdgeShard.load(str(folder / _SHARD_FOLDER)), spec)
        except StoreError:
            raise
        except Exception as error:
            raise _translated(error, folder) from error

    async def search(self, query: Query) -> Mapping[str, Ranking]:
        """See `PassageReader`."""
        found: Mapping[str, Ranking] = await self._run(self._search, query)
        return found

    def _search(self, query: Query) -> Mapping[str, Ranking]:
        import qdrant_edge as edge

        vectors: dict[str, Any] = {}
        if query.dense is not None:
            vectors[layout.DENSE] = query.dense.tolist()
        if query.lexical is not None:
            vectors[layout.BM25] = edge.SparseVector(list(query.lexical.indices), list(query.lexical.values))
        condition = _edge_filter(layout.to_filter(query.tenant, query.filter))
        requests = [
            edge.QueryRequest(
                limit=query.retrieve_k,
                query=edge.Query.Nearest(vector, using=name),
                filter=condition,
                with_payload=["document_id"],
            )
            for name, vector in vectors.items()
        ]
        found = self._shard.query_batch(edge.QueryBatchRequest(requests)) if requests else []
        return {name: layout.to_ranking(points) for name, points in zip(vectors, found, strict=True)}

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

    async def delete(self, tenant: str, filter: Filter) -> None:  # noqa: A002
        """See `PassageWriter`."""
        import qdrant_edge as edge

        condition = _edge_filter(layout.to_filter(tenant, filter))
        await self._run(self._shard.update, edge.UpdateOperation.delete_points_by_filter(condition))

    async def count(self, tenant: str, filter: Filter | None = None) -> int:  # noqa: A002
        """See `PassageWriter`."""
        import qdrant_edge as edge

        condition = _edge_filter(layout.to_filter(tenant, filter))
        return int(await self._run(self._shard.count, edge.CountRequest(exact=True, filter=condition)))

    async def optimize(self) -> None:
        """See `PassageWriter`."""
        await self._run(self._shard.flush)
        await self._run(self._shard.optimize)

    async def close(self) -> None:
        """See `PassageReader`."""
        await self._run(self._shard.close)

    async def _run(self, call: Any, *arguments: Any) -> Any:  # noqa: ANN401 - any call of the vendor's handle
        try:
            return await asyncio.to_thread(call, *arguments)
        except StoreError:
            raise
        except Exception as error:
            raise _translated(error, None) from error


def _remove_leftover(shard: Path) -> None:
    """A shard without a description is what a crash during `create` left; it never held an acknowledged write."""
    import shutil

    if shard.exists():
        shutil.rmtree(shard)


def _translated(error: Exception, folder: Path | None) -> StoreError:
    """The engine raises bare exceptions, so their text decides."""
    if "WouldBlock" in str(error):
        return StoreBusyError(
            f"{folder} is in use by another process (a running `rag serve` or `rag ingest`). Stop it, or ask the "
            "server over HTTP; for several processes at once set store.url to a Qdrant server."
        )
    return StoreError(f"the embedded store failed: {error}")


def _edge_filter(data: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a qdrant_edge.Filter
    import qdrant_edge as edge

    clauses: dict[str, Any] = {name: [_edge_condition(part) for part in parts] for name, parts in data.items()}
    return edge.Filter(**clauses)


def _edge_condition(data: Mapping[str, Any]) -> Any:  # noqa: ANN401 - one of qdrant_edge's conditions
    import qdrant_edge as edge

    if "key" not in data:
        return _edge_filter(data)
    if "range" in data:
        return edge.FieldCondition(data["key"], range=edge.RangeFloat(**data["range"]))
    match = data["match"]
    if "any" in match:
        return edge.FieldCondition(data["key"], match=edge.MatchAny(match["any"]))
    value: Any = match["value"]
    # The binding tries integers first, and a Python bool is one; numpy's is not.
    value = np.bool_(value) if isinstance(value, bool) else value
    return edge.FieldCondition(data["key"], match=edge.MatchValue(value))
