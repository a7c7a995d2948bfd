"""A cross-encoder on OpenVINO: the default reranker. Torch is never imported to serve."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from rag.adapters.graph_export import Inputs, Precision, exported_graph
from rag.adapters.graph_runtime import GraphRuntime, TokenSequence, pad, padded_length
from rag.adapters.model_folder import ClassifierFolder
from rag.adapters.timed_groups import scores_in_time
from rag.errors import ConfigurationError, ModelRuntimeError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Activation = Literal["identity", "sigmoid"]
_LEAST_BATCH_TOKENS = 256
"""Below that, a batch's fixed costs show."""


class GraphReranker:
    """A `Reranker` over a folder with a cross-encoder of one label.

    Args:
        folder: The model on disk.
        precision: As `GraphEmbedder`.
        cache_dir: Where exported graphs are kept.
        batch_tokens: A batch holds at most so many tokens, padding included (at least one passage).
        max_tokens: Of query and passage together, special tokens included; the model's own limit where that is less.
            The passage is cut; of a query, half as many are read.
        threads: Processor cores to use; 0 for all that this process may use.
        expected_sha256: Published hash of the weights, where known.
        on_export: Told when an export starts, which takes seconds.
        clock: Seconds, rising.

    Raises:
        ModelNotFoundError: The weights are missing, lack the classifier, or are not the expected ones.
        ConfigurationError: The model does not give one score for a pair, or one through an activation not known here.
    """

    def __init__(
        self,
        folder: ClassifierFolder,
        *,
        precision: Precision,
        cache_dir: Path,
        batch_tokens: int,
        max_tokens: int,
        threads: int = 0,
        expected_sha256: str | None = None,
        on_export: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        _require_one_score(folder)
        self._activation = _activation(folder)
        self._name = folder.name
        self._batch_tokens = batch_tokens
        self._clock = clock
        self._pairs = _PairTokenizer(folder.path / "tokenizer.json", min(max_tokens, folder.max_tokens))
        graph = exported_graph(
            folder,
            precision,
            head="sequence-classification",
            cache_dir=cache_dir,
            expected_sha256=expected_sha256,
            calibrate=lambda texts: list(_calibration(texts, self._pairs)),
            on_export=on_export,
        )
        self.identity = f"{folder.name}:{graph.parent.name.rsplit('-', 2)[1]}:{precision}"
        self.max_tokens = self._pairs.max_tokens
        self._runtime = GraphRuntime(
            graph,
            precision,
            name=f"the reranking model {folder.name}",
            max_tokens=self.max_tokens,
            threads=threads,
        )

    async def score(self, query: str, passages: Sequence[str], *, timeout_s: float | None) -> Sequence[float]:
        """See `Reranker.score`."""
        started = self._clock()
        stopped = Event()
        try:
            return await asyncio.to_thread(self._score, query, list(passages), started, timeout_s, stopped)
        finally:
            stopped.set()

    async def close(self) -> None:
        """See `Reranker`."""
        self._runtime.close()

    def _score(
        self, query: str, passages: list[str], started: float, timeout_s: float | None, stopped: Event
    ) -> list[float]:
        sequences = self._pairs.encode(query, passages)
        lengths = [padded_length(len(sequence.ids), self.max_tokens) for sequence in sequences]

        def score_group(group: range, may_begin: Callable[[], bool]) -> list[float | None]:
            chosen = slice(group.start, group.stop)
            # A handful of passages would fit into one batch, and all streams but one would idle.
            share = max(sum(lengths[chosen]) // (2 * self._runtime.streams), _LEAST_BATCH_TOKENS)
            batch_tokens = min(self._batch_tokens, share)
            rows = self._runtime.run_while(may_begin, sequences[chosen], batch_tokens=batch_tokens)
            return [None if row is None else self._activated(row) for row in rows]

        return scores_in_time(
            lengths,
            score_group,
            started=started,
            timeout_s=timeout_s,
            clock=self._clock,
            is_stopped=stopped.is_set,
        )

    def _activated(self, logits: NDArray[np.float32]) -> float:
        logit = float(logits[0])
        if not math.isfinite(logit):
            raise ModelRuntimeError(f"the reranking model {self._name} failed: it gave a score that is not finite")
        return logit if self._activation == "identity" else 0.5 * (1 + math.tanh(logit / 2))


class _PairTokenizer:
    """Queries and passages as the model reads them together."""

    def __init__(self, file: Path, max_tokens: int) -> None:
        from tokenizers import Tokenizer

        self.max_tokens = max_tokens
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(file))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens, strategy="only_second")
        self._queries: Tokenizer = Tokenizer.from_file(str(file))
        self._queries.no_padding()
        self._queries.enable_truncation(max(1, max_tokens // 2))

    def encode(self, query: str, passages: Sequence[str]) -> list[TokenSequence]:
        query = self._cut(query)
        encodings = self._tokenizer.encode_batch_fast([(query, passage) for passage in passages])
        return [TokenSequence(encoding.ids, encoding.type_ids) for encoding in encodings]

    def _cut(self, query: str) -> str:
        """Half of the tokens at most, so that there is room for a passage."""
        encoding = self._queries.encode(query, add_special_tokens=False)
        return query[: encoding.offsets[-1][1]] if encoding.overflowing else query


def _calibration(texts: Sequence[str], pairs: _PairTokenizer) -> Iterator[Inputs]:
    """Every text as a passage: half with a query of its own first words, half with another text's."""
    for number, text in enumerate(texts):
        asked = text if number % 2 else texts[number - 1]
        [sequence] = pairs.encode(" ".join(asked.split()[:10]), [text])
        yield pad([sequence], max_tokens=pairs.max_tokens)


def _require_one_score(folder: ClassifierFolder) -> None:
    architecture = next(iter(folder.config.get("architectures") or ()), "")
    if architecture.endswith("ForCausalLM"):
        raise ConfigurationError(
            f"{folder.name} is a generative model ({architecture}), not a cross-encoder with a classifier; "
            'choose another rerank.model, or set rerank.runtime = "remote"'
        )
    if len(folder.labels) != 1:
        raise ConfigurationError(
            f"{folder.name} tells {len(folder.labels)} labels apart; a reranker gives one score. "
            "Choose another rerank.model"
        )


def _activation(folder: ClassifierFolder) -> Activation:
    """As `CrossEncoder.predict` of sentence-transformers 6 chooses it: sigmoid, unless torch's own another is named."""
    name = folder.activation or ""
    if not name.startswith("torch.") or name.endswith(".Sigmoid"):
        return "sigmoid"
    if name.endswith(".Identity"):
        return "identity"
    raise ConfigurationError(
        f"{folder.name} puts its scores through {name}, which the graph runtime does not have; "
        'set rerank.runtime = "torch"'
    )
