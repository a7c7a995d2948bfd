"""LLMLingua-2 on OpenVINO: a token classifier says of each word whether to keep it. Torch is never imported to serve.

With the same weights it keeps the words that the `llmlingua` package keeps at the same rate, but computes on arrays
what the package computes token by token, and knows where each word stands in its text.

Pan et al., LLMLingua-2: Data Distillation for Efficient and Faithful Task-Agnostic Prompt Compression (ACL 2024).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rag.adapters.graph_export import Precision, exported_graph
from rag.adapters.graph_runtime import GraphRuntime, pad
from rag.adapters.kept_spans import compressed, kept_spans
from rag.adapters.lingua2_words import MAX_TOKENS, Flags, WordReader, Words
from rag.adapters.model_folder import ClassifierFolder
from rag.errors import ConfigurationError
from rag.tokens import count_tokens
from rag.types import Source

_PERCENTILES = [step / 10 for step in range(1, 1000)]


class GraphLingua2:
    """A `Compressor` over a folder with a LLMLingua-2 classifier of the BERT or the XLM-RoBERTa family.

    All windows of all sources go through the model at once, and the words of each window are held against the same
    percentile. The question is not read. Where no word is above any (a single word, or nothing but unknown ones), the
    sources stay whole.

    Args:
        folder: The model on disk.
        precision: `fp32` keeps the package's words; see `GraphEmbedder` for the others.
        cache_dir: Where exported graphs are kept.
        batch_tokens: A batch holds at most so many tokens, padding included (at least one window, 512 tokens).
        threads: Processor cores to use; 0 for all that this process may use.
        expected_sha256: Published hash of the weights, where known.
        on_export: Told when an export starts, which takes seconds.

    Raises:
        ModelNotFoundError: The weights are missing, lack the classifier, or are not the expected ones.
        ConfigurationError: The model is of another family, does not tell two kinds of tokens apart, or cannot read
            512 tokens.
    """

    def __init__(
        self,
        folder: ClassifierFolder,
        *,
        precision: Precision,
        cache_dir: Path,
        batch_tokens: int,
        threads: int = 0,
        expected_sha256: str | None = None,
        on_export: Callable[[str], None] = lambda _: None,
    ) -> None:
        _require_token_classifier(folder)
        self.name = f"llmlingua-2-graph:{folder.name}"
        self._batch_tokens = batch_tokens
        self._reader = WordReader(folder)
        graph = exported_graph(
            folder,
            precision,
            head="token-classification",
            cache_dir=cache_dir,
            expected_sha256=expected_sha256,
            calibrate=lambda texts: [
                pad([window.sequence], max_tokens=MAX_TOKENS) for window in self._reader.windows(texts)
            ],
            on_export=on_export,
        )
        self._runtime = GraphRuntime(
            graph, precision, name=f"the compression model {folder.name}", max_tokens=MAX_TOKENS, threads=threads
        )

    async def compress(self, question: str, sources: Sequence[Source], *, target_tokens: int) -> Sequence[Source]:  # noqa: ARG002
        """See `Compressor`."""
        texts = [source.text for source in sources]
        total = sum(map(count_tokens, texts))
        if total <= target_tokens:
            return sources
        flags = await asyncio.to_thread(self._kept, texts, target_tokens / total)
        return compressed(sources, map(kept_spans, texts, flags)) or sources

    async def close(self) -> None:
        """See `Compressor`."""
        self._runtime.close()

    def classify(self, texts: Sequence[str]) -> list[Words]:
        """The words of every window of every text, in order, with their probabilities.

        Raises:
            ModelRuntimeError: The model failed to run.
        """
        windows = self._reader.windows(texts)
        if not windows:
            return []
        logits = self._runtime.run([window.sequence for window in windows], batch_tokens=self._batch_tokens)
        return [self._reader.words(window, _second(rows)) for window, rows in zip(windows, logits, strict=True)]

    def _kept(self, texts: Sequence[str], share: float) -> list[Flags]:
        words = self.classify(texts)
        return kept_characters(texts, words, _percentile(words, share))


def kept_characters(texts: Sequence[str], words: Sequence[Words], percentile: float) -> list[Flags]:
    """One flag per character of each text: whether it belongs to a word above the percentile of its window."""
    edges = [np.zeros(len(text) + 1, dtype=np.int64) for text in texts]
    for window in words:
        tokens = window.kept(percentile)[window.word_of]
        np.add.at(edges[window.text], window.starts[tokens], 1)
        np.add.at(edges[window.text], window.ends[tokens], -1)
    return [np.cumsum(edge[:-1]) > 0 for edge in edges]


def _percentile(words: Sequence[Words], share: float) -> float:
    """The one at which about this share of all words, by weight, is kept, but not none if that can be."""
    total = max(1, sum(int(window.weights.sum()) for window in words))

    def kept_share(percentile: float) -> float:
        return sum(int(window.weights[window.kept(percentile)].sum()) for window in words) / total

    # The share falls as the percentile rises.
    place = bisect_left(_PERCENTILES, -share, key=lambda percentile: -kept_share(percentile))
    around = _PERCENTILES[max(0, place - 1) : place + 1]
    return min(around, key=lambda percentile: abs(kept_share(percentile) - share) if kept_share(percentile) else 2)


def _second(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probability of the second of two labels, by softmax."""
    difference = np.clip(logits[:, 0] - logits[:, 1], -80, 80)  # where float32 still has an exponential
    probabilities: NDArray[np.float32] = np.reciprocal(1 + np.exp(difference))
    return probabilities


def _require_token_classifier(folder: ClassifierFolder) -> None:
    architectures = folder.config.get("architectures") or ()
    if not any("ForTokenClassification" in str(stated) for stated in architectures):
        raise ConfigurationError(
            f"{folder.name} is not a LLMLingua-2 token classifier but {' and '.join(map(str, architectures))}; "
            "set compression.model to one"
        )
    if len(folder.labels) != 2:
        raise ConfigurationError(f"{folder.name} tells {len(folder.labels)} kinds of tokens apart, LLMLingua-2 two")
    if folder.max_tokens < MAX_TOKENS:
        raise ConfigurationError(
            f"{folder.name} reads {folder.max_tokens} tokens at most; LLMLingua-2 classifiers read {MAX_TOKENS}"
        )
