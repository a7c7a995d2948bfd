"""What `rag eval ablate` writes: one Markdown page of tables, and one JSON object with every value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from evals.ablation import Cell
from evals.report import Latency
from evals.significance import Difference, difference

_STAGES = ("bm25", "dense", "rrf", "convex", "dbsf", "tuned", "fused", "reranked", "auto")
_READING = (
    "nDCG@10 over documents, a document scoring as its best passage. `tuned` and `reranked` are measured on queries "
    "that had no part in choosing their parameters (five folds). `fused` is `tuned`, or the default where tuning kept "
    "it; `reranked` is the reranking of that; `auto` reranks where the questions of the other folds say that it "
    "helps, as a collection does after `rag eval tune`. Brackets hold 95 % intervals by bootstrap over queries; p is "
    "that of the paired randomisation test."
)
_LATENCIES = ("embed", "retrieve", "complete", "fuse", "fetch", "rerank", "total")


def cell_to_json(cell: Cell) -> dict[str, Any]:
    """What is kept of a cell."""
    return asdict(cell)


def cell_from_json(data: Mapping[str, Any]) -> Cell:
    """What `cell_to_json` made."""
    return Cell(
        **{
            **data,
            "query_ids": tuple(data["query_ids"]),
            "values": {stage: tuple(values) for stage, values in data["values"].items()},
            "latency_ms": {stage: Latency(**percentiles) for stage, percentiles in data["latency_ms"].items()},
        }
    )


def comparisons(cell: Cell) -> dict[str, Difference]:
    """What each step gains over the one before, in words."""
    pairs = {
        "default - better leg": (cell.better_leg, cell.default),
        "tuned - better leg": (cell.better_leg, "tuned"),
        "tuned - default": (cell.default, "tuned"),
        "reranked - fused": ("fused", "reranked"),
        "auto - default": (cell.default, "auto"),
        "rrf - better leg": (cell.better_leg, "rrf"),
    }
    return {
        name: difference(cell.values[before], cell.values[after])
        for name, (before, after) in pairs.items()
        if after in cell.values
    }


def markdown(cells: Sequence[Cell], compression: str = "", plots: Sequence[tuple[str, str]] = ()) -> str:
    """The page.

    Args:
        cells: All collections with the first chunker, then, where there are more, with the others.
        compression: From `compression_section`.
        plots: Caption and file name of each picture.
    """
    chunker = cells[0].chunker
    first = [cell for cell in cells if cell.chunker == chunker]
    parts = [
        "# Ablation",
        _READING,
        f"Chunker: `{chunker}`.",
        "## Every stage",
        _table(["collection", "queries", *_present(first)], [_stage_row(cell, _present(first)) for cell in first]),
        "## What each step gains",
        _gains(first),
        "## What was chosen",
        _table(
            ["collection", "fusion", "reranker"],
            [[cell.collection, cell.chosen, _rerank_words(cell)] for cell in first],
        ),
        "## Milliseconds of one query",
        "Median and 95th percentile, one query at a time.",
        _latencies(first),
    ]
    if len(cells) > len(first):
        parts += ["## Chunkers", _chunkers(cells, chunker)]
    parts += [compression] if compression else []
    parts += [f"![{caption}]({file})" for caption, file in plots]
    return "\n\n".join(parts) + "\n"


def compression_section(reports: Sequence[Mapping[str, Any]]) -> str:
    """What compression keeps of the evidence.

    Args:
        reports: As `rag eval compression --json` prints them.
    """
    header = ["collection", "method", "rate", "tokens", "evidence kept", "fewer passages", "gain", "ms"]
    rows = [
        [
            report["collection"],
            row["method"],
            f"{row['rate']:g}",
            f"{row['tokens_in']:.0f} to {row['tokens_out']:.0f}",
            f"{row['recall']:.3f}",
            f"{fewer['recall']:.3f}",
            f"{fewer['difference']:+.3f} [{fewer['difference_low']:+.3f}, {fewer['difference_high']:+.3f}]",
            f"{row['milliseconds']['p50']:.0f}",
        ]
        for report in reports
        for row in report["methods"]
        for fewer in [row["fewer_passages"]]
    ]
    text = (
        "The share of the gold sentences of a context that are shown after compression, beside the best passages cut "
        "off at the same number of tokens."
    )
    return "\n\n".join(("## Compression", text, _table(header, rows)))


def compression_lines(reports: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """For a picture: name of a line -> (tokens, evidence recall), in order of tokens; the whole context at the end."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for report in reports:
        of_report: dict[str, list[tuple[float, float]]] = {}
        for row in report["methods"]:
            for way, recall in ((row["method"], row["recall"]), ("fewer passages", row["fewer_passages"]["recall"])):
                of_report.setdefault(f"{report['collection']}: {way}", []).append((row["tokens_out"], recall))
        whole = (report["tokens"], 1.0)
        lines |= {name: sorted({*points, whole}) for name, points in of_report.items()}
    return lines


def _present(cells: Sequence[Cell]) -> list[str]:
    return [stage for stage in _STAGES if any(stage in cell.values for cell in cells)]


def _stage_row(cell: Cell, stages: Sequence[str]) -> list[str]:
    means = {stage: float(np.mean(values)) for stage, values in cell.values.items()}
    best = max(means.values())
    shown = [
        "" if stage not in means else f"**{means[stage]:.4f}**" if means[stage] == best else f"{means[stage]:.4f}"
        for stage in stages
    ]
    return [cell.collection, str(len(cell.query_ids)), *shown]


def _gains(cells: Sequence[Cell]) -> str:
    found = {cell.collection: comparisons(cell) for cell in cells}
    names = list(dict.fromkeys(name for of in found.values() for name in of))
    rows = [
        [collection, *(_words(of[name]) if name in of else "" for name in names)] for collection, of in found.items()
    ]
    means = {name: [of[name].mean for of in found.values() if name in of] for name in names}
    rows.append(["**mean**", *(f"**{np.mean(means[name]):+.4f}**" for name in names)])
    rows.append(["**worst**", *(f"**{min(means[name]):+.4f}**" for name in names)])
    return _table(["collection", *names], rows)


def _rerank_words(cell: Cell) -> str:
    return f"{'on' if cell.is_rerank_on else 'off'}: {cell.reranker.partition(':')[0]}".replace("|", "/")


def _latencies(cells: Sequence[Cell]) -> str:
    stages = [stage for stage in _LATENCIES if any(stage in cell.latency_ms for cell in cells)]
    rows = [[cell.collection, *(_percentiles(cell.latency_ms.get(stage)) for stage in stages)] for cell in cells]
    return _table(["collection", *stages], rows)


def _percentiles(latency: Latency | None) -> str:
    return f"{latency.p50:.1f} / {latency.p95:.1f}" if latency else ""


def _chunkers(cells: Sequence[Cell], reference: str) -> str:
    collections = list(dict.fromkeys(cell.collection for cell in cells))
    of = {(cell.collection, cell.chunker): cell for cell in cells}
    rows = []
    for chunker in dict.fromkeys(cell.chunker for cell in cells):
        row = [f"`{chunker}`"]
        for collection in collections:
            cell, base = of.get((collection, chunker)), of[collection, reference]
            if cell is None:
                row.append("")
            elif chunker == reference:
                row.append(f"{np.mean(cell.values[cell.default]):.4f}")
            else:
                row.append(_words(difference(base.values[base.default], cell.values[cell.default])))
        rows.append(row)
    return _table(["chunker (default fusion)", *collections], rows)


def _words(gain: Difference) -> str:
    return f"{gain.mean:+.4f} [{gain.interval.low:+.4f}, {gain.interval.high:+.4f}] p {gain.p_value:.3f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---"] + ["--:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))
