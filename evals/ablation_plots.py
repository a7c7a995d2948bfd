"""The pictures of an ablation: what quality costs in time and in tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evals.ablation import Cell
from rag.errors import ConfigurationError

_STEPS = (
    ("bm25", ("retrieve",)),
    ("dense", ("embed", "retrieve")),
    ("fused", ("embed", "retrieve", "complete", "fuse")),
    ("reranked", ("embed", "retrieve", "complete", "fuse", "fetch", "rerank")),
)
"""Stage and the parts of a query's time that it needs."""

_DOTS_PER_INCH = 110


def plot_quality_against_latency(cells: Sequence[Cell], file: Path) -> None:
    """A line per collection from the single legs to reranking; the median time of one query on a logarithmic axis.

    Raises:
        ConfigurationError: Matplotlib is not installed.
    """
    figure, axes = _figure()
    for cell in cells:
        steps = [(stage, parts) for stage, parts in _STEPS if stage in cell.values]
        times = [sum(cell.latency_ms[p].p50 for p in parts if p in cell.latency_ms) for _, parts in steps]
        means = [float(np.mean(cell.values[stage])) for stage, _ in steps]
        (line,) = axes.plot(times, means, marker="o", label=cell.collection)
        for time, value, (stage, _) in zip(times, means, steps, strict=True):
            place = {"textcoords": "offset points", "xytext": (5, 4)}
            axes.annotate(stage, (time, value), fontsize=7, color=line.get_color(), **place)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.margins(x=0.12)
    axes.set_xlabel("milliseconds of one query, median")
    axes.set_ylabel("nDCG@10")
    _save(figure, axes, file)


def plot_quality_against_tokens(series: Mapping[str, Sequence[tuple[float, float]]], file: Path) -> None:
    """A line per way of shortening a context.

    Args:
        series: Name -> (tokens shown, evidence recall), in order of tokens.

    Raises:
        ConfigurationError: Matplotlib is not installed.
    """
    figure, axes = _figure()
    for name, points in series.items():
        style = "--" if "fewer" in name else "-"
        axes.plot([tokens for tokens, _ in points], [recall for _, recall in points], style, marker="o", label=name)
    axes.set_xlabel("tokens of context, mean")
    axes.set_ylabel("evidence recall")
    _save(figure, axes, file)


def _figure() -> tuple[Any, Any]:
    try:
        # The canvas is named, so that no display is looked for and no global state is touched.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigurationError("plots need matplotlib; run: pip install 'rag-service[eval]'") from error
    figure = Figure(figsize=(8, 5), dpi=_DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _save(figure: Any, axes: Any, file: Path) -> None:  # noqa: ANN401 - matplotlib's
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8)
    # Without the program's version the same values give the same bytes.
    figure.savefig(file, metadata={"Software": None})
