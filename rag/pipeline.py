"""The query path: retrieve -> fuse -> (expand -> prompt -> generate -> cite). The order is here and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import TypeAlias

from rag.context.prompt import ABSTENTION, build_prompt
from rag.context.sources import fit_budget
from rag.errors import ProviderResponseError, UsageError
from rag.filters import Filter
from rag.generation.chat import ChatModel, Completion, StopReason, TextDelta
from rag.generation.citation import AnswerText, CitationParser
from rag.retrieval.embedding import Embedder
from rag.retrieval.fusion import FusionMethod, convex_fusion, reciprocal_rank_fusion
from rag.retrieval.lexical import LexicalEncoder
from rag.retrieval.store import PassageReader, Query
from rag.retrieval.window import expand
from rag.telemetry import Stopwatch
from rag.types import Answer, Citation, Ranking, SearchResult, Source, Usage

MAX_QUERY_CHARACTERS = 10_000
MAX_K = 1000
_MAX_READS = 5
"""Of the ranking and its passages, while an ingestion replaces them in between, which is rare."""

MAX_RETRIEVE_K = 10_000


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What is looked for. What is None is as configured.

    Attributes:
        k: How many candidates are returned, 1 to 1000.
        retrieve_k: How many each leg retrieves; at least `k`.
        weight_dense: Weight of the dense leg in fusion, 0 to 1; the lexical leg has the rest.
    """

    query: str
    tenant: str
    k: int | None = None
    retrieve_k: int | None = None
    filter: Filter | None = None
    fusion: FusionMethod | None = None
    weight_dense: float | None = None


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a request that does not say otherwise gets; units and ranges as in the settings."""

    k: int
    retrieve_k: int
    fusion: FusionMethod
    rrf_k: int
    weight_dense: float
    window_sentences: int
    max_context_tokens: int
    max_sources: int


AnswerEvent: TypeAlias = tuple[Source, ...] | AnswerText | Citation | Answer
"""What a streamed answer consists of: the sources, then text and citations as they come, then the whole answer."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The stages in order. Its fields are the seams; composed in `rag.bootstrap`."""

    embedder: Embedder
    lexical: LexicalEncoder
    store: PassageReader
    chat: ChatModel
    defaults: Defaults

    async def search(self, request: SearchRequest) -> SearchResult:
        """The best candidates for a query, with every stage's ranking.

        Raises:
            UsageError: The request is wrong.
            StoreError, ProviderError, ModelRuntimeError: A stage failed.
        """
        asked = _checked(request, self.defaults)
        watch = Stopwatch()
        with watch.stage("embed"):
            dense = (await self.embedder.embed_queries([asked.query]))[0]
            terms = self.lexical.encode_query(asked.query)
        lexical = terms if terms.indices else None
        query = Query(asked.tenant, dense, lexical, asked.retrieve_k, asked.filter)
        for _ in range(_MAX_READS):
            with watch.stage("retrieve"):
                legs = await self.store.search(query)
            with watch.stage("fuse"):
                fused = _fuse(legs, asked, rrf_k=self.defaults.rrf_k)
                best = fused[: asked.k]
            with watch.stage("fetch"):
                passages = await self.store.fetch(asked.tenant, [candidate.passage_id for candidate in best])
            if len(passages) == len(best):
                break
            # A running ingestion replaced one between the two reads: what replaced it is found now.
        return SearchResult(
            query=asked.query,
            candidates=tuple(candidate for candidate in best if candidate.passage_id in passages),
            passages=passages,
            stages={**legs, "fused": fused},
            timings_ms=watch.timings_ms(),
            degraded=() if lexical else ("lexical: the query has no indexable word, dense retrieval only",),
        )

    async def answer(self, request: SearchRequest) -> Answer:
        """An answer with citations, in one piece. Raises as `search`, and what the chat model raises."""
        watch = Stopwatch()
        found, sources = await self._context(request, watch)
        completion = self._nothing_found()
        if sources:
            with watch.stage("generate"):
                completion = await self.chat.complete(build_prompt(found.query, sources))
        parser = CitationParser(sources)
        pieces = [*parser.feed(completion.text), *parser.finish()]
        return _answer(found, sources, pieces, completion, watch)

    async def stream(self, request: SearchRequest) -> AsyncGenerator[AnswerEvent, None]:
        """The same as it is written. Closing the generator cancels the model's call."""
        watch = Stopwatch()
        found, sources = await self._context(request, watch)
        yield sources
        completion = None if sources else self._nothing_found()
        parser = CitationParser(sources)
        pieces: list[AnswerText | Citation] = []
        if sources:
            with watch.stage("generate"):
                async with aclosing(self.chat.stream(build_prompt(found.query, sources))) as events:
                    async for event in events:
                        if isinstance(event, Completion):
                            completion = event
                        for piece in parser.feed(event.text) if isinstance(event, TextDelta) else parser.finish():
                            pieces.append(piece)
                            yield piece
        if completion is None:
            raise ProviderResponseError(f"the stream of {self.chat.name} ended without its end mark")
        yield _answer(found, sources, pieces, completion, watch)

    async def close(self) -> None:
        """Release what the stages hold."""
        async with AsyncExitStack() as held:
            for part in (self.embedder, self.store, self.chat):
                held.push_async_callback(part.close)

    async def _context(self, request: SearchRequest, watch: Stopwatch) -> tuple[SearchResult, tuple[Source, ...]]:
        """What was found, and the sources a model is shown for it."""
        with watch.stage("search"):
            found = await self.search(request)
        with watch.stage("expand"):
            windows = await expand(
                found.candidates, found.passages, self.store, window_sentences=self.defaults.window_sentences
            )
            sources = fit_budget(
                windows, max_tokens=self.defaults.max_context_tokens, max_sources=self.defaults.max_sources
            )
        return found, tuple(sources)

    def _nothing_found(self) -> Completion:
        """Without sources there is nothing to ask a model."""
        return Completion(ABSTENTION, Usage(cost_usd=0.0), "complete", self.chat.name)


@dataclass(frozen=True, slots=True)
class _CheckedRequest:
    """A request in which everything is said."""

    query: str
    tenant: str
    k: int
    retrieve_k: int
    filter: Filter | None
    fusion: FusionMethod
    weight_dense: float


def _checked(request: SearchRequest, defaults: Defaults) -> _CheckedRequest:
    query = request.query.strip()
    if not query:
        raise UsageError("the query is empty; ask for something")
    if not _is_encodable(query):
        raise UsageError("the query is not valid text: it holds bytes that are not UTF-8")
    if len(query) > MAX_QUERY_CHARACTERS:
        raise UsageError(f"the query has {len(query)} characters; at most {MAX_QUERY_CHARACTERS} are accepted")
    k = defaults.k if request.k is None else request.k
    weight_dense = defaults.weight_dense if request.weight_dense is None else request.weight_dense
    if not 1 <= k <= MAX_K:
        raise UsageError(f"k must be between 1 and {MAX_K}, not {k}")
    if not 0 <= weight_dense <= 1:
        raise UsageError(f"weight_dense must be between 0 and 1, not {weight_dense}")
    if request.retrieve_k is not None and not 1 <= request.retrieve_k <= MAX_RETRIEVE_K:
        raise UsageError(f"retrieve_k must be between 1 and {MAX_RETRIEVE_K}, not {request.retrieve_k}")
    retrieve_k = max(k, defaults.retrieve_k if request.retrieve_k is None else request.retrieve_k)
    fusion = request.fusion or defaults.fusion
    return _CheckedRequest(query, request.tenant, k, retrieve_k, request.filter, fusion, weight_dense)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fuse(legs: Mapping[str, Ranking], asked: _CheckedRequest, *, rrf_k: int) -> Ranking:
    weight_of = {"dense": asked.weight_dense, "bm25": 1 - asked.weight_dense}
    rankings, weights = list(legs.values()), [weight_of[leg] for leg in legs]
    if asked.fusion == "rrf":
        return reciprocal_rank_fusion(rankings, weights=weights, k=rrf_k)
    return convex_fusion(rankings, weights=weights)


def _answer(
    found: SearchResult,
    sources: tuple[Source, ...],
    pieces: Sequence[AnswerText | Citation],
    completion: Completion,
    watch: Stopwatch,
) -> Answer:
    text = "".join(piece.text for piece in pieces if isinstance(piece, AnswerText)) or completion.text
    own = watch.timings_ms()
    del own["search"]  # its parts are told one by one
    return Answer(
        text=text,
        abstained=text.strip().startswith(ABSTENTION),
        citations=tuple(piece for piece in pieces if isinstance(piece, Citation)),
        sources=sources,
        model=completion.model,
        usage=completion.usage,
        timings_ms={**{name: ms for name, ms in found.timings_ms.items() if name != "total"}, **own},
        stages=found.stages,
        degraded=found.degraded + _CUT_SHORT[completion.stop_reason],
    )


_CUT_SHORT: Mapping[StopReason, tuple[str, ...]] = {
    "complete": (),
    "length": ("generate: the answer was cut off at llm.max_output_tokens",),
    "refusal": ("generate: the model declined to answer",),
}
