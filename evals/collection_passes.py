"""The cached passes of an open collection: what `tune` and `ablate` compute everything from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evals.datasets import Dataset
from evals.index import Judged
from evals.measures import Measure
from evals.passes import Pass, RerankPass, cache_folder, run_passes, run_rerank_passes
from evals.run import OnQuery
from evals.tune import FusionTuning
from evals.tune_rerank import RerankTuning, tune_rerank
from rag.request import SearchRequest
from rag.retrieval.rerank import Reranker
from rag.settings import Settings


async def passes_of(
    judged: Judged, settings: Settings, queries: Sequence[str], *, on_query: OnQuery | None = None
) -> list[Pass]:
    """A pass for each query over a collection, `retrieval.retrieve_k` deep; kept unless the collection is served.

    Args:
        settings: As configured; the cache lies below their `data.dir`.
    """
    retrieve_k, embedding = settings.retrieval.retrieve_k, judged.pipeline.embedder.identity
    folder = None
    if judged.content is not None:
        collection = judged.settings.store.collection  # its name is a hash of content and configuration
        folder = cache_folder(settings.data.dir, "legs", collection, embedding, settings.lexical, retrieve_k)
    template = SearchRequest(query="warm up", tenant=settings.data.tenant, k=1, retrieve_k=retrieve_k, rerank="off")
    await judged.pipeline.search(template)
    return await run_passes(
        lambda query: judged.pipeline.search(replace(template, query=query)), queries, folder=folder, on_query=on_query
    )


async def tune_reranker(
    reranker: Reranker,
    judged: Judged,
    settings: Settings,
    dataset: Dataset,
    passes: Sequence[Pass],
    fusion: FusionTuning,
    *,
    measure: Measure,
    on_query: OnQuery | None = None,
) -> RerankTuning:
    """As `tune_rerank`; scores are kept on disk, also for a collection that is served, since texts are compared.

    Args:
        reranker: That of the collection's pipeline, or another.
    """
    chosen, identity = settings.rerank, reranker.identity
    folder = cache_folder(settings.data.dir, "rerank", identity, chosen.runtime, chosen.url, chosen.max_tokens)

    async def score(pools: Mapping[str, Sequence[str]]) -> Mapping[str, RerankPass]:
        return await run_rerank_passes(
            reranker, judged.pipeline.store, settings.data.tenant, pools, folder=folder, on_query=on_query
        )

    return await tune_rerank(
        passes,
        dataset,
        fusion,
        score,
        reranker=identity,
        rerank_k=judged.pipeline.reranking.policy.rerank_k,
        measure=measure,
    )
