"""The configured strategy applied to documents: the one door that ingestion goes through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import numpy as np

from ingest.chunking import fixed, recursive, semantic, sentence_window
from rag.errors import ConfigurationError
from rag.settings import Chunking
from rag.types import Document, Vectors

Span: TypeAlias = tuple[int, int]
"""Offsets into a document's text, end exclusive."""

Embed: TypeAlias = Callable[[Sequence[str]], Awaitable[Vectors]]
"""Vectors of passages, as `Embedder.embed_passages`."""

_BATCH_TEXTS = 2048
"""How many sentences are embedded at once: enough to sort by length, a few megabytes of vectors."""


def needs_embedder(chunking: Chunking) -> bool:
    """Whether `chunk_documents` embeds; if not, `chunk_document` does the same without."""
    return chunking.strategy == "semantic"


def chunk_document(document: Document, chunking: Chunking) -> list[Span]:
    """The spans of one document's passages by a strategy that needs no embedder.

    It can be sent to another process, as can its arguments.

    Raises:
        ConfigurationError: The strategy is semantic, or its sizes do not fit together.
    """
    match chunking.strategy:
        case "sentence-window":
            return sentence_window.chunk(document, sentences=chunking.sentences, max_tokens=chunking.max_tokens)
        case "recursive":
            return recursive.chunk(document, max_tokens=chunking.max_tokens, overlap_tokens=chunking.overlap_tokens)
        case "fixed":
            return fixed.chunk(document, max_tokens=chunking.max_tokens, overlap_tokens=chunking.overlap_tokens)
        case "semantic":
            raise ConfigurationError("semantic chunking embeds sentences; call chunk_documents with an embedder")


async def chunk_documents(documents: Sequence[Document], chunking: Chunking, embed: Embed) -> list[list[Span]]:
    """The spans of each document's passages, in the order of the documents.

    Args:
        embed: Called for semantic chunking only, with the sentences of all documents in batches of up to 2048; the
            sentences of one document may be in several.

    Raises:
        ConfigurationError: The sizes do not fit together.
        ProviderError, ModelRuntimeError: Of `embed`.
    """
    if not needs_embedder(chunking):
        return [chunk_document(document, chunking) for document in documents]
    spans: list[list[Span]] = []
    batch: list[_Grouped] = []
    for document in documents:
        batch.append((document, _groups(document, chunking)))
        if sum(len(groups) for _, groups in batch) >= _BATCH_TEXTS:
            spans += await _chunk_batch(batch, chunking, embed)
            batch = []
    return spans + await _chunk_batch(batch, chunking, embed)


_Grouped: TypeAlias = tuple[Document, list[semantic.SentenceGroup]]


async def _chunk_batch(batch: Sequence[_Grouped], chunking: Chunking, embed: Embed) -> list[list[Span]]:
    texts = [semantic.embedded_text(document, group) for document, groups in batch for group in groups]
    parts = [await embed(texts[start : start + _BATCH_TEXTS]) for start in range(0, len(texts), _BATCH_TEXTS)]
    vectors = np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)
    spans = []
    first = 0
    for document, groups in batch:
        own = vectors[first : first + len(groups)]
        first += len(groups)
        spans.append(
            semantic.chunk(
                document,
                groups=groups,
                vectors=own,
                percentile=chunking.breakpoint_percentile,
                max_tokens=chunking.max_tokens,
                min_tokens=chunking.min_tokens,
            )
        )
    return spans


def _groups(document: Document, chunking: Chunking) -> list[semantic.SentenceGroup]:
    return semantic.groups(document, buffer_sentences=chunking.buffer_sentences, max_tokens=chunking.max_tokens)
