"""`rag eval gate`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evals.progress import indexing_shown, progress_shown, tell, tell_indexed
from evals.run_cli import Corpus, Folder, Json, Split, load_judged

if TYPE_CHECKING:
    from evals.datasets import Dataset
    from evals.gate_baseline import Baseline
    from rag.settings import Settings


def gate(
    folder: Folder,
    baseline: Annotated[Path, typer.Option(help="JSON file of an earlier --update, to be committed.")],
    split: Split = None,
    corpus: Corpus = None,
    stages: Annotated[
        str | None, typer.Option(help="With commas; bm25,dense,rrf,convex, and reranked where it runs, if not given.")
    ] = None,
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Fail if chance loses as much less often than this.")] = (
        0.05
    ),
    tolerance: Annotated[float, typer.Option(min=0, help="A mean loss up to this is none.")] = 0.005,
    max_loss: Annotated[
        float, typer.Option(min=0, help="Fail if the mean falls by more than this, whatever chance says.")
    ] = 0.03,
    update: Annotated[
        bool, typer.Option("--update", help="Write the baseline; stages that became worse keep their old values.")
    ] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="With --update: take over what became worse, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fail with status 1 if a stage finds less than in a committed baseline, by more than chance, or much less.

    A stage of the baseline that cannot be measured fails as well, unless --stages leaves it out. Each stage is compared
    query by query. Judgements that no longer match the documents or the baseline are reported as such, apart from a
    loss.
    """
    from rich.console import Console

    from evals.arguments import refuse_unwritable_file, split_names
    from evals.gate import compare_to_baseline, ratchet
    from evals.gate_baseline import read_baseline, refuse_other_set, write_baseline
    from evals.gate_report import as_json as report_to_json
    from evals.gate_report import render
    from evals.run import STAGES
    from rag.configuration import load_settings
    from rag.errors import UsageError

    if accept_loss and not update:
        raise UsageError("--accept-loss says what --update may write; add --update")
    wanted = split_names(stages, "--stages", STAGES)
    if update:
        refuse_unwritable_file(baseline, "--baseline")
    before = None if update and not baseline.exists() else read_baseline(baseline)
    dataset = load_judged(folder, split, corpus)
    if before:
        refuse_other_set(before, collection=dataset.name, split=dataset.split)
        if not update and not (wanted is None or before.stages.keys() & set(wanted)):
            raise UsageError(f"--stages leaves out all that the baseline holds: {', '.join(before.stages)}")
    now = asyncio.run(_measured(load_settings(), dataset, corpus=corpus, stages=wanted))
    result = compare_to_baseline(before or now, now, asked=wanted, alpha=alpha, tolerance=tolerance, max_loss=max_loss)
    texts = {query.id: query.text for query in dataset.queries}
    if as_json:
        print(json.dumps(report_to_json(result, texts)))
    else:
        render(result, texts, Console(highlight=False))
        if not update:
            print("passed" if result.is_passed else "failed")
    if update and (accept_loss or not result.losses):
        write_baseline(baseline, ratchet(before, now, result, accept_loss=accept_loss) if before else now)
        tell(f"wrote {baseline}")
    elif update:
        tell("the baseline is not lowered: mend the loss, or write --accept-loss with --update")
        raise typer.Exit(1)
    elif not result.is_passed:
        raise typer.Exit(1)


async def _measured(settings: Settings, dataset: Dataset, *, corpus: Path | None, stages: list[str] | None) -> Baseline:
    from evals.gate_run import measure_gate
    from evals.index import open_judged

    with indexing_shown() as on_progress:
        async with open_judged(settings, dataset, corpus=corpus, on_progress=on_progress, notify=tell) as judged:
            tell_indexed(judged.report)
            with progress_shown("queries") as on_query:
                return await measure_gate(judged, settings, dataset, stages=stages, on_query=on_query)
