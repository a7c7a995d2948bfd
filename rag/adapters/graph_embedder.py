"""Sentence embeddings on OpenVINO: the default embedder. Torch is never imported to serve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rag.adapters.graph_export import Precision, exported_graph
from rag.adapters.graph_runtime import GraphRuntime, TokenSequence, pad
from rag.adapters.model_folder import EmbeddingFolder
from rag.types import Vectors


class GraphEmbedder:
    """An `Embedder` over a sentence-transformers folder.

    Args:
        folder: The model on disk.
        precision: `fp32` is exact; `bf16` lets the runtime compute in bf16 where the processor has it; `int8` also
            quantises the linear layers.
        cache_dir: Where exported graphs are kept.
        batch_tokens: A batch holds at most so many tokens, padding included (at least one text).
        threads: Processor cores to use; 0 for all that this process may use.
        expected_sha256: Published hash of the weights, where known.
        on_export: Told when an export starts, which takes seconds.

    Raises:
        ModelNotFoundError: The weights are missing or not the expected ones.
    """

    def __init__(
        self,
        folder: EmbeddingFolder,
        *,
        precision: Precision,
        cache_dir: Path,
        batch_tokens: int,
        threads: int = 0,
        expected_sha256: str | None = None,
        on_export: Callable[[str], None] = lambda _: None,
    ) -> None:
        from tokenizers import Tokenizer

        self._folder = folder
        self._batch_tokens = batch_tokens
        self._tokenizer = Tokenizer.from_file(str(folder.path / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(folder.max_tokens)
        graph = exported_graph(
            folder,
            precision,
            head=folder.pooling,
            cache_dir=cache_dir,
            expected_sha256=expected_sha256,
            calibrate=lambda texts: [pad([s], max_tokens=folder.max_tokens) for s in self._sequences(texts)],
            on_export=on_export,
        )
        self.identity = f"{folder.name}:{graph.parent.name.rsplit('-', 2)[1]}"
        self.max_tokens = folder.max_tokens
        self._runtime = GraphRuntime(
            graph,
            precision,
            name=f"the embedding model {folder.name}",
            max_tokens=folder.max_tokens,
            threads=threads,
        )
        self.dimension = self._runtime.output_size

    async def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder`."""
        return await asyncio.to_thread(self._embed, [self._folder.query_prompt + text for text in texts])

    async def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder`."""
        return await asyncio.to_thread(self._embed, [self._folder.passage_prompt + text for text in texts])

    async def close(self) -> None:
        """See `Embedder`."""
        self._runtime.close()

    def _embed(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        return np.stack(self._runtime.run(self._sequences(texts), batch_tokens=self._batch_tokens))

    def _sequences(self, texts: Sequence[str]) -> list[TokenSequence]:
        return [TokenSequence(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(list(texts))]
