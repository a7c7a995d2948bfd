"""An answerer that needs no model provider: it answers with the sources' own best sentences, cited."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rag.context.prompt import ABSTENTION
from rag.generation.chat import Completion, TextDelta
from rag.generation.citation import MAX_QUOTE_CHARACTERS
from rag.retrieval.embedding import Embedder
from rag.sentences import sentence_spans
from rag.types import Prompt, Source, Usage

_WORD = re.compile(r"\w+")
_MIN_WORDS = 4
_STOP_WORDS = frozenset(
    "a about an and are as at be been by can could did do does for from had has have how i if in into is it its many "
    "me much my of on or our shall should so such than that the their them then there these they this to us was we "
    "were what when where which while who whom whose why will with would you your".split()
)


@dataclass(frozen=True, slots=True)
class _Sentence:
    source: Source
    text: str


class ExtractiveAnswerer:
    """A `ChatModel` that quotes instead of writing.

    A sentence scores `semantic_weight` times its cosine to the question plus the rest times its min-max normalised
    BM25 score. The answer is the best sentence and those within `margin` of it, in their order in the sources.
    It abstains when the best sentence's cosine is below `min_cosine`. With the default and MiniLM that is half of the
    unanswerable questions of the CLAP NQ development set, whose topics are in the corpus, and 7 % of the answerable
    ones.

    Args:
        embedder: Embeds question and sentences.
        min_cosine: Below it a sentence does not answer a question.
        max_sentences: At most so many are quoted.
    """

    name = "extractive"

    def __init__(
        self,
        embedder: Embedder,
        *,
        min_cosine: float = 0.5,
        semantic_weight: float = 0.7,
        margin: float = 0.12,
        max_sentences: int = 3,
    ) -> None:
        self._embedder = embedder
        self._min_cosine = min_cosine
        self._semantic_weight = semantic_weight
        self._margin = margin
        self._max_sentences = max_sentences

    async def complete(self, prompt: Prompt) -> Completion:
        """See `ChatModel`."""
        return Completion(await self._answer(prompt), Usage(cost_usd=0.0), "complete", self.name)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[TextDelta | Completion, None]:
        """See `ChatModel`; sentence by sentence."""
        completion = await self.complete(prompt)
        for line in completion.text.splitlines(keepends=True):
            yield TextDelta(line)
        yield completion

    async def close(self) -> None:
        """See `ChatModel`."""

    async def _answer(self, prompt: Prompt) -> str:
        sentences = [
            _Sentence(source, source.text[start:end]) for source in prompt.sources for start, end in _prose(source.text)
        ]
        if not sentences:
            return ABSTENTION
        question = (await self._embedder.embed_queries([prompt.question]))[0]
        cosines = await self._embedder.embed_passages([f"{s.source.title}\n{s.text}" for s in sentences]) @ question
        scores = self._semantic_weight * cosines + (1 - self._semantic_weight) * _bm25(prompt.question, sentences)
        best = int(np.argmax(scores))
        if cosines[best] < self._min_cosine:
            return ABSTENTION
        chosen = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= scores[best] - self._margin]
        return "\n".join(_quoted(sentences[i]) for i in sorted(chosen[: self._max_sentences]))


def _prose(text: str) -> Iterator[tuple[int, int]]:
    """Offsets of sentences that can answer something: no headings, questions, tables or fenced code."""
    fenced = False
    for start, end in sentence_spans(text):
        sentence = text[start:end]
        if sentence.startswith(("```", "~~~")):
            fenced = not fenced
        elif not fenced and _is_statement(sentence):
            yield start, end


def _is_statement(sentence: str) -> bool:
    return (
        not sentence.startswith(("#", "|"))
        and not sentence.endswith("?")
        and len(_WORD.findall(sentence)) >= _MIN_WORDS
    )


def _quoted(sentence: _Sentence) -> str:
    # A quotation mark may end the quote early; each part between two is still an exact span.
    quote = max(re.split('["“”]', sentence.text), key=len)[:MAX_QUOTE_CHARACTERS].strip()
    text = " ".join(sentence.text.replace("[", "(").replace("]", ")").split())
    return f'{text} [{sentence.source.number}: "{quote}"]' if quote else f"{text} [{sentence.source.number}]"


def _bm25(question: str, sentences: Sequence[_Sentence]) -> NDArray[np.float64]:
    """BM25 of each sentence, scaled to 0 to 1; zeros when no word of the question tells them apart."""
    from rank_bm25 import BM25Plus

    scores = np.asarray(BM25Plus([_words(s.text) or [""] for s in sentences]).get_scores(_content(question)))
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else np.zeros(len(sentences))


def _content(text: str) -> list[str]:
    return [word for word in _words(text) if word not in _STOP_WORDS]


def _words(text: str) -> list[str]:
    """Lower-cased words cut to six letters, a rough stem that works alike in many languages."""
    return [word[:6] if word.isalpha() else word for word in _WORD.findall(text.lower())]
