import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from evals.ablation import Cell
from evals.ablation_plots import plot_quality_against_latency, plot_quality_against_tokens
from evals.ablation_report import (
    cell_from_json,
    cell_to_json,
    comparisons,
    compression_lines,
    compression_section,
    markdown,
)
from evals.cli import app
from evals.report import Latency
from tests.evals.conftest import NamingReranker

RANDOM = np.random.default_rng(7)
VALUES = {
    "bm25": tuple(RANDOM.uniform(0.2, 0.6, 60)),
    "dense": tuple(RANDOM.uniform(0.1, 0.5, 60)),
    "rrf": tuple(RANDOM.uniform(0.2, 0.6, 60)),
    "convex": tuple(RANDOM.uniform(0.4, 0.8, 60)),
    "dbsf": tuple(RANDOM.uniform(0.4, 0.8, 60)),
    "tuned": tuple(RANDOM.uniform(0.4, 0.8, 60)),
    "auto": tuple(RANDOM.uniform(0.4, 0.8, 60)),
}
CELL = Cell(
    collection="zoo",
    split="test",
    chunker="sentence-window:sentences=6",
    passages=12,
    query_ids=tuple(f"q{n}" for n in range(60)),
    values=VALUES,
    default="convex",
    latency_ms={"embed": Latency(5, 9), "retrieve": Latency(2, 3), "total": Latency(8, 13)},
    chosen="convex, weight_dense 0.6",
    reranker="no cross-encoder is on disk: pull one",
    is_rerank_on=False,
)
COMPRESSION = {
    "collection": "zoo",
    "tokens": 800.0,
    "methods": [
        {
            "method": "extractive",
            "rate": 0.5,
            "recall": 0.97,
            "fewer_passages": {"recall": 0.88, "difference": 0.09, "difference_low": 0.05, "difference_high": 0.13},
            "tokens_in": 800.0,
            "tokens_out": 398.0,
            "milliseconds": {"p50": 41.0, "p95": 60.0},
        }
    ],
}


def test_a_cell_is_the_same_after_it_was_kept():
    assert cell_from_json(json.loads(json.dumps(cell_to_json(CELL)))) == CELL


def test_each_step_is_compared_with_the_one_before_on_the_same_questions():
    gains = comparisons(CELL)
    mean = {stage: float(np.mean(values)) for stage, values in VALUES.items()}
    assert CELL.better_leg == "bm25"
    assert gains["default - better leg"].mean == pytest.approx(mean["convex"] - mean["bm25"])
    assert gains["tuned - default"].mean == pytest.approx(mean["tuned"] - mean["convex"])
    assert "reranked - fused" not in gains


def test_the_page_has_a_row_for_each_collection_and_the_mean_and_worst_of_all():
    page = markdown([CELL, CELL], compression_section([COMPRESSION]), [("A picture", "latency.png")])
    rows = [line for line in page.splitlines() if line.startswith("| zoo | 60 |")]
    assert len(rows) == 2
    best = max(float(np.mean(values)) for values in VALUES.values())
    assert f"**{best:.4f}**" in rows[0]
    assert "| **worst** |" in page
    assert "off: no cross-encoder is on disk |" in page
    assert "| zoo | extractive | 0.5 | 800 to 398 | 0.970 | 0.880 | +0.090 [+0.050, +0.130] | 41 |" in page
    assert "![A picture](latency.png)" in page


def test_a_picture_has_a_line_for_each_way_of_shortening_up_to_the_whole_context(tmp_path):
    lines = compression_lines([COMPRESSION])
    assert lines == {
        "zoo: extractive": [(398.0, 0.97), (800.0, 1.0)],
        "zoo: fewer passages": [(398.0, 0.88), (800.0, 1.0)],
    }
    plot_quality_against_tokens(lines, tmp_path / "tokens.png")
    plot_quality_against_latency([CELL], tmp_path / "latency.png")
    assert all((tmp_path / f"{name}.png").read_bytes()[1:4] == b"PNG" for name in ("tokens", "latency"))


def ablate(zoo: Path, *options: str):
    return CliRunner().invoke(app, ["ablate", str(zoo), "--out", "out", *options], catch_exceptions=False)


def test_the_command_writes_a_page_and_pictures_and_goes_on_where_it_stopped(in_zoo, zoo, monkeypatch):
    reranker = NamingReranker()
    monkeypatch.setattr("rag.bootstrap.build_reranker", lambda settings, notify: (reranker, ""))
    first = ablate(zoo, "--json")
    assert first.exit_code == 0, first.stderr
    (record,) = json.loads(first.stdout)["cells"]
    values = record["cell"]["values"]
    assert set(values) == {"bm25", "dense", "rrf", "convex", "dbsf", "tuned", "fused", "reranked", "auto"}
    assert all(len(of) == 12 for of in values.values())
    assert np.mean(values["reranked"]) == 1.0
    page = Path("out/ablation.md").read_text("utf-8")
    assert "| zoo | 12 |" in page
    assert Path("out/latency.png").is_file()
    asked = len(reranker.asked)
    again = ablate(zoo, "--json", "--chunker", "recursive:max_tokens=50")
    assert again.exit_code == 0, again.stderr
    cells = [each["cell"] for each in json.loads(again.stdout)["cells"]]
    assert [cell["chunker"].split(":")[0] for cell in cells] == ["sentence-window", "recursive"]
    assert cells[0] == record["cell"]
    assert len(reranker.asked) <= 2 * asked
    assert "## Chunkers" in Path("out/ablation.md").read_text("utf-8")


def test_a_cell_is_computed_anew_where_a_question_reads_or_is_marked_otherwise(in_zoo, zoo):
    first = ablate(zoo)
    assert first.exit_code == 0, first.stderr
    lines = (zoo / "queries.jsonl").read_text("utf-8").splitlines()
    for changed in ({"metadata": {"supporting_facts": []}}, {"text": "What is eaten?"}):
        (zoo / "queries.jsonl").write_text("\n".join([json.dumps({**json.loads(lines[0]), **changed}), *lines[1:]]))
        assert ablate(zoo).exit_code == 0
    assert len(list(Path("out/kept").rglob("cell-*.json"))) == 3
