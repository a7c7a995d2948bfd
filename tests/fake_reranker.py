"""A reranker for the tests of what is built on one; `tests/protocols/test_reranker.py` holds it to the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class FakeReranker:
    """Scores a passage by the share of the query's words that it has.

    Attributes:
        seconds_per_passage: What scoring one is said to take; a time that is given pays for so many.
        error: Raised instead of answering.
        calls: The query, passages and time of every call.
    """

    identity: str = "fake-reranker"
    seconds_per_passage: float = 0.0
    error: Exception | None = None
    calls: list[tuple[str, tuple[str, ...], float | None]] = field(default_factory=list)
    is_closed: bool = False

    async def score(self, query: str, passages: Sequence[str], *, timeout_s: float | None) -> Sequence[float]:
        self.calls.append((query, tuple(passages), timeout_s))
        if self.error is not None:
            raise self.error
        await asyncio.sleep(0)  # as the real ones, it waits
        affordable = len(passages)
        if timeout_s is not None and self.seconds_per_passage > 0:
            affordable = int(timeout_s / self.seconds_per_passage)
        return [overlap(query, passage) for passage in passages[:affordable]]

    async def close(self) -> None:
        self.is_closed = True


def overlap(query: str, passage: str) -> float:
    """The share of the query's words that a passage has, 0 to 1."""
    words = set(query.lower().split())
    return len(words & set(passage.lower().split())) / max(1, len(words))
