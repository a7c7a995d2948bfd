"""What `rag eval gate` shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evals.gate import GateResult, GateRow
from evals.significance import difference_to_json

if TYPE_CHECKING:
    from rich.console import Console

_LISTED = 5


def as_json(result: GateResult, texts: Mapping[str, str]) -> dict[str, Any]:
    """The object that `--json` prints; numbers with 4 digits after the point.

    Args:
        texts: Of the queries, by id.
    """
    return {
        "passed": result.is_passed,
        "labels_match": result.do_labels_match,
        "missing_documents": list(result.missing_documents),
        "known_missing": list(result.known_missing),
        "changed_queries": list(result.changed_queries),
        "new_queries": list(result.new_queries),
        "gone_queries": list(result.gone_queries),
        "corpus_changed": result.is_corpus_changed,
        "unmeasured": list(result.unmeasured),
        "left_out": list(result.left_out),
        "new_stages": list(result.new_stages),
        "stages": [
            {
                "stage": row.stage,
                "measure": row.measure,
                "before": round(row.before, 4),
                "now": round(row.now, 4),
                "difference": difference_to_json(row.difference),
                "p_loss": round(row.p_loss, 4),
                "lost": row.is_loss,
                "queries": [
                    {"id": query, "text": texts.get(query, ""), "before": round(old, 4), "now": round(new, 4)}
                    for query, old, new in row.lost[:_LISTED]
                ],
            }
            for row in result.rows
        ],
    }


def render(result: GateResult, texts: Mapping[str, str], console: Console) -> None:
    """Prints the stages, the queries that lost most where one failed, and what is wrong with the labels; no verdict."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in ("stage", "measure", "before", "now", "change", "p (loss)", "worse", ""):
        table.add_column(column, justify="left" if column in ("stage", "measure", "") else "right", no_wrap=True)
    for row in result.rows:
        table.add_row(*_cells(row), style="bold red" if row.is_loss else None)
    console.print(table)
    for row in result.losses:
        console.print(Text(f"{row.stage}, {row.measure}: lost most"))
        for query, old, new in row.lost[:_LISTED]:
            console.print(Text(f"  {old:.3f} -> {new:.3f}  {query}  {' '.join(texts.get(query, '').split())}"))
    for line in _notes(result):
        console.print(Text(line))


def _cells(row: GateRow) -> tuple[str, ...]:
    verdict = "LOSS" if row.is_loss else ""
    numbers = f"{row.before:.4f}", f"{row.now:.4f}", f"{row.difference.mean:+.4f}", f"{row.p_loss:.3f}"
    return row.stage, row.measure, *numbers, str(row.difference.losses), verdict


def _notes(result: GateResult) -> list[str]:
    notes = {
        "labels no longer match the corpus: it does not hold the judged documents": result.missing_documents,
        "labels no longer match the baseline: judged or worded otherwise are": result.changed_queries,
        "labels no longer match the baseline: gone are": result.gone_queries,
        "missing as they were when the baseline was written:": result.known_missing,
        "queries not in the baseline yet:": result.new_queries,
        "in the baseline, but not measured now:": result.unmeasured,
        "stages not in the baseline yet, to be added with --update:": result.new_stages,
    }
    lines = [f"{what} {_few(names)}" for what, names in notes.items() if names]
    if result.is_corpus_changed:
        lines.append("the documents are not those of the baseline; a loss may come from them")
    return lines


def _few(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
