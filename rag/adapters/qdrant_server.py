"""A Qdrant server or cluster, through qdrant-client. Same collection layout as the embedded store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from rag.adapters import qdrant_layout as layout
from rag.errors import ConfigurationError, StoreError
from rag.filters import Filter
from rag.retrieval.store import CollectionSpec, IndexedPassage, Query
from rag.types import Passage, Ranking

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient


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
    """A `PassageStore` on a server, made by `create` or `open`; owns its client."""

    def __init__(self, client: AsyncQdrantClient, collection: str, spec: CollectionSpec) -> None:
        self._client = client
        self._collection = collection
        self.spec = spec

    @classmethod
    async def exists(cls, client: AsyncQdrantClient, collection: str) -> bool:
        """Whether the collection is there."""
        async with _errors_translated():
            return await client.collection_exists(collection)

    @classmethod
    async def create(cls, client: AsyncQdrantClient, collection: str, spec: CollectionSpec) -> QdrantServerStore:
        """Make an empty collection."""
        from qdrant_client import models

        async with _errors_translated():
            await client.create_collection(
                collection,
                vectors_config={layout.DENSE: models.VectorParams(size=spec.dimension, distance=models.Distance.DOT)},
                sparse_vectors_config={layout.BM25: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                metadata=layout.spec_to_json(spec),
            )
            indexes = dict.fromkeys(layout.KEYWORD_INDEXES, models.PayloadSchemaType.KEYWORD)
            indexes |= dict.fromkeys(layout.INTEGER_INDEXES, models.PayloadSchemaType.INTEGER)
            for name, schema in indexes.items():
                await client.create_payload_index(collection, name, schema, wait=True)
        return cls(client, collection, spec)

    @classmethod
    async def open(cls, client: AsyncQdrantClient, collection: str) -> QdrantServerStore:
        """Open an existing collection.

        Raises:
            ConfigurationError: There is none of that name.
            StoreError: The server cannot be reached, or the collection is not one of this service.
        """
        if not await cls.exists(client, collection):
            raise ConfigurationError(
                f"nothing is ingested yet: no collection {collection!r} on the server. Run: rag ingest PATH"
            )
        async with _errors_translated():
            described = await client.get_collection(collection)
        return cls(client, collection, layout.spec_from_json(described.config.metadata, collection=collection))

    async def search(self, query: Query) -> Mapping[str, Ranking]:
        """See `PassageReader`."""
        from qdrant_client import models

        vectors: dict[str, Any] = {}
        if query.dense is not None:
            vectors[layout.DENSE] = query.dense.tolist()
        if query.lexical is not None:
            vectors[layout.BM25] = models.SparseVector(
                indices=list(query.lexical.indices), values=list(query.lexical.values)
            )
        condition = _filter(query.tenant, query.filter)
        requests = [
            models.QueryRequest(
                query=vector,
                using=name,
                limit=query.retrieve_k,
                filter=condition,
                with_payload=["document_id"],
            )
            for name, vector in vectors.items()
        ]
        if not requests:
            return {}
        async with _errors_translated():
            found = await self._client.query_batch_points(self._collection, requests)
        return {name: layout.to_ranking(answer.points) for name, answer in zip(vectors, found, strict=True)}

    async def fetch(self, tenant: str, passage_ids: Sequence[str]) -> Mapping[str, Passage]:
        """See `PassageReader`."""
        if not passage_ids:
            return {}
        async with _errors_translated():
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
        async with _errors_translated():
            await self._client.upsert(self._collection, points, wait=True)

    async def delete(self, tenant: str, filter: Filter) -> None:  # noqa: A002
        """See `PassageWriter`."""
        from qdrant_client import models

        selector = models.FilterSelector(filter=_filter(tenant, filter))
        async with _errors_translated():
            await self._client.delete(self._collection, selector, wait=True)

    async def count(self, tenant: str, filter: Filter | None = None) -> int:  # noqa: A002
        """See `PassageWriter`."""
        async with _errors_translated():
            answer = await self._client.count(self._collection, count_filter=_filter(tenant, filter), exact=True)
        return answer.count

    async def optimize(self) -> None:
        """A server optimises on its own."""

    async def close(self) -> None:
        """See `PassageReader`."""
        await self._client.close()


def _filter(tenant: str, filter_: Filter | None) -> Any:  # noqa: ANN401 - a qdrant_client.models.Filter
    from qdrant_client import models

    return models.Filter.model_validate(layout.to_filter(tenant, filter_))


@asynccontextmanager
async def _errors_translated() -> AsyncIterator[None]:
    from grpc import RpcError
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

    try:
        yield
    except UnexpectedResponse as error:
        if error.status_code in (401, 403):
            raise StoreError("the Qdrant server refuses the key; check store.api_key (RAG_STORE__API_KEY)") from error
        raise StoreError(f"the Qdrant server answered {error.status_code}: {error.reason_phrase}") from error
    except (ApiException, QdrantException, RpcError, OSError) as error:
        raise StoreError(f"the Qdrant server cannot be reached; check store.url. {error}") from error
