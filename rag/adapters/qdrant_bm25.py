"""BM25 term weights by Qdrant's own model: its tokeniser, stop words, Snowball stemmers and term hashing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rag.errors import ConfigurationError
from rag.types import SparseVector


class QdrantBm25:
    """A `LexicalEncoder`.

    A term's weight in a passage is tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / average_length)); Robertson
    and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009. The store multiplies in
    idf = ln(1 + (N - n + 0.5) / (n + 0.5)) at query time.

    Args:
        language: A language the engine knows, lower case, or `none` for neither stemmer nor stop words.
        k1: Term frequency saturation, at least 0.
        b: Length normalisation, 0 to 1.
        average_length: Mean number of terms per passage, as `term_counts` counts them; above 0.

    Raises:
        ConfigurationError: The language is unknown.
    """

    def __init__(self, *, language: str, k1: float, b: float, average_length: float) -> None:
        self.identity = lexical_identity(language=language, k1=k1, b=b)
        self._model = _model(language, k=k1, b=b, avg_len=average_length)

    def encode_query(self, text: str) -> SparseVector:
        """See `LexicalEncoder`."""
        return _to_vector(self._model.embed_query(text))

    def encode_passages(self, texts: Sequence[str]) -> list[SparseVector]:
        """See `LexicalEncoder`."""
        return [_to_vector(self._model.embed_document(text)) for text in texts]


def lexical_identity(*, language: str, k1: float, b: float) -> str:
    """What a collection remembers of its lexical settings."""
    return f"qdrant-bm25:{language}:k1={k1:g}:b={b:g}"


def term_counts(texts: Sequence[str], *, language: str) -> list[int]:
    """Number of terms (stop words left out, repeats counted) in each text."""
    # With k = 1 and b = 0 a weight is 2 tf / (tf + 1), which gives the term frequency back: the engine has no
    # other way to say how many terms it saw.
    model = _model(language, k=1.0, b=0.0, avg_len=1.0)
    return [sum(round(v / (2.0 - v)) for v in model.embed_document(text).values) for text in texts]


def _model(language: str, *, k: float, b: float, avg_len: float) -> Any:  # noqa: ANN401 - a qdrant_edge.Bm25
    import qdrant_edge as edge

    neutral = {
        "stopwords": edge.StopwordsSet(languages=set(), custom=set()),
        "stemmer": edge.DisabledStemmer(),
    }
    choice = neutral if language == "none" else {"language": language}
    try:
        return edge.Bm25(edge.Bm25Config(k=k, b=b, avg_len=avg_len, **choice))
    except ValueError as error:
        raise ConfigurationError(
            f"lexical.language = {language!r}: {error}. Write the language's English name in lower case, as english or "
            "german, or none"
        ) from error


def _to_vector(vector: Any) -> SparseVector:  # noqa: ANN401 - a qdrant_edge.SparseVector
    return SparseVector(tuple(vector.indices), tuple(vector.values))
