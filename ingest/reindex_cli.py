"""`rag reindex`."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ingest.cli import command_line, run_observed

if TYPE_CHECKING:
    from ingest.reindex import Reindexed


def reindex(
    force: Annotated[
        bool, typer.Option("--force", help="Also when the collection was built with the present settings.")
    ] = False,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Build nothing; delete the former collection and what was left unbuilt.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Build the collection anew with the present settings, from the text that was kept.

    Searches are served from the former collection until the new one is complete, then from the new one, in one step.
    A server that runs goes on with the former one until it is restarted. The former one is kept until --drop-old.
    An interrupted run is continued by the next one.
    """
    from ingest.reindex import drop_former
    from ingest.reindex import reindex as build_anew
    from rag.configuration import load_settings

    settings = load_settings()
    if drop_old:
        dropped = asyncio.run(drop_former(settings, command_line()))
        print(json.dumps({"dropped": dropped}) if as_json else f"former collections deleted: {len(dropped)}")
        return
    done = run_observed(lambda observer: build_anew(settings, command_line(), observer, force=force))
    if as_json:
        print(json.dumps({"live": done.live, "former": done.former, **asdict(done.report)}))
    else:
        _print_reindexed(done)
    if done.report.interrupted:
        raise SystemExit(130)  # as in ingest.cli.print_report
    if done.report.failed:
        raise typer.Exit(1)


def _print_reindexed(done: Reindexed) -> None:
    report = done.report
    if report.interrupted:
        typer.echo("interrupted; the former collection is served as before. Run the same command again to continue")
    elif done.former is None:
        typer.echo("nothing had to be built")
    else:
        typer.echo(
            f"built anew: {report.added + report.updated} documents, {report.passages} passages written, "
            f"{report.embedded} embedded in {report.seconds:.1f} s"
        )
    for failure in report.failed:
        typer.echo(f"failed: {failure.path}: {failure.reason}")
    if done.former is not None:
        typer.echo("the former collection is kept; rag reindex --drop-old deletes it")
