import pickle
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest

from ingest.chunking import fixed, recursive, sentence_window, strategies
from ingest.chunking.strategies import chunk_document, chunk_documents, needs_embedder
from rag.bootstrap import chunker_identity
from rag.errors import ConfigurationError
from rag.settings import Chunking, Settings
from rag.types import Document, Vectors
from tests.ingest.chunking.documents import check


def document(name: str, sentences: int) -> Document:
    text = " ".join(f"Sentence {name} {number}." for number in range(sentences))
    return Document(id=name, version="v", source="s", title="t", text=text)


class Embedding:
    """Texts that name a different tens of sentences are at right angles."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    async def __call__(self, texts: Sequence[str]) -> Vectors:
        self.batches.append(list(texts))
        last = [int(text.split()[-1].strip(".")) // 10 for text in texts]
        return np.eye(64, dtype=np.float32)[last]


async def refuse(texts: Sequence[str]) -> Vectors:
    pytest.fail("nothing is to be embedded")


SIZES = {"sentences": 4, "max_tokens": 50, "overlap_tokens": 7}


@pytest.mark.parametrize(
    ("strategy", "chunk"),
    [
        ("sentence-window", partial(sentence_window.chunk, sentences=4, max_tokens=50)),
        ("recursive", partial(recursive.chunk, max_tokens=50, overlap_tokens=7)),
        ("fixed", partial(fixed.chunk, max_tokens=50, overlap_tokens=7)),
    ],
)
async def test_a_strategy_without_embeddings_is_the_same_through_either_door(strategy, chunk):
    chunking = Chunking(strategy=strategy, **SIZES)
    documents = [document("a", 30), document("b", 0), document("c", 7)]
    expected = [chunk(each) for each in documents]
    assert not needs_embedder(chunking)
    assert await chunk_documents(documents, chunking, refuse) == expected
    assert [chunk_document(each, chunking) for each in documents] == expected
    assert len(expected[0]) > 1


def test_the_function_and_its_arguments_can_be_sent_to_a_worker():
    call, chunking, doc = pickle.loads(pickle.dumps((chunk_document, Chunking(strategy="fixed"), document("a", 90))))
    assert call(doc, chunking) == chunk_document(document("a", 90), Chunking(strategy="fixed"))


async def test_semantic_chunking_embeds_the_sentences_of_all_documents_in_one_batch():
    chunking = Chunking(strategy="semantic", buffer_sentences=0, min_tokens=4, max_tokens=60)
    embed = Embedding()
    documents = [document("a", 25), document("empty", 0), document("b", 12)]
    spans = await chunk_documents(documents, chunking, embed)
    assert needs_embedder(chunking)
    assert [len(batch) for batch in embed.batches] == [37]
    assert [
        [doc.text[start:end].count(".") for start, end in own] for doc, own in zip(documents, spans, strict=True)
    ] == [
        [10, 10, 5],
        [],
        [10, 2],
    ]


async def test_batches_do_not_change_the_result(monkeypatch):
    chunking = Chunking(strategy="semantic", buffer_sentences=1, min_tokens=4, max_tokens=60)
    documents = [document(name, count) for name, count in (("a", 25), ("b", 3), ("c", 40), ("d", 0), ("e", 11))]
    together = await chunk_documents(documents, chunking, Embedding())
    monkeypatch.setattr(strategies, "_BATCH_TEXTS", 7)
    embed = Embedding()
    assert await chunk_documents(documents, chunking, embed) == together
    assert max(map(len, embed.batches)) == 7
    for doc, spans in zip(documents, together, strict=True):
        check(doc, spans, max_tokens=60)


async def test_no_documents_embed_nothing():
    assert await chunk_documents([], Chunking(strategy="semantic"), refuse) == []
    assert await chunk_documents([document("a", 0)], Chunking(strategy="semantic"), refuse) == [[]]


def test_semantic_chunking_without_an_embedder_is_refused():
    with pytest.raises(ConfigurationError, match="call chunk_documents with an embedder"):
        chunk_document(document("a", 2), Chunking(strategy="semantic"))


@pytest.mark.parametrize(
    ("strategy", "identity"),
    [
        ("sentence-window", "sentence-window:sentences=6:max_tokens=200"),
        ("recursive", "recursive:max_tokens=200:overlap_tokens=40"),
        ("fixed", "fixed:max_tokens=200:overlap_tokens=40"),
        ("semantic", "semantic:breakpoint_percentile=92.5:buffer_sentences=0:min_tokens=40:max_tokens=200"),
    ],
)
def test_a_collection_remembers_the_strategy_and_the_sizes_that_matter_to_it(strategy, identity):
    chunking = Chunking(strategy=strategy, breakpoint_percentile=92.5)
    assert chunker_identity(Settings(chunking=chunking)) == identity
