"""In which order a model is shown its sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from rag.types import Source

Order = Literal["best-first", "both-ends"]


def order_sources(sources: Sequence[Source], order: Order) -> tuple[Source, ...]:
    """The sources in the order they are shown, numbered anew from 1.

    Args:
        sources: Best first.
        order: `both-ends` puts the best first, the second last, the third second and so on, so that the weakest
            stand in the middle, where models overlook most: Liu et al., "Lost in the Middle", TACL 2024.
    """
    shown = list(sources) if order == "best-first" else [*sources[::2], *reversed(sources[1::2])]
    return tuple(replace(source, number=number) for number, source in enumerate(shown, start=1))
