"""What `rag eval run` shows: one table for people, one object for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of one stage: the median, and what one query in twenty exceeds."""

    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class EvalReport:
    """The result of one evaluation.

    Attributes:
        collection: Name of the dataset.
        queries: How many judged queries were run.
        default_fusion: The stage that the pipeline is set to use.
        stages: Stage (`bm25`, `dense`, `rrf`, `convex`) -> measure (`ndcg@10`) -> mean over the queries, in
            the order they are shown; every stage has the same measures.
        latency_ms: Stage of the pipeline (`embed`, `retrieve`, ..., `total`) -> percentiles, in the order
            they ran.
    """

    collection: str
    split: str
    queries: int
    default_fusion: str
    stages: Mapping[str, Mapping[str, float]]
    latency_ms: Mapping[str, Latency]


def latency_of(samples_ms: Sequence[float]) -> Latency:
    """The 50th and 95th percentile, interpolated linearly between neighbours (numpy's default, R's type 7).

    Raises:
        UsageError: There are no samples.
    """
    if not samples_ms:
        raise UsageError("there are no times to take percentiles of; run at least one query")
    p50, p95 = np.percentile(np.asarray(samples_ms, dtype=np.float64), [50, 95])
    return Latency(float(p50), float(p95))


def as_json(report: EvalReport) -> dict[str, Any]:
    """The object that `--json` prints: measures rounded to 4 digits after the point, milliseconds to 2."""
    return {
        "collection": report.collection,
        "split": report.split,
        "queries": report.queries,
        "default_fusion": report.default_fusion,
        "stages": {
            stage: {measure: round(value, 4) for measure, value in measures.items()}
            for stage, measures in report.stages.items()
        },
        "latency_ms": {
            stage: {"p50": round(latency.p50, 2), "p95": round(latency.p95, 2)}
            for stage, latency in report.latency_ms.items()
        },
    }


def render(report: EvalReport, console: Console) -> None:
    """Prints the measures by stage, the default fusion marked, then the latency by stage of the pipeline."""
    console.print(_measures_table(report))
    console.print(_latency_table(report))


def _measures_table(report: EvalReport) -> Table:
    from rich.text import Text

    title = f"{report.collection}, split {report.split}: {report.queries} queries"
    measures = list(next(iter(report.stages.values()), {}))
    table = _table(title, "stage", measures)
    for stage, values in report.stages.items():
        is_default = stage == report.default_fusion
        name = Text(f"{stage} (default)" if is_default else stage)
        table.add_row(name, *(f"{values[measure]:.4f}" for measure in measures), style="bold" if is_default else None)
    return table


def _latency_table(report: EvalReport) -> Table:
    from rich.text import Text

    table = _table("Latency of one query, ms", "stage", ["p50", "p95"])
    for stage, latency in report.latency_ms.items():
        table.add_row(Text(stage), f"{latency.p50:.2f}", f"{latency.p95:.2f}")
    return table


def _table(title: str, row_header: str, columns: Sequence[str]) -> Table:
    """An empty table of numbers; a folder's name is Text, or rich would read its brackets as markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    # All measures of all stages fit into 80 columns.
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(row_header, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table
