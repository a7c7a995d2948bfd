"""`rag eval compression`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evals.progress import indexing_shown, progress_shown, tell, tell_indexed, warn
from evals.run_cli import Corpus, Json, Split, load_judged

if TYPE_CHECKING:
    from evals.compression import CompressionEvaluation
    from evals.datasets import Dataset
    from rag.context.compression import Compressor
    from rag.retrieval.embedding import Embedder
    from rag.settings import Settings


def compression(
    folder: Annotated[
        Path, typer.Argument(help="A BEIR folder with gold sentences, or docs/ and questions.jsonl with gold spans.")
    ],
    split: Split = None,
    corpus: Corpus = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="As compression.method, with a model after a colon where it needs one; may be repeated. "
            "The configured one if not given."
        ),
    ] = None,
    rate: Annotated[list[float] | None, typer.Option(help="Share of the tokens to keep; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """Measure what compression keeps of the evidence that was retrieved, beside sending fewer passages.

    Every method is compared with the best passages that have as many tokens as it shows.
    """
    from rich.console import Console

    from evals.compression import DEFAULT_RATES
    from evals.compression_report import as_json as report_to_json
    from evals.compression_report import render, report_of
    from rag.configuration import load_settings

    settings = load_settings()
    dataset = _load(folder, split, corpus)
    rates = sorted(set(rate or DEFAULT_RATES))
    report = report_of(asyncio.run(_evaluate(settings, dataset, corpus, method or [], rates)))
    warn(f"{report.unlocated} pieces of evidence are not in the documents they are said to be of", report.unlocated)
    if as_json:
        print(json.dumps(report_to_json(report)))
    else:
        render(report, Console(highlight=False))


def _load(folder: Path, split: str | None, corpus: Path | None) -> Dataset:
    if not (folder / "questions.jsonl").is_file():
        return load_judged(folder, split, corpus)
    from evals.compression import dataset_of_spans
    from evals.spans import load_span_set

    return dataset_of_spans(load_span_set(folder))


async def _evaluate(
    settings: Settings, dataset: Dataset, corpus: Path | None, methods: Sequence[str], rates: Sequence[float]
) -> CompressionEvaluation:
    from evals.compression import evaluate_compression, gold_to_keep
    from evals.gold import ingested_texts
    from evals.index import open_indexed

    texts = ingested_texts(settings, dataset, corpus)
    gold_to_keep(dataset, texts, rates)  # refuses before the work
    with indexing_shown() as on_progress:
        async with (
            open_indexed(settings, dataset, corpus=corpus, on_progress=on_progress, notify=tell) as (pipeline, indexed),
            open_compressors(settings, pipeline.embedder, methods) as compressors,
        ):
            tell_indexed(indexed)
            with progress_shown("retrieving") as on_retrieved, progress_shown("contexts") as on_query:
                return await evaluate_compression(
                    pipeline,
                    dataset,
                    compressors,
                    tenant=settings.data.tenant,
                    texts=texts,
                    rates=rates,
                    on_retrieved=on_retrieved,
                    on_query=on_query,
                )


@asynccontextmanager
async def open_compressors(
    settings: Settings, embedder: Embedder, methods: Sequence[str]
) -> AsyncIterator[Mapping[str, Compressor]]:
    """The compressors by name, closed at the end."""
    from rag.errors import UsageError
    from rag.models import build_compressor
    from rag.settings import Compression, Settings

    configured = settings.compression
    chosen = [method.partition(":") for method in methods] or [(configured.method, "", configured.model or "")]
    async with AsyncExitStack() as held:
        compressors: dict[str, Compressor] = {}
        for name, _, model in chosen:
            try:
                section = Compression.model_validate(
                    {**configured.model_dump(), "method": name, "model": model or configured.model}
                )
            except ValueError as error:
                raise UsageError(f"there is no compression method {name}; see compression.method") from error
            built = build_compressor(Settings.model_copy(settings, update={"compression": section}), embedder, tell)
            if built is None:
                raise UsageError(f"the compression method {name} compresses nothing; name another with --method")
            held.push_async_callback(built.close)
            compressors[f"{name}:{model}" if model else name] = built
        yield compressors
