"""From characters that a compressor keeps to the spans that a `Source` shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rag.tokens import count_tokens
from rag.types import Source

KEPT_GAP = " "
"""Stands between two kept spans: marks of omission would cost as many tokens as the words left out."""


def kept_spans(text: str, kept: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    """The runs of kept characters, in order.

    White space between two kept characters stays, whatever `kept` says of it; elsewhere it goes.

    Args:
        kept: One flag for each character of `text`.
    """
    solid = np.flatnonzero(~np.fromiter(map(str.isspace, text), dtype=np.bool_, count=len(text)))
    edges = np.flatnonzero(np.diff(kept[solid].astype(np.int8), prepend=0, append=0))
    starts, ends = solid[edges[::2]], solid[edges[1::2] - 1] + 1
    return tuple(zip(starts.tolist(), ends.tolist(), strict=True))


def compressed(sources: Iterable[Source], spans: Iterable[Sequence[tuple[int, int]]]) -> tuple[Source, ...]:
    """The sources with what is kept of each, as offsets in its text; one of which nothing is kept is left out."""
    return tuple(
        replace(source, kept=tuple((source.start + start, source.start + end) for start, end in kept), gap=KEPT_GAP)
        for source, kept in zip(sources, spans, strict=True)
        if kept
    )


def shown_tokens(sources: Iterable[Source]) -> int:
    """How many tokens all sources show together."""
    return sum(count_tokens(source.shown) for source in sources)
