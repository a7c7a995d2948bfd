"""What `rag eval compression` shows: a table for people, one object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evals.compression import CompressionEvaluation, CompressionResult
from evals.report import Latency
from evals.significance import Difference, Interval, bootstrap_interval, difference

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class CompressionRow:
    """One compressor at one rate.

    Attributes:
        recall: Share of a context's evidence that is kept, mean over the questions.
        interval: Of `recall`, 95 %, by bootstrap.
        fewer_recall: The same of the best passages with equally many tokens.
        gain: `recall` minus `fewer_recall`, paired by question.
        tokens_in: Mean of a whole context.
        tokens_out: Mean that is shown.
        evidence_per_1000_tokens: Pieces shown in all contexts by thousand tokens shown in all contexts.
        latency_ms: Of compressing one context.
        ms_per_1000_tokens: Of whole contexts.
    """

    method: str
    rate: float
    recall: float
    interval: Interval
    fewer_recall: float
    gain: Difference
    tokens_in: float
    tokens_out: float
    evidence_per_1000_tokens: float
    latency_ms: Latency
    ms_per_1000_tokens: float


@dataclass(frozen=True, slots=True)
class CompressionReport:
    """The result of one evaluation.

    Attributes:
        questions: Of the dataset; `measured` of them have evidence in their context.
        gold: Pieces of evidence in the documents; `unlocated` more were not found there.
        retrieved: Pieces that the contexts hold.
        tokens: Mean of a whole context.
        evidence_per_1000_tokens: Of whole contexts.
    """

    collection: str
    questions: int
    measured: int
    gold: int
    unlocated: int
    retrieved: int
    tokens: float
    evidence_per_1000_tokens: float
    rows: tuple[CompressionRow, ...]


def report_of(evaluation: CompressionEvaluation) -> CompressionReport:
    """Means, intervals and the comparison with fewer passages."""
    tokens = [context.tokens for context in evaluation.contexts]
    retrieved = sum(len(context.evidence) for context in evaluation.contexts)
    return CompressionReport(
        collection=evaluation.collection,
        questions=evaluation.questions,
        measured=len(evaluation.contexts),
        gold=evaluation.gold,
        unlocated=evaluation.unlocated,
        retrieved=retrieved,
        tokens=float(np.mean(tokens)),
        evidence_per_1000_tokens=1000 * retrieved / sum(tokens),
        rows=tuple(_row(result, tokens) for result in evaluation.results),
    )


def _row(result: CompressionResult, tokens: Sequence[int]) -> CompressionRow:
    recalls = [score.recall for score in result.scores]
    fewer = [score.fewer_recall for score in result.scores]
    shown = [score.tokens for score in result.scores]
    milliseconds = [score.milliseconds for score in result.scores]
    p50, p95 = np.quantile(milliseconds, [0.5, 0.95])
    return CompressionRow(
        method=result.method,
        rate=result.rate,
        recall=float(np.mean(recalls)),
        interval=bootstrap_interval([0.0] * len(recalls), recalls),
        fewer_recall=float(np.mean(fewer)),
        gain=difference(fewer, recalls),
        tokens_in=float(np.mean(tokens)),
        tokens_out=float(np.mean(shown)),
        evidence_per_1000_tokens=1000 * sum(score.kept for score in result.scores) / sum(shown),
        latency_ms=Latency(float(p50), float(p95)),
        ms_per_1000_tokens=1000 * sum(milliseconds) / sum(tokens),
    )


def as_json(report: CompressionReport) -> dict[str, Any]:
    """The object that `--json` prints: shares rounded to 4 digits after the point, milliseconds to 2, tokens to 1."""
    return {
        "collection": report.collection,
        "questions": report.questions,
        "measured": report.measured,
        "gold": report.gold,
        "unlocated": report.unlocated,
        "retrieved": report.retrieved,
        "tokens": round(report.tokens, 1),
        "evidence_per_1000_tokens": round(report.evidence_per_1000_tokens, 2),
        "methods": [_row_as_json(row) for row in report.rows],
    }


def _row_as_json(row: CompressionRow) -> dict[str, Any]:
    return {
        "method": row.method,
        "rate": row.rate,
        "recall": round(row.recall, 4),
        "low": round(row.interval.low, 4),
        "high": round(row.interval.high, 4),
        "fewer_passages": {
            "recall": round(row.fewer_recall, 4),
            "difference": round(row.gain.mean, 4),
            "difference_low": round(row.gain.interval.low, 4),
            "difference_high": round(row.gain.interval.high, 4),
            "p_value": round(row.gain.p_value, 4),
        },
        "tokens_in": round(row.tokens_in, 1),
        "tokens_out": round(row.tokens_out, 1),
        "evidence_per_1000_tokens": round(row.evidence_per_1000_tokens, 2),
        "milliseconds": {"p50": round(row.latency_ms.p50, 2), "p95": round(row.latency_ms.p95, 2)},
        "ms_per_1000_tokens": round(row.ms_per_1000_tokens, 2),
    }


def render(report: CompressionReport, console: Console) -> None:
    """Prints what was measured, the table, and what its columns mean."""
    console.print(
        f"{report.collection}: {report.measured} of {report.questions} questions have evidence in their context, "
        f"{report.retrieved} of {report.gold} pieces; {report.tokens:.0f} tokens, "
        f"{report.evidence_per_1000_tokens:.2f} pieces per 1,000 tokens",
        markup=False,
    )
    console.print(_table(report))
    console.print(
        "recall: share of the evidence in the whole context that is kept. fewer: the same of the best passages with "
        "equally many tokens. gain: recall minus fewer, with its paired 95 % interval. per 1,000: pieces of evidence "
        "per 1,000 tokens shown. ms: of one context, the median, and what one in twenty exceeds.",
        markup=False,
    )


def _table(report: CompressionReport) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("method", overflow="fold")
    for column in ("rate", "tokens", "recall", "fewer", "gain", "per 1,000", "ms"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in report.rows:
        low, high = row.gain.interval.low, row.gain.interval.high
        table.add_row(
            Text(row.method),
            f"{row.rate:g}",
            f"{row.tokens_out:.0f}",
            f"{row.recall:.3f}",
            f"{row.fewer_recall:.3f}",
            f"{row.gain.mean:+.3f} {low:+.3f}..{high:+.3f}",
            f"{row.evidence_per_1000_tokens:.2f}",
            f"{row.latency_ms.p50:.0f} {row.latency_ms.p95:.0f}",
        )
    return table
