"""`rag eval`."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from evals.datasets import Dataset
    from evals.run import Evaluation
    from rag.settings import Settings

app = typer.Typer(help="Measure retrieval on judged questions.", no_args_is_help=True)


@app.callback()
def evaluate() -> None:
    """Measure retrieval on judged questions."""


@app.command()
def run(
    folder: Annotated[Path, typer.Argument(help="A BEIR folder: corpus.jsonl, queries.jsonl, qrels/*.tsv.")],
    split: Annotated[str | None, typer.Option(help="Which qrels; the only ones, or test, if not given.")] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(help="Documents to ingest instead of corpus.jsonl; their ids are folder/path."),
    ] = None,
    retrieve_k: Annotated[int | None, typer.Option(min=1, help="Passages per leg; as configured if not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for TREC run files and report.json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score both legs and both fusions on a judged dataset, from one pass per query.

    The documents are indexed into a scratch collection, once per content and configuration.
    """
    from rich.console import Console

    from evals.datasets import load_dataset
    from evals.report import as_json as report_to_json
    from evals.report import render
    from evals.run import report_of
    from rag.settings import load_settings

    settings = load_settings()
    dataset = load_dataset(folder, split=split)
    _warn(
        f"{dataset.unknown_documents} judgements name unknown documents",
        dataset.unknown_documents and not corpus,
    )
    _warn(f"{dataset.unknown_queries} judgements name unknown queries", dataset.unknown_queries)
    evaluation = asyncio.run(_evaluate(settings, dataset, corpus=corpus, retrieve_k=retrieve_k))
    _warn(f"{len(evaluation.degraded)} queries ran degraded", len(evaluation.degraded))
    report = report_of(evaluation, dataset, default_fusion=settings.retrieval.fusion)
    if out is not None:
        _write(out, evaluation, json.dumps(report_to_json(report), indent=2))
    if as_json:
        print(json.dumps(report_to_json(report)))
    else:
        render(report, Console(highlight=False))


@app.command()
def chunking(
    folder: Annotated[Path, typer.Argument(help="docs/ and questions.jsonl with gold character spans.")],
    chunker: Annotated[
        list[str] | None,
        typer.Option(help="Strategy and sizes, as recursive:max_tokens=200:overlap_tokens=0; may be repeated."),
    ] = None,
    budget: Annotated[list[int] | None, typer.Option(min=1, help="Tokens retrieved; may be repeated.")] = None,
    headings: Annotated[
        bool, typer.Option("--headings/--no-headings", help="Embed title and headings with each passage.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score ways of chunking on questions whose answers are marked in the documents.

    Every chunker is compared with the configured one, for the same number of retrieved tokens.
    """
    from rich.console import Console

    from evals.chunking import DEFAULT_BUDGETS, DEFAULT_CHUNKERS, evaluate_chunkers, parse_chunker
    from evals.chunking_report import as_json as report_to_json
    from evals.chunking_report import compare_chunkers, render
    from evals.spans import load_span_set
    from rag.bootstrap import build_embedder
    from rag.settings import load_settings

    settings = load_settings()
    chunkings = [settings.chunking, *(parse_chunker(text, settings.chunking) for text in chunker or DEFAULT_CHUNKERS)]
    span_set = load_span_set(folder)
    _warn(f"read without title and headings: {', '.join(span_set.without_structure)}", span_set.without_structure)
    results = asyncio.run(
        evaluate_chunkers(
            span_set,
            settings,
            build_embedder(settings, _tell),
            chunkings,
            budgets=sorted(set(budget or DEFAULT_BUDGETS)),
            with_headings=headings,
            notify=_tell,
        )
    )
    rows = compare_chunkers(results)
    if as_json:
        print(json.dumps(report_to_json(span_set, rows)))
    else:
        render(span_set, rows, Console(highlight=False))


async def _evaluate(settings: Settings, dataset: Dataset, *, corpus: Path | None, retrieve_k: int | None) -> Evaluation:
    from evals.index import open_indexed
    from evals.run import FusionWeights, evaluate_dataset
    from rag.pipeline import SearchRequest

    template = SearchRequest(query="", tenant=settings.data.tenant, k=1, retrieve_k=retrieve_k)
    weights = FusionWeights(dense=settings.retrieval.weight_dense, rrf_k=settings.retrieval.rrf_k)
    async with open_indexed(settings, dataset, corpus=corpus, notify=_tell) as (pipeline, report):
        if report is not None:
            for failure in report.failed:
                _tell(f"warning: not indexed: {failure.path}: {failure.reason}")
            share = report.encoder_seconds / report.seconds if report.seconds else 0
            _tell(f"indexed {report.passages} passages in {report.seconds:.1f} s, {share:.0%} of it in the encoder")
        await pipeline.search(replace(template, query="warm up"))
        return await evaluate_dataset(
            lambda query: pipeline.search(replace(template, query=query)), dataset, weights=weights
        )


def _write(out: Path, evaluation: Evaluation, report: str) -> None:
    from evals.trec import write_run

    out.mkdir(parents=True, exist_ok=True)
    for stage, found in evaluation.runs.items():
        write_run(out / f"{stage}.trec", found, tag=stage)
    (out / "report.json").write_text(report, encoding="utf-8")


def _warn(message: str, condition: object) -> None:
    if condition:
        _tell(f"warning: {message}")


def _tell(message: str) -> None:
    print(message, file=sys.stderr)
