"""The pass that a gate is measured by: untuned, and without a limit of time, so that it is the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evals.datasets import Dataset
from evals.gate import GATE_MEASURES, GATE_STAGES
from evals.gate_baseline import Baseline, baseline_of
from evals.index import Judged, untuned_fusion, untuned_weights
from evals.run import OnQuery, evaluate_pipeline
from rag.pipeline import Pipeline
from rag.retrieval.rerank import DEFAULT_RERANK_WEIGHT, Reranking
from rag.settings import Settings

_NO_LIMIT_S = 3600.0


async def measure_gate(
    judged: Judged,
    settings: Settings,
    dataset: Dataset,
    *,
    stages: Sequence[str] | None = None,
    on_query: OnQuery | None = None,
) -> Baseline:
    """Every gate measure of every query now; never from a cache.

    Args:
        judged: A collection of `dataset`, not the served one.
        stages: None for `GATE_STAGES`, without `reranked` where there is no reranker.

    Raises:
        UsageError: A stage is asked for that does not exist here.
    """
    pipeline = _untuned(judged.pipeline, settings)
    has_reranker = pipeline.reranking.reranker is not None
    wanted = stages or [stage for stage in GATE_STAGES if stage != "reranked" or has_reranker]
    evaluation = await evaluate_pipeline(
        pipeline,
        dataset,
        tenant=settings.data.tenant,
        weights=untuned_weights(settings),
        stages=wanted,
        measures=GATE_MEASURES,
        on_query=on_query,
    )
    return baseline_of(dataset, judged.content or "", evaluation.per_query, missing=judged.missing)


def _untuned(pipeline: Pipeline, settings: Settings) -> Pipeline:
    """As configured, whatever was tuned for the collection on this machine; with the reranker on, if there is one."""
    fusion, weights, rerank = untuned_fusion(settings), untuned_weights(settings), settings.rerank
    defaults = replace(pipeline.defaults, fusion=fusion.method, weights_dense=weights.dense, rrf_k=weights.rrf_k)
    policy = replace(
        pipeline.reranking.policy,
        mode="on",
        weight=DEFAULT_RERANK_WEIGHT if rerank.weight is None else rerank.weight,
        timeout_s=_NO_LIMIT_S,
    )
    return replace(pipeline, defaults=defaults, reranking=Reranking(pipeline.reranking.reranker, policy))
