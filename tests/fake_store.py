"""The in-memory store and a deterministic embedder: what tests run the pipeline on, without models or files."""

from __future__ import annotations

import hashlib
import math
import operator
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from rag.filters import PASSAGE_FIELDS, Comparison, Filter
from rag.retrieval.fusion import order
from rag.retrieval.store import CollectionSpec, Hidden, IndexedPassage, Query
from rag.types import Candidate, Passage, Ranking, SparseVector, Vectors


class HashEmbedder:
    """An `Embedder`: texts that share words have similar vectors."""

    identity = "hash"
    max_tokens = None

    def __init__(self, dimension: int = 64) -> None:
        self.dimension = dimension

    async def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts)

    async def embed_passages(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts)

    async def close(self) -> None:
        pass

    def _embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.full((len(texts), self.dimension), 1e-3, dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                digest = hashlib.sha256(word.strip(".,;:?!()").encode()).digest()
                vectors[row, digest[0] % self.dimension] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class InMemoryStore:
    """A `PassageStore` that scores everything exactly."""

    def __init__(self, spec: CollectionSpec = CollectionSpec("fake", "hash", 64, "none", "none", 1.0)) -> None:
        self.spec = spec
        self.points: dict[str, IndexedPassage] = {}
        self.hidden_versions: dict[tuple[str, str], Hidden] = {}
        self.closed = False

    async def search(self, query: Query) -> Mapping[str, Ranking]:
        hidden = {
            v for (tenant, _), entry in self.hidden_versions.items() if tenant == query.tenant for v in entry.versions
        }
        owned = [
            p
            for p in self.points.values()
            if _matches(p.passage, query.tenant, query.filter) and p.passage.version not in hidden
        ]
        return {leg: ranking[: query.retrieve_k] for leg, ranking in self._rank(query, owned).items()}

    async def score(self, query: Query, passage_ids: Mapping[str, Sequence[str]]) -> Mapping[str, Ranking]:
        legs = {}
        for leg, ids in passage_ids.items():
            found = [self.points[i] for i in ids if i in self.points]
            owned = [point for point in found if point.passage.tenant == query.tenant]
            if ids:
                legs[leg] = self._rank(query, owned)[leg]
        return legs

    def _rank(self, query: Query, owned: Sequence[IndexedPassage]) -> dict[str, Ranking]:
        legs: dict[str, Ranking] = {}
        if query.dense is not None:
            legs["dense"] = self._ordered({p.passage.id: float(p.dense @ query.dense) for p in owned})
        if query.lexical is not None:
            legs["bm25"] = self._ordered(self._bm25(query.lexical, owned))
        return legs

    def _bm25(self, query: SparseVector, owned: Sequence[IndexedPassage]) -> dict[str, float]:
        # As in Qdrant, document frequencies are those of the whole collection.
        total = len(self.points)
        frequency = Counter(index for p in self.points.values() for index in p.lexical.indices)
        idf = {i: math.log(1 + (total - frequency[i] + 0.5) / (frequency[i] + 0.5)) for i in query.indices}
        scores = {}
        for point in owned:
            weights = dict(zip(point.lexical.indices, point.lexical.values, strict=True))
            shared = [i for i in query.indices if i in weights]
            if shared:
                scores[point.passage.id] = sum(idf[i] * weights[i] for i in shared)
        return scores

    def _ordered(self, scores: Mapping[str, float]) -> Ranking:
        documents = {passage_id: self.points[passage_id].passage.document_id for passage_id in scores}
        return order(Candidate(i, documents[i], score) for i, score in scores.items())

    async def fetch(self, tenant: str, passage_ids: Sequence[str]) -> Mapping[str, Passage]:
        found = (self.points[i].passage for i in passage_ids if i in self.points)
        return {passage.id: passage for passage in found if passage.tenant == tenant}

    async def upsert(self, passages: Sequence[IndexedPassage]) -> None:
        self.points |= {item.passage.id: item for item in passages}

    async def delete(self, tenant: str, filter: Filter) -> None:  # noqa: A002
        gone = [i for i, p in self.points.items() if _matches(p.passage, tenant, filter)]
        for passage_id in gone:
            del self.points[passage_id]

    async def count(self, tenant: str, filter: Filter | None = None) -> int:  # noqa: A002
        return sum(_matches(p.passage, tenant, filter) for p in self.points.values())

    async def hide(self, tenant: str, source: str, versions: Collection[str]) -> int:
        epoch = (await self.hidden(tenant, source)).epoch + 1
        self.hidden_versions[tenant, source] = Hidden(epoch, frozenset(versions))
        return epoch

    async def hidden(self, tenant: str, source: str) -> Hidden:
        return self.hidden_versions.get((tenant, source), Hidden())

    async def retrieve(self, tenant: str, passage_ids: Sequence[str]) -> Sequence[IndexedPassage]:
        found = (self.points[i] for i in passage_ids if i in self.points)
        return [point for point in found if point.passage.tenant == tenant]

    async def versions(self, tenant: str, source: str) -> Mapping[str, int]:
        passages = (point.passage for point in self.points.values())
        return Counter(p.version for p in passages if p.tenant == tenant and p.source == source)

    async def first_passage(self, tenant: str, version: str) -> Passage | None:
        passages = (point.passage for point in self.points.values())
        wanted = (p for p in passages if (p.tenant, p.version, p.ordinal) == (tenant, version, 0))
        return next(wanted, None)

    async def optimize(self) -> None:
        pass

    async def close(self) -> None:
        self.closed = True


def _matches(passage: Passage, tenant: str, filter_: Filter | None) -> bool:
    return passage.tenant == tenant and (filter_ is None or _holds(passage, filter_))


def _holds(passage: Passage, filter_: Filter) -> bool:
    if not isinstance(filter_, Comparison):
        return (all if filter_.operator == "and" else any)(_holds(passage, part) for part in filter_.filters)
    key = filter_.key
    value = getattr(passage, key) if key in PASSAGE_FIELDS else passage.metadata.get(key)
    value = [value, *passage.also_in] if key == "document_id" else value
    values = value if isinstance(value, list) else [value]
    wanted = filter_.value if isinstance(filter_.value, tuple) else (filter_.value,)
    match filter_.operator:
        case "eq" | "in":
            return any(_same(v, w) for v in values for w in wanted)
        case "ne" | "nin":
            return not any(_same(v, w) for v in values for w in wanted)
    compare = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}[filter_.operator]
    return any(type(v) in (int, float) and compare(v, wanted[0]) for v in values)


def _same(one: object, other: object) -> bool:
    # As in Qdrant, and unlike in Python, neither True nor 1.0 is 1.
    return type(one) is type(other) and one == other
