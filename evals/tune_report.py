"""What `rag eval tune` shows and stores."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from evals.fusion_grid import FusionChoice
from evals.progress import short_reason
from evals.significance import Difference, difference_to_json
from evals.tune import DEFAULT_MEASURE, FusionTuning
from evals.tune_rerank import RerankTuning
from rag.retrieval.profile import RetrievalProfile
from rag.retrieval.rerank import DEFAULT_RERANK_WEIGHT

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class TuneReport:
    """The result of one tuning.

    Attributes:
        rerank: None where no reranker was measured; `rerank_skipped` says why.
        missing_documents: Judged ones that the collection does not hold.
        is_stored: With the collection.
    """

    collection: str
    split: str
    queries: int
    measure: str
    fusion: FusionTuning
    rerank: RerankTuning | None
    rerank_skipped: str
    missing_documents: int
    is_stored: bool


def profile_of(report: TuneReport, *, embedding: str) -> RetrievalProfile:
    """What is stored with the collection.

    Args:
        embedding: Identity of the embedder.
    """
    fusion, rerank = report.fusion, report.rerank
    return RetrievalProfile(
        embedding=embedding,
        fusion=fusion.chosen.method,
        weight_dense=fusion.chosen.weight_dense,
        rrf_k=fusion.chosen.rrf_k,
        reranker=rerank.reranker if rerank else None,
        is_rerank_on=rerank is not None and rerank.is_on,
        rerank_weight=rerank.weight if rerank else DEFAULT_RERANK_WEIGHT,
        rerank_gain=rerank.gain.mean if rerank else 0.0,
        judged=_judged(report),
        gain=0.0 if fusion.kept else fusion.gain.mean,
        measure=report.measure,
    )


def as_json(report: TuneReport) -> dict[str, Any]:
    """The object that `--json` prints: measures and p-values with 4 digits after the point."""
    fusion, rerank = report.fusion, report.rerank
    return {
        "collection": report.collection,
        "split": report.split,
        "queries": report.queries,
        "measure": report.measure,
        "missing_documents": report.missing_documents,
        "fusion": {
            "default": _choice(fusion.default),
            "chosen": _choice(fusion.chosen),
            "kept": fusion.kept or None,
            "folds": [_choice(choice) for choice in fusion.per_fold],
            "means": {name: round(value, 4) for name, value in fusion.means.items()},
            "gain": difference_to_json(fusion.gain),
            "better_leg": fusion.better_leg,
            "gain_over_better_leg": difference_to_json(fusion.gain_over_leg),
        },
        "rerank": rerank
        and {
            "reranker": rerank.reranker,
            "is_on": rerank.is_on,
            "is_on_folds": list(rerank.is_on_per_fold),
            "rerank_k": rerank.rerank_k,
            "weight": rerank.weight,
            "folds": list(rerank.per_fold),
            "mean": round(rerank.mean, 4),
            "gain": difference_to_json(rerank.gain),
            "milliseconds": round(median(rerank.milliseconds), 2),
        },
        "rerank_skipped": report.rerank_skipped or None,
        "stored": report.is_stored,
    }


def render(report: TuneReport, console: Console) -> None:
    """Prints what was chosen and what that gains."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    fusion, rerank = report.fusion, report.rerank
    table = Table(
        title=Text(_judged(report)), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for column in ("", report.measure, "gain", "95 % interval", "p", "better", "worse"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for name in ("bm25", "dense", "default"):
        table.add_row(name, f"{fusion.means[name]:.4f}")
    table.add_row("tuned, over default", f"{fusion.means['tuned']:.4f}", *_cells(fusion.gain))
    table.add_row(f"  over {fusion.better_leg}", "", *_cells(fusion.gain_over_leg))
    if rerank:
        table.add_row(
            f"reranked, over {'default' if fusion.kept else 'tuned'}", f"{rerank.mean:.4f}", *_cells(rerank.gain)
        )
    console.print(table)
    folds = len(fusion.per_fold)
    console.print(Text(f"tuned: each query under what was chosen without its fold, one of {folds}:"))
    for choice in dict.fromkeys(fusion.per_fold):
        console.print(Text(f"  {fusion.per_fold.count(choice)} of {folds} folds: {choice}"))
    console.print(Text(f"default: {fusion.default}"))
    console.print(
        Text(f"chosen on all queries: {fusion.chosen}{f'; the default, since {fusion.kept}' * bool(fusion.kept)}")
    )
    console.print(Text(_rerank_line(report)))
    console.print(Text("stored with the collection" if report.is_stored else "nothing stored"))


def _rerank_line(report: TuneReport) -> str:
    rerank = report.rerank
    if rerank is None:
        return f"rerank: none was measured, since {short_reason(report.rerank_skipped)}"
    verdict = "on" if rerank.is_on else "off: the gain is not clear"
    milliseconds = median(rerank.milliseconds)
    return f"rerank auto: {verdict}; weight {rerank.weight:g}, {milliseconds:.0f} ms a query ({rerank.reranker})"


def _cells(of: Difference) -> tuple[str, ...]:
    interval = f"{of.interval.low:+.3f} to {of.interval.high:+.3f}"
    return f"{of.mean:+.4f}", interval, f"{of.p_value:.3f}", str(of.wins), str(of.losses)


def _choice(choice: FusionChoice) -> dict[str, str | float | int]:
    return {"fusion": choice.method, "weight_dense": choice.weight_dense, "rrf_k": choice.rrf_k}


def describe_judged(collection: str, split: str, queries: int) -> str:
    """What a profile says of the questions that it was tuned on, at its beginning."""
    return f"{collection}, split {split}, {queries} queries"


def _judged(report: TuneReport) -> str:
    by = "" if report.measure == str(DEFAULT_MEASURE) else f", by {report.measure}"
    return describe_judged(report.collection, report.split, report.queries) + by
