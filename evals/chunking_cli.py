"""`rag eval chunking`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from evals.progress import tell, warn


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
    from rag.configuration import load_settings
    from rag.models import build_embedder

    settings = load_settings()
    chunkings = [settings.chunking, *(parse_chunker(text, settings.chunking) for text in chunker or DEFAULT_CHUNKERS)]
    span_set = load_span_set(folder)
    warn(f"read without title and headings: {', '.join(span_set.without_structure)}", span_set.without_structure)
    results = asyncio.run(
        evaluate_chunkers(
            span_set,
            settings,
            build_embedder(settings, tell),
            chunkings,
            budgets=sorted(set(budget or DEFAULT_BUDGETS)),
            with_headings=headings,
            notify=tell,
        )
    )
    rows = compare_chunkers(results)
    if as_json:
        print(json.dumps(report_to_json(span_set, rows)))
    else:
        render(span_set, rows, Console(highlight=False))
