"""What a dataset says about the right answers: short answers, gold spans, and a reference for a judge.

It is read from the `metadata` of queries, in the shapes that public sets have:

    answers              [{"text", "start"}] with offsets into the relevant document (SQuAD), or [text]
    answer               text (HotpotQA)
    selected_sentences   [[sentence, ...], ...] of the relevant documents (CLAP NQ)
    supporting_facts     [[document, index], ...] into `metadata.sentences` of the document (HotpotQA)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from evals.answer_measures import DocumentSpan, contains_answer, normalise
from evals.datasets import Dataset, JudgedQuery
from ingest.discover import discover
from ingest.prepare import prepare_item
from ingest.run import preparation_of
from rag.errors import DocumentError
from rag.generation.citation import find_quote
from rag.settings import Settings
from rag.tokens import count_tokens

MAX_ANSWER_TOKENS = 12
"""A longer answer is not looked for word for word, unless it is marked as a span of a document: nobody else gives it in
the same words."""


@dataclass(frozen=True, slots=True)
class Gold:
    """What is known of the right answer to one question.

    Attributes:
        answers: Short answers and spans, any of which is right; empty where there are none to look for.
        spans: Of documents, each a piece of evidence of its own.
        unlocated: How many pieces of evidence were not found in the document they are said to be of.
        reference: The whole answer in words; None where there is none.
    """

    answers: tuple[str, ...] = ()
    spans: tuple[DocumentSpan, ...] = ()
    unlocated: int = 0
    reference: str | None = None


def read_gold(dataset: Dataset, texts: Mapping[str, str]) -> dict[str, Gold]:
    """What the dataset's judged queries say, by query id.

    Args:
        texts: Document id -> its text as it was ingested; offsets are checked against it.
    """
    sentences = {document.id: document.metadata.get("sentences") for document in dataset.documents}
    gold = {}
    for query in dataset.queries:
        relevant = [document for document, relevance in dataset.qrels[query.id].items() if relevance > 0]
        spans = list(_spans(query, relevant, texts, sentences))
        located = tuple(dict.fromkeys(span for span in spans if span is not None))
        answers = dict(_answers(query))
        gold[query.id] = Gold(
            answers=tuple(
                answer
                for answer, is_span in answers.items()
                if is_span or _is_quotable(answer, [texts.get(name, "") for name in relevant])
            ),
            spans=located,
            unlocated=sum(span is None for span in spans),
            reference=" / ".join(answers) or None,
        )
    return gold


def ingested_texts(settings: Settings, dataset: Dataset, corpus: Path | None) -> dict[str, str]:
    """Document id -> text as ingestion takes it: of the dataset's documents, or of the files of `corpus`, read anew.

    What cannot be read is left out, as ingestion does.
    """
    if corpus is None:
        return {document.id: document.text for document in dataset.documents}
    preparation = preparation_of(settings)
    texts = {}
    for file in discover([corpus], None).files:
        with suppress(DocumentError):
            for content in prepare_item(file, preparation).contents:
                texts[content.document_id] = content.content.text
    return texts


def _answers(query: JudgedQuery) -> Iterator[tuple[str, bool]]:
    """The answers, each with whether it is a span of a document."""
    for answer in [*_list(query.metadata.get("answers")), query.metadata.get("answer")]:
        is_span = isinstance(answer, Mapping) and "start" in answer
        text = answer.get("text") if isinstance(answer, Mapping) else answer
        if isinstance(text, str) and text.strip():
            yield text, is_span


def _is_quotable(answer: str, relevant: Sequence[str]) -> bool:
    """Whether to look for it word for word: it is short, a relevant document says it so, and it is more than "yes"."""
    return (
        count_tokens(answer) <= MAX_ANSWER_TOKENS
        and normalise(answer) not in ("", "yes", "no")
        and any(contains_answer(text, [answer]) for text in relevant)
    )


def _spans(
    query: JudgedQuery, relevant: Sequence[str], texts: Mapping[str, str], sentences: Mapping[str, object]
) -> Iterator[DocumentSpan | None]:
    """The evidence, None for each piece that is not where it is said to be."""
    for answer in _list(query.metadata.get("answers")):
        if isinstance(answer, Mapping) and isinstance(answer.get("start"), int):
            yield _at(str(answer.get("text", "")), answer["start"], relevant, texts)
    for group in _list(query.metadata.get("selected_sentences")):
        for sentence in _list(group):
            yield _anywhere(str(sentence), relevant, texts)
    for fact in _list(query.metadata.get("supporting_facts")):
        match fact:
            case [str(document), int(index)]:
                yield _sentence(_list(sentences.get(document)), index, document, texts)
            case _:
                yield None


def _at(text: str, start: int, relevant: Sequence[str], texts: Mapping[str, str]) -> DocumentSpan | None:
    end = start + len(text)
    return next(((name, start, end) for name in relevant if text and texts.get(name, "")[start:end] == text), None)


def _anywhere(text: str, relevant: Sequence[str], texts: Mapping[str, str]) -> DocumentSpan | None:
    for name in relevant:
        if span := find_quote(text, texts.get(name, "")):
            return name, *span
    return None


def _sentence(sentences: Sequence[object], index: int, document: str, texts: Mapping[str, str]) -> DocumentSpan | None:
    """Sentences are looked for in order, so that one that stands twice is found at its own place."""
    text, place = texts.get(document, ""), 0
    for number, sentence in enumerate(sentences):
        wanted = str(sentence).strip()
        start = text.find(wanted, place)
        if number == index:
            return (document, start, start + len(wanted)) if wanted and start >= 0 else None
        place = max(place, start + len(wanted))
    return None


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()
