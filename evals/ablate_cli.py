"""`rag eval ablate`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evals.progress import indexing_shown, progress_shown, tell, tell_indexed
from evals.run_cli import load_judged

if TYPE_CHECKING:
    from evals.ablation import Cell
    from evals.datasets import Dataset
    from evals.index import Judged
    from rag.settings import Settings


def ablate(
    folders: Annotated[list[Path], typer.Argument(help="BEIR folders.")],
    out: Annotated[Path, typer.Option(help="Folder for ablation.md, its pictures and what is kept of the work.")],
    chunker: Annotated[
        list[str] | None,
        typer.Option(help="A further way of chunking, as recursive:max_tokens=100; may be repeated."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="A way of compression, as for rag eval compression; the configured one if not given."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score every stage on several judged collections, and write a page with tables and pictures.

    Every fusion, tuning, reranking and, where evidence is marked, compression is scored; so is every further chunker.
    What is done is kept: a run that was interrupted goes on where it stopped.
    """
    from evals.arguments import refuse_unwritable_folder
    from evals.chunking import parse_chunker
    from evals.tune import DEFAULT_FOLDS, fold_of
    from rag.configuration import load_settings

    settings = load_settings()
    refuse_unwritable_folder(out, "--out")
    datasets = [load_judged(folder, None, None) for folder in folders]
    for dataset in datasets:
        fold_of([query.id for query in dataset.queries], DEFAULT_FOLDS)  # refuses too few before the work
    chunkings = [settings.chunking, *(parse_chunker(text, settings.chunking) for text in chunker or ())]
    kept = [
        asyncio.run(
            _scored(
                settings.model_copy(update={"chunking": chunking}),
                dataset,
                out / "kept",
                # The chunker has little to do with it, so one is enough.
                methods=(method or []) if number == 0 else None,
            )
        )
        for number, chunking in enumerate(chunkings)
        for dataset in datasets
    ]
    _write(out, kept)
    if as_json:
        print(json.dumps({"cells": kept}))
    else:
        tell(f"wrote {out / 'ablation.md'}")


async def _scored(
    settings: Settings, dataset: Dataset, folder: Path, *, methods: Sequence[str] | None
) -> dict[str, Any]:
    """One collection with one chunker, as it is kept: from `folder`, or computed now and kept there.

    Args:
        methods: Of compression, none for the configured one; None leaves compression out.
    """
    import evals
    from evals.ablation import ablate_cell
    from evals.ablation_report import cell_to_json
    from evals.code_version import code_hash
    from evals.index import open_judged
    from evals.passes import cache_folder

    with indexing_shown() as on_progress:
        async with open_judged(settings, dataset, corpus=None, on_progress=on_progress, notify=tell) as judged:
            tell_indexed(judged.report)
            reranking = judged.pipeline.reranking
            identity = reranking.reranker.identity if reranking.reranker else None
            # The name of the scratch collection is a hash of its documents. Queries are told by what they hold,
            # too: evidence stands in their metadata.
            judgements = (dataset.name, dataset.split, dataset.queries, dataset.qrels)
            made_by = (code_hash(evals), judged.settings, judgements, identity, methods)
            file = cache_folder(folder, "cell", *made_by).with_suffix(".json")
            if file.is_file():
                return dict(json.loads(file.read_text(encoding="utf-8")))
            tell(f"{dataset.name}, {len(dataset.queries)} queries")
            with progress_shown("queries") as on_query:
                cell = await ablate_cell(judged, settings, dataset, on_query=on_query)
            compressed = None if methods is None else await _compressed(judged, settings, dataset, methods)
    record = {"cell": cell_to_json(cell), "compression": compressed}
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(record), encoding="utf-8")
    unfinished.replace(file)
    return record


async def _compressed(
    judged: Judged, settings: Settings, dataset: Dataset, methods: Sequence[str]
) -> dict[str, Any] | None:
    """What `rag eval compression` prints; None where the dataset marks no evidence."""
    from evals.compression import DEFAULT_RATES, evaluate_compression
    from evals.compression_cli import open_compressors
    from evals.compression_report import as_json, report_of
    from evals.gold import ingested_texts, read_gold

    texts = ingested_texts(settings, dataset, None)
    if not any(each.spans for each in read_gold(dataset, texts).values()):
        return None
    async with open_compressors(settings, judged.pipeline.embedder, methods) as compressors:
        with progress_shown("retrieving") as on_retrieved, progress_shown("contexts") as on_query:
            evaluation = await evaluate_compression(
                judged.pipeline,
                dataset,
                compressors,
                tenant=settings.data.tenant,
                texts=texts,
                rates=DEFAULT_RATES,
                on_retrieved=on_retrieved,
                on_query=on_query,
            )
    return as_json(report_of(evaluation))


def _write(out: Path, kept: Sequence[dict[str, Any]]) -> None:
    from evals.ablation_plots import plot_quality_against_latency, plot_quality_against_tokens
    from evals.ablation_report import cell_from_json, compression_lines, compression_section, markdown

    out.mkdir(parents=True, exist_ok=True)
    cells: list[Cell] = [cell_from_json(record["cell"]) for record in kept]
    compressed = [record["compression"] for record in kept if record["compression"]]
    first = [cell for cell in cells if cell.chunker == cells[0].chunker]
    plot_quality_against_latency(first, out / "latency.png")
    plots = [("Quality against the time of one query", "latency.png")]
    if compressed:
        plot_quality_against_tokens(compression_lines(compressed), out / "tokens.png")
        plots.append(("Evidence against tokens of context", "tokens.png"))
    page = markdown(cells, compression_section(compressed) if compressed else "", plots)
    (out / "ablation.md").write_text(page, encoding="utf-8")
