"""Two runs over the same judged queries: what differs, whether that is chance, and on which queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evals.labels import Labels
from evals.measures import DEFAULT_MEASURES, Measure, PerQuery, Run, evaluate, rank_documents
from evals.significance import Difference, difference, holm
from evals.trec import read_run
from rag.errors import UsageError


@dataclass(frozen=True, slots=True)
class MeasureComparison:
    """One measure of both runs.

    Attributes:
        first: Its mean in the first run.
        second: Its mean in the second run.
        difference: Of second minus first.
        corrected_p: By Holm's method, for all measures of the stage having been looked at.
    """

    measure: str
    first: float
    second: float
    difference: Difference
    corrected_p: float


@dataclass(frozen=True, slots=True)
class RelevantDocument:
    """A relevant document of a query, and its rank from 1 in each run; None where it is not there."""

    id: str
    title: str
    relevance: int
    first_rank: int | None
    second_rank: int | None


@dataclass(frozen=True, slots=True)
class QueryComparison:
    """One query under the first of the measures."""

    id: str
    text: str
    first: float
    second: float
    relevant: tuple[RelevantDocument, ...]


@dataclass(frozen=True, slots=True)
class StageComparison:
    """Two runs of one stage.

    Attributes:
        stage: Names of both, if they differ.
        losses: Queries on which the second is worse, the worst first; `wins` those on which it is better.
        unrun: Judged queries that one of the runs does not hold, and that score 0 there.
    """

    stage: str
    measures: tuple[MeasureComparison, ...]
    losses: tuple[QueryComparison, ...]
    wins: tuple[QueryComparison, ...]
    unrun: int


def find_runs(first: Path, second: Path, stages: Sequence[str] | None) -> dict[str, tuple[Path, Path]]:
    """The pairs of TREC files to compare, by name of stage.

    Args:
        first: A TREC file, or a folder that `rag eval run --out` wrote.
        second: As `first`.
        stages: Of folders; None for all that both have.

    Raises:
        UsageError: One is a file and the other a folder, or a stage is not in both.
    """
    if first.is_file() and second.is_file():
        if stages:
            raise UsageError("--stages is for folders; two run files are one stage")
        name = first.stem if first.stem == second.stem else f"{first.stem} -> {second.stem}"
        return {name: (first, second)}
    for path in (first, second):
        if not path.is_dir():
            raise UsageError(f"{path} is not a folder; name two folders of `rag eval run --out`, or two run files")
    own, other = ({file.stem for file in path.glob("*.trec")} for path in (first, second))
    wanted = list(stages) if stages else sorted(own & other)
    absent = [stage for stage in wanted if stage not in own & other]
    if absent or not wanted:
        both = ", ".join(sorted(own & other)) or "none"
        raise UsageError(f"not in both folders: {', '.join(absent) or 'any *.trec'}; in both are: {both}")
    return {stage: (first / f"{stage}.trec", second / f"{stage}.trec") for stage in wanted}


def compare_files(
    runs: Mapping[str, tuple[Path, Path]], labels: Labels, *, measures: Sequence[Measure] = DEFAULT_MEASURES
) -> list[StageComparison]:
    """`compare_runs` of pairs of TREC files.

    Raises:
        UsageError: A file cannot be read, or holds none of the judged queries.
    """
    compared = []
    for stage, paths in runs.items():
        first, second = (read_run(path) for path in paths)
        for path, run in zip(paths, (first, second), strict=True):
            if not run.keys() & labels.qrels.keys():
                raise UsageError(f"{path} holds none of the judged queries of {labels.collection}; check --qrels")
        compared.append(compare_runs(stage, first, second, labels, measures=measures))
    return compared


def compare_runs(
    stage: str, first: Run, second: Run, labels: Labels, *, measures: Sequence[Measure] = DEFAULT_MEASURES
) -> StageComparison:
    """Every measure of two runs, and the queries that differ under the first measure."""
    per_query = [evaluate(run, labels.qrels, measures) for run in (first, second)]
    names = [str(measure) for measure in measures]
    differences = [difference(*(_column(values, name) for values in per_query)) for name in names]
    corrected = holm([each.p_value for each in differences])
    rows = [
        MeasureComparison(
            measure=name,
            first=_mean(per_query[0], name),
            second=_mean(per_query[1], name),
            difference=each,
            corrected_p=p_value,
        )
        for name, each, p_value in zip(names, differences, corrected, strict=True)
    ]
    changed = _changed(first, second, labels, per_query, names[0])
    return StageComparison(
        stage=stage,
        measures=tuple(rows),
        losses=tuple(query for query in changed if query.second < query.first),
        wins=tuple(reversed([query for query in changed if query.second > query.first])),
        unrun=sum(query not in first or query not in second for query in labels.qrels),
    )


def _changed(
    first: Run, second: Run, labels: Labels, per_query: Sequence[PerQuery], measure: str
) -> list[QueryComparison]:
    """The queries with another value, by how much the second run gains, rising."""
    changed = []
    for query, judged in labels.qrels.items():
        values = [values[query][measure] for values in per_query]
        if abs(values[1] - values[0]) <= 1e-9:
            continue
        ranks = [_ranks(run.get(query, {})) for run in (first, second)]
        relevant = [
            RelevantDocument(
                document, labels.titles.get(document, ""), relevance, ranks[0].get(document), ranks[1].get(document)
            )
            for document, relevance in judged.items()
            if relevance > 0
        ]
        changed.append(QueryComparison(query, labels.texts.get(query, ""), values[0], values[1], tuple(relevant)))
    return sorted(changed, key=lambda query: (query.second - query.first, query.id))


def _ranks(scores: Mapping[str, float]) -> dict[str, int]:
    return {document: rank for rank, document in enumerate(rank_documents(scores), 1)}


def _column(per_query: PerQuery, measure: str) -> list[float]:
    return [values[measure] for values in per_query.values()]


def _mean(per_query: PerQuery, measure: str) -> float:
    return sum(_column(per_query, measure)) / len(per_query)
