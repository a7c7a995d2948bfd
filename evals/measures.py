"""Ranking measures: pure functions of one ranking and its judgements, and their application to a whole run.

Definitions are those of trec_eval, as ir-measures names them. A document is relevant when its relevance is
above 0; unjudged documents are not relevant. Every value lies between 0 and 1, and is 0 where nothing
relevant was judged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rag.errors import UsageError
from rag.types import Ranking

Judgements: TypeAlias = Mapping[str, int]
"""Document id -> relevance, for one query; 0 or less means judged and found not relevant."""

Qrels: TypeAlias = Mapping[str, Judgements]
"""Query id -> document id -> relevance: what people judged."""

Run: TypeAlias = Mapping[str, Mapping[str, float]]
"""Query id -> document id -> score, higher is better: what a system returned; equal scores in the order they came."""

PerQuery: TypeAlias = Mapping[str, Mapping[str, float]]
"""Query id -> measure (`ndcg@10`) -> value."""


def ndcg(ranking: Sequence[str], judgements: Judgements, k: int | None = None) -> float:
    """Normalised discounted cumulative gain over the first `k` documents.

    The gain is linear (the relevance itself, not 2^relevance - 1) and the discount of rank r is log2(r + 1),
    r from 1: `ndcg_cut` of trec_eval, nDCG@k of ir-measures. The ideal ranking is that of all judged
    documents, cut at `k`. Järvelin and Kekäläinen (2002), https://doi.org/10.1145/582415.582418.
    """
    ideal = _discounted(sorted(judgements.values(), reverse=True)[:k])
    return _discounted([judgements.get(document, 0) for document in ranking[:k]]) / ideal if ideal else 0.0


def recall(ranking: Sequence[str], judgements: Judgements, k: int | None = None) -> float:
    """The share of all relevant documents that stands among the first `k` (R@k of ir-measures)."""
    relevant = _relevant(judgements)
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def mrr(ranking: Sequence[str], judgements: Judgements, k: int | None = None) -> float:
    """One over the rank, from 1, of the first relevant document; 0 when it stands below `k` (RR@k)."""
    relevant = _relevant(judgements)
    return next((1 / rank for rank, document in enumerate(ranking[:k], 1) if document in relevant), 0.0)


def success(ranking: Sequence[str], judgements: Judgements, k: int | None = None) -> float:
    """1 when any relevant document stands among the first `k`, else 0 (Success@k)."""
    return float(not _relevant(judgements).isdisjoint(ranking[:k]))


def average_precision(ranking: Sequence[str], judgements: Judgements, k: int | None = None) -> float:
    """Precision at the rank of each relevant document, summed, over the number of all relevant ones (AP@k).

    Relevant documents below `k`, or not returned, add 0 to the sum and stay in the divisor.
    """
    relevant = _relevant(judgements)
    found, total = 0, 0.0
    for rank, document in enumerate(ranking[:k], 1):
        if document in relevant:
            found += 1
            total += found / rank
    return total / len(relevant) if relevant else 0.0


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1) if gain > 0)


def _relevant(judgements: Judgements) -> set[str]:
    return {document for document, relevance in judgements.items() if relevance > 0}


_FUNCTIONS: Mapping[str, Callable[[Sequence[str], Judgements, int | None], float]] = {
    "ndcg": ndcg,
    "recall": recall,
    "mrr": mrr,
    "success": success,
    "ap": average_precision,
    "map": average_precision,
}


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure and its cut-off.

    Attributes:
        name: `ndcg`, `recall`, `mrr`, `success`, `ap` or, by the name that its mean over queries has, `map`.
        k: How many documents are looked at, from 1; None looks at all that were returned.
    """

    name: str
    k: int | None = None

    def __call__(self, ranking: Sequence[str], judgements: Judgements) -> float:
        """The value for one query; `ranking` holds document ids, best first, none twice."""
        return _FUNCTIONS[self.name](ranking, judgements, self.k)

    def __str__(self) -> str:
        return self.name if self.k is None else f"{self.name}@{self.k}"


def parse_measure(text: str) -> Measure:
    """Reads `ndcg@10`, or `ap` without a cut-off; `str` of the result is the text again.

    Raises:
        UsageError: No such measure, or a cut-off that is not a whole number from 1.
    """
    match = re.fullmatch(r"([a-z]+)(?:@([1-9][0-9]*))?", text)
    if match is None or match[1] not in _FUNCTIONS:
        raise UsageError(
            f"{text!r} is not a measure; write one of {', '.join(_FUNCTIONS)}, with a cut-off from 1 such as ndcg@10"
        )
    return Measure(match[1], int(match[2]) if match[2] else None)


DEFAULT_MEASURES = (
    Measure("ndcg", 10),
    Measure("recall", 20),
    Measure("recall", 100),
    Measure("mrr", 10),
    Measure("success", 5),
    Measure("map"),
)


def documents_of(ranking: Ranking) -> dict[str, float]:
    """The documents of a ranking of passages, best first; a document scores as its best passage."""
    scores: dict[str, float] = {}
    for candidate in ranking:
        scores.setdefault(candidate.document_id, candidate.score)
    return scores


def rank_documents(scores: Mapping[str, float]) -> list[str]:
    """Document ids by falling score, equal scores in the given order: a user sees them so.

    trec_eval breaks ties by falling id, and `evals.trec.read_run` by rising id, since a file says nothing of the order.
    So their numbers for a run with ties may differ.

    Raises:
        UsageError: A score is not a number, so nothing can be ordered by it.
    """
    if any(math.isnan(score) for score in scores.values()):
        raise UsageError("a run holds a score that is not a number (NaN); mend whatever produced it")
    return sorted(scores, key=lambda document: -scores[document])


def evaluate(run: Run, qrels: Qrels, measures: Sequence[Measure] = DEFAULT_MEASURES) -> dict[str, dict[str, float]]:
    """Every measure of every judged query.

    Judged queries that the run does not name score 0, as do those without a relevant document; queries of the
    run that nobody judged are left out.

    Raises:
        UsageError: A score of the run is not a number.
    """
    values = {}
    for query, judgements in qrels.items():
        ranking = rank_documents(run.get(query, {}))
        values[query] = {str(measure): measure(ranking, judgements) for measure in measures}
    return values


def mean(per_query: PerQuery) -> dict[str, float]:
    """The mean of each measure over all queries, each query counting the same.

    Raises:
        UsageError: There is no query to take the mean of.
    """
    if not per_query:
        raise UsageError("there is no judged query to take a mean over; check the qrels")
    names = next(iter(per_query.values()))
    return {name: math.fsum(values[name] for values in per_query.values()) / len(per_query) for name in names}
