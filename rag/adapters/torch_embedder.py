"""Sentence embeddings by sentence-transformers itself: torch, on a GPU where there is one. Also the reference."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rag.adapters.model_folder import read_prompts, weights_sha256
from rag.errors import ModelRuntimeError
from rag.types import Vectors


class TorchEmbedder:
    """An `Embedder` over any sentence-transformers folder.

    Args:
        path: The folder.
        name: As configured; decides about family prompts.
        batch_size: Texts per batch.
    """

    def __init__(self, path: Path, name: str, *, batch_size: int = 32) -> None:
        from sentence_transformers import SentenceTransformer

        self._name = name
        self._model = SentenceTransformer(str(path), local_files_only=True)
        self._batch_size = batch_size
        self._query_prompt, self._passage_prompt = read_prompts(path, name)
        dimension = self._model.get_embedding_dimension()
        if dimension is None:
            raise ModelRuntimeError(f"{name} does not say how long its vectors are")
        self.dimension = int(dimension)
        self.max_tokens = self._model.max_seq_length
        self.identity = f"{name}:torch:{weights_sha256(path)[:16]}"

    async def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder`."""
        return await asyncio.to_thread(self._embed, texts, self._query_prompt)

    async def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder`."""
        return await asyncio.to_thread(self._embed, texts, self._passage_prompt)

    async def close(self) -> None:
        """See `Embedder`."""

    def _embed(self, texts: Sequence[str], prompt: str) -> Vectors:
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        try:
            # An explicit prompt, so that a default of the model's own is not added to it.
            vectors = self._model.encode(
                list(texts),
                prompt=prompt,
                batch_size=self._batch_size,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
        except RuntimeError as error:
            raise ModelRuntimeError(f"the embedding model {self._name} failed: {error}") from error
        return np.asarray(vectors, dtype=np.float32)
