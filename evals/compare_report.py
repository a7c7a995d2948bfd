"""A comparison of two runs as Markdown for people and as one object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evals.compare import QueryComparison, StageComparison
from evals.labels import Labels
from evals.significance import difference_to_json


def as_json(
    first: str, second: str, labels: Labels, stages: Sequence[StageComparison], *, queries: int
) -> dict[str, Any]:
    """The object that `--json` prints; numbers with 4 digits after the point.

    Args:
        first: Name of the first run.
        second: Name of the second run.
        queries: How many losses and wins are listed per stage.
    """
    return {
        "first": first,
        "second": second,
        "collection": labels.collection,
        "split": labels.split,
        "queries": len(labels.qrels),
        "stages": {
            stage.stage: {
                "measures": {
                    row.measure: {
                        "first": round(row.first, 4),
                        "second": round(row.second, 4),
                        **difference_to_json(row.difference),
                        "p_holm": round(row.corrected_p, 4),
                    }
                    for row in stage.measures
                },
                "losses": [_query_to_json(query) for query in stage.losses[:queries]],
                "wins": [_query_to_json(query) for query in stage.wins[:queries]],
            }
            for stage in stages
        },
    }


def as_markdown(first: str, second: str, labels: Labels, stages: Sequence[StageComparison], *, queries: int) -> str:
    """Tables of the measures, and lists of the queries that lost and won most. Arguments as in `as_json`."""
    lines = [
        f"# {labels.collection}, split {labels.split}: {len(labels.qrels)} queries",
        "",
        f"A = {first}, B = {second}. Differences are B - A with a 95 % bootstrap interval; p is that of the paired "
        "randomisation test, and p (Holm) is corrected for the number of measures of a stage.",
    ]
    for stage in stages:
        lines += ["", f"## {stage.stage}", "", *_table(stage)]
        if stage.unrun:
            lines += ["", f"{stage.unrun} judged queries are missing in A or B and score 0 there."]
        measure = stage.measures[0].measure
        for title, listed in (("Lost", stage.losses), ("Won", stage.wins)):
            if queries and listed:
                lines += ["", f"### {title} most by {measure}, {min(queries, len(listed))} of {len(listed)}", ""]
                lines += [line for query in listed[:queries] for line in _query_lines(query)]
    return "\n".join(lines) + "\n"


def _table(stage: StageComparison) -> list[str]:
    rows = [
        "| measure | A | B | B - A | 95 % interval | p | p (Holm) | better | worse | equal |",
        "|---|---:|---:|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row in stage.measures:
        of = row.difference
        interval = f"{of.interval.low:+.4f} to {of.interval.high:+.4f}"
        rows.append(
            f"| {row.measure} | {row.first:.4f} | {row.second:.4f} | {of.mean:+.4f} | {interval} | {of.p_value:.4f} "
            f"| {row.corrected_p:.4f} | {of.wins} | {of.losses} | {of.ties} |"
        )
    return rows


def _query_lines(query: QueryComparison) -> list[str]:
    lines = [f"- {query.first:.3f} -> {query.second:.3f} `{query.id}` {_in_one_line(query.text)}"]
    for document in query.relevant:
        ranks = f"{document.first_rank or 'not found'} -> {document.second_rank or 'not found'}"
        title = f" {_in_one_line(document.title)}" if document.title else ""
        lines.append(f"  - rank {ranks}: `{document.id}`{title}")
    return lines


def _query_to_json(query: QueryComparison) -> dict[str, Any]:
    return {
        "id": query.id,
        "text": query.text,
        "first": round(query.first, 4),
        "second": round(query.second, 4),
        "relevant": [
            {
                "id": document.id,
                "title": document.title,
                "relevance": document.relevance,
                "first_rank": document.first_rank,
                "second_rank": document.second_rank,
            }
            for document in query.relevant
        ],
    }


def _in_one_line(text: str) -> str:
    return " ".join(text.split())
