"""A Qdrant server or cluster, through qdrant-client. Same collection layout as the embedded store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import numpy as np

from rag.adapters import qdrant_layout as layout
from rag.errors import StoreError
from rag.filters import Comparison, Filter
from rag.retrieval.store import CollectionSpec, Hidden, IndexedPassage, Query, search_at_one_moment
from rag.types import Passage, Ranking, SparseVector, Vectors

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

_HIDDEN_NAMESPACE = UUID("0d3c2b6e-6a9f-4f0e-8a0e-8a4b6f3c1d52")
_HIDDEN_TENANT = "hidden_tenant"
"""Not `tenant`, so that no filter for passages matches these points."""

_MOST_VERSIONS = 10_000_000
_PATIENCE_S = 300
"""How long a server may ask to slow down before a run gives up; it can be continued."""


def connect(url: str, *, api_key: str | None, prefer_grpc: bool, timeout_s: float) -> AsyncQdrantClient:
    """A client for the server at `url`; nothing is sent before the first request."""
    from qdrant_client import AsyncQdrantClient

    return AsyncQdrantClient(
        url=url,
        api_key=api_key,
        prefer_grpc=prefer_grpc,
        timeout=max(1, round(timeout_s)),
        check_compatibility=False,
    )


class QdrantServerStore:
    """A `PassageStore` on a server, made by `create` or `open`; owns its client.

    What is hidden of a source stands in a point without vectors beside the passages, since the change of one point
    is what a server does in one step. A search reads these points after it and once before its first.
    """

    def __init__(self, client: AsyncQdrantClient, collection: str, spec: CollectionSpec) -> None:
        self._client = client
        self._collection = collection
        self.spec = spec
        self._known_hidden: dict[str, Mapping[str, Hidden]] = {}

    @classmethod
    async def exists(cls, client: AsyncQdrantClient, collection: str) -> bool:
        """Whether the collection is there."""
        async with errors_translated():
            return await client.collection_exists(collection)

    @classmethod
    async def create(cls, client: AsyncQdrantClient, collection: str, spec: CollectionSpec) -> QdrantServerStore:
        """Make an empty collection."""
        from qdrant_client import models

        async with errors_translated():
            await client.create_collection(
                collection,
                vectors_config={layout.DENSE: models.VectorParams(size=spec.dimension, distance=models.Distance.DOT)},
                sparse_vectors_config={layout.BM25: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                metadata=layout.spec_to_json(spec),
            )
            indexes = dict.fromkeys(layout.KEYWORD_INDEXES, models.PayloadSchemaType.KEYWORD)
            indexes |= dict.fromkeys(layout.INTEGER_INDEXES, models.PayloadSchemaType.INTEGER)
            indexes[_HIDDEN_TENANT] = models.PayloadSchemaType.KEYWORD
            for name, schema in indexes.items():
                await client.create_payload_index(collection, name, schema, wait=True)
        return cls(client, collection, spec)

    @classmethod
    async def open(cls, client: AsyncQdrantClient, collection: str) -> QdrantServerStore:
        """Open an existing collection.

        Raises:
            StoreError: There is none of that name, the server cannot be reached, or it is not one of this service.
        """
        return cls(client, collection, await cls.read_spec(client, collection))

    @classmethod
    async def read_spec(cls, client: AsyncQdrantClient, collection: str) -> CollectionSpec:
        """What a collection was built with. Raises as `open`."""
        if not await cls.exists(client, collection):
            raise StoreError(f"there is no collection {collection!r} on the server; restore it, or ingest anew")
        async with errors_translated():
            described = await client.get_collection(collection)
        return layout.spec_from_json(described.config.metadata, collection=collection)

    async def search(self, query: Query) -> Mapping[str, Ranking]:
        """See `PassageReader`."""

        async def search(hidden: frozenset[str]) -> Mapping[str, Ranking]:
            condition = _filter(layout.to_filter(query.tenant, query.filter, hidden=hidden))
            return await self._rank(query, dict.fromkeys(query.legs, (condition, query.retrieve_k)))

        async def read_hidden() -> Mapping[str, Hidden]:
            return await self._read_hidden(query.tenant)

        if not query.legs:
            return {}
        known = self._known_hidden.get(query.tenant)
        known = await read_hidden() if known is None else known
        found, self._known_hidden[query.tenant] = await search_at_one_moment(search, read_hidden, known)
        return found

    async def score(self, query: Query, passage_ids: Mapping[str, Sequence[str]]) -> Mapping[str, Ranking]:
        """See `PassageReader`."""
        asked = {
            leg: (_filter(layout.to_ids_filter(query.tenant, ids)), len(ids)) for leg, ids in passage_ids.items() if ids
        }
        return await self._rank(query, asked) if asked else {}

    async def _rank(self, query: Query, asked: Mapping[str, tuple[Any, int]]) -> Mapping[str, Ranking]:
        """The legs asked for, each with its filter and how many it returns at most."""
        from qdrant_client import models

        vectors: dict[str, Any] = {}
        if query.dense is not None:
            vectors[layout.DENSE] = query.dense.tolist()
        if query.lexical is not None:
            vectors[layout.BM25] = models.SparseVector(
                indices=list(query.lexical.indices), values=list(query.lexical.values)
            )
        requests = [
            models.QueryRequest(
                query=vectors[leg], using=leg, limit=limit, filter=condition, with_payload=["document_id"]
            )
            for leg, (condition, limit) in asked.items()
        ]
        async with errors_translated():
            found = await self._client.query_batch_points(self._collection, requests)
        return {leg: layout.to_ranking(answer.points) for leg, answer in zip(asked, found, strict=True)}

    async def fetch(self, tenant: str, passage_ids: Sequence[str]) -> Mapping[str, Passage]:
        """See `PassageReader`."""
        if not passage_ids:
            return {}
        async with errors_translated():
            records = await self._client.retrieve(self._collection, list(passage_ids), with_payload=True)
        passages = (layout.to_passage(record.id, record.payload or {}) for record in records)
        return {passage.id: passage for passage in passages if passage.tenant == tenant}

    async def upsert(self, passages: Sequence[IndexedPassage]) -> None:
        """See `PassageWriter`."""
        from qdrant_client import models

        points = [
            models.PointStruct(
                id=item.passage.id,
                vector={
                    layout.DENSE: item.dense.tolist(),
                    layout.BM25: models.SparseVector(
                        indices=list(item.lexical.indices), values=list(item.lexical.values)
                    ),
                },
                payload=layout.to_payload(item.passage),
            )
            for item in passages
        ]
        await _patiently(lambda: self._client.upsert(self._collection, points, wait=True))

    async def delete(self, tenant: str, filter: Filter) -> None:  # noqa: A002
        """See `PassageWriter`."""
        from qdrant_client import models

        selector = models.FilterSelector(filter=_filter(layout.to_filter(tenant, filter)))
        await _patiently(lambda: self._client.delete(self._collection, selector, wait=True))

    async def count(self, tenant: str, filter: Filter | None = None) -> int:  # noqa: A002
        """See `PassageWriter`."""
        condition = _filter(layout.to_filter(tenant, filter))
        async with errors_translated():
            answer = await self._client.count(self._collection, count_filter=condition, exact=True)
        return answer.count

    async def hide(self, tenant: str, source: str, versions: Collection[str]) -> int:
        """See `PassageWriter`."""
        from qdrant_client import models

        epoch = (await self.hidden(tenant, source)).epoch + 1
        payload = {_HIDDEN_TENANT: tenant, "hidden_source": source, "epoch": epoch, "versions": sorted(versions)}
        point = models.PointStruct(id=_hidden_id(tenant, source), vector={}, payload=payload)
        await _patiently(
            lambda: self._client.upsert(self._collection, [point], wait=True, ordering=models.WriteOrdering.STRONG)
        )
        return epoch

    async def hidden(self, tenant: str, source: str) -> Hidden:
        """See `PassageWriter`."""
        return (await self._read_hidden(tenant)).get(source, Hidden())

    async def _read_hidden(self, tenant: str) -> Mapping[str, Hidden]:
        from qdrant_client import models

        condition = models.Filter(
            must=[models.FieldCondition(key=_HIDDEN_TENANT, match=models.MatchValue(value=tenant))]
        )
        found: dict[str, Hidden] = {}
        offset = None
        while True:
            async with errors_translated():
                records, offset = await self._client.scroll(
                    self._collection,
                    condition,
                    limit=1000,
                    offset=offset,
                    with_payload=True,
                    consistency=models.ReadConsistencyType.MAJORITY,
                )
            payloads = [record.payload or {} for record in records]
            found |= {data["hidden_source"]: Hidden(data["epoch"], frozenset(data["versions"])) for data in payloads}
            if offset is None:
                return found

    async def retrieve(self, tenant: str, passage_ids: Sequence[str]) -> Sequence[IndexedPassage]:
        """See `PassageReader`."""
        if not passage_ids:
            return []
        async with errors_translated():
            records = await self._client.retrieve(
                self._collection, list(passage_ids), with_payload=True, with_vectors=True
            )
        stored = {item.passage.id: item for item in map(_to_indexed, records) if item.passage.tenant == tenant}
        return [stored[passage_id] for passage_id in passage_ids if passage_id in stored]

    async def versions(self, tenant: str, source: str) -> Mapping[str, int]:
        """See `PassageWriter`."""
        condition = _filter(layout.to_filter(tenant, Comparison("eq", "source", source)))
        async with errors_translated():
            answer = await self._client.facet(
                self._collection, "version", facet_filter=condition, limit=_MOST_VERSIONS, exact=True
            )
        if len(answer.hits) == _MOST_VERSIONS:
            raise StoreError(
                f"the source {source!r} has more than {_MOST_VERSIONS:,} documents; divide it into several"
            )
        return {str(hit.value): hit.count for hit in answer.hits}

    async def first_passage(self, tenant: str, version: str) -> Passage | None:
        """See `PassageWriter`."""
        condition = _filter(layout.to_first_passage_filter(tenant, version))
        async with errors_translated():
            records, _ = await self._client.scroll(self._collection, condition, limit=1, with_payload=True)
        return layout.to_passage(records[0].id, records[0].payload or {}) if records else None

    async def optimize(self) -> None:
        """A server optimises on its own."""

    async def close(self) -> None:
        """See `PassageReader`."""
        await self._client.close()


def _hidden_id(tenant: str, source: str) -> str:
    return str(uuid5(_HIDDEN_NAMESPACE, f"{tenant}\0{source}"))


def _to_indexed(record: Any) -> IndexedPassage:  # noqa: ANN401 - a qdrant_client Record
    dense: Vectors = np.array(record.vector[layout.DENSE], dtype=np.float32)
    sparse = record.vector[layout.BM25]
    return IndexedPassage(
        layout.to_passage(record.id, record.payload or {}),
        dense,
        SparseVector(tuple(sparse.indices), tuple(sparse.values)),
    )


def _filter(data: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a qdrant_client.models.Filter
    from qdrant_client import models

    return models.Filter.model_validate(data)


async def _patiently(write: Callable[[], Awaitable[object]]) -> None:
    """Write as fast as the server takes it: when it asks to slow down, wait as long as it says and repeat."""
    from qdrant_client.common.client_exceptions import ResourceExhaustedResponse

    waited_s = 0.0
    while True:
        async with errors_translated():
            try:
                await write()
            except ResourceExhaustedResponse as error:
                if waited_s >= _PATIENCE_S:
                    raise
                pause_s = min(max(float(error.retry_after_s), 0.1), 30)
            else:
                return
        waited_s += pause_s
        await asyncio.sleep(pause_s)


@asynccontextmanager
async def errors_translated() -> AsyncIterator[None]:
    """What the client raises as `StoreError`, with the remedy."""
    from grpc import RpcError
    from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

    try:
        yield
    except UnexpectedResponse as error:
        if error.status_code in (401, 403):
            raise StoreError("the Qdrant server refuses the key; check store.api_key (RAG_STORE__API_KEY)") from error
        raise StoreError(f"the Qdrant server answered {error.status_code}: {error.reason_phrase}") from error
    except ResourceExhaustedResponse as error:
        raise StoreError(
            f"the Qdrant server asks to slow down; try again in {error.retry_after_s} s, or raise its rate limit"
        ) from error
    except (ApiException, QdrantException, RpcError, OSError) as error:
        raise StoreError(f"the Qdrant server cannot be reached; check store.url. {error}") from error
