import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingest.manifest import Manifest
from ingest.report import Failure, Report
from ingest.runs import RunLog


@pytest.fixture
def manifest(tmp_path: Path) -> Iterator[Manifest]:
    opened = Manifest(tmp_path / "manifest.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def log(manifest: Manifest) -> RunLog:
    return RunLog(manifest.connection)


def test_a_run_that_ended_says_what_it_did(log: RunLog):
    number = log.begin("rag ingest docs")
    report = Report(added=2, failed=[Failure("/docs/b.md", "empty"), Failure("/docs/a.md", "binary")], passages=7)
    report.warnings.append(Failure("/docs/c.pdf", "page 3 has no text"))
    log.end(number, "done", report)

    (run,) = log.all(10)
    assert (run.id, run.command, run.state, run.error) == (number, "rag ingest docs", "done", None)
    assert (run.report["added"], run.report["passages"]) == (2, 7)
    assert (run.report["failed"], run.report["warnings"]) == (2, 1)
    started, ended = datetime.fromisoformat(run.started), datetime.fromisoformat(run.ended)
    assert timedelta() <= ended - started < timedelta(minutes=1)
    assert abs(datetime.now(UTC) - ended) < timedelta(minutes=1)
    assert log.failures(number) == [Failure("/docs/a.md", "binary"), Failure("/docs/b.md", "empty")]
    assert log.find(number) == run


def test_a_run_that_failed_says_why(log: RunLog):
    number = log.begin("rag ingest docs")
    log.end(number, "failed", Report(), "the disk is full")
    run = log.find(number)
    assert (run.state, run.error) == ("failed", "the disk is full")


def test_a_run_that_nobody_began_is_not_found(log: RunLog):
    assert log.find(7) is None
    assert log.failures(7) == []
    assert log.all(10) == []


def test_a_run_is_running_while_its_process_lives(log: RunLog):
    run = log.find(log.begin("rag ingest docs"))
    assert (run.state, run.ended, run.report) == ("running", None, {})


def test_a_run_whose_process_died_was_interrupted(log: RunLog, manifest: Manifest):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    number = log.begin("rag ingest docs")
    manifest.connection.execute("UPDATE runs SET process = ? WHERE id = ?", (ended.pid, number))
    assert log.find(number).state == "interrupted"


def test_a_run_that_begins_ends_what_ran_before_since_one_runs_at_a_time(log: RunLog):
    first = log.begin("rag ingest docs")
    second = log.begin("rag ingest docs")
    assert [(run.id, run.state) for run in log.all(10)] == [(second, "running"), (first, "interrupted")]


def test_the_last_runs_come_first_and_old_ones_are_forgotten(log: RunLog, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ingest.runs._KEPT", 3)
    for number in range(1, 7):
        assert log.begin(f"run {number}") == number
        log.end(number, "done", Report(failed=[Failure("a", "b")]))
    assert [run.command for run in log.all(2)] == ["run 6", "run 5"]
    assert [run.id for run in log.all(10)] == [6, 5, 4]
    assert log.failures(3) == []
    assert log.failures(4) == [Failure("a", "b")]


def test_the_process_of_a_run_is_this_one(log: RunLog, manifest: Manifest):
    log.begin("rag ingest docs")
    assert manifest.connection.execute("SELECT process FROM runs").fetchone() == (os.getpid(),)


def test_paths_that_are_no_utf_8_are_kept_so_that_they_can_be_printed(log: RunLog):
    name = os.fsdecode(b"caf\xe9")
    number = log.begin(f"rag ingest {name}")
    log.end(number, "failed", Report(failed=[Failure(f"/docs/{name}", f"no {name}")]), f"{name} is gone")
    run = log.find(number)
    assert (run.command, run.error) == ("rag ingest caf\\udce9", "caf\\udce9 is gone")
    assert log.failures(number) == [Failure("/docs/caf\\udce9", "no caf\\udce9")]
