"""The rule that every strategy with an overlap shares."""

from __future__ import annotations

from rag.errors import ConfigurationError


def refuse_whole_overlap(*, max_tokens: int, overlap_tokens: int) -> None:
    """Stop before chunks that would hold nothing but their overlap.

    Raises:
        ConfigurationError: The overlap is not smaller than the chunk.
    """
    if overlap_tokens >= max_tokens:
        raise ConfigurationError(
            f"chunking.overlap_tokens is {overlap_tokens} but must be smaller than chunking.max_tokens, "
            f"which is {max_tokens}; lower the one or raise the other"
        )
