"""Scoring as many of the best candidates as a time allows, in groups that grow as the speed becomes known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_FIRST_GROUP = 4
_GROWTH = 4

ScoreGroup = Callable[[range, Callable[[], bool]], Sequence[float | None]]
"""Positions, and a question to be asked before each batch: may it begin? -> a score for each, None where it may not."""


def scores_in_time(
    costs: Sequence[int],
    score_group: ScoreGroup,
    *,
    started: float,
    timeout_s: float | None,
    clock: Callable[[], float],
    is_stopped: Callable[[], bool],
) -> list[float]:
    """Scores of the first candidates, as many as there is time for; the first group is scored whatever it takes.

    A further group takes the candidates that, at the speed so far, are done in time, and none of its batches begins
    when time is up. Without a limit there is one group, which is fastest.

    Args:
        costs: Of each candidate, best first, in any unit that time is proportional to.
        started: By `clock`, in seconds.
        is_stopped: Whether nobody waits any more; what is returned then is of no use.
    """

    def goes_on() -> bool:
        return not is_stopped()

    if timeout_s is None:
        return _first_scores(score_group(range(len(costs)), goes_on))
    deadline = started + timeout_s

    def in_time() -> bool:
        return goes_on() and clock() < deadline

    begun = clock()
    scores: list[float] = []
    size = _FIRST_GROUP
    while len(scores) < len(costs) and goes_on():
        end = min(len(costs), len(scores) + size)
        if scores:
            affordable = (deadline - clock()) * sum(costs[: len(scores)]) / max(clock() - begun, 1e-9)
            end = _last_affordable(costs, len(scores), end, affordable)
            if end == len(scores):
                break
        done = _first_scores(score_group(range(len(scores), end), in_time if scores else goes_on))
        scores += done
        if len(scores) < end:
            break
        size *= _GROWTH
    return scores


def _last_affordable(costs: Sequence[int], start: int, end: int, affordable: float) -> int:
    spent = 0
    for position in range(start, end):
        spent += costs[position]
        if spent > affordable:
            return position
    return end


def _first_scores(scores: Sequence[float | None]) -> list[float]:
    """Up to the first that is missing."""
    first: list[float] = []
    for score in scores:
        if score is None:
            break
        first.append(score)
    return first
