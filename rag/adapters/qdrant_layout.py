"""How a passage is laid out as a Qdrant point: shared by the embedded and the server adapter, vendor-free.

One collection holds named vectors `dense` (cosine as dot product of unit vectors) and `bm25` (IDF modifier), and
the payload below. Filters are written in Qdrant's REST shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
PROFILE = "profile"
"""What was tuned for a collection stands under this key beside the description of how it was built."""

_TUPLES = ("headings", "page_breaks")
_LAYOUT = 2
"""Raised when what a point holds changes, so that an older collection is refused with the remedy."""


def to_payload(passage: Passage) -> dict[str, Any]:
    """The payload of a passage: its fields but the id, which is the point's own.

    `document_id` is a list, the passage's own document first, so that a filter on any of them finds it.
    """
    payload = asdict(passage)
    del payload["id"], payload["also_in"]
    payload |= {name: list(payload[name]) for name in _TUPLES}
    payload["document_id"] = [passage.document_id, *passage.also_in]
    payload["rows"] = list(passage.rows) if passage.rows else None
    payload["metadata"] = dict(passage.metadata)
    return payload


def to_passage(point_id: object, payload: Mapping[str, Any]) -> Passage:
    """The passage that a point holds.

    Raises:
        StoreError: The payload was not written by this service.
    """
    try:
        restored: dict[str, Any] = {name: tuple(payload[name]) for name in _TUPLES}
        restored["rows"] = tuple(payload["rows"]) if payload["rows"] else None
        restored["document_id"], *also_in = payload["document_id"]
        return Passage(id=str(point_id), **{**payload, **restored, "also_in": tuple(also_in)})
    except (TypeError, KeyError, ValueError) as error:
        raise StoreError(f"point {point_id} holds a foreign payload ({error}); use a collection of its own") from error


def to_ranking(points: Iterable[Any]) -> Ranking:
    """Scored points, each with its document's id as payload, as a ranking."""
    return order(
        Candidate(
            str(point.id) if isinstance(point.id, UUID) else point.id,
            point.payload["document_id"][0],
            point.score,
        )
        for point in points
    )


def to_filter(tenant: str, filter_: Filter | None = None, *, hidden: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The tenant's part of the collection without hidden versions, narrowed by a filter, in Qdrant's REST shape."""
    owned = {"key": "tenant", "match": {"value": tenant}}
    clauses: dict[str, Any] = {"must": [owned] if filter_ is None else [owned, _condition(filter_)]}
    if hidden:
        clauses["must_not"] = [{"key": "version", "match": {"any": sorted(hidden)}}]
    return clauses


def to_ids_filter(tenant: str, passage_ids: Sequence[str]) -> dict[str, Any]:
    """What only these passages of the tenant match."""
    return {"must": [{"key": "tenant", "match": {"value": tenant}}, {"has_id": list(passage_ids)}]}


def to_first_passage_filter(tenant: str, version: str) -> dict[str, Any]:
    """What only the passage of ordinal 0 of a version matches."""
    wanted = {"tenant": tenant, "version": version, "ordinal": 0}
    return {"must": [{"key": key, "match": {"value": value}} for key, value in wanted.items()]}


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
    return {"layout": _LAYOUT, **asdict(spec)}


def spec_from_json(data: Mapping[str, Any] | None, *, collection: str) -> CollectionSpec:
    """What `spec_to_json` wrote.

    Raises:
        StoreError: The collection was not made by this service, or its description is damaged.
    """
    described = {key: value for key, value in (data or {}).items() if key != PROFILE}
    layout = described.pop("layout", 1 if "embedding" in described else None)
    if layout not in (None, _LAYOUT):
        raise StoreError(
            f"the collection {collection!r} was written by another release of this service (layout {layout}, this one "
            f"reads {_LAYOUT}). Choose another store.collection and ingest again."
        )
    try:
        return CollectionSpec(**described)
    except TypeError as error:
        raise StoreError(
            f"the collection {collection!r} has no description of how it was built; it was not made by this service. "
            "Choose another store.collection."
        ) from error
