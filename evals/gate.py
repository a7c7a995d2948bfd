"""Has retrieval become worse than a committed baseline? Paired over queries, by stage, and a ratchet.

Labels that no longer fit the corpus are told apart from a loss: nothing can be measured by them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from evals.gate_baseline import DIGITS, REMEDY, Baseline, measures_of, refuse_other_set
from evals.measures import Measure, PerQuery
from evals.significance import Difference, difference, randomisation_test
from rag.errors import UsageError

GATE_STAGES = ("bm25", "dense", "rrf", "convex", "reranked")
GATE_MEASURES = (Measure("ndcg", 10), Measure("recall", 20))
DEFAULT_ALPHA = 0.05
DEFAULT_TOLERANCE = 0.005
DEFAULT_MAX_LOSS = 0.03


@dataclass(frozen=True, slots=True)
class GateRow:
    """One measure of one stage against the baseline.

    Attributes:
        difference: Of now minus before, over the queries that both judge alike.
        p_loss: One-sided: how often chance alone loses as much.
        is_loss: The loss is larger than the tolerance and `p_loss` below alpha, or it is larger than is borne at all.
        lost: Ids of the queries that lost most, with the values before and now; the worst first.
    """

    stage: str
    measure: str
    before: float
    now: float
    difference: Difference
    p_loss: float
    is_loss: bool
    lost: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, slots=True)
class GateResult:
    """What the gate found.

    Attributes:
        rows: By stage and measure.
        is_corpus_changed: The documents are not those of the baseline; by itself no fault.
        missing_documents: Judged documents that the corpus does not hold, and that of the baseline did: the labels no
            longer match it.
        known_missing: Those that were missing then, too.
        changed_queries: Judged or worded otherwise than in the baseline, and left out of the comparison.
        new_queries: Not in the baseline, and left out.
        gone_queries: In the baseline only, and left out.
        unmeasured: Stages of the baseline that did not run now, as `reranked` where there is no reranker, or that have
            no query in common with it; a loss there would not be seen.
        left_out: Stages of the baseline that nobody asked for.
        new_stages: Measured now, and not in the baseline.
    """

    rows: tuple[GateRow, ...]
    is_corpus_changed: bool
    missing_documents: tuple[str, ...]
    known_missing: tuple[str, ...]
    changed_queries: tuple[str, ...]
    new_queries: tuple[str, ...]
    gone_queries: tuple[str, ...]
    unmeasured: tuple[str, ...]
    left_out: tuple[str, ...]
    new_stages: tuple[str, ...]

    @property
    def losses(self) -> tuple[GateRow, ...]:
        """The rows that fail the gate."""
        return tuple(row for row in self.rows if row.is_loss)

    @property
    def do_labels_match(self) -> bool:
        """Whether every judged document is there and the baseline's queries are judged as they were."""
        return not (self.missing_documents or self.changed_queries or self.gone_queries)

    @property
    def is_passed(self) -> bool:
        """Every stage that was asked for was measured, none lost, and the labels match."""
        return bool(self.rows) and self.do_labels_match and not self.losses and not self.unmeasured


def compare_to_baseline(
    before: Baseline,
    now: Baseline,
    *,
    asked: Collection[str] | None = None,
    alpha: float = DEFAULT_ALPHA,
    tolerance: float = DEFAULT_TOLERANCE,
    max_loss: float = DEFAULT_MAX_LOSS,
) -> GateResult:
    """Tests every stage and measure that both hold.

    Args:
        asked: The stages that are to be measured; None for all of the baseline.
        alpha: Below this a loss is more than chance; 0 to 1.
        tolerance: A mean loss up to this is none: rounding differs between processors, always in one direction perhaps.
        max_loss: A larger mean loss is one whatever chance says: with few queries, or few that lose, no p-value can be
            small.

    Raises:
        UsageError: The baseline is of another set, or has no query in common with it.
    """
    refuse_other_set(before, collection=now.collection, split=now.split)
    common = [query for query in before.labels if before.labels[query] == now.labels.get(query)]
    if not common:
        raise UsageError(f"no query is judged as in the baseline; {REMEDY}")
    limits = _Limits(alpha, tolerance, max_loss)
    rows = [
        _row(stage, measure, before.stages[stage], now.stages[stage], paired, limits)
        for stage in now.stages
        for paired in [
            [query for query in common if query in before.stages.get(stage, ()) and query in now.stages[stage]]
        ]
        if paired
        for measure in measures_of(before.stages[stage])
        if measure in measures_of(now.stages[stage])
    ]
    compared = {row.stage for row in rows}
    left_out = tuple(stage for stage in before.stages if asked is not None and stage not in asked)
    return GateResult(
        rows=tuple(rows),
        is_corpus_changed=before.corpus != now.corpus,
        missing_documents=tuple(document for document in now.missing if document not in before.missing),
        known_missing=tuple(document for document in now.missing if document in before.missing),
        changed_queries=tuple(
            query for query in before.labels if query in now.labels and before.labels[query] != now.labels[query]
        ),
        new_queries=tuple(query for query in now.labels if query not in before.labels),
        gone_queries=tuple(query for query in before.labels if query not in now.labels),
        unmeasured=tuple(stage for stage in before.stages if stage not in compared and stage not in left_out),
        left_out=left_out,
        new_stages=tuple(stage for stage in now.stages if stage not in before.stages),
    )


def ratchet(before: Baseline, now: Baseline, result: GateResult, *, accept_loss: bool) -> Baseline:
    """The baseline to write: a stage that became better is taken over, one that became worse keeps its old values.

    So losses too small to be seen cannot add up over many updates. Queries that the old baseline does not judge alike
    are taken as they are now, as is everything with `accept_loss`. A stage that did not run keeps its old values.
    """
    kept = set() if accept_loss else {row.stage for row in result.rows if row.difference.mean < 0}
    stages: dict[str, dict[str, Mapping[str, float]]] = {stage: dict(values) for stage, values in now.stages.items()}
    for stage in kept:
        stages[stage] |= _still_judged(before, now, stage)
    stages |= {stage: _still_judged(before, now, stage) for stage in before.stages if stage not in stages}
    return replace(now, stages=stages)


@dataclass(frozen=True, slots=True)
class _Limits:
    alpha: float
    tolerance: float
    max_loss: float

    def is_loss(self, mean: float, p_loss: float) -> bool:
        return mean < -self.max_loss or (mean < -self.tolerance and p_loss < self.alpha)


def _row(stage: str, measure: str, before: PerQuery, now: PerQuery, paired: Sequence[str], limits: _Limits) -> GateRow:
    first = [before[query][measure] for query in paired]
    # As in the file, so that a baseline compared with what it was made from shows no difference.
    second = [round(now[query][measure], DIGITS) for query in paired]
    of = difference(first, second)
    p_loss = randomisation_test(first, second, alternative="less")
    lost = sorted(
        ((query, old, new) for query, old, new in zip(paired, first, second, strict=True) if new < old),
        key=lambda entry: (entry[2] - entry[1], entry[0]),
    )
    return GateRow(
        stage=stage,
        measure=measure,
        before=sum(first) / len(first),
        now=sum(second) / len(second),
        difference=of,
        p_loss=p_loss,
        is_loss=limits.is_loss(of.mean, p_loss),
        lost=tuple(lost),
    )


def _still_judged(before: Baseline, now: Baseline, stage: str) -> dict[str, Mapping[str, float]]:
    """A stage's old values of the queries that are still judged alike."""
    return {
        query: values for query, values in before.stages[stage].items() if before.labels[query] == now.labels.get(query)
    }
