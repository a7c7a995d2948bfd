"""Choosing which sources fit the context budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rag.tokens import count_tokens
from rag.types import Source


def fit_budget(sources: Sequence[Source], *, max_tokens: int, max_sources: int) -> list[Source]:
    """The best sources that fit together, numbered anew from 1; order kept.

    A source that does not fit is left out whole, so that no quote is cut, and smaller ones after it may still fit.
    The first is always kept: an answer from one long source beats none.

    Args:
        max_tokens: Budget of all sources together, in `count_tokens` tokens.
    """
    kept: list[Source] = []
    spent = 0
    for source in sources:
        tokens = count_tokens(source.text)
        if len(kept) < max_sources and (not kept or spent + tokens <= max_tokens):
            kept.append(replace(source, number=len(kept) + 1))
            spent += tokens
    return kept
