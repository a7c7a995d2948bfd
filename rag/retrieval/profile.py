"""What was measured for one collection: how its legs are joined, and whether its reranker pays."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter, ValidationError

from rag.errors import StoreError
from rag.retrieval.fusion import FusionMethod


@dataclass(frozen=True, slots=True)
class RetrievalProfile:
    """The tuned parameters of a collection, stored with it; `rag eval tune` writes it, searches read it.

    Attributes:
        embedding: Identity of the embedder it was measured with.
        weight_dense: Of the dense leg, 0 to 1; the lexical leg has the rest.
        rrf_k: The constant of reciprocal rank fusion.
        reranker: Identity of the reranker that was measured; None where none was.
        rerank_gain: Of the mean measure by reranking with `rerank_weight`, on held-out queries; 0 where none was.
        is_rerank_on: Whether `rerank.mode = "auto"` reranks: the lower end of the gain's interval is not below 0.
        rerank_weight: Of the reranker in the interpolation, 0 to 1.
        judged: Name of the judged set, its split and its number of queries, in words.
        gain: Of the mean measure on held-out queries, over the untuned fusion.
        measure: What was maximised, as `ndcg@10`.
    """

    embedding: str
    fusion: FusionMethod
    weight_dense: float
    rrf_k: int
    reranker: str | None
    is_rerank_on: bool
    rerank_weight: float
    rerank_gain: float
    judged: str
    gain: float
    measure: str


def profile_to_text(profile: RetrievalProfile) -> str:
    """What is stored beside a collection."""
    return json.dumps(asdict(profile), indent=2)


def profile_from_text(text: str, *, collection: str) -> RetrievalProfile:
    """What `profile_to_text` wrote.

    Raises:
        StoreError: It is damaged, or another release wrote it.
    """
    try:
        return TypeAdapter(RetrievalProfile).validate_json(text)
    except ValidationError as error:
        raise StoreError(
            f"what was tuned for the collection {collection!r} cannot be read "
            f"({error.error_count()} fields are wrong); run `rag eval tune` again"
        ) from error
