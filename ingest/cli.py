"""`rag ingest`."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from ingest.report import Progress, Report
    from ingest.run import Observer
    from ingest.sync import PruningRefused, SyncPlan
    from rag.settings import Settings

_SECONDS_BETWEEN_LINES = 10
T = TypeVar("T")


def ingest(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Files and folders; - reads JSONL from standard input.")
    ],
    source: Annotated[str | None, typer.Option(help="Name of the source; the folder's name if not given.")] = None,
    include: Annotated[
        list[str] | None, typer.Option(help="Only files that match, as in a .gitignore. May be repeated.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="No files that match, besides those in .ragignore. May be repeated.")
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Delete what the source no longer lists.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Prune even if much would go.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    chunker: Annotated[
        str | None,
        typer.Option(help="sentence-window, semantic, recursive or fixed; as configured if not given."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that parse.")] = None,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens per batch inside the model.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make the collection hold what files, folders or a JSONL stream hold.

    Unchanged content is skipped, and what an interrupted run wrote is not embedded again. A file that cannot be read
    is named with the reason and stops nothing; the exit code is then 1. Ctrl-C finishes the batch in flight.
    """
    from ingest.discover import discover
    from ingest.sync import Pruning, PruningRefused, ingest_files, ingest_stream, plan_files
    from rag.configuration import load_settings

    settings = _with_options(load_settings(), chunker=chunker, workers=workers, batch_tokens=batch_tokens)
    pruning = Pruning(wanted=prune, force=force)
    if paths == [Path("-")]:
        _refuse_for_stream(source, dry_run=dry_run, include=include, exclude=exclude)
        try:
            report = run_observed(
                lambda observer: ingest_stream(
                    settings, sys.stdin.buffer, source or "", pruning, command_line(), observer
                )
            )
        except PruningRefused as refusal:
            _print_refusal(refusal, as_json=as_json)
            raise typer.Exit(2) from refusal
        passed_over: list[Path] = []
    else:
        found = discover(paths, source, include=include or (), exclude=exclude or ())
        passed_over = list(found.passed_over)
        if dry_run:
            _print_plan(asyncio.run(plan_files(settings, found, pruning)), as_json=as_json)
            return
        report = run_observed(lambda observer: ingest_files(settings, found, pruning, command_line(), observer))
    print_report(report, passed_over, as_json=as_json)


def command_line() -> str:
    """What was called, for the log of runs."""
    return shlex.join(["rag", *sys.argv[1:]])


def _refuse_for_stream(
    source: str | None, *, dry_run: bool, include: list[str] | None, exclude: list[str] | None
) -> None:
    from ingest.items import is_name
    from rag.errors import UsageError

    if source is None or not is_name(source):
        raise UsageError("records from standard input need --source NAME, in UTF-8")
    if dry_run or include or exclude:
        raise UsageError("--dry-run, --include and --exclude are for files, not for standard input")


def _with_options(
    settings: Settings, *, chunker: str | None, workers: int | None, batch_tokens: int | None
) -> Settings:
    from pydantic import ValidationError

    from rag.errors import UsageError
    from rag.settings import Chunking

    changed: dict[str, object] = {}
    if chunker is not None:
        try:
            changed["chunking"] = Chunking.model_validate({**settings.chunking.model_dump(), "strategy": chunker})
        except ValidationError as error:
            raise UsageError(
                f"unknown chunker {chunker!r}; use sentence-window, semantic, recursive or fixed"
            ) from error
    if workers is not None:
        changed["ingest"] = settings.ingest.model_copy(update={"workers": workers})
    if batch_tokens is not None:
        changed["embedding"] = settings.embedding.model_copy(update={"batch_tokens": batch_tokens})
    return settings.model_copy(update=changed)


def run_observed(run: Callable[[Observer], Coroutine[Any, Any, T]]) -> T:
    """Run with progress shown; the first Ctrl-C asks the run to stop, the second one kills it."""
    from ingest.run import Observer

    async def observed() -> T:
        with _progress_shown() as (on_progress, notify):

            def on_start(stop: Callable[[], None]) -> None:
                def first() -> None:
                    notify("stopping after the batch in flight; once more ends at once")
                    stop()
                    asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

                with suppress(NotImplementedError):  # Windows
                    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, first)

            return await run(Observer(on_progress, notify, on_start))

    return asyncio.run(observed())


def print_report(report: Report, passed_over: list[Path], *, as_json: bool) -> None:
    """Print what was done, and end with the exit code that says how it went.

    Raises:
        SystemExit: 130, after an interruption.
        typer.Exit: 1, if something failed.
    """
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        _print_report(report, passed_over)
    if report.interrupted:
        raise SystemExit(130)  # not typer's, which the program takes for a Ctrl-C that nobody reported yet
    if report.failed:
        raise typer.Exit(1)


def _print_refusal(refusal: PruningRefused, *, as_json: bool) -> None:
    """What was done, and then what was not; as one object the report with an `error` as every command prints it."""
    if as_json:
        error = {"code": refusal.code, "message": str(refusal)}
        print(json.dumps({"error": error, **asdict(refusal.report)}))
    else:
        _print_report(refusal.report, [])
    typer.echo(f"rag: {refusal}", err=True)


def _print_plan(plan: SyncPlan, *, as_json: bool) -> None:
    if as_json:
        counts = {"added": len(plan.add), "updated": len(plan.update), "unchanged": plan.unchanged}
        print(json.dumps({"dry_run": True, **counts, "deleted": len(plan.delete), **asdict(plan)}))
    else:
        for verb, ids in (("add", plan.add), ("update", plan.update), ("delete", plan.delete)):
            for item_id in ids:
                print(f"{verb:>6}  {item_id}")
        print(
            f"would add {len(plan.add)}, update {len(plan.update)}, delete {len(plan.delete)}; "
            f"{plan.unchanged} unchanged, {len(plan.failed)} cannot be read"
        )
        for failure in plan.failed:
            print(f"failed: {failure.path}: {failure.reason}")
    if plan.failed:
        raise typer.Exit(1)


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
        TextColumn("{task.fields[passages]} passages, {task.fields[rate]}/s{task.fields[failed]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("Ingesting", total=None, passages=0, rate="–", failed="")

        def show(progress: Progress) -> None:
            elapsed = bar.tasks[0].elapsed or 0
            rate = f"{progress.passages / elapsed:.0f}" if elapsed and progress.passages else "–"
            bar.update(
                task,
                completed=progress.documents,
                total=progress.total,
                passages=progress.passages,
                rate=rate,
                failed=f", {progress.failed} failed" if progress.failed else "",
            )

        yield show, lambda message: console.print(message, highlight=False)


class _JsonProgress:
    """A line per percent, or every ten seconds, so that a log of a large run stays readable."""

    def __init__(self) -> None:
        self._last_percent = -1
        self._last_time = 0.0

    def __call__(self, progress: Progress) -> None:
        percent, now = 100 * progress.documents // max(1, progress.total or 1), time.monotonic()
        if percent > self._last_percent or now - self._last_time > _SECONDS_BETWEEN_LINES:
            self._last_percent, self._last_time = percent, now
            _print_json(event="progress", **asdict(progress))


def _print_json(**fields: Any) -> None:  # noqa: ANN401 - whatever is JSON
    print(json.dumps(fields), file=sys.stderr, flush=True)


def _print_report(report: Report, passed_over: list[Path]) -> None:
    from rich.console import Console

    from ingest.items import printable

    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{report.added} added, {report.updated} updated, {report.unchanged} unchanged, {report.deleted} deleted, "
        f"{len(report.failed)} failed; {report.passages} passages written, {report.embedded} embedded "
        f"in {report.seconds:.1f} s"
    )
    if report.interrupted:
        console.print("interrupted; run the same command again to continue")
    if passed_over:
        shown = ", ".join(printable(path.name) for path in passed_over[:5]) + (" ..." if len(passed_over) > 5 else "")
        console.print(
            f"{len(passed_over)} passed over (unsupported kinds, links out of the folder, no regular files): {shown}",
            markup=False,
        )
    for warning in report.warnings:
        console.print(f"warning: {warning.path}: {warning.reason}", markup=False)
    for failure in report.failed:
        console.print(f"failed: {failure.path}: {failure.reason}", markup=False)
