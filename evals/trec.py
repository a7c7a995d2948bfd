"""Runs and qrels as the text files that trec_eval, ir-measures and BEIR exchange.

Run:    query Q0 document rank score tag     white space between
Qrels:  query iteration document relevance   white space between (TREC)
        query document relevance             tabs between, usually under a header (BEIR)

An id must not hold white space in the TREC layouts, nor a tab in BEIR's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from evals.measures import Qrels, Run, rank_documents
from rag.errors import UsageError


def write_run(path: Path, run: Run, *, tag: str) -> None:
    """Writes a run: queries as given, documents best first, ranks from 1, scores without rounding.

    Args:
        path: Overwritten where it exists.
        run: Scores must be numbers; equal ones are written in the order they came.
        tag: Names the run in other tools' tables; no white space.

    Raises:
        UsageError: An id or the tag cannot stand in such a file, a score is not a number, or the file cannot
            be written.
    """
    lines = []
    _refuse_white_space(tag, "tag")
    for query, scores in run.items():
        _refuse_white_space(query, "query id")
        for rank, document in enumerate(rank_documents(scores), 1):
            _refuse_white_space(document, "document id")
            lines.append(f"{query} Q0 {document} {rank} {float(scores[document])!r} {tag}\n")
    _write(path, lines)


def read_run(path: Path) -> dict[str, dict[str, float]]:
    """Reads a run, best first; as in trec_eval the score decides the order, and the rank column is not looked at.

    Equal scores stand by rising document id.

    Raises:
        UsageError: The file cannot be read, a line has not six columns, a score is not a finite number,
            or a query names a document twice.
    """
    run: dict[str, dict[str, float]] = {}
    for number, line in numbered_lines(path):
        columns = line.split()
        if len(columns) != 6:
            raise UsageError(
                f"{path}, line {number}: {len(columns)} columns; a run has 6: query Q0 document rank score tag"
            )
        query, _, document, _, score, _ = columns
        scores = run.setdefault(query, {})
        if document in scores:
            raise UsageError(f"{path}, line {number}: document {document} a second time for query {query}; remove one")
        if not _is_number(score):
            raise UsageError(f"{path}, line {number}: the score {score!r} is not a finite number")
        scores[document] = float(score)
    return {
        query: dict(sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))) for query, scores in run.items()
    }


def write_qrels(path: Path, qrels: Qrels) -> None:
    """Writes qrels in the TREC layout, in their given order.

    Raises:
        UsageError: An id holds white space or is empty, or the file cannot be written.
    """
    lines = []
    for query, judgements in qrels.items():
        _refuse_white_space(query, "query id")
        for document, relevance in judgements.items():
            _refuse_white_space(document, "document id")
            lines.append(f"{query} 0 {document} {relevance}\n")
    _write(path, lines)


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Reads qrels in BEIR's or TREC's layout, told apart by the number of columns of the first line.

    A first line of three columns whose last is no number is the header. The same judgement may stand twice.

    Raises:
        UsageError: The file cannot be read, a line has the wrong number of columns, a relevance is not a
            whole number, or a pair of query and document is judged in two ways.
    """
    qrels: dict[str, dict[str, int]] = {}
    width = 0
    for number, line in numbered_lines(path):
        columns = [column.strip() for column in line.split("\t")] if "\t" in line else line.split()
        if not width:
            width = len(columns)
            if width == 3 and not _is_number(columns[-1]):
                continue
        if len(columns) != width or width not in (3, 4):
            raise UsageError(
                f"{path}, line {number}: {len(columns)} columns; "
                "write query, document and relevance between tabs, or the four columns of TREC, throughout"
            )
        query, document = columns[0], columns[-2]
        relevance = _relevance(columns[-1], path, number)
        if qrels.setdefault(query, {}).setdefault(document, relevance) != relevance:
            raise UsageError(
                f"{path}, line {number}: document {document} is judged in two ways for query {query}; keep one"
            )
    return qrels


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file that are not blank, without their ends, each with its number from 1.

    Raises:
        UsageError: The file is missing, unreadable or not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\n")
    except FileNotFoundError as error:
        raise UsageError(f"{path} is missing; check the folder") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); convert it") from error


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _relevance(text: str, path: Path, number: int) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{path}, line {number}: the relevance {text!r} is not a whole number") from None


def _refuse_white_space(text: str, what: str) -> None:
    if text.split() != [text]:
        raise UsageError(f"the {what} {text!r} is empty or holds white space, which separates columns; rename it")


def _write(path: Path, lines: list[str]) -> None:
    try:
        path.write_text("".join(lines), encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
