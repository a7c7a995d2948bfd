import random

import pytest

from ingest.chunking.token_index import TokenIndex
from rag.tokens import count_tokens

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


def cut(text: str, max_tokens: int) -> list[str]:
    return [text[start:end] for start, end in TokenIndex(text).cut(0, len(text), max_tokens)]


def test_counts_are_those_of_the_budget():
    generator = random.Random(4)
    for _ in range(300):
        text = "".join(generator.choices("ab_ .,中文\u3000e\u0301\n", k=40))
        start, end = sorted(generator.choices(range(41), k=2))
        if start < end:
            assert TokenIndex(text).count(start, end) == count_tokens(text[start:end])


def test_a_span_that_fits_is_one_piece_without_white_space_at_its_ends():
    assert cut("  one two  ", 2) == ["one two"]


def test_pieces_are_balanced():
    assert [count_tokens(piece) for piece in cut("word " * 250, 100)] == [84, 83, 83]


def test_a_cut_prefers_white_space():
    assert cut("one two, three four five 3.14 six", 7) == ["one two, three four", "five 3.14 six"]


def test_a_word_too_long_to_be_one_is_cut():
    assert [len(piece) for piece in cut("a" * 400, 4)] == [160, 120, 120]


@pytest.mark.parametrize(
    "cluster",
    [FAMILY, "e\u0301", "\U0001f44d\U0001f3fd", "\U0001f1e9\U0001f1ea", "क्षि", "\u2764\ufe0f"],
    ids=["family", "accent", "skin", "flag", "conjunct", "variation"],
)
def test_no_character_that_readers_see_as_one_is_divided(cluster):
    for max_tokens in range(8, 20):
        pieces = cut(cluster * 50, max_tokens)
        assert len(pieces) > 1
        assert "".join(pieces) == cluster * 50
        assert all(len(piece) % len(cluster) == 0 for piece in pieces)


def test_a_cluster_longer_than_the_limit_is_cut_all_the_same():
    assert all(count_tokens(piece) <= 3 for piece in cut("e" + "\u0301" * 20, 3))


def test_pieces_hold_everything_and_no_more_than_the_limit():
    generator = random.Random(5)
    for _ in range(300):
        text = "".join(generator.choices(["word", " ", " ", ".", "中", "\u3000", FAMILY, "e\u0301", "_"], k=60))
        max_tokens = generator.randint(1, 30)
        pieces = cut(text, max_tokens)
        assert "".join("".join(pieces).split()) == "".join(text.split())
        assert all(count_tokens(piece) <= max_tokens and piece == piece.strip() for piece in pieces)


def test_a_tail_begins_after_white_space_where_it_can():
    text = "one two three 3.14 five"
    index = TokenIndex(text)
    assert text[index.tail(0, len(text), 3) :] == "five"
    assert text[index.tail(0, len(text), 4) :] == "3.14 five"
    assert TokenIndex("天地玄黄").tail(0, 4, 2) == 2
    assert TokenIndex("one").tail(0, 3, 2) == 3
