"""The log of runs: what was asked, what came of it, what failed and why."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from ingest.items import printable
from ingest.report import Failure, Report

State = Literal["running", "done", "failed", "interrupted"]
_KEPT = 1000
"""Runs; older ones are forgotten."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run.

    Attributes:
        started: ISO 8601, UTC; so is `ended`, which is None while it runs.
        state: `interrupted` also of a run whose process died.
        report: Counts, as `rag ingest --json` prints them without the lists.
        error: What ended it early.
    """

    id: int
    started: str
    ended: str | None
    command: str
    state: State
    report: Mapping[str, Any]
    error: str | None


class RunLog:
    """The runs of one collection, in its manifest's database. Texts are kept as `printable` writes them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def begin(self, command: str) -> int:
        """Note that a run begins; whatever was running before died, since only one runs at a time."""
        self._connection.execute("UPDATE runs SET state = 'interrupted' WHERE state = 'running'")
        cursor = self._connection.execute(
            "INSERT INTO runs (started, process, command, state, report) VALUES (?, ?, ?, 'running', '{}')",
            (_now(), os.getpid(), printable(command)),
        )
        number = cursor.lastrowid or 0
        self._connection.execute("DELETE FROM failures WHERE run <= ?", (number - _KEPT,))
        self._connection.execute("DELETE FROM runs WHERE id <= ?", (number - _KEPT,))
        return number

    def end(self, number: int, state: State, report: Report, error: str | None = None) -> None:
        """Note how it ended."""
        counts = asdict(report)
        failed, warnings = counts.pop("failed"), counts.pop("warnings")
        counts |= {"failed": len(failed), "warnings": len(warnings)}
        self._connection.execute(
            "UPDATE runs SET ended = ?, state = ?, report = ?, error = ? WHERE id = ?",
            (_now(), state, json.dumps(counts), None if error is None else printable(error), number),
        )
        self._connection.executemany(
            "INSERT OR REPLACE INTO failures VALUES (?, ?, ?)",
            ((number, printable(failure.path), printable(failure.reason)) for failure in report.failed),
        )

    def all(self, limit: int) -> Sequence[Run]:
        """The last runs, the latest first."""
        return self._select("ORDER BY id DESC LIMIT ?", limit)

    def find(self, number: int) -> Run | None:
        """One run."""
        found = self._select("WHERE id = ?", number)
        return found[0] if found else None

    def failures(self, number: int) -> Sequence[Failure]:
        """What failed in a run, in order of location."""
        rows = self._connection.execute(
            "SELECT location, reason FROM failures WHERE run = ? ORDER BY location", (number,)
        )
        return [Failure(location, reason) for location, reason in rows]

    def _select(self, condition: str, value: int) -> list[Run]:
        rows = self._connection.execute(
            f"SELECT id, started, ended, command, state, process, report, error FROM runs {condition}",  # noqa: S608 - own words
            (value,),
        )
        return [
            Run(id_, started, ended, command, _state(state, process), json.loads(report), error)
            for id_, started, ended, command, state, process, report, error in rows
        ]


def _state(state: State, process: int) -> State:
    if state != "running" or _is_running(process):
        return state
    return "interrupted"


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
