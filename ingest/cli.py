"""`rag ingest`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ingest.pipeline import Progress, Report
    from rag.settings import Settings

_SECONDS_BETWEEN_LINES = 10


def ingest(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders.")],
    source: Annotated[str | None, typer.Option(help="Name of the source; the folder's name if not given.")] = None,
    chunker: Annotated[
        str | None, typer.Option(help="sentence-window or recursive; as configured if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Add and update documents: Markdown, text, HTML and PDF.

    Unchanged content is skipped. A file that cannot be read is named with the reason and stops nothing; the exit
    code is then 1.
    """
    from ingest.run import ingest_paths
    from rag.settings import load_settings

    settings = load_settings()
    if chunker is not None:
        settings = _with_chunker(settings, chunker)
    with _progress_shown() as (on_progress, notify):
        report, passed_over = asyncio.run(
            ingest_paths(settings, paths, source=source, on_progress=on_progress, notify=notify)
        )
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        _print_report(report, passed_over)
    if report.failed:
        raise typer.Exit(1)


def _with_chunker(settings: Settings, name: str) -> Settings:
    from pydantic import ValidationError

    from rag.errors import UsageError
    from rag.settings import Chunking

    try:
        chunking = Chunking.model_validate({**settings.chunking.model_dump(), "strategy": name})
    except ValidationError as error:
        raise UsageError(f"unknown chunker {name!r}; use sentence-window or recursive") from error
    return settings.model_copy(update={"chunking": chunking})


@contextmanager
def _progress_shown() -> Iterator[tuple[Callable[[Progress], None], Callable[[str], None]]]:
    """A bar with rate and time left on a terminal, JSON lines otherwise; both on standard error."""
    if not sys.stderr.isatty():
        yield _JsonProgress(), lambda message: _print_json(event="notice", message=message)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[passages]} passages, {task.fields[rate]}/s"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("Ingesting", total=None, passages=0, rate="–")

        def show(progress: Progress) -> None:
            elapsed = bar.tasks[0].elapsed or 0
            rate = f"{progress.passages / elapsed:.0f}" if elapsed and progress.passages else "–"
            bar.update(
                task,
                completed=progress.documents,
                total=progress.total,
                passages=progress.passages,
                rate=rate,
            )

        yield show, lambda message: console.print(message, highlight=False)


class _JsonProgress:
    """A line per percent, or every ten seconds, so that a log of a large run stays readable."""

    def __init__(self) -> None:
        self._last_percent = -1
        self._last_time = 0.0

    def __call__(self, progress: Progress) -> None:
        percent, now = 100 * progress.documents // max(1, progress.total), time.monotonic()
        if percent > self._last_percent or now - self._last_time > _SECONDS_BETWEEN_LINES:
            self._last_percent, self._last_time = percent, now
            _print_json(event="progress", **asdict(progress))


def _print_json(**fields: Any) -> None:  # noqa: ANN401 - whatever is JSON
    print(json.dumps(fields), file=sys.stderr, flush=True)


def _print_report(report: Report, passed_over: list[Path]) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{report.added} added, {report.updated} updated, {report.unchanged} unchanged, {len(report.failed)} failed; "
        f"{report.passages} passages in {report.seconds:.1f} s"
    )
    if passed_over:
        shown = ", ".join(path.name for path in passed_over[:5]) + (" ..." if len(passed_over) > 5 else "")
        console.print(
            f"{len(passed_over)} passed over (unsupported kinds, or links out of the folder): {shown}", markup=False
        )
    for failure in report.failed:
        console.print(f"failed: {failure.path}: {failure.reason}", markup=False)
