"""`rag jobs`: the log of runs, and trying again what failed in one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingest.cli import command_line, print_report, run_observed

if TYPE_CHECKING:
    from ingest.runs import Run

app = typer.Typer(help="What runs did: the log of ingesting, deleting and reindexing.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: Json = False,
) -> None:
    """List runs, the latest first. The last 1000 are remembered."""
    from ingest.documents import manifest_to_read
    from ingest.runs import RunLog
    from rag.configuration import load_settings

    with manifest_to_read(load_settings()) as manifest:
        runs = RunLog(manifest.connection).all(limit)
    if as_json:
        _print_json({"jobs": [_to_json(run) for run in runs]})
        return
    for run in runs:
        typer.echo(f"{run.id:>5}  {run.started}  {run.state:<11}  {_counts(run.report)}  {run.command}")
    if not runs:
        typer.echo("no runs")


@app.command()
def show(
    number: Annotated[int, typer.Argument(metavar="ID", help="A number that `rag jobs list` shows.")],
    as_json: Json = False,
) -> None:
    """Show a run: what was asked, what came of it, what failed and why."""
    from dataclasses import asdict

    from ingest.documents import find_run, manifest_to_read
    from ingest.runs import RunLog
    from rag.configuration import load_settings

    with manifest_to_read(load_settings()) as manifest:
        run = find_run(manifest, number)
        failures = RunLog(manifest.connection).failures(run.id)
    if as_json:
        _print_json({**_to_json(run), "failed": [asdict(failure) for failure in failures]})
        return
    typer.echo(f"{run.command}\n{run.state}: began {run.started}, ended {run.ended or '-'}")
    for name, value in run.report.items():
        typer.echo(f"{name:<16} {value}")
    if run.error:
        typer.echo(f"error: {run.error}")
    for failure in failures:
        typer.echo(f"failed: {failure.path}: {failure.reason}")


@app.command()
def retry(
    number: Annotated[
        int | None,
        typer.Argument(metavar="ID", help="Of a run; the last one in which something failed if not given."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Read again the files that failed in a run.

    They are read as `rag ingest` would read them, into the same source and under the same ids. A file that is gone,
    or fails again, is named with the reason; the exit code is then 1.
    """
    from ingest.documents import retry as retry_run
    from rag.configuration import load_settings

    settings = load_settings()
    report = run_observed(lambda observer: retry_run(settings, number, command_line(), observer))
    print_report(report, [], as_json=as_json)


def _to_json(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "started": run.started,
        "ended": run.ended,
        "state": run.state,
        "command": run.command,
        "report": dict(run.report),
        "error": run.error,
    }


def _counts(report: Mapping[str, Any]) -> str:
    names = ("added", "updated", "deleted", "failed")
    return ", ".join(f"{report[name]} {name}" for name in names if report.get(name)) or "nothing changed"


def _print_json(data: dict[str, Any]) -> None:
    print(json.dumps(data, ensure_ascii=False))
