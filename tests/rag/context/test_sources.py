import pytest

from rag.context.sources import fit_budget
from rag.tokens import count_tokens
from rag.types import Source


def source(name: str, words: int, *, number: int = 9) -> Source:
    return Source(
        number=number,
        document_id=name,
        version="v1",
        title=name,
        headings=(),
        start=100,
        end=100 + 5 * words,
        text="word " * words,
        score=0.5,
        passage_ids=(name,),
    )


def fitted(sources, *, max_tokens=100, max_sources=8):
    return [(s.number, s.document_id) for s in fit_budget(sources, max_tokens=max_tokens, max_sources=max_sources)]


def test_sources_that_fit_are_kept_in_order_and_numbered_from_one():
    assert fitted([source("a", 40), source("b", 30), source("c", 30)]) == [(1, "a"), (2, "b"), (3, "c")]


def test_one_that_does_not_fit_is_left_out_whole_and_a_smaller_one_after_it_fits():
    assert fitted([source("a", 60), source("b", 41), source("c", 40), source("d", 1)]) == [(1, "a"), (2, "c")]


def test_the_first_is_kept_however_long():
    assert fitted([source("a", 101), source("b", 1)]) == [(1, "a")]
    assert fitted([source("a", 5)], max_tokens=1) == [(1, "a")]


def test_there_are_at_most_max_sources():
    assert fitted([source(name, 1) for name in "abcd"], max_sources=2) == [(1, "a"), (2, "b")]


def test_no_source_is_none():
    assert fit_budget([], max_tokens=100, max_sources=8) == []


def test_nothing_but_the_number_changes():
    original = source("a", 3, number=1)
    assert fit_budget([original], max_tokens=100, max_sources=8) == [original]


@pytest.mark.parametrize("max_tokens", [1, 10, 57, 1000])
def test_more_than_one_source_never_exceeds_the_budget(max_tokens):
    kept = fit_budget([source("a", 9), *(source(str(n), n) for n in range(40))], max_tokens=max_tokens, max_sources=99)
    assert len(kept) == 1 or sum(count_tokens(s.text) for s in kept) <= max_tokens
