"""`rag eval run`."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evals.progress import indexing_shown, progress_shown, short_reason, tell, tell_indexed, warn

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from evals.datasets import Dataset
    from evals.index import Judged
    from evals.report import EvalReport
    from evals.run import Evaluation
    from ingest.report import Progress
    from rag.settings import Settings

Folder = Annotated[Path, typer.Argument(help="A BEIR folder: corpus.jsonl, queries.jsonl, qrels/*.tsv.")]
Split = Annotated[str | None, typer.Option(help="Which qrels; the only ones, or test, if not given.")]
Corpus = Annotated[
    Path | None, typer.Option(help="Documents to ingest instead of corpus.jsonl; their ids are folder/path.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def run(
    folder: Folder,
    split: Split = None,
    corpus: Corpus = None,
    live: Annotated[
        bool, typer.Option("--live", help="Ask the configured collection, not one made of the dataset's documents.")
    ] = False,
    stages: Annotated[
        str | None,
        typer.Option(help="Which, with commas: bm25,dense,rrf,convex,dbsf,fused,reranked; all if not given."),
    ] = None,
    retrieve_k: Annotated[int | None, typer.Option(min=1, help="Passages per leg; as configured if not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for TREC run files, report.json and judged.json.")] = None,
    as_json: Json = False,
) -> None:
    """Score both legs, every fusion and what the collection is tuned to, from one pass per query.

    The documents are indexed into a scratch collection, once per content and configuration, unless --live is given.
    """
    from rich.console import Console

    from evals.arguments import refuse_unwritable_folder, split_names
    from evals.report import as_json as report_to_json
    from evals.report import render
    from evals.run import STAGES
    from rag.configuration import load_settings

    wanted = split_names(stages, "--stages", STAGES)
    refuse_unwritable_folder(out, "--out")
    settings = load_settings()
    dataset = load_judged(folder, split, corpus)
    evaluation, report = asyncio.run(
        _evaluate(settings, dataset, corpus=corpus, live=live, stages=wanted, retrieve_k=retrieve_k)
    )
    if out is not None:
        _write(out, evaluation, dataset, json.dumps(report_to_json(report), indent=2))
    if as_json:
        print(json.dumps(report_to_json(report)))
    else:
        render(report, Console(highlight=False))


def load_judged(folder: Path, split: str | None, corpus: Path | None) -> Dataset:
    """The dataset, with warnings about what it names and does not hold."""
    from evals.datasets import load_dataset

    dataset = load_dataset(folder, split=split)
    warn(f"{dataset.unknown_documents} judgements name unknown documents", dataset.unknown_documents and not corpus)
    warn(f"{dataset.unknown_queries} judgements name unknown queries", dataset.unknown_queries)
    return dataset


async def _evaluate(
    settings: Settings,
    dataset: Dataset,
    *,
    corpus: Path | None,
    live: bool,
    stages: list[str] | None,
    retrieve_k: int | None,
) -> tuple[Evaluation, EvalReport]:
    from evals.fusion_grid import FusionChoice
    from evals.index import untuned_fusion, untuned_weights
    from evals.run import evaluate_pipeline, report_of
    from evals.tune_report import describe_judged
    from rag.bootstrap import read_profile

    untuned = untuned_fusion(settings)
    with indexing_shown() as on_progress:
        async with opened(settings, dataset, corpus=corpus, live=live, on_progress=on_progress) as judged:
            tell_indexed(judged.report)
            is_foreign = bool(corpus) or live
            warn(f"{len(judged.missing)} judged documents are not in the collection", judged.missing and is_foreign)
            with progress_shown("queries") as on_query:
                evaluation = await evaluate_pipeline(
                    judged.pipeline,
                    dataset,
                    tenant=settings.data.tenant,
                    weights=untuned_weights(settings),
                    stages=stages,
                    retrieve_k=retrieve_k,
                    on_query=on_query,
                )
            defaults, profile = judged.pipeline.defaults, await read_profile(judged.settings)
    used = FusionChoice(defaults.fusion, defaults.weights_dense[defaults.fusion], defaults.rrf_k)
    if "fused" in evaluation.runs:
        tell(f"fused: {used}{'' if used == untuned else ', as tuned; the other fusions are untuned'}")
    own = describe_judged(dataset.name, dataset.split, len(dataset.queries))
    if profile and profile.judged.startswith(own):
        tuned = {"fused": used != untuned, "reranked": profile.is_rerank_on}
        named = [stage for stage, is_tuned in tuned.items() if is_tuned and stage in evaluation.runs]
        warn(
            f"{' and '.join(named)}: tuned on these very questions, which flatters; rag eval tune tells the gain on "
            "questions that had no part in it",
            named,
        )
    tell_notes(evaluation)
    return evaluation, report_of(evaluation, dataset, default_fusion=defaults.fusion)


def opened(
    settings: Settings,
    dataset: Dataset,
    *,
    corpus: Path | None,
    live: bool,
    on_progress: Callable[[Progress], None],
) -> AbstractAsyncContextManager[Judged]:
    """The configured collection, or one of the dataset's own documents."""
    from evals.index import open_judged, open_served

    if live:
        return open_served(settings, dataset, notify=tell)
    return open_judged(settings, dataset, corpus=corpus, on_progress=on_progress, notify=tell)


def tell_notes(evaluation: Evaluation) -> None:
    """Say what could not be done as configured, and what was not done at all."""
    for note, count in Counter(note for notes in evaluation.degraded.values() for note in notes).items():
        tell(f"warning: {count} queries ran degraded: {note}")
    for stage, reason in evaluation.skipped.items():
        tell(f"{stage}: skipped, since {short_reason(reason)}")


def _write(out: Path, evaluation: Evaluation, dataset: Dataset, report: str) -> None:
    from evals.labels import labels_of, write_labels
    from evals.trec import write_run

    out.mkdir(parents=True, exist_ok=True)
    for stage, found in evaluation.runs.items():
        write_run(out / f"{stage}.trec", found, tag=stage)
    write_labels(out, labels_of(dataset))
    (out / "report.json").write_text(report, encoding="utf-8")
