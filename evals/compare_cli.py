"""`rag eval compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from evals.run_cli import Json


def compare(
    first: Annotated[Path, typer.Argument(help="A folder of `rag eval run --out`, or a TREC run file.")],
    second: Annotated[Path, typer.Argument(help="As FIRST; a gain is that of this one.")],
    stages: Annotated[
        str | None, typer.Option(help="Of folders, with commas; all that both have if not given.")
    ] = None,
    measures: Annotated[
        str | None, typer.Option(help="With commas, as ndcg@10,recall@20; those of `rag eval run` if not given.")
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option(help="BEIR folder with the judgements; those beside the run if not given.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Which qrels of --qrels.")] = None,
    queries: Annotated[int, typer.Option(min=0, help="How many lost and won questions to list, by stage.")] = 0,
    out: Annotated[Path | None, typer.Option(help="File for the comparison in Markdown.")] = None,
    as_json: Json = False,
) -> None:
    """Say what differs between two runs, whether that is more than chance, and on which questions."""
    from evals.arguments import refuse_unwritable_file, split_names
    from evals.compare import compare_files, find_runs
    from evals.compare_report import as_json as report_to_json
    from evals.compare_report import as_markdown
    from evals.labels import read_labels
    from evals.measures import DEFAULT_MEASURES, parse_measure
    from rag.errors import UsageError

    refuse_unwritable_file(out, "--out")
    runs = find_runs(first, second, split_names(stages, "--stages"))
    labels = read_labels(first, qrels, split)
    if qrels is None and read_labels(second, None, None).qrels != labels.qrels:
        raise UsageError("the two runs were judged differently; name the judgements for both with --qrels FOLDER")
    named = split_names(measures, "--measures")
    chosen = [parse_measure(name) for name in named] if named else DEFAULT_MEASURES
    compared = compare_files(runs, labels, measures=chosen)
    markdown = as_markdown(str(first), str(second), labels, compared, queries=queries)
    if out is not None:
        out.write_text(markdown, encoding="utf-8")
    if as_json:
        print(json.dumps(report_to_json(str(first), str(second), labels, compared, queries=queries)))
    else:
        print(markdown, end="")
