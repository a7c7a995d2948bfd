"""What every stage is worth: chunking, fusion and reranking over judged collections, each stage against the one before.

One collection and chunking is a cell. A cell is computed from cached passes and kept as a whole, so that a run that was
killed goes on with the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evals.collection_passes import passes_of, tune_reranker
from evals.datasets import Dataset
from evals.fusion_grid import FusionChoice, fused, ranking_value
from evals.index import Judged, untuned_fusion, untuned_weights
from evals.measures import Measure
from evals.passes import Pass
from evals.report import Latency, latency_of
from evals.run import OnQuery
from evals.tune import tune_fusion
from rag.bootstrap import chunker_identity
from rag.settings import Settings

MEASURE = Measure("ndcg", 10)
LEGS = ("bm25", "dense")


@dataclass(frozen=True, slots=True)
class Cell:
    """One collection, chunked one way.

    Attributes:
        chunker: Strategy and sizes, as a collection remembers them.
        passages: How many it has.
        query_ids: Of the judged queries, in the order of the values.
        values: Stage -> nDCG@10 of every query. `bm25` and `dense` are the legs; `rrf`, `convex` and `dbsf` the fusions
            untuned, each with its own weight; `tuned` the fusion by parameters that were chosen without the query's
            fold; `fused` that, or the default where tuning kept it; `reranked` the reranking of `fused`, by a weight
            that was chosen so, too; `auto` what a collection tuned so does: `reranked` where the queries of the other
            folds say that it helps, else `fused`.
        default: Which fusion is the default.
        latency_ms: Stage of the pipeline -> percentiles; `rerank` is the scoring of all candidates, without a limit.
        chosen: What `rag eval tune` stores, in words.
        reranker: What reranked, or why nothing did, in words.
        is_rerank_on: Whether reranking helps by all queries, which is what is stored.
    """

    collection: str
    split: str
    chunker: str
    passages: int
    query_ids: tuple[str, ...]
    values: Mapping[str, tuple[float, ...]]
    default: str
    latency_ms: Mapping[str, Latency]
    chosen: str
    reranker: str
    is_rerank_on: bool

    @property
    def better_leg(self) -> str:
        """The leg with the higher mean."""
        return max((leg for leg in LEGS if leg in self.values), key=lambda leg: np.mean(self.values[leg]))


async def ablate_cell(judged: Judged, settings: Settings, dataset: Dataset, *, on_query: OnQuery | None = None) -> Cell:
    """Scores every stage on one collection.

    Args:
        judged: The dataset's documents, chunked as `settings` say.
        on_query: Told of the progress, of retrieving and then of reranking.

    Raises:
        UsageError: There are too few judged queries to hold some of them out.
    """
    passes = await passes_of(judged, settings, [query.text for query in dataset.queries], on_query=on_query)
    default = untuned_fusion(settings)
    fusion = tune_fusion(passes, dataset, default, measure=MEASURE)
    values = {leg: _values(passes, dataset, leg) for leg in LEGS}
    weights = untuned_weights(settings)
    for method, weight in weights.dense.items():
        values[method] = _values(passes, dataset, FusionChoice(method, weight, weights.rrf_k))
    values["tuned"] = fusion.held_out
    values["fused"] = values["auto"] = fusion.searched
    timings = {stage: [each.timings_ms[stage] for each in passes] for stage in passes[0].timings_ms}
    latency = {stage: latency_of(times) for stage, times in timings.items()}
    reranking = judged.pipeline.reranking
    name, is_on = reranking.policy.reason, False
    if reranking.reranker is not None:
        rerank = await tune_reranker(
            reranking.reranker, judged, settings, dataset, passes, fusion, measure=MEASURE, on_query=on_query
        )
        values["reranked"] = rerank.held_out
        name, is_on = f"{rerank.reranker}, {rerank.rerank_k} candidates, weight {rerank.weight:g}", rerank.is_on
        values["auto"] = rerank.auto
        latency["rerank"] = latency_of(rerank.milliseconds)
    return Cell(
        collection=dataset.name,
        split=dataset.split,
        chunker=chunker_identity(settings),
        passages=judged.passages,
        query_ids=tuple(query.id for query in dataset.queries),
        values=values,
        default=default.method,
        latency_ms=latency,
        chosen=str(fusion.chosen),
        reranker=name,
        is_rerank_on=is_on,
    )


def _values(passes: Sequence[Pass], dataset: Dataset, stage: str | FusionChoice) -> tuple[float, ...]:
    """nDCG@10 of every query, of a leg or of a fusion."""
    rankings = (each.legs.get(stage, ()) if isinstance(stage, str) else fused(each, stage) for each in passes)
    judgements = (dataset.qrels[query.id] for query in dataset.queries)
    return tuple(ranking_value(ranking, own, MEASURE) for ranking, own in zip(rankings, judgements, strict=True))
