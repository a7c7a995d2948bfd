"""Cross-encoders by sentence-transformers itself: torch, on a GPU where there is one. Also the reference."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event

import numpy as np

from rag.adapters.model_folder import longest_input, weights_sha256
from rag.adapters.timed_groups import scores_in_time
from rag.errors import ConfigurationError, ModelRuntimeError


class TorchReranker:
    """A `Reranker` over any folder that `CrossEncoder` loads and that gives one score for a pair.

    Args:
        path: The folder.
        name: As configured.
        max_tokens: Of query and passage together; the model's own limit where that is less. The longer one is cut.
        batch_size: Pairs per batch.
        clock: Seconds, rising.

    Raises:
        ConfigurationError: The folder cannot be read, or the model gives several scores for a pair.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        *,
        max_tokens: int,
        batch_size: int = 32,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from sentence_transformers import CrossEncoder

        self._name = name
        self.max_tokens = min(max_tokens, longest_input(path))
        try:
            self._model = CrossEncoder(str(path), max_length=self.max_tokens, local_files_only=True)
        except Exception as error:
            # transformers has no common root for what a damaged folder makes it raise.
            raise ConfigurationError(f"{name} cannot be loaded from {path}: {error}. Pull the model again") from error
        if self._model.num_labels != 1:
            raise ConfigurationError(
                f"{name} tells {self._model.num_labels} labels apart; a reranker gives one score. "
                "Choose another rerank.model"
            )
        self._batch_size = batch_size
        self._clock = clock
        self.identity = f"{name}:torch:{weights_sha256(path)[:16]}"

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

    def _score(
        self, query: str, passages: list[str], started: float, timeout_s: float | None, stopped: Event
    ) -> list[float]:
        def score_group(group: range, may_begin: Callable[[], bool]) -> list[float | None]:
            scores: dict[int, float] = {}
            by_length = sorted(group, key=lambda position: -len(passages[position]))
            for start in range(0, len(group), self._batch_size):
                if not may_begin():
                    break
                batch = by_length[start : start + self._batch_size]
                scores.update(zip(batch, self._predict([(query, passages[p]) for p in batch]), strict=True))
            return [scores.get(position) for position in group]

        return scores_in_time(
            [len(query) + len(passage) + 1 for passage in passages],
            score_group,
            started=started,
            timeout_s=timeout_s,
            clock=self._clock,
            is_stopped=stopped.is_set,
        )

    def _predict(self, pairs: list[tuple[str, str]]) -> list[float]:
        try:
            scores = self._model.predict(pairs, batch_size=self._batch_size, show_progress_bar=False)
        except RuntimeError as error:
            raise ModelRuntimeError(f"the reranking model {self._name} failed: {error}") from error
        if not np.isfinite(scores).all():
            raise ModelRuntimeError(f"the reranking model {self._name} failed: it gave a score that is not finite")
        return [float(score) for score in scores]
