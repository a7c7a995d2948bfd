"""How `rag eval answers` shows its report: tables for people, one object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

from evals.answer_measures import Detection, Estimate
from evals.answers_report import AnswersReport
from evals.report import Latency

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rich.console import Console
    from rich.table import Table


def as_json(report: AnswersReport) -> dict[str, object]:
    """The object that `--json` prints: the report's fields, see `fields_to_json`."""
    return fields_to_json(report)


def fields_to_json(record: DataclassInstance) -> dict[str, object]:
    """The fields of a dataclass and of those inside it; an estimate is `value`, `low`, `high`; 4 digits, times 2."""
    return {field.name: _plain(getattr(record, field.name)) for field in fields(record)}


def estimate_to_json(estimate: Estimate) -> dict[str, float]:
    """The figure and the ends of its interval, with 4 digits after the point."""
    return {
        "value": round(estimate.value, 4),
        "low": round(estimate.interval.low, 4),
        "high": round(estimate.interval.high, 4),
    }


def _plain(value: object) -> object:
    if isinstance(value, Estimate):
        return estimate_to_json(value)
    if isinstance(value, Latency):
        return {"p50": round(value.p50, 2), "p95": round(value.p95, 2)}
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return fields_to_json(value)
    return value


def render(report: AnswersReport, console: Console) -> None:
    """Prints what failed, then abstention, citations, the gold answers and evidence found, and latency."""
    for question, reason in report.failures.items():
        console.print(f"failed: {question}: {reason}", markup=False)
    console.print(_abstention_table(report))
    console.print(_decisions_line(report), markup=False)
    console.print(_citations_line(report), markup=False)
    if report.strings.questions or report.evidence.questions:
        console.print(_gold_table(report))
    console.print(_latency_table(report))
    console.print("± half the width of the 95 % bootstrap interval over the questions.", markup=False)


def shown(estimate: Estimate | None) -> str:
    """`.731 ±.029`, the half width of the interval; a dash where nothing was measured."""
    if estimate is None:
        return "-"
    half = (estimate.interval.high - estimate.interval.low) / 2
    value, width = (f"{number:.3f}".replace("0.", ".", 1) for number in (estimate.value, half))
    return f"{value} ±{width}"


def _abstention_table(report: AnswersReport) -> Table:
    title = (
        f"{report.collection}, split {report.split}: {report.answerable} answerable and {report.unanswerable} "
        f"unanswerable questions, answered by {report.answerer}"
    )
    # The best constant answer is the bar: a detector below it is worth less than none.
    table = _table(title, "detector", ["precision", "recall", "F1", "F1 gain"])
    abstention = report.abstention
    for name, found in (("abstains", abstention.abstains), ("answers", abstention.answers)):
        if found is not None:
            table.add_row(name, *_detection_cells(found))
    return table


def _detection_cells(found: Detection) -> list[str]:
    return [
        shown(found.precision),
        shown(found.recall),
        shown(found.f1),
        shown(found.gain),
    ]


def _decisions_line(report: AnswersReport) -> str:
    abstention = report.abstention
    shares = [
        f"{share:.1%} of the {name}"
        for name, share in (
            ("answerable", abstention.of_answerable),
            ("unanswerable", abstention.of_unanswerable),
        )
        if share is not None
    ]
    constants = [
        f"{name} {found.constant_f1:.3f}"
        for name, found in (("abstaining", abstention.abstains), ("answering", abstention.answers))
        if found is not None
    ]
    return (
        f"right decisions: {shown(abstention.accuracy)}; it abstains from {' and '.join(shares)}. "
        f"F1 gain: over always {' and always '.join(constants)}."
    )


def _citations_line(report: AnswersReport) -> str:
    checks = report.citations
    return (
        f"citations: {checks.total}, {checks.verified} verified, {checks.unverified} not; "
        f"verified but not exact: {checks.verified_but_not_exact}; answers without a verified one: "
        f"{checks.answers_without}; failed questions: {len(report.failures)}; degraded: {report.degraded}"
    )


def _gold_table(report: AnswersReport) -> Table:
    strings, evidence = report.strings, report.evidence
    table = _table("Gold found, abstentions and failures count 0", "measure", ["questions", "share"])
    rows: list[tuple[str, int, str]] = []
    if strings.questions:
        rows += [
            ("answer said in the answer", strings.questions, shown(strings.answer)),
            ("answer said in the quotes", strings.questions, shown(strings.quotes)),
            ("answer said in the sources shown", strings.questions, shown(strings.sources)),
        ]
    if evidence.questions:
        per_1000 = evidence.shown_per_1000_tokens
        rows += [
            ("evidence cited", evidence.questions, shown(evidence.cited)),
            ("evidence shown", evidence.questions, shown(evidence.shown)),
            ("evidence shown per 1,000 tokens", evidence.questions, "-" if per_1000 is None else f"{per_1000:.3f}"),
            ("gold characters cited", evidence.questions, shown(evidence.recall)),
            ("cited characters that are gold", evidence.questions, shown(evidence.precision)),
            ("citations that touch gold", evidence.questions, shown(evidence.citation_precision)),
            ("tokens shown, mean", evidence.questions, f"{evidence.context_tokens:.0f}"),
        ]
    for name, questions, share in rows:
        table.add_row(name, str(questions), share)
    return table


def _latency_table(report: AnswersReport) -> Table:
    table = _table("Latency of one question, ms", "stage", ["p50", "p95"])
    for stage, latency in report.latency_ms.items():
        table.add_row(stage, f"{latency.p50:.2f}", f"{latency.p95:.2f}")
    return table


def _table(title: str, row_header: str, columns: Sequence[str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    table.add_column(row_header, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table
