"""Runs every judged query of a dataset through the pipeline once and scores all stages from that pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias, get_args

from evals.datasets import Dataset
from evals.measures import DEFAULT_MEASURES, Measure, PerQuery, Run, documents_of, evaluate, mean
from evals.report import EvalReport, latency_of
from rag.errors import UsageError
from rag.pipeline import Pipeline
from rag.request import SearchRequest
from rag.retrieval.fusion import DEFAULT_RRF_K, DEFAULT_WEIGHTS, FusionMethod, fuse
from rag.types import Ranking, SearchResult

LEGS = ("bm25", "dense")
FUSIONS: tuple[FusionMethod, ...] = get_args(FusionMethod)
OWN = ("fused", "reranked")
"""What the pipeline made of the legs, as the collection is tuned."""

STAGES = (*LEGS, *FUSIONS, *OWN)

OnQuery: TypeAlias = Callable[[int, int], None]
"""Called after each query with how many are done and how many there are."""


class Searcher(Protocol):
    """The pipeline, with everything but the query already chosen."""

    async def __call__(self, query: str) -> SearchResult:
        """Searches; `stages` of the result holds the whole rankings `bm25` and `dense`.

        They should be at least as long as the deepest cut-off that is measured. A leg that could not run for
        this query may be absent if `degraded` says so.
        """
        ...


@dataclass(frozen=True, slots=True)
class FusionWeights:
    """How the two legs are joined, in every fusion that is computed here.

    Attributes:
        dense: By method, each between 0 and 1; BM25 has the rest.
        rrf_k: The constant of reciprocal rank fusion.
    """

    dense: Mapping[FusionMethod, float] = field(default_factory=lambda: DEFAULT_WEIGHTS)
    rrf_k: int = DEFAULT_RRF_K


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one pass over a dataset gave.

    Attributes:
        runs: By stage, in the order asked for, or of `STAGES`: every query's documents with their scores.
        per_query: By stage: every measure of every query, in the order of the dataset.
        timings_ms: By stage of the pipeline: one time for each query, in the order of the dataset. The first
            query is among them, cold caches and all.
        degraded: Query id -> what the pipeline could not do as configured, in words.
        skipped: Stage of the pipeline that did not run, as configured -> why, in words.
    """

    runs: Mapping[str, Run]
    per_query: Mapping[str, PerQuery]
    timings_ms: Mapping[str, tuple[float, ...]]
    degraded: Mapping[str, tuple[str, ...]]
    skipped: Mapping[str, str]


async def evaluate_pipeline(
    pipeline: Pipeline,
    dataset: Dataset,
    *,
    tenant: str,
    weights: FusionWeights,
    stages: Sequence[str] | None = None,
    measures: Sequence[Measure] = DEFAULT_MEASURES,
    retrieve_k: int | None = None,
    on_query: OnQuery | None = None,
) -> Evaluation:
    """As `evaluate_dataset`, after one search that warms everything up.

    Args:
        retrieve_k: Passages per leg; as the pipeline has it where None.
    """
    template = SearchRequest(query="warm up", tenant=tenant, k=1, retrieve_k=retrieve_k)
    await pipeline.search(template)
    return await evaluate_dataset(
        lambda query: pipeline.search(replace(template, query=query)),
        dataset,
        stages=stages,
        measures=measures,
        weights=weights,
        on_query=on_query,
    )


async def evaluate_dataset(
    search: Searcher,
    dataset: Dataset,
    *,
    stages: Sequence[str] | None = None,
    measures: Sequence[Measure] = DEFAULT_MEASURES,
    weights: FusionWeights = FusionWeights(),
    on_query: OnQuery | None = None,
) -> Evaluation:
    """Searches for every judged query and scores the stages against the judgements.

    One query runs after another, so that a time is that of a query alone.

    Args:
        search: Called once per query.
        dataset: Its `queries` are run; the unanswerable ones are not.
        stages: The fusions are computed here from the legs, so that all can be compared whichever the pipeline
            uses; any other name is taken from the result's `stages`. None scores the legs, the fusions, and of
            `fused` and `reranked` what the pipeline returned for any query.
        measures: Computed on documents; a document scores as its best passage.
        weights: Of the legs in the fusions that are computed here.
        on_query: Told of the progress.

    Raises:
        UsageError: A stage is asked for that the pipeline does not return for any query.
    """
    results: list[SearchResult] = []
    for done, query in enumerate(dataset.queries, 1):
        result = await search(query.text)
        # Only rankings are needed further on; the passages of thousands of queries would fill the memory.
        results.append(replace(result, candidates=(), passages={}))
        if on_query is not None:
            on_query(done, len(dataset.queries))
    return score_results(results, dataset, stages=stages, measures=measures, weights=weights)


def score_results(
    results: Sequence[SearchResult],
    dataset: Dataset,
    *,
    stages: Sequence[str] | None = None,
    measures: Sequence[Measure] = DEFAULT_MEASURES,
    weights: FusionWeights = FusionWeights(),
) -> Evaluation:
    """What was found for the dataset's queries, in their order, as stages with measures; see `evaluate_dataset`."""
    returned = set(LEGS).union(*(result.stages for result in results))
    if stages is None:
        stages = [stage for stage in STAGES if stage in returned or stage in FUSIONS]
    for stage in stages:
        if stage not in returned and stage not in FUSIONS:
            known = [name for name in STAGES if name in returned or name in FUSIONS]
            raise UsageError(f"the pipeline has no stage {stage}; choose from {', '.join(known)}{_why_not(stage)}")
    runs: dict[str, dict[str, Mapping[str, float]]] = {stage: {} for stage in stages}
    timings: dict[str, list[float]] = {}
    for query, result in zip(dataset.queries, results, strict=True):
        for stage in stages:
            runs[stage][query.id] = documents_of(_ranking(stage, result, weights))
        for name, milliseconds in result.timings_ms.items():
            timings.setdefault(name, []).append(milliseconds)
    return Evaluation(
        runs=runs,
        per_query={stage: evaluate(run, dataset.qrels, measures) for stage, run in runs.items()},
        timings_ms={stage: tuple(times) for stage, times in timings.items()},
        degraded={
            query.id: result.degraded for query, result in zip(dataset.queries, results, strict=True) if result.degraded
        },
        skipped={stage: reason for result in results for stage, reason in result.skipped.items()},
    )


def report_of(evaluation: Evaluation, dataset: Dataset, *, default_fusion: str) -> EvalReport:
    """The means and percentiles of an evaluation.

    Args:
        evaluation: Of `dataset`.
        dataset: Gives the name, the split and the number of queries.
        default_fusion: The stage that the pipeline is set to use.
    """
    return EvalReport(
        collection=dataset.name,
        split=dataset.split,
        queries=len(dataset.queries),
        default_fusion=default_fusion,
        stages={stage: mean(per_query) for stage, per_query in evaluation.per_query.items()},
        latency_ms={stage: latency_of(times) for stage, times in evaluation.timings_ms.items()},
    )


def _ranking(stage: str, result: SearchResult, weights: FusionWeights) -> Ranking:
    for method in FUSIONS:
        if stage == method:
            legs = {leg: _stage(leg, result) for leg in LEGS}
            present = {leg: ranking for leg, ranking in legs.items() if leg in result.stages}
            return fuse(
                present,
                method,
                weight_dense=weights.dense[method],
                rrf_k=weights.rrf_k,
                completed=result.completed or None,
            )
    return _stage(stage, result)


def _stage(name: str, result: SearchResult) -> Ranking:
    if name in result.stages:
        return result.stages[name]
    if name in LEGS and result.degraded:
        # BM25 cannot look for a query without an indexable word: it found nothing, and is scored so.
        return ()
    if name == "reranked" and "fused" in result.stages:
        # Nothing was reranked for this query: what a user sees then is the fused ranking.
        return result.stages["fused"]
    raise UsageError(
        f"the pipeline returned no stage {name} for the query {result.query!r} and did not say why; "
        f"it returned {', '.join(result.stages)}"
    )


def _why_not(stage: str) -> str:
    return "; nothing was reranked" if stage == "reranked" else ""
