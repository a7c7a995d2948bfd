"""What `rag eval chunking` shows: tables for people, one object for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evals.chunking import ChunkerResult
from evals.significance import Interval, bootstrap_interval
from evals.spans import SpanSet
from rag.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MEASURES = ("recall", "precision", "iou")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over the questions, and its difference from the same of the chunker that is compared with.

    Attributes:
        interval: Of the mean, 95 %.
        difference: Mean of this chunker minus that of the other.
        difference_interval: 95 %, paired by question.
    """

    mean: float
    interval: Interval
    difference: float
    difference_interval: Interval

    @property
    def mark(self) -> str:
        """`+` or `-` where the interval of the difference does not hold 0."""
        return "+" if self.difference_interval.low > 0 else "-" if self.difference_interval.high < 0 else ""


@dataclass(frozen=True, slots=True)
class ChunkerRow:
    """One chunker's figures: measure -> budget in tokens -> estimate."""

    result: ChunkerResult
    estimates: Mapping[str, Mapping[int, Estimate]]


def compare_chunkers(results: Sequence[ChunkerResult]) -> list[ChunkerRow]:
    """Means with bootstrap intervals, each chunker compared with the first.

    Raises:
        UsageError: There are no results.
    """
    if not results:
        raise UsageError("there is no chunker to report on; name at least one")
    return [
        ChunkerRow(
            result,
            {
                measure: {
                    budget: _estimate(_values(results[0], measure, budget), _values(result, measure, budget))
                    for budget in result.scores
                }
                for measure in MEASURES
            },
        )
        for result in results
    ]


def as_json(span_set: SpanSet, rows: Sequence[ChunkerRow]) -> dict[str, Any]:
    """The object that `--json` prints: measures rounded to 4 digits after the point."""
    return {
        "set": span_set.name,
        "documents": len(span_set.documents),
        "questions": len(span_set.questions),
        "compared_with": rows[0].result.chunker,
        "chunkers": [
            {
                "chunker": row.result.chunker,
                "passages": row.result.passages,
                "mean_tokens": round(row.result.mean_tokens, 1),
                "embedded_tokens": row.result.embedded_tokens,
                **{
                    measure: {str(budget): _estimate_as_json(estimate) for budget, estimate in by_budget.items()}
                    for measure, by_budget in row.estimates.items()
                },
            }
            for row in rows
        ],
    }


def render(span_set: SpanSet, rows: Sequence[ChunkerRow], console: Console) -> None:
    """Prints the sizes, one table per measure, and what the marks mean."""
    console.print(_sizes_table(rows))
    for measure in MEASURES:
        console.print(_measure_table(span_set, rows, measure))
    console.print(
        f"± half the width of the 95 % interval. + and -: better and worse than {rows[0].result.chunker}, by paired "
        "intervals that do not hold 0; of twenty such comparisons one is so by chance.",
        markup=False,
    )


def _values(result: ChunkerResult, measure: str, budget: int) -> list[float]:
    return [getattr(score, measure) for score in result.scores[budget]]


def _estimate(reference: Sequence[float], values: Sequence[float]) -> Estimate:
    return Estimate(
        mean=float(np.mean(values)),
        interval=bootstrap_interval([0.0] * len(values), values),
        difference=float(np.mean(values) - np.mean(reference)),
        difference_interval=bootstrap_interval(reference, values),
    )


def _estimate_as_json(estimate: Estimate) -> dict[str, float]:
    return {
        "mean": round(estimate.mean, 4),
        "low": round(estimate.interval.low, 4),
        "high": round(estimate.interval.high, 4),
        "difference": round(estimate.difference, 4),
        "difference_low": round(estimate.difference_interval.low, 4),
        "difference_high": round(estimate.difference_interval.high, 4),
    }


def _sizes_table(rows: Sequence[ChunkerRow]) -> Table:
    table = _table("Passages, tokens in one, and tokens embedded in all", ["passages", "tokens", "embedded"])
    for row in rows:
        result = row.result
        _add(table, row, rows, [str(result.passages), f"{result.mean_tokens:.0f}", f"{result.embedded_tokens:,}"])
    return table


def _measure_table(span_set: SpanSet, rows: Sequence[ChunkerRow], measure: str) -> Table:
    budgets = list(rows[0].result.scores)
    title = f"{measure} on {span_set.name}: {len(span_set.questions)} questions, by budget in tokens"
    table = _table(title, [str(budget) for budget in budgets])
    for row in rows:
        _add(table, row, rows, [_cell(row.estimates[measure][budget]) for budget in budgets])
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    table.add_column("chunker", overflow="fold", min_width=22)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _add(table: Table, row: ChunkerRow, rows: Sequence[ChunkerRow], cells: Sequence[str]) -> None:
    from rich.text import Text

    table.add_row(Text(row.result.chunker), *map(Text, cells), style="bold" if row is rows[0] else None)


def _cell(estimate: Estimate) -> str:
    half = (estimate.interval.high - estimate.interval.low) / 2
    mean, width = (f"{value:.3f}".removeprefix("0") for value in (estimate.mean, half))
    return f"{mean} ±{width} {estimate.mark or ' '}"
