import pytest

from rag.context.ordering import order_sources
from rag.types import Source


def sources(count: int) -> list[Source]:
    return [Source(n, f"doc {n}", "v1", "", (), 0, 1, "x", 1 / n, ()) for n in range(1, count + 1)]


@pytest.mark.parametrize(
    ("count", "expected"), [(0, []), (1, [1]), (2, [1, 2]), (5, [1, 3, 5, 4, 2]), (6, [1, 3, 5, 6, 4, 2])]
)
def test_the_weakest_stand_in_the_middle(count, expected):
    shown = order_sources(sources(count), "both-ends")
    assert [source.document_id for source in shown] == [f"doc {n}" for n in expected]
    assert [source.number for source in shown] == list(range(1, count + 1))


def test_best_first_leaves_the_order_and_closes_gaps_in_the_numbers():
    shown = order_sources(sources(4)[1:], "best-first")
    assert [(source.number, source.document_id) for source in shown] == [(1, "doc 2"), (2, "doc 3"), (3, "doc 4")]
