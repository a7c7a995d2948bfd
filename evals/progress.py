"""What the commands of `rag eval` say on standard error while they run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest.report import Progress, Report

_SECONDS_BETWEEN_LINES = 10


def tell(message: str) -> None:
    """Print a line on standard error."""
    print(message, file=sys.stderr)


def warn(message: str, condition: object) -> None:
    """Print a warning if there is reason to."""
    if condition:
        tell(f"warning: {message}")


def short_reason(reason: str) -> str:
    """A reason without its details and remedies, which follow a colon."""
    return reason.partition(":")[0]


@contextmanager
def progress_shown(what: str) -> Iterator[Callable[[int, int], None]]:
    """Shows how many of how many are done: a bar on a terminal, else a line every ten seconds."""
    if not sys.stderr.isatty():
        yield _Lines(what)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def indexing_shown() -> Iterator[Callable[[Progress], None]]:
    """As `progress_shown`, of documents that are indexed."""
    with progress_shown("indexing") as show:
        yield lambda progress: show(progress.documents, progress.total or progress.documents)


def tell_indexed(report: Report | None) -> None:
    """Say what indexing took and what it could not read, if it was done now."""
    if report is None:
        return
    for failure in report.failed:
        tell(f"warning: not indexed: {failure.path}: {failure.reason}")
    share = report.encoder_seconds / report.seconds if report.seconds else 0
    tell(f"indexed {report.passages} passages in {report.seconds:.1f} s, {share:.0%} of it in the encoder")


class _Lines:
    def __init__(self, what: str) -> None:
        self._what = what
        self._told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._told > _SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            tell(f"{self._what}: {done} of {total}")
