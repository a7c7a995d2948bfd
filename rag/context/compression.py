"""Compression: fewer tokens for a model, offsets kept so that every citation can still be checked.

It costs time, and saves tokens: it is done only where the tokens are worth more than the time. Public measurements
found a gain in time in a narrow window only (arXiv 2604.02985), so none is assumed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rag.errors import ModelRuntimeError, ProviderError
from rag.tokens import count_tokens
from rag.types import CompressionReport, Source

_PROBE_EVERY = 50
"""After so many contexts that were not compressed the speed is measured again: it may have been a slow moment."""


class Compressor(Protocol):
    """Chooses what of each source a model is shown."""

    @property
    def name(self) -> str:
        """As in the settings, with the model where there is one."""
        ...

    async def compress(self, question: str, sources: Sequence[Source], *, target_tokens: int) -> Sequence[Source]:
        """The same sources, in order and with their numbers, with `kept` (and `gap`) set; text and offsets stay.

        A source of which nothing is kept is left out. `kept` lies within `start` and `end` of the source.

        Args:
            target_tokens: How many tokens, as `rag.tokens.count_tokens` counts, all sources may show together.
                A compressor may miss it by a few percent; it never shows nothing.

        Raises:
            ModelRuntimeError, ProviderError: The model did not answer.
        """
        ...

    async def close(self) -> None:
        """Release threads and models."""
        ...


@dataclass(frozen=True, slots=True)
class CompressionPolicy:
    """When to compress, and how much.

    Attributes:
        mode: `auto` compresses where the saved tokens cost more than the time.
        rate: Share of the tokens that is kept, above 0 to 1.
        min_tokens: A shorter context is shown as it is.
        usd_per_hour: What an hour of a user's waiting costs.
        usd_per_million_tokens: What the model that answers reads for; 0 where it reads for nothing.
    """

    mode: Literal["auto", "on", "off"] = "auto"
    rate: float = 0.5
    min_tokens: int = 500
    usd_per_hour: float = 2.0
    usd_per_million_tokens: float = 3.0

    @property
    def may_compress(self) -> bool:
        """Whether any context can be compressed at all."""
        return self.mode == "on" or (self.mode == "auto" and self.usd_per_million_tokens > 0)


@dataclass(frozen=True, slots=True)
class Compressed:
    """Sources with what a model is shown of them; without a report they are as they were.

    Attributes:
        skipped: Why nothing was compressed, where that is as configured.
        degraded: Why nothing was compressed, where the compressor failed.
    """

    sources: tuple[Source, ...]
    report: CompressionReport | None = None
    skipped: str = ""
    degraded: str = ""


class Compression:
    """A compressor with the policy that decides about each context. It learns the compressor's speed as it goes.

    Args:
        compressor: None where none is configured.
    """

    def __init__(self, compressor: Compressor | None = None, policy: CompressionPolicy = CompressionPolicy()) -> None:
        self.compressor = compressor
        self._policy = policy
        self._ms_per_token: float | None = None
        self._since_measured = 0

    async def apply(self, question: str, sources: Sequence[Source]) -> Compressed:
        """The sources, compressed if that pays; whole where the compressor fails, which costs tokens and no answer."""
        tokens_in = sum(count_tokens(source.text) for source in sources)
        reason = self._reason_against(tokens_in)
        if self.compressor is None or reason:
            return Compressed(tuple(sources), skipped=reason or "no compressor is configured")
        started = time.perf_counter()
        target = max(1, round(self._policy.rate * tokens_in))
        try:
            kept = tuple(await self.compressor.compress(question, sources, target_tokens=target))
        except (ModelRuntimeError, ProviderError) as error:
            return Compressed(tuple(sources), degraded=f"compress: the sources are shown whole, since {error}")
        milliseconds = (time.perf_counter() - started) * 1e3
        self._learn(milliseconds / max(1, tokens_in))
        tokens_out = sum(count_tokens(source.shown) for source in kept)
        return Compressed(kept, CompressionReport(self.compressor.name, tokens_in, tokens_out, round(milliseconds, 3)))

    async def close(self) -> None:
        """Release what the compressor holds."""
        if self.compressor is not None:
            await self.compressor.close()

    def _reason_against(self, tokens_in: int) -> str:
        """Why a context of so many tokens is not compressed; empty when it is."""
        policy = self._policy
        if policy.mode == "off":
            return "compression.mode is off"
        if policy.mode == "on":
            return ""
        if not policy.may_compress:
            return "the model that answers reads for nothing"
        if tokens_in < policy.min_tokens:
            return f"{tokens_in} tokens are fewer than compression.min_tokens, {policy.min_tokens}"
        saved_usd = (1 - policy.rate) * tokens_in * policy.usd_per_million_tokens / 1e6
        waiting_usd = (self._ms_per_token or 0) * tokens_in / 3.6e6 * policy.usd_per_hour
        if saved_usd >= waiting_usd or self._is_probe_due():
            return ""
        return f"it would save {saved_usd:.6f} USD of tokens and cost {waiting_usd:.6f} USD of waiting"

    def _is_probe_due(self) -> bool:
        self._since_measured += 1
        return self._since_measured > _PROBE_EVERY

    def _learn(self, ms_per_token: float) -> None:
        """The mean of the recent ones: the first after a start is the slowest, and must not decide for good."""
        known = self._ms_per_token
        self._ms_per_token = ms_per_token if known is None else (known + ms_per_token) / 2
        self._since_measured = 0
