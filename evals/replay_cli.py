"""`rag eval replay`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evals.progress import progress_shown, tell

if TYPE_CHECKING:
    from rich.console import Console

    from evals.replay import QueryChange, ReplayedQuery, ReplayReport
    from rag.pipeline import Pipeline
    from rag.settings import Settings

_SHOWN_CHANGES = 20
_SHOWN_CHARACTERS = 160


def replay(
    log: Annotated[
        Path, typer.Argument(help="A query log, or a file with one question per line or JSON lines with question.")
    ],
    k: Annotated[
        int, typer.Option(min=1, max=1000, help="Documents that are compared; fewer where the log holds fewer.")
    ] = 10,
    answers: Annotated[bool, typer.Option("--answers", help="Answer the questions, too.")] = False,
    against: Annotated[
        Path | None, typer.Option(help="Folder of an earlier --out to compare with, instead of the log.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to keep the result in, for a later --against.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask logged questions again, of the collection as it is now, and show what became different."""
    from rich.console import Console

    from evals.arguments import refuse_unwritable_folder
    from evals.query_log import is_query_log
    from evals.replay import compare_replays, read_questions, read_replay, write_replay
    from rag.configuration import load_settings

    settings = load_settings()
    refuse_unwritable_folder(out, "--out")
    questions = read_questions(log)
    before = read_replay(against) if against is not None else questions if is_query_log(log) else []
    now = asyncio.run(_ask(settings, questions, k=k, answers=answers))
    report = compare_replays(before, now, k=k)
    if not before:
        tell("nothing to compare with: keep this result with --out FOLDER and compare the next with --against FOLDER")
    printed = _to_json(report)
    if out is not None:
        write_replay(out, now)
        (out / "report.json").write_text(json.dumps(printed, indent=2), encoding="utf-8")
    if as_json:
        print(json.dumps(printed))
    else:
        _render(report, Console(highlight=False))


async def _ask(settings: Settings, questions: Sequence[ReplayedQuery], *, k: int, answers: bool) -> list[ReplayedQuery]:
    from evals.replay import replay as ask_again
    from rag.bootstrap import open_pipeline

    pipeline = await open_pipeline(settings, tell)
    try:
        with progress_shown("asking") as show:
            return await ask_again(
                questions,
                lambda query: _asked(pipeline, query, tenant=settings.data.tenant, k=k, answers=answers),
                on_query=show,
            )
    finally:
        await pipeline.close()


async def _asked(pipeline: Pipeline, query: ReplayedQuery, *, tenant: str, k: int, answers: bool) -> ReplayedQuery:
    """What a question finds now; what is wrong with the question itself, or fails at the provider, is its failure."""
    from evals.replay import ReplayedCandidate, best_of_documents
    from evals.replay import ReplayedQuery as Replayed
    from rag.errors import ProviderAuthError, ProviderError, UsageError
    from rag.filters import parse_filter
    from rag.request import SearchRequest

    try:
        chosen = parse_filter(query.filter) if query.filter is not None else None
        # With its own k: what is found and answered must not depend on how deep rankings are compared.
        request = SearchRequest(query.question, tenant, k=query.k, filter=chosen)
        found = await pipeline.search(request)
        answer = await pipeline.answer(request) if answers else None
    except ProviderAuthError:
        raise
    except (UsageError, ProviderError) as error:
        return Replayed(question=query.question, filter=query.filter, k=query.k, failure=str(error))
    whole = list(found.stages.values())[-1]
    return Replayed(
        question=query.question,
        filter=query.filter,
        k=query.k,
        kept=k,
        candidates=tuple(
            ReplayedCandidate(
                passage_id=candidate.passage_id,
                document_id=candidate.document_id,
                score=candidate.score,
                text=passage.text if passage else None,
            )
            for candidate in best_of_documents(whole, k=k)
            for passage in [found.passages.get(candidate.passage_id)]
        ),
        answer=answer.text if answer else None,
        abstained=answer.abstained if answer else None,
    )


def _to_json(report: ReplayReport) -> dict[str, object]:
    from evals.answers_rendering import estimate_to_json

    means = {name: getattr(report, name) for name in ("overlap", "rbo", "tau", "same", "top_changed")}
    return {
        "questions": report.questions,
        "compared": report.compared,
        "k": report.k,
        "failures": dict(report.failures),
        **{name: None if mean is None else estimate_to_json(mean) for name, mean in means.items()},
        "answers_compared": report.answers_compared,
        "answers_changed": dict(report.answers_changed),
        "changes": [
            {
                "question": change.now.question,
                "filter": change.now.filter,
                "overlap": round(change.overlap, 4),
                "rbo": round(change.rbo, 4),
                "tau": None if change.tau is None else round(change.tau, 4),
                "new": list(change.new),
                "lost": list(change.lost),
                "top_before": _top(change.before) if change.is_top_changed else None,
                "top_now": _top(change.now) if change.is_top_changed else None,
                "answer_change": change.answer_change,
                "answer_before": change.before.answer if change.answer_change else None,
                "answer_now": change.now.answer if change.answer_change else None,
            }
            for change in report.changes
        ],
    }


def _top(query: ReplayedQuery) -> dict[str, str | None] | None:
    best = next(iter(query.candidates), None)
    return {"document_id": best.document_id, "text": best.text} if best else None


def _render(report: ReplayReport, console: Console) -> None:
    from evals.answers_rendering import shown

    for question, reason in report.failures.items():
        console.print(f"failed: {question}: {reason}", markup=False)
    console.print(f"{report.questions} questions, {report.compared} compared with before", markup=False)
    if not report.compared:
        return
    figures = {
        "overlap": report.overlap,
        "RBO": report.rbo,
        "tau of those found both times": report.tau,
        "unchanged": report.same,
        "another document first": report.top_changed,
    }
    means = "; ".join(f"{name} {shown(mean)}" for name, mean in figures.items())
    console.print(f"first {report.k} documents: {means}", markup=False)
    if report.answers_compared:
        kinds = ", ".join(f"{count} {kind}" for kind, count in report.answers_changed.items()) or "none"
        console.print(f"answers: {report.answers_compared} compared, changed: {kinds}", markup=False)
    for change in report.changes[:_SHOWN_CHANGES]:
        _render_change(change, console)
    if len(report.changes) > _SHOWN_CHANGES:
        console.print(f"... and {len(report.changes) - _SHOWN_CHANGES} more; --json has all", markup=False)


def _render_change(change: QueryChange, console: Console) -> None:
    answer = f", {change.answer_change}" if change.answer_change else ""
    console.print(f"\n{change.now.question}  (RBO {change.rbo:.2f}{answer})", markup=False, style="bold")
    for name, documents in (("new", change.new), ("lost", change.lost)):
        if documents:
            console.print(f"  {name}: {', '.join(documents)}", markup=False)
    if change.is_top_changed:
        for name, query in (("before", change.before), ("now", change.now)):
            best = next(iter(query.candidates), None)
            text = " ".join((best.text or "").split())[:_SHOWN_CHARACTERS] if best else ""
            console.print(f"  first {name}: {best.document_id if best else '-'}: {text}", markup=False)
