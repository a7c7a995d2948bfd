"""The seam to an embedding model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rag.types import Vectors


class Embedder(Protocol):
    """Maps texts to unit vectors; queries and passages may be treated differently."""

    @property
    def identity(self) -> str:
        """Names model and weights; vectors of equal identity compare, others never do."""
        ...

    @property
    def dimension(self) -> int:
        """Length d of every vector."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """Longest input the model takes in, in its own tokens; None where it is unknown."""
        ...

    async def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of search queries, shape (len(texts), d), float32, rows of length 1, in order.

        Raises:
            ProviderError, ModelRuntimeError: The model did not answer.
        """
        ...

    async def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Vectors of passages; as `embed_queries`."""
        ...

    async def close(self) -> None:
        """Release threads and connections."""
        ...
