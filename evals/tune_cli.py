"""`rag eval tune`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evals.progress import indexing_shown, progress_shown, tell_indexed, warn
from evals.run_cli import Corpus, Folder, Json, Split, load_judged, opened

if TYPE_CHECKING:
    from evals.datasets import Dataset
    from evals.index import Judged
    from evals.measures import Measure
    from evals.tune_report import TuneReport
    from rag.settings import Settings


def tune(
    folder: Folder,
    split: Split = None,
    corpus: Corpus = None,
    live: Annotated[
        bool, typer.Option("--live", help="Tune the configured collection, not one made of the dataset's documents.")
    ] = False,
    measure: Annotated[str, typer.Option(help="What is maximised, as ndcg@10 or recall@20.")] = "ndcg@10",
    folds: Annotated[int, typer.Option(min=2, help="Each is left out of a choice once, and measures it.")] = 5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Store nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Choose fusion and reranking for a collection from judged questions, and store the choice with it.

    Gains are measured on questions that had no part in the choice. The default is kept unless another choice is
    clearly better. Reranking is switched on only where it gains.
    """
    from rich.console import Console

    from evals.measures import parse_measure
    from evals.tune import fold_of
    from evals.tune_report import as_json as report_to_json
    from evals.tune_report import render
    from rag.configuration import load_settings

    maximised = parse_measure(measure)
    settings = load_settings()
    dataset = load_judged(folder, split, corpus)
    fold_of([query.id for query in dataset.queries], folds)  # refuses too many before the work
    live = live or (corpus is None and not dataset.documents)
    report = asyncio.run(
        _tune(settings, dataset, corpus=corpus, live=live, measure=maximised, folds=folds, dry_run=dry_run)
    )
    _warn_of_settings(settings)
    if as_json:
        print(json.dumps(report_to_json(report)))
    else:
        render(report, Console(highlight=False))


async def _tune(
    settings: Settings,
    dataset: Dataset,
    *,
    corpus: Path | None,
    live: bool,
    measure: Measure,
    folds: int,
    dry_run: bool,
) -> TuneReport:
    from dataclasses import replace

    from evals.tune_report import profile_of
    from rag.bootstrap import write_profile

    with indexing_shown() as on_progress:
        async with opened(settings, dataset, corpus=corpus, live=live, on_progress=on_progress) as judged:
            tell_indexed(judged.report)
            warn(f"{len(judged.missing)} judged documents are not in the collection", judged.missing)
            report = await _measured(judged, settings, dataset, measure=measure, folds=folds)
            embedding = judged.pipeline.embedder.identity
    if dry_run:
        return report
    await write_profile(judged.settings, profile_of(report, embedding=embedding))
    return replace(report, is_stored=True)


async def _measured(
    judged: Judged, settings: Settings, dataset: Dataset, *, measure: Measure, folds: int
) -> TuneReport:
    from evals.collection_passes import passes_of, tune_reranker
    from evals.index import untuned_fusion
    from evals.tune import tune_fusion
    from evals.tune_report import TuneReport

    with progress_shown("queries") as on_query:
        passes = await passes_of(judged, settings, [query.text for query in dataset.queries], on_query=on_query)
    fusion = tune_fusion(passes, dataset, untuned_fusion(settings), measure=measure, folds=folds)
    reranking = judged.pipeline.reranking
    rerank = None
    if reranking.reranker is not None:
        with progress_shown("reranking") as on_query:
            rerank = await tune_reranker(
                reranking.reranker, judged, settings, dataset, passes, fusion, measure=measure, on_query=on_query
            )
    return TuneReport(
        collection=dataset.name,
        split=dataset.split,
        queries=len(dataset.queries),
        measure=str(measure),
        fusion=fusion,
        rerank=rerank,
        rerank_skipped="" if rerank else reranking.policy.reason,
        missing_documents=len(judged.missing),
        is_stored=False,
    )


def _warn_of_settings(settings: Settings) -> None:
    """Say which settings count before what was tuned."""
    retrieval, rerank = settings.retrieval, settings.rerank
    fixed = {
        "retrieval.fusion": None if retrieval.fusion == "auto" else retrieval.fusion,
        "retrieval.weight_dense": retrieval.weight_dense,
        "retrieval.rrf_k": retrieval.rrf_k,
        "rerank.mode": None if rerank.mode == "auto" else rerank.mode,
        "rerank.weight": rerank.weight,
    }
    named = [f"{name} = {value}" for name, value in fixed.items() if value is not None]
    warn(f"these settings count before what was tuned: {', '.join(named)}", named)
