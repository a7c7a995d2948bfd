"""What compression keeps of the evidence, compared with sending fewer passages for the same number of tokens.

A piece of evidence is a span of a document that its dataset names as gold: a sentence or an answer. It is shown where
at least 95 % of its characters that are no white space are shown; the rest may be its closing mark. Compressors answer
for what the whole context holds, and retrieval for what it lacks: a question whose context holds no evidence is left
out, and its tokens count nowhere.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from evals.answer_measures import DocumentSpan, merge
from evals.datasets import CorpusDocument, Dataset, JudgedQuery
from evals.gold import Gold, read_gold
from evals.spans import SpanSet
from rag.context.compression import Compression, Compressor
from rag.errors import UsageError
from rag.pipeline import Pipeline
from rag.request import SearchRequest
from rag.telemetry import Stopwatch
from rag.tokens import count_tokens, token_spans
from rag.types import Source

DEFAULT_RATES = (0.3, 0.5, 0.7)
SHOWN_SHARE = 0.95
"""Of the characters of a piece of evidence, for it to be shown."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A gold span of a document.

    Attributes:
        offsets: Of its characters that are no white space, rising.
    """

    document_id: str
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class QuestionContext:
    """What was retrieved for one question, as it is sent without compression.

    Attributes:
        sources: Best first.
        tokens: Of all sources.
        evidence: What the sources hold of it; at least one piece.
    """

    query_id: str
    question: str
    sources: tuple[Source, ...]
    tokens: int
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class QuestionScore:
    """One compressed context beside the best passages that have no more tokens.

    Attributes:
        kept: Pieces of evidence that are shown.
        recall: `kept` as a share of the pieces in the whole context.
        tokens: Shown, gaps included.
        fewer_kept: As `kept`, of the best passages, the last of them cut off at `tokens`.
        fewer_recall: As `recall`, of the same.
        milliseconds: That compressing took.
    """

    query_id: str
    kept: int
    recall: float
    tokens: int
    fewer_kept: int
    fewer_recall: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class CompressionResult:
    """One compressor at one rate; a score for each of the contexts, in their order."""

    method: str
    rate: float
    scores: tuple[QuestionScore, ...]


@dataclass(frozen=True, slots=True)
class CompressionEvaluation:
    """Every compressor at every rate on the same contexts.

    Attributes:
        questions: Of the dataset.
        contexts: Of the questions whose context holds evidence.
        gold: Pieces of evidence of all questions that were found in the documents.
        unlocated: Those that were not.
    """

    collection: str
    questions: int
    contexts: tuple[QuestionContext, ...]
    gold: int
    unlocated: int
    results: tuple[CompressionResult, ...]


async def evaluate_compression(
    pipeline: Pipeline,
    dataset: Dataset,
    compressors: Mapping[str, Compressor],
    *,
    tenant: str,
    texts: Mapping[str, str],
    rates: Sequence[float] = DEFAULT_RATES,
    on_retrieved: Callable[[int, int], None] = lambda _done, _total: None,
    on_query: Callable[[int, int], None] = lambda _done, _total: None,
) -> CompressionEvaluation:
    """Compresses what the pipeline retrieves for each question, whatever its own policy on compression.

    Args:
        compressors: By the names they are shown under; each is called once before it is timed.
        texts: Document id -> its text as it was ingested, see `evals.gold.ingested_texts`.
        rates: Shares of the tokens to keep, above 0 and below 1.
        on_retrieved: Called with how many contexts of how many are retrieved.
        on_query: Called with how many contexts of how many are compressed.

    Raises:
        UsageError: A rate is out of range, or no question has evidence that the pipeline retrieves.
    """
    gold = gold_to_keep(dataset, texts, rates)
    retrieved = []
    for done, query in enumerate(dataset.queries, 1):
        evidence = [_evidence(span, texts[span[0]]) for span in gold[query.id].spans]
        retrieved.append(await _context(pipeline, SearchRequest(query.text, tenant), query.id, evidence))
        on_retrieved(done, len(dataset.queries))
    contexts = tuple(context for context in retrieved if context.evidence)
    if not contexts:
        raise UsageError(
            f"nothing that was retrieved for {dataset.name} holds evidence; is its collection the one asked?"
        )
    return CompressionEvaluation(
        collection=dataset.name,
        questions=len(dataset.queries),
        contexts=contexts,
        gold=sum(len(each.spans) for each in gold.values()),
        unlocated=sum(each.unlocated for each in gold.values()),
        results=await _results(contexts, compressors, rates, on_query),
    )


def gold_to_keep(dataset: Dataset, texts: Mapping[str, str], rates: Sequence[float]) -> dict[str, Gold]:
    """The evidence of each question by which compression at these rates can be measured.

    Raises:
        UsageError: A rate is out of range, or no question names evidence.
    """
    for rate in rates:
        if not 0 < rate < 1:
            raise UsageError(f"the rate {rate} is not between 0 and 1; write the share of the tokens to keep, as 0.5")
    gold = read_gold(dataset, texts)
    if not any(each.spans for each in gold.values()):
        raise UsageError(
            f"{dataset.name} names no evidence; its queries need answers with offsets, selected_sentences or "
            "supporting_facts in their metadata"
        )
    return gold


def _evidence(span: DocumentSpan, text: str) -> Evidence:
    document_id, start, end = span
    return Evidence(document_id, tuple(place for place in range(start, end) if not text[place].isspace()))


async def _context(
    pipeline: Pipeline, request: SearchRequest, query_id: str, evidence: Sequence[Evidence]
) -> QuestionContext:
    defaults = replace(pipeline.defaults, context=replace(pipeline.defaults.context, order="best-first"))
    whole = await replace(pipeline, compression=Compression(), defaults=defaults).context(request, Stopwatch())
    return QuestionContext(
        query_id=query_id,
        question=whole.found.query,
        sources=whole.sources,
        tokens=sum(count_tokens(source.text) for source in whole.sources),
        evidence=shown_evidence(whole.sources, evidence),
    )


async def _results(
    contexts: Sequence[QuestionContext],
    compressors: Mapping[str, Compressor],
    rates: Sequence[float],
    on_query: Callable[[int, int], None],
) -> tuple[CompressionResult, ...]:
    results = []
    total = len(compressors) * len(rates) * len(contexts)
    done = 0
    for method, compressor in compressors.items():
        await _compressed(compressor, contexts[0], rates[0])
        for rate in rates:
            scores = []
            for context in contexts:
                scores.append(await _score(compressor, context, rate))
                done += 1
                on_query(done, total)
            results.append(CompressionResult(method, rate, tuple(scores)))
    return tuple(results)


async def _compressed(compressor: Compressor, context: QuestionContext, rate: float) -> Sequence[Source]:
    target = max(1, round(rate * context.tokens))
    return await compressor.compress(context.question, context.sources, target_tokens=target)


async def _score(compressor: Compressor, context: QuestionContext, rate: float) -> QuestionScore:
    started = time.perf_counter()
    compressed = await _compressed(compressor, context, rate)
    milliseconds = (time.perf_counter() - started) * 1e3
    tokens = sum(count_tokens(source.shown) for source in compressed)
    kept = len(shown_evidence(compressed, context.evidence))
    fewer = len(shown_evidence(fewer_passages(context.sources, tokens), context.evidence))
    pieces = len(context.evidence)
    return QuestionScore(context.query_id, kept, kept / pieces, tokens, fewer, fewer / pieces, milliseconds)


def shown_evidence(sources: Sequence[Source], evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """The pieces of evidence that the sources show, in order."""
    shown = merge(
        [
            (source.document_id, start, end)
            for source in sources
            for start, end in source.kept or ((source.start, source.end),)
        ]
    )
    return tuple(
        piece
        for piece in evidence
        if sum(_count_between(piece.offsets, start, end) for name, start, end in shown if name == piece.document_id)
        >= SHOWN_SHARE * len(piece.offsets)
    )


def _count_between(offsets: Sequence[int], start: int, end: int) -> int:
    return bisect_left(offsets, end) - bisect_left(offsets, start)


def fewer_passages(sources: Sequence[Source], tokens: int) -> list[Source]:
    """The first sources, the last of them cut off, so that they show `tokens` tokens together."""
    shown: list[Source] = []
    for source in sources:
        spans = token_spans(source.text)
        if len(spans) > tokens:
            if tokens:
                shown.append(replace(source, kept=((source.start, source.start + spans[tokens - 1][1]),)))
            break
        shown.append(source)
        tokens -= len(spans)
    return shown


def dataset_of_spans(span_set: SpanSet) -> Dataset:
    """Questions with gold spans as a dataset of which each question has one relevant document."""
    texts = {document.id: document.text for document in span_set.documents}
    queries = tuple(
        JudgedQuery(
            question.id,
            question.text,
            {
                "answers": [
                    {"text": texts[question.document_id][start:end], "start": start} for start, end in question.spans
                ]
            },
        )
        for question in span_set.questions
    )
    return Dataset(
        name=span_set.name,
        split="questions",
        documents=tuple(CorpusDocument(each.id, each.title, each.text, {}) for each in span_set.documents),
        queries=queries,
        qrels={question.id: {question.document_id: 1} for question in span_set.questions},
    )
