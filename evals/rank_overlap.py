"""How alike two rankings of the same query are: pure functions of lists of ids, best first, none twice."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import combinations


def overlap(first: Sequence[Hashable], second: Sequence[Hashable], k: int) -> float:
    """Share of the first `k` of both that stands in both, of the longer of the two; 1 where both are empty."""
    before, after = set(first[:k]), set(second[:k])
    longer = max(len(before), len(after))
    return len(before & after) / longer if longer else 1.0


def rank_biased_overlap(first: Sequence[Hashable], second: Sequence[Hashable], *, p: float = 0.9) -> float:
    """Rank-biased overlap, extrapolated: 0 where nothing is shared, 1 where both are the same.

    Webber, Moffat and Zobel, "A Similarity Measure for Indefinite Rankings", TOIS 2010, equation 32, which takes
    rankings of different lengths and assumes that beyond their ends they agree as far as before.

    Args:
        p: Between 0 and 1, exclusive: how likely a reader goes on to the next rank. With 0.9 the first ten have 86 % of
            the weight.
    """
    short, long = sorted((first, second), key=len)
    if not short:
        return 1.0 if not long else 0.0
    s, n = len(short), len(long)
    shared = _shared(short, long)
    total = sum(shared[d] / d * p**d for d in range(1, n + 1))
    total += sum(shared[s] * (d - s) / (s * d) * p**d for d in range(s + 1, n + 1))
    return (1 - p) / p * total + ((shared[n] - shared[s]) / n + shared[s] / s) * p**n


def kendall_tau(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Kendall's tau of the order of what both hold: 1 the same order, -1 the reverse; None where that is under two."""
    places = {identity: place for place, identity in enumerate(second)}
    common = [places[identity] for identity in first if identity in places]
    if len(common) < 2:
        return None
    concordant = sum(1 if earlier < later else -1 for earlier, later in combinations(common, 2))
    return concordant / (len(common) * (len(common) - 1) / 2)


def _shared(short: Sequence[Hashable], long: Sequence[Hashable]) -> list[int]:
    """How many stand among the first d of both, for d from 0 to the longer length."""
    counts, seen_short, seen_long = [0], set[Hashable](), set[Hashable]()
    for depth, identity in enumerate(long):
        seen_long.add(identity)
        if depth < len(short):
            seen_short.add(short[depth])
        counts.append(len(seen_short & seen_long))
    return counts
