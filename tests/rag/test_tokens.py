import random

import pytest

from rag.tokens import count_tokens, token_spans


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        (" \t\n\u00a0\u3000\u2003", []),
        ("It rained.", ["It", "rained", "."]),
        ("snake_case x1 3.5", ["snake_case", "x1", "3", ".", "5"]),
        ("don't — stop!?", ["don", "'", "t", "—", "stop", "!", "?"]),
        ("Zürich naïve пример", ["Zürich", "naïve", "пример"]),
        ("你好，世界。", ["你", "好", "，", "世", "界", "。"]),
        ("値は３つ", ["値", "は", "３", "つ"]),
        ("한국어 말", ["한", "국", "어", "말"]),
        ("你\u3000好", ["你", "好"]),
        ("abc中def", ["abc", "中", "def"]),
        ("𠀀𠀁", ["𠀀", "𠀁"]),
        ("a\u3000b", ["a", "b"]),
        ("€5 😀", ["€", "5", "😀"]),
    ],
)
def test_words_marks_and_cjk_characters_are_tokens(text, tokens):
    assert [text[start:end] for start, end in token_spans(text)] == tokens
    assert count_tokens(text) == len(tokens)


def test_no_white_space_is_a_token():
    spaces = [chr(code) for code in range(0x110000) if chr(code).isspace()]
    assert "\u3000" in spaces
    assert [space for space in spaces if count_tokens(space)] == []


def test_every_other_character_is_in_exactly_one_token():
    generator = random.Random(3)
    alphabet = "ab_1 .,\n中文。\u3000\u0301한é" + "".join(chr(code) for code in range(0x2E80, 0x3100))
    for _ in range(300):
        text = "".join(generator.choices(alphabet, k=40))
        covered = [place for start, end in token_spans(text) for place in range(start, end)]
        assert covered == [place for place, character in enumerate(text) if not character.isspace()]


def test_a_million_characters_are_counted_without_delay():
    assert count_tokens("word " * 200_000) == 200_000
    assert count_tokens("中" * 1_000_000) == 1_000_000
