"""BM25 term weights over our own analysis, with the stemmers of the Snowball project."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from threading import Lock
from zlib import crc32

from rag.errors import ConfigurationError
from rag.retrieval.analysis import ANALYSIS_VERSION, Analyzer, chunks
from rag.retrieval.language import LANGUAGES, stop_words
from rag.types import SparseVector

_LONGEST_REMEMBERED = 32
"""Characters. Longer chunks are addresses, data and text without spaces, which hardly come again."""
_MOST_REMEMBERED = 65_536
"""Some 15 MB."""


class Bm25Encoder:
    """A `LexicalEncoder`, for use from several threads.

    A term's weight in a passage is tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / average_length)); Robertson
    and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009. The store multiplies in
    idf = ln(1 + (N - n + 0.5) / (n + 0.5)) at query time.

    Args:
        language: One of `LANGUAGES`.
        k1: Term frequency saturation, at least 0.
        b: Length normalisation, 0 to 1.
        average_length: Mean number of terms per passage, as `term_counts` counts them; above 0.
        phrase_weight: What a query's terms in quotation marks weigh, where others weigh 1.

    Raises:
        ConfigurationError: The language is unknown.
    """

    def __init__(
        self, *, language: str, k1: float, b: float, average_length: float, phrase_weight: float = 1.5
    ) -> None:
        self.identity = lexical_identity(language=language, k1=k1, b=b)
        self._terms = _TermIndices(language)
        self._k1 = k1
        self._fixed = k1 * (1 - b)
        self._per_term = k1 * b / average_length
        self._phrase_weight = phrase_weight

    def encode_query(self, text: str) -> SparseVector:
        """See `LexicalEncoder`."""
        weights: dict[int, float] = {}
        for term, weight in self._terms.of_query(text, self._phrase_weight).items():
            index = _index(term)
            weights[index] = max(weights.get(index, 0.0), weight)
        return SparseVector(tuple(weights), tuple(weights.values()))

    def encode_passages(self, texts: Sequence[str]) -> list[SparseVector]:
        """See `LexicalEncoder`."""
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> SparseVector:
        counts, length = self._terms.count(text)
        saturation = self._fixed + self._per_term * length
        scale = self._k1 + 1
        values = tuple([count * scale / (count + saturation) for count in counts.values()])
        return SparseVector(tuple(counts), values)


def require_language(language: str) -> None:
    """Refuse a language that there is no analysis for.

    Raises:
        ConfigurationError: With those that there are.
    """
    if language not in (*LANGUAGES, "auto"):
        raise ConfigurationError(
            f"lexical.language = {language!r}: there are no stemmer and stop words for it. Write auto, or the English "
            f"name in lower case of one of: {', '.join(LANGUAGES)}"
        )


def lexical_identity(*, language: str, k1: float, b: float) -> str:
    """What a collection remembers of its lexical settings; it changes when the analysis does."""
    return f"bm25-{ANALYSIS_VERSION}:{language}:k1={k1:g}:b={b:g}"


def language_of(identity: str) -> str:
    """The language in an identity that `lexical_identity` made."""
    return identity.split(":")[1]


def term_counts(texts: Sequence[str], *, language: str) -> list[int]:
    """Number of terms (stop words left out, repeats counted) in each text.

    Raises:
        ConfigurationError: The language is unknown.
    """
    terms = _TermIndices(language)
    return [terms.count(text)[1] for text in texts]


class _TermIndices(dict[str, tuple[int, ...]]):
    """Chunk of text -> indices of its terms, remembered."""

    def __init__(self, language: str) -> None:
        super().__init__()
        self._analyzer = Analyzer(stem=_stemmer(language), stop_words=stop_words(language), language=language)
        self._stop_indices = frozenset(_index(f"{word}'") for word in stop_words(language))

    def count(self, text: str) -> tuple[Counter[int], int]:
        """How often each term occurs, and how many there are without the stop words."""
        counts = Counter(chain.from_iterable(map(self.__getitem__, chunks(text))))
        return counts, counts.total() - sum(counts[index] for index in counts.keys() & self._stop_indices)

    def of_query(self, text: str, phrase_weight: float) -> dict[str, float]:
        return self._analyzer.query_terms(text, phrase_weight=phrase_weight)

    def __missing__(self, chunk: str) -> tuple[int, ...]:
        indices = tuple([_index(term.text) for term in self._analyzer.terms_of_chunk(chunk)])
        if len(chunk) <= _LONGEST_REMEMBERED:
            if len(self) >= _MOST_REMEMBERED:
                self.clear()
            self[chunk] = indices
        return indices


def _index(term: str) -> int:
    """A number below 2**32, the same in every process and version."""
    return crc32(term.encode("utf-8", "surrogatepass"))


def _stemmer(language: str) -> Callable[[str], str]:
    require_language(language)
    if language == "none":
        return str
    from Stemmer import Stemmer

    stemmer = Stemmer(language, 0)
    lock = Lock()  # a stemmer holds one word at a time

    def stem(word: str) -> str:
        with lock:
            return str(stemmer.stemWord(word))

    return stem
