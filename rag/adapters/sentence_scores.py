"""How well sentences answer a question: their BM25 among each other, and their similarity to the question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rag.retrieval.embedding import Embedder
from rag.tokens import token_spans

Scores = NDArray[np.float64]
"""One for each sentence, in their order."""

_WORD = re.compile(r"\w+")
_STOP_WORDS = frozenset(
    "a about an and are as at be been by can could did do does for from had has have how i if in into is it its many "
    "me much my of on or our shall should so such than that the their them then there these they this to us was we "
    "were what when where which while who whom whose why will with would you your".split()
)


@dataclass(frozen=True, slots=True)
class TitledSentence:
    """A sentence with the title of its document, which is read with it, if any: sentences rarely name their subject."""

    title: str
    text: str


async def question_cosines(embedder: Embedder, question: str, sentences: Sequence[TitledSentence]) -> Scores:
    """The cosine of each sentence to the question. Raises as the embedder."""
    vector = (await embedder.embed_queries([question]))[0]
    vectors = await embedder.embed_passages([f"{sentence.title}\n{sentence.text}".lstrip() for sentence in sentences])
    return np.asarray(vectors @ vector, dtype=np.float64)


def bm25_scores(question: str, texts: Sequence[str]) -> Scores:
    """BM25 of each text, scaled to 0 to 1; zeros where no word of the question tells them apart."""
    from rank_bm25 import BM25Plus

    return min_max(np.asarray(BM25Plus([_words(text) or [""] for text in texts]).get_scores(content_words(question))))


def min_max(scores: Scores) -> Scores:
    """Scaled so that the lowest is 0 and the highest 1; zeros where all are equal."""
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else np.zeros(len(scores))


def content_words(text: str) -> list[str]:
    """The words that say something, as BM25 compares them: lower-cased and cut to six letters.

    The cut is a rough stem that works alike in many languages; each CJK character is a word of its own.
    """
    return [word for word in _words(text) if word not in _STOP_WORDS]


def _words(text: str) -> list[str]:
    lowered = text.lower()
    tokens = (lowered[start:end] for start, end in token_spans(lowered))
    return [token[:6] if token.isalpha() else token for token in tokens if _WORD.match(token)]
