"""Reranking: a cross-encoder reads query and passage together and has a say in the order of the best candidates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Literal, Protocol

from rag.errors import ConfigurationError, ModelRuntimeError, ProviderError
from rag.retrieval.fusion import min_max, order
from rag.retrieval.passage_text import reranked_text
from rag.types import Candidate, Passage, Ranking

RerankMode = Literal["auto", "on", "off"]
DEFAULT_RERANK_WEIGHT = 0.5


class Reranker(Protocol):
    """Scores passages for a query; higher is more relevant. Scores compare within one call only."""

    @property
    def identity(self) -> str:
        """Names model and weights: what was measured with one identity holds for no other."""
        ...

    async def score(self, query: str, passages: Sequence[str], *, timeout_s: float | None) -> Sequence[float]:
        """The scores of the first passages, in order.

        Args:
            passages: Best first, so that what does not fit into the time matters least.
            timeout_s: Seconds after which no further passage is begun; None for as long as it takes.

        Returns:
            One score for each passage from the first on: as many as there are passages, or fewer where time ran out.

        Raises:
            ModelRuntimeError, ProviderError: The model did not answer.
        """
        ...

    async def close(self) -> None:
        """Release threads and connections."""
        ...


class DeferredReranker:
    """A `Reranker` that is loaded when it is first needed: a collection that nothing was tuned for may never need it.

    Args:
        load: Called once.
    """

    def __init__(self, load: Callable[[], Reranker]) -> None:
        self._load = load
        self._loaded: Reranker | None = None
        self._loading = Lock()

    @property
    def identity(self) -> str:
        """See `Reranker`. Loads it."""
        return self._reranker().identity

    async def score(self, query: str, passages: Sequence[str], *, timeout_s: float | None) -> Sequence[float]:
        """See `Reranker`; loading counts for no time."""
        try:
            reranker = await asyncio.to_thread(self._reranker)
        except ConfigurationError as error:
            raise ModelRuntimeError(f"the reranker cannot be loaded: {error}") from error
        return await reranker.score(query, passages, timeout_s=timeout_s)

    async def close(self) -> None:
        """See `Reranker`."""
        if self._loaded is not None:
            await self._loaded.close()

    def _reranker(self) -> Reranker:
        with self._loading:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded


def interpolate(fused: Ranking, scores: Sequence[float], *, weight: float) -> Ranking:
    """The fused ranking with its first candidates in a new order; those without a score follow in the order they had.

    Score(p) = weight * reranker's score + (1 - weight) * fused score, both min-max normalised over the scored
    candidates: interpolation guards against a reranker that is out of its domain (Askari et al., "Injecting the BM25
    Score as Text Improves BERT-Based Re-rankers", ECIR 2023, section 5, who compare it as linear interpolation).

    Args:
        scores: Of the first candidates, in order.
        weight: Of the reranker, 0 to 1.
    """
    scored, rest = fused[: len(scores)], fused[len(scores) :]
    parts = zip(scored, min_max(scores), min_max([candidate.score for candidate in scored]), strict=True)
    # Above what was not scored, whose scores stay below 1, so that scores fall over the whole ranking.
    best = order(
        Candidate(candidate.passage_id, candidate.document_id, 1 + weight * reranked + (1 - weight) * before)
        for candidate, reranked, before in parts
    )
    left = zip(rest, min_max([candidate.score for candidate in rest]), strict=True)
    return best + tuple(Candidate(c.passage_id, c.document_id, score * 0.999) for c, score in left)


@dataclass(frozen=True, slots=True)
class RerankPolicy:
    """When to rerank, and how much.

    Attributes:
        mode: Where a request does not say.
        is_measured_to_help: What `auto` comes down to.
        reason: Why `auto` is off, or why there is no reranker, in words.
        rerank_k: How many candidates are scored.
        weight: Of the reranker, 0 to 1; the fused score has the rest.
        timeout_s: What is not scored by then stays in fused order.
    """

    mode: RerankMode = "auto"
    is_measured_to_help: bool = False
    reason: str = "no reranker is configured"
    rerank_k: int = 30
    weight: float = DEFAULT_RERANK_WEIGHT
    timeout_s: float = 1.0


class Reranking:
    """A reranker with the policy that decides about each request.

    Args:
        reranker: None where none is there; `policy.reason` says why.
    """

    def __init__(self, reranker: Reranker | None = None, policy: RerankPolicy = RerankPolicy()) -> None:
        self.reranker = reranker
        self.policy = policy

    def depth(self, asked: RerankMode | None) -> int:
        """How many candidates are reranked for a request; 0 where none is."""
        mode = asked or self.policy.mode
        is_on = mode == "on" or (mode == "auto" and self.policy.is_measured_to_help)
        return self.policy.rerank_k if is_on and self.reranker is not None else 0

    def reason_against(self, asked: RerankMode | None) -> str:
        """Why nothing is reranked for a request, in words, where nothing is."""
        mode = asked or self.policy.mode
        return "it is switched off" if mode == "off" else self.policy.reason

    async def apply(self, query: str, fused: Ranking, passages: Mapping[str, Passage]) -> tuple[Ranking, str]:
        """The ranking with its first candidates in a new order, and what could not be done, in words.

        What the reranker does not get done in time stays in fused order, as does all of it where it fails.

        Args:
            passages: Of the first candidates, by id; not necessarily of `depth` of them.
        """
        assert self.reranker is not None  # noqa: S101 - `depth` was 0 otherwise
        first = fused[: min(self.policy.rerank_k, len(passages))]
        texts = [reranked_text(passages[candidate.passage_id]) for candidate in first]
        try:
            scores = await self.reranker.score(query, texts, timeout_s=self.policy.timeout_s)
        except (ModelRuntimeError, ProviderError) as error:
            return fused, f"rerank: the candidates keep their fused order, since {error}"
        note = ""
        if len(scores) < len(first):
            note = (
                f"rerank: {len(scores)} of {len(first)} candidates were scored within rerank.timeout_s, "
                f"{self.policy.timeout_s:g}; the others keep their fused order"
            )
        return interpolate(fused, scores, weight=self.policy.weight), note

    async def warm_up(self) -> None:
        """Score once where requests will: a model's first run is its slowest. Raises as `Reranker.score`."""
        if self.depth(None) and self.reranker is not None:
            await self.reranker.score("warm-up", ["warm-up"], timeout_s=None)

    async def close(self) -> None:
        """Release what the reranker holds."""
        if self.reranker is not None:
            await self.reranker.close()
