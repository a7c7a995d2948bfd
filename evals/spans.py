"""Gold spans: which characters of a document answer a question, and how well retrieved spans cover them.

    docs/<name>.*     the documents, UTF-8
    questions.jsonl   {"_id", "text", "doc": "<name>", "spans": [{"start", "end", "text"}]}

Offsets count code points of the file as it is, line ends untranslated. `text` of a span may be left out; where it
stands it must be what the document says there. Labels of this kind outlive any way of chunking, which
ids of passages do not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pydantic import BaseModel, Field, ValidationError

from evals.trec import numbered_lines
from ingest.load.detect import extract
from rag.errors import DocumentError, UsageError
from rag.types import Document

Span: TypeAlias = tuple[int, int]
"""Offsets into a document's text, end exclusive."""


@dataclass(frozen=True, slots=True)
class SpanQuestion:
    """A question and the spans of one document that answer it: at least one, in any order."""

    id: str
    text: str
    document_id: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class SpanSet:
    """Documents and questions about them.

    Attributes:
        name: Of the folder.
        without_structure: Documents without title and headings, since reading them as ingestion does would change
            their text, and with it the offsets.
    """

    name: str
    documents: tuple[Document, ...]
    questions: tuple[SpanQuestion, ...]
    without_structure: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SpanScore:
    """How well retrieved spans cover the gold of one question; each value is between 0 and 1.

    Attributes:
        recall: Share of the gold characters that were retrieved, each counted once.
        precision: Share of the retrieved characters that are gold; a gold character counts once, a retrieved one as
            often as it was retrieved, so that an overlap of passages has its price.
        iou: Intersection over union of both as sets of characters.
    """

    recall: float
    precision: float
    iou: float


def score_spans(retrieved: Sequence[tuple[str, int, int]], question: SpanQuestion) -> SpanScore:
    """Recall, precision and IoU by characters.

    After Smith and Troynikov, "Evaluating Chunking Strategies for Retrieval", Chroma 2024, who count tokens, and for
    the IoU, too, count retrieved ones as often as they are retrieved.

    Args:
        retrieved: Document id, start and end of each passage, in any order.
        question: Its gold spans may touch or overlap.
    """
    gold = _merged(question.spans)
    spans_of: dict[str, list[Span]] = {}
    for document_id, start, end in retrieved:
        spans_of.setdefault(document_id, []).append((start, end))
    found = {document_id: _merged(spans) for document_id, spans in spans_of.items()}
    covered = _shared(gold, found.get(question.document_id, []))
    gold_size = _size(gold)
    distinct = sum(_size(spans) for spans in found.values())
    repeated = sum(end - start for _, start, end in retrieved)
    return SpanScore(
        recall=covered / gold_size,
        precision=covered / repeated if repeated else 0.0,
        iou=covered / (gold_size + distinct - covered),
    )


def _merged(spans: Iterable[Span]) -> list[Span]:
    """The same characters as disjoint spans in order."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def _size(spans: Sequence[Span]) -> int:
    return sum(end - start for start, end in spans)


def _shared(first: Sequence[Span], second: Sequence[Span]) -> int:
    return sum(max(0, min(a[1], b[1]) - max(a[0], b[0])) for a in first for b in second)


class _GoldSpan(BaseModel):
    start: int = Field(ge=0)
    end: int
    text: str | None = None


class _Line(BaseModel):
    id: str = Field(alias="_id", min_length=1)
    text: str = Field(min_length=1)
    doc: str
    spans: list[_GoldSpan] = Field(min_length=1)


def load_span_set(folder: Path) -> SpanSet:
    """Reads a folder.

    Raises:
        UsageError: A file is missing or malformed (its line is named), a question names no document, or a span is not
            what the document says there.
    """
    paths = sorted(path for path in (folder / "docs").glob("*") if path.is_file())
    if not paths:
        raise UsageError(f"{folder} has no documents; put them into docs/")
    documents: dict[str, Document] = {}
    without_structure = []
    for path in paths:
        if path.stem in documents:
            raise UsageError(f"{path}: there are two documents {path.stem}; rename one")
        document, has_structure = _read_document(path, source=folder.resolve().name)
        documents[path.stem] = document
        if not has_structure:
            without_structure.append(path.stem)
    questions = _read_questions(folder / "questions.jsonl", documents)
    return SpanSet(folder.resolve().name, tuple(documents.values()), questions, tuple(without_structure))


def _read_document(path: Path, *, source: str) -> tuple[Document, bool]:
    """The document, and whether it has the title and headings that ingestion would give it."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
        extracted = extract(data, path.name)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); convert it") from error
    except DocumentError as error:
        raise UsageError(f"{path}: {error}") from error
    is_same = extracted.text == text
    return Document(
        id=path.stem,
        version=hashlib.sha256(data).hexdigest()[:16],
        source=source,
        title=(is_same and extracted.title) or path.stem,
        text=text,
        headings=extracted.headings if is_same else (),
        page_starts=extracted.page_starts if is_same else (),
        row_starts=extracted.row_starts if is_same else (),
    ), is_same


def _read_questions(path: Path, documents: Mapping[str, Document]) -> tuple[SpanQuestion, ...]:
    questions: dict[str, SpanQuestion] = {}
    for number, line in numbered_lines(path):
        where = f"{path}, line {number}"
        try:
            record = _Line.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise UsageError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        if record.id in questions:
            raise UsageError(f"{where}: the _id {record.id} stands a second time; ids must be unique")
        document = documents.get(record.doc)
        if document is None:
            raise UsageError(f"{where}: there is no document {record.doc} in docs/; known are {', '.join(documents)}")
        for span in record.spans:
            _refuse_mislabelled(span, document, where)
        spans = tuple((span.start, span.end) for span in record.spans)
        questions[record.id] = SpanQuestion(record.id, record.text, record.doc, spans)
    if not questions:
        raise UsageError(f"{path} holds no question; write one per line")
    return tuple(questions.values())


def _refuse_mislabelled(span: _GoldSpan, document: Document, where: str) -> None:
    if not span.start < span.end <= len(document.text):
        raise UsageError(
            f"{where}: the span {span.start} to {span.end} does not lie in {document.id}, which has "
            f"{len(document.text)} characters"
        )
    if span.text is not None and span.text != document.text[span.start : span.end]:
        raise UsageError(
            f"{where}: {document.id} does not say {span.text[:40]!r} at {span.start}; the labels are of another "
            "version, or count bytes or translated line ends"
        )
