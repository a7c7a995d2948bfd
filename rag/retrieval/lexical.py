"""The seam to a lexical model: texts to sparse term weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rag.types import SparseVector


class LexicalEncoder(Protocol):
    """BM25 without the inverse document frequency, which the store multiplies in at query time."""

    @property
    def identity(self) -> str:
        """Names language, tokenisation and parameters, without the collection's average length."""
        ...

    def encode_query(self, text: str) -> SparseVector:
        """Each distinct term with weight 1, a form derived from it with less, those in quotation marks with more.

        Empty when the text has no indexable term.
        """
        ...

    def encode_passages(self, texts: Sequence[str]) -> list[SparseVector]:
        """Saturated, length-normalised term frequencies, in order."""
        ...
