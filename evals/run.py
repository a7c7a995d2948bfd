"""Runs every judged query of a dataset through the pipeline once and scores all stages from that pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from evals.datasets import Dataset
from evals.measures import DEFAULT_MEASURES, Measure, PerQuery, Run, documents_of, evaluate, mean
from evals.report import EvalReport, latency_of
from rag.errors import UsageError
from rag.retrieval.fusion import convex_fusion, reciprocal_rank_fusion
from rag.types import Ranking, SearchResult

LEGS = ("bm25", "dense")
FUSIONS = ("rrf", "convex")
STAGES = LEGS + FUSIONS

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
    """How the two legs are joined, for both fusions.

    Attributes:
        dense: Between 0 and 1; BM25 has the rest.
        rrf_k: The constant of reciprocal rank fusion.
    """

    dense: float = 0.5
    rrf_k: int = 60


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one pass over a dataset gave.

    Attributes:
        runs: By stage, in the order asked for: every query's documents with their scores.
        per_query: By stage: every measure of every query, in the order of the dataset.
        timings_ms: By stage of the pipeline: one time for each query, in the order of the dataset. The first
            query is among them, cold caches and all.
        degraded: Query id -> what the pipeline could not do as configured, in words.
    """

    runs: Mapping[str, Run]
    per_query: Mapping[str, PerQuery]
    timings_ms: Mapping[str, tuple[float, ...]]
    degraded: Mapping[str, tuple[str, ...]]


async def evaluate_dataset(
    search: Searcher,
    dataset: Dataset,
    *,
    stages: Sequence[str] = STAGES,
    measures: Sequence[Measure] = DEFAULT_MEASURES,
    weights: FusionWeights = FusionWeights(),
    on_query: OnQuery | None = None,
) -> Evaluation:
    """Searches for every judged query and scores the stages against the judgements.

    One query runs after another, so that a time is that of a query alone.

    Args:
        search: Called once per query.
        dataset: Its `queries` are run; the unanswerable ones are not.
        stages: `rrf` and `convex` are computed here from the legs, so that both can be compared whichever the
            pipeline uses; any other name is taken from the result's `stages`.
        measures: Computed on documents; a document scores as its best passage.
        weights: Of the legs in both fusions.
        on_query: Told of the progress.

    Raises:
        UsageError: A stage is asked for that the pipeline does not return.
    """
    runs: dict[str, dict[str, Mapping[str, float]]] = {stage: {} for stage in stages}
    timings: dict[str, list[float]] = {}
    degraded: dict[str, tuple[str, ...]] = {}
    for done, query in enumerate(dataset.queries, 1):
        result = await search(query.text)
        for stage in stages:
            runs[stage][query.id] = documents_of(_ranking(stage, result, weights))
        for stage, milliseconds in result.timings_ms.items():
            timings.setdefault(stage, []).append(milliseconds)
        if result.degraded:
            degraded[query.id] = result.degraded
        if on_query is not None:
            on_query(done, len(dataset.queries))
    return Evaluation(
        runs=runs,
        per_query={stage: evaluate(run, dataset.qrels, measures) for stage, run in runs.items()},
        timings_ms={stage: tuple(times) for stage, times in timings.items()},
        degraded=degraded,
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
    if stage not in FUSIONS:
        return _stage(stage, result)
    legs = [_stage(leg, result) for leg in LEGS]
    shares = (1 - weights.dense, weights.dense)
    if stage == "rrf":
        return reciprocal_rank_fusion(legs, weights=shares, k=weights.rrf_k)
    return convex_fusion(legs, weights=shares)


def _stage(name: str, result: SearchResult) -> Ranking:
    if name in result.stages:
        return result.stages[name]
    if name in LEGS and result.degraded:
        # BM25 cannot look for a query without an indexable word: it found nothing, and is scored so.
        return ()
    known = dict.fromkeys((*result.stages, *FUSIONS))
    raise UsageError(f"the pipeline has no stage {name}; choose from {', '.join(known)}")
