"""The options of commands with a judge, apart from what they need to run, which takes long to import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Judge = Annotated[bool, typer.Option("--judge", help="Let the configured language model judge the answers, too.")]
Calibrate = Annotated[
    Path | None, typer.Option(help='People\'s labels as JSON lines: {"id", "rubric", "label": true or false}.')
]
Yes = Annotated[bool, typer.Option("--yes", help="Judge without asking.")]
MaxUsd = Annotated[float | None, typer.Option(min=0, help="Judging stops there; needs the prices.")]
UsdInput = Annotated[float | None, typer.Option(min=0, help="What the judge reads.")]
UsdOutput = Annotated[float | None, typer.Option(min=0, help="What the judge writes.")]
