from itertools import pairwise

import pytest

from ingest.chunking.fixed import chunk
from ingest.chunking.token_index import TokenIndex
from rag.errors import ConfigurationError
from rag.tokens import count_tokens
from rag.types import Document, Heading
from tests.ingest.chunking.documents import check, check_graphemes, check_rows, documents, table


def document(text: str, *headings: str) -> Document:
    marks = tuple(Heading(start=text.index(heading), level=1, text=heading.strip("# ")) for heading in headings)
    return Document(id="d", version="v", source="s", title="t", text=text, headings=marks)


def texts(doc: Document, max_tokens: int, overlap_tokens: int = 0) -> list[str]:
    spans = chunk(doc, max_tokens=max_tokens, overlap_tokens=overlap_tokens)
    return [doc.text[start:end] for start, end in spans]


def test_every_window_but_the_last_is_full_and_begins_with_the_end_of_the_one_before():
    words = [f"w{number}" for number in range(25)]
    assert texts(document(" ".join(words)), 10, 4) == [" ".join(words[start : start + 10]) for start in (0, 6, 12, 18)]


def test_headings_and_sentences_do_not_matter():
    doc = document("A\n\nOne. Two\n\nB\n\nThree four.", "A", "B")
    assert texts(doc, 4) == ["A\n\nOne. Two", "B\n\nThree four."]
    assert texts(doc, 5) == ["A\n\nOne. Two\n\nB", "Three four."]


def test_a_word_with_marks_inside_is_not_cut():
    assert texts(document("one two don't three 3.14 four"), 4) == ["one two", "don't three", "3.14 four"]


def test_the_overlap_gives_way_to_a_word_that_does_not_fit_beside_it():
    assert texts(document("a b c d e-mail-list f"), 5, 2) == ["a b c d", "e-mail-list", "f"]


def test_chinese_is_cut_between_characters_and_korean_between_words():
    assert texts(document("今天天气很好我们去"), 4, 1) == ["今天天气", "气很好我", "我们去"]
    assert texts(document("대한민국 사람 모두"), 5) == ["대한민국", "사람 모두"]


def test_what_is_longer_than_a_window_is_cut():
    assert [len(text) for text in texts(document("a b " + "x" * 400), 4)] == [3, 160, 160, 80]


@pytest.mark.parametrize("overlap", [10, 11])
def test_an_overlap_as_long_as_the_window_is_refused_by_name(overlap):
    with pytest.raises(ConfigurationError, match=r"chunking\.overlap_tokens is 1[01] but must be smaller"):
        chunk(document("One."), max_tokens=10, overlap_tokens=overlap)


def test_a_paragraph_of_24000_words_keeps_within_the_tokens_and_overlaps():
    groups = texts(document(" ".join(f"w{number}" for number in range(24_000))), 200, 40)
    assert all(count_tokens(group) <= 200 for group in groups)
    assert all(earlier.split()[-40:] == later.split()[:40] for earlier, later in pairwise(groups))
    assert len(groups) == 150


def test_rows_stay_whole_and_are_repeated_whole():
    doc = table([f"Item {number}. Of many. | {number}" for number in range(20)])
    for max_tokens, overlap in ((20, 0), (30, 9), (64, 17)):
        spans = chunk(doc, max_tokens=max_tokens, overlap_tokens=overlap)
        starts = {0, *(start for start, _ in doc.row_starts)}
        assert {start for start, _ in spans} <= starts
        check(doc, spans, max_tokens=max_tokens, overlap_tokens=overlap)


def test_a_row_longer_than_the_window_is_cut():
    doc = table(["a " * 50, "b c"])
    check(doc, chunk(doc, max_tokens=20, overlap_tokens=0), max_tokens=20)


@pytest.mark.parametrize("with_rows", [False, True])
def test_windows_are_in_order_and_hold_every_character_that_is_not_white_space(with_rows):
    for doc, generator in documents(400, seed=7, with_rows=with_rows):
        max_tokens = generator.randint(1, 25)
        overlap = generator.randint(0, max_tokens - 1)
        spans = chunk(doc, max_tokens=max_tokens, overlap_tokens=overlap)
        check(doc, spans, max_tokens=max_tokens, overlap_tokens=overlap)
        check_rows(doc, spans, max_tokens=max_tokens)


def test_no_grapheme_is_cut():
    for doc, generator in documents(300, seed=9):
        max_tokens = generator.randint(9, 25)
        check_graphemes(doc, chunk(doc, max_tokens=max_tokens, overlap_tokens=3))


def test_no_word_that_fits_is_cut():
    for doc, generator in documents(300, seed=8):
        text, tokens = doc.text, TokenIndex(doc.text)
        max_tokens = generator.randint(4, 25)
        for start, _ in chunk(doc, max_tokens=max_tokens, overlap_tokens=2):
            before, after = text[:start].split(), text[start:].split()
            if start and not text[start - 1].isspace() and (before[-1] + after[0]).isascii():
                first = start - len(before[-1])
                assert tokens.count(first, start + len(after[0])) > max_tokens
