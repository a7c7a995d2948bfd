"""How a passage is laid out as a Qdrant point: shared by the embedded and the server adapter, vendor-free.

One collection holds named vectors `dense` (cosine as dot product of unit vectors) and `bm25` (IDF modifier), and
the payload below. Filters are written in Qdrant's REST shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any
from uuid import UUID

from rag.errors import StoreError
from rag.filters import Comparison, Compound, Filter, payload_key
from rag.retrieval.fusion import order
from rag.retrieval.store import CollectionSpec
from rag.types import Candidate, Passage, Ranking

DENSE = "dense"
BM25 = "bm25"
KEYWORD_INDEXES = ("tenant", "source", "document_id", "version")
INTEGER_INDEXES = ("page",)
_TUPLES = ("headings", "page_breaks")


def to_payload(passage: Passage) -> dict[str, Any]:
    """The payload of a passage: its fields but the id, which is the point's own."""
    payload = asdict(passage)
    del payload["id"]
    payload |= {name: list(payload[name]) for name in _TUPLES}
    payload["metadata"] = dict(passage.metadata)
    return payload


def to_passage(point_id: object, payload: Mapping[str, Any]) -> Passage:
    """The passage that a point holds.

    Raises:
        StoreError: The payload was not written by this service.
    """
    try:
        restored = {name: tuple(payload[name]) for name in _TUPLES}
        return Passage(id=str(point_id), **{**payload, **restored})
    except (TypeError, KeyError) as error:
        raise StoreError(f"point {point_id} holds a foreign payload ({error}); use a collection of its own") from error


def to_ranking(points: Iterable[Any]) -> Ranking:
    """Scored points, each with its document's id as payload, as a ranking."""
    return order(
        Candidate(
            str(point.id) if isinstance(point.id, UUID) else point.id,
            point.payload["document_id"],
            point.score,
        )
        for point in points
    )


def to_filter(tenant: str, filter_: Filter | None) -> dict[str, Any]:
    """The tenant's part of the collection, narrowed by a filter, in Qdrant's REST shape."""
    owned = {"key": "tenant", "match": {"value": tenant}}
    return {"must": [owned] if filter_ is None else [owned, _condition(filter_)]}


def _condition(filter_: Filter) -> dict[str, Any]:
    match filter_:
        case Compound(operator, parts):
            return {"must" if operator == "and" else "should": [_condition(part) for part in parts]}
        case Comparison("eq", key, value):
            return {"key": payload_key(key), "match": {"value": value}}
        case Comparison("ne", key, value):
            return {"must_not": [{"key": payload_key(key), "match": {"value": value}}]}
        case Comparison("in", key, value):
            return {"key": payload_key(key), "match": {"any": list(value)}}  # type: ignore[arg-type]
        case Comparison("nin", key, value):
            return {"must_not": [{"key": payload_key(key), "match": {"any": list(value)}}]}  # type: ignore[arg-type]
        case Comparison(operator, key, value):
            return {"key": payload_key(key), "range": {operator: value}}


def spec_to_json(spec: CollectionSpec) -> dict[str, Any]:
    """What is stored beside a collection."""
    return asdict(spec)


def spec_from_json(data: Mapping[str, Any] | None, *, collection: str) -> CollectionSpec:
    """What `spec_to_json` wrote.

    Raises:
        StoreError: The collection was not made by this service, or its description is damaged.
    """
    try:
        return CollectionSpec(**(data or {}))
    except TypeError as error:
        raise StoreError(
            f"the collection {collection!r} has no description of how it was built; it was not made by this service. "
            "Choose another store.collection."
        ) from error
