"""The query path. Its order is here and nowhere else.

retrieve -> fuse -> rerank, which is a search; then expand -> compress -> order -> prompt -> generate -> cite.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from rag.context.compression import Compressed, Compression
from rag.context.ordering import order_sources
from rag.context.prompt import ABSTENTION, build_prompt
from rag.context.sources import fit_budget
from rag.errors import ProviderResponseError
from rag.generation.chat import ChatModel, Completion, StopReason, TextDelta
from rag.generation.citation import AnswerText, CitationParser
from rag.request import MAX_K, Defaults, SearchRequest, check_request
from rag.retrieval.diversity import maximal_marginal_relevance, without_duplicates
from rag.retrieval.embedding import Embedder
from rag.retrieval.fusion import complete, fuse, missing
from rag.retrieval.lexical import LexicalEncoder
from rag.retrieval.rerank import Reranking
from rag.retrieval.store import PassageReader, Query
from rag.retrieval.window import expand
from rag.telemetry import Stopwatch
from rag.types import Answer, Citation, Ranking, SearchResult, Source, Usage

_MAX_READS = 5
"""Of the ranking and its passages, while an ingestion replaces them in between, which is rare."""

_DEPTH = 2
"""Times `prompt.max_sources`: so many candidates are looked at for those that become sources."""

AnswerEvent: TypeAlias = tuple[Source, ...] | AnswerText | Citation | Answer
"""What a streamed answer consists of: the sources, then text and citations as they come, then the whole answer."""


@dataclass(frozen=True, slots=True)
class Context:
    """What one answer is written from."""

    found: SearchResult
    sources: tuple[Source, ...]
    compressed: Compressed


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The stages in order. Its fields are the seams; composed in `rag.bootstrap`."""

    embedder: Embedder
    lexical: LexicalEncoder
    store: PassageReader
    chat: ChatModel
    defaults: Defaults
    reranking: Reranking = field(default_factory=Reranking)
    compression: Compression = field(default_factory=Compression)

    async def search(self, request: SearchRequest) -> SearchResult:
        """The best candidates for a query, with every stage's ranking.

        Raises:
            UsageError: The request is wrong.
            StoreError, ProviderError, ModelRuntimeError: A stage failed.
        """
        asked = check_request(request, self.defaults)
        watch = Stopwatch()
        with watch.stage("embed"):
            dense = (await self.embedder.embed_queries([asked.query]))[0]
            terms = self.lexical.encode_query(asked.query)
        degraded = [] if terms.indices else ["lexical: the query has no indexable word, dense retrieval only"]
        query = Query(asked.tenant, dense, terms if terms.indices else None, asked.retrieve_k, asked.filter)
        rerank_k = self.reranking.depth(asked.rerank)
        skipped = {} if rerank_k else {"rerank": self.reranking.reason_against(asked.rerank)}
        if skipped and asked.rerank == "on":
            degraded.append(f"rerank: {skipped['rerank']}")
        for _ in range(_MAX_READS):
            with watch.stage("retrieve"):
                legs = await self.store.search(query)
            with watch.stage("complete"):
                completed = complete(legs, await self.store.score(query, missing(legs)))
            with watch.stage("fuse"):
                ranking = fuse(
                    legs,
                    asked.fusion,
                    weight_dense=asked.weight_dense,
                    rrf_k=self.defaults.rrf_k,
                    completed=completed,
                )
            with watch.stage("fetch"):
                wanted = [candidate.passage_id for candidate in ranking[: max(asked.k, rerank_k)]]
                passages = await self.store.fetch(asked.tenant, wanted)
            if len(passages) == len(wanted):
                break
            # A running ingestion replaced one between the two reads: what replaced it is found now.
        stages = {**legs, "fused": ranking}
        gone = set(wanted) - passages.keys()
        ranking = tuple(candidate for candidate in ranking if candidate.passage_id not in gone)
        if rerank_k:
            with watch.stage("rerank"):
                ranking, note = await self.reranking.apply(asked.query, ranking, passages)
            stages["reranked"] = ranking
            degraded += [note] if note else []
        best = tuple(candidate for candidate in ranking[: asked.k] if candidate.passage_id in passages)
        return SearchResult(
            query=asked.query,
            candidates=best,
            passages={candidate.passage_id: passages[candidate.passage_id] for candidate in best},
            stages=stages,
            timings_ms=watch.timings_ms(),
            degraded=tuple(degraded),
            completed=completed,
            skipped=skipped,
        )

    async def answer(self, request: SearchRequest) -> Answer:
        """An answer with citations, in one piece. Raises as `search`, and what the chat model raises."""
        watch = Stopwatch()
        context = await self.context(request, watch)
        completion = self._nothing_found()
        if context.sources:
            with watch.stage("generate"):
                completion = await self.chat.complete(build_prompt(context.found.query, context.sources))
        parser = CitationParser(context.sources)
        pieces = [*parser.feed(completion.text), *parser.finish()]
        return _answer(context, pieces, completion, watch)

    async def stream(self, request: SearchRequest) -> AsyncGenerator[AnswerEvent, None]:
        """The same as it is written. Closing the generator cancels the model's call."""
        watch = Stopwatch()
        context = await self.context(request, watch)
        sources = context.sources
        yield sources
        completion = None if sources else self._nothing_found()
        parser = CitationParser(sources)
        pieces: list[AnswerText | Citation] = []
        if sources:
            with watch.stage("generate"):
                async with aclosing(self.chat.stream(build_prompt(context.found.query, sources))) as events:
                    async for event in events:
                        if isinstance(event, Completion):
                            completion = event
                        for piece in parser.feed(event.text) if isinstance(event, TextDelta) else parser.finish():
                            pieces.append(piece)
                            yield piece
        if completion is None:
            raise ProviderResponseError(f"the stream of {self.chat.name} ended without its end mark")
        yield _answer(context, pieces, completion, watch)

    async def close(self) -> None:
        """Release what the stages hold."""
        async with AsyncExitStack() as held:
            for part in (self.embedder, self.store, self.reranking, self.compression, self.chat):
                held.push_async_callback(part.close)

    async def context(self, request: SearchRequest, watch: Stopwatch) -> Context:
        """What was found, and the sources a model is shown for it. Raises as `search`."""
        shown = self.defaults.context
        pool = min(MAX_K, _DEPTH * shown.max_sources)
        k = min(check_request(request, self.defaults).k, pool)
        with watch.stage("search"):
            # More than are shown, so that others can take the place of near-duplicates.
            found = await self.search(replace(request, k=pool))
        with watch.stage("expand"):
            chosen = await self._choose(request.tenant, found, k)
            windows = await expand(
                chosen,
                found.passages,
                self.store,
                expansion=shown.expansion,
                window_sentences=shown.window_sentences,
                section_tokens=shown.section_tokens,
                max_tokens=shown.max_tokens,
                max_sources=shown.max_sources,
            )
            sources = fit_budget(windows, max_tokens=shown.max_tokens, max_sources=shown.max_sources)
        with watch.stage("compress"):
            compressed = await self.compression.apply(found.query, sources)
        return Context(found, order_sources(compressed.sources, shown.order), compressed)

    async def _choose(self, tenant: str, found: SearchResult, k: int) -> Ranking:
        """The candidates that become sources: no near-duplicates, and as unlike each other as is configured."""
        shown = self.defaults.context
        distinct = without_duplicates(found.candidates, found.passages, similarity=shown.duplicate_similarity)
        if not shown.diversity or len(distinct) <= k:
            return distinct[:k]
        stored = await self.store.retrieve(tenant, [candidate.passage_id for candidate in distinct])
        vector_of = {item.passage.id: item.dense for item in stored}
        present = tuple(candidate for candidate in distinct if candidate.passage_id in vector_of)
        if len(present) <= k:
            return present
        vectors = np.stack([vector_of[candidate.passage_id] for candidate in present])
        return maximal_marginal_relevance(present, vectors, diversity=shown.diversity, k=k)

    def _nothing_found(self) -> Completion:
        """Without sources there is nothing to ask a model."""
        return Completion(ABSTENTION, Usage(cost_usd=0.0), "complete", self.chat.name)


def _answer(
    context: Context,
    pieces: Sequence[AnswerText | Citation],
    completion: Completion,
    watch: Stopwatch,
) -> Answer:
    found = context.found
    text = "".join(piece.text for piece in pieces if isinstance(piece, AnswerText)) or completion.text
    own = watch.timings_ms()
    del own["search"]  # its parts are told one by one
    compressed = context.compressed
    skipped = {"compress": compressed.skipped} if compressed.skipped else {}
    failed = (compressed.degraded,) if compressed.degraded else ()
    return Answer(
        text=text,
        abstained=text.strip().startswith(ABSTENTION),
        citations=tuple(piece for piece in pieces if isinstance(piece, Citation)),
        sources=context.sources,
        model=completion.model,
        usage=completion.usage,
        timings_ms={**{name: ms for name, ms in found.timings_ms.items() if name != "total"}, **own},
        stages=found.stages,
        degraded=found.degraded + failed + _CUT_SHORT[completion.stop_reason],
        skipped={**found.skipped, **skipped},
        compression=compressed.report,
    )


_CUT_SHORT: Mapping[StopReason, tuple[str, ...]] = {
    "complete": (),
    "length": ("generate: the answer was cut off at llm.max_output_tokens",),
    "refusal": ("generate: the model declined to answer",),
}
