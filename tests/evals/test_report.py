from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from evals.report import EvalReport, Latency, as_json, latency_of, render
from rag.errors import UsageError

REPORT = EvalReport(
    collection="zoo[1]",
    split="test",
    queries=35,
    default_fusion="convex",
    stages={
        "bm25": {"ndcg@10": 0.123456, "recall@100": 1.0},
        "dense": {"ndcg@10": 0.2, "recall@100": 0.9},
        "rrf": {"ndcg@10": 0.3, "recall@100": 0.95},
        "convex": {"ndcg@10": 0.31239, "recall@100": 0.96},
    },
    latency_ms={"embed": Latency(1.23456, 2.0), "total": Latency(12.345678, 30.5)},
)


def rendered(report: EvalReport) -> list[str]:
    output = io.StringIO()
    render(report, Console(file=output, width=100))
    return output.getvalue().splitlines()


def cells(line: str) -> list[str]:
    return line.replace("│", " ").replace("┃", " ").split()


def test_the_object_has_the_keys_and_digits_of_the_interface() -> None:
    printed = json.loads(json.dumps(as_json(REPORT)))
    assert list(printed) == ["collection", "split", "queries", "default_fusion", "stages", "latency_ms"]
    assert printed["collection"] == "zoo[1]"
    assert printed["stages"]["bm25"] == {"ndcg@10": 0.1235, "recall@100": 1.0}
    assert list(printed["stages"]) == ["bm25", "dense", "rrf", "convex"]
    assert printed["latency_ms"] == {"embed": {"p50": 1.23, "p95": 2.0}, "total": {"p50": 12.35, "p95": 30.5}}


def test_the_table_has_a_row_for_each_stage_and_marks_the_default_fusion() -> None:
    rows = [cells(line) for line in rendered(REPORT)]
    assert ["stage", "ndcg@10", "recall@100"] in rows
    assert ["bm25", "0.1235", "1.0000"] in rows
    assert ["rrf", "0.3000", "0.9500"] in rows
    assert ["convex", "(default)", "0.3124", "0.9600"] in rows


def test_the_latency_of_each_stage_is_shown_in_milliseconds() -> None:
    lines = rendered(REPORT)
    rows = [cells(line) for line in lines]
    assert any("ms" in line for line in lines)
    assert ["stage", "p50", "p95"] in rows
    assert ["total", "12.35", "30.50"] in rows


def test_brackets_in_the_name_of_a_collection_are_shown_as_they_are() -> None:
    assert rendered(REPORT)[0].strip() == "zoo[1], split test: 35 queries"


def test_percentiles_interpolate_linearly_between_neighbours() -> None:
    assert latency_of([4.0, 1.0, 2.0, 3.0]) == Latency(2.5, pytest.approx(3.85))
    samples = np.random.default_rng(0).exponential(size=101).tolist()
    assert latency_of(samples) == Latency(sorted(samples)[50], pytest.approx(sorted(samples)[95]))


def test_there_are_no_percentiles_of_no_times() -> None:
    with pytest.raises(UsageError, match="at least one query"):
        latency_of([])
