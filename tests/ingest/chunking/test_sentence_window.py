import random

import pytest

from ingest.chunking.sentence_window import chunk
from rag.tokens import count_tokens
from rag.types import Document, Heading


def document(text: str, *headings: str) -> Document:
    marks = tuple(Heading(start=text.index(heading), level=1, text=heading.strip("# ")) for heading in headings)
    return Document(id="d", version="v", source="s", title="t", text=text, headings=marks)


def texts(doc: Document, sentences: int = 6, max_tokens: int = 200) -> list[str]:
    return [doc.text[start:end] for start, end in chunk(doc, sentences=sentences, max_tokens=max_tokens)]


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(0, []), (1, [1]), (6, [6]), (7, [4, 3]), (8, [6, 2]), (12, [6, 6]), (13, [6, 4, 3]), (15, [6, 6, 3])],
)
def test_sentences_are_grouped_and_a_tiny_last_group_is_balanced(count, sizes):
    text = " ".join(f"Sentence {number}." for number in range(count))
    assert [group.count(".") for group in texts(document(text))] == sizes


def test_balancing_keeps_within_the_tokens():
    # 3 + 3 words, then 8, then 1: the long one cannot leave for the last group at 8 tokens and a mark.
    text = "A b c. D e f. G h i j k l m. N."
    assert texts(document(text), sentences=6, max_tokens=8) == ["A b c. D e f.", "G h i j k l m.", "N."]


def test_a_group_ends_where_the_tokens_do():
    text = "One two three. Four five six. Seven eight nine."
    assert texts(document(text), max_tokens=9) == ["One two three. Four five six.", "Seven eight nine."]


def test_no_group_crosses_a_heading_and_the_heading_goes_with_its_text():
    text = "Before.\n\n# A\n\nOne. Two.\n\n# B\n\n## C\n\nThree.\n\n# D\n"
    doc = document(text, "# A", "# B", "## C", "# D")
    assert texts(doc) == ["Before.", "# A\n\nOne. Two.", "# B\n\n## C\n\nThree.", "# D"]


def test_a_heading_is_no_sentence_of_its_own():
    text = "# A\n\n" + " ".join(f"Sentence {number}." for number in range(6))
    assert len(texts(document(text, "# A"))) == 1


def test_a_paragraph_of_24000_words_without_marks_is_cut_evenly():
    groups = texts(document("word " * 24_000), max_tokens=200)
    assert [count_tokens(group) for group in groups] == [200] * 120


def test_chinese_without_spaces_keeps_within_the_tokens():
    text = "今天天气很好我们去公园散步" * 100 + "。" + "明天也许会下雨。" * 50
    groups = texts(document(text), max_tokens=64)
    assert "".join(groups) == text
    assert all(16 <= count_tokens(group) <= 64 for group in groups)


def test_an_emoji_sequence_in_a_long_sentence_is_not_cut():
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    groups = texts(document(family * 100), max_tokens=32)
    assert "".join(groups) == family * 100
    assert all(group.count("\U0001f468") * len(family) == len(group) for group in groups)


def test_groups_do_not_overlap_and_hold_every_character_that_is_not_white_space():
    generator = random.Random(6)
    pieces = [
        "Word",
        " ",
        " ",
        ". ",
        "\n",
        "\n\n",
        "# ",
        "- ",
        "中文。",
        "e\u0301",
        "\u3000",
        "_",
        "```\n",
        "(x) ",
        "\f",
    ]
    for _ in range(400):
        text = "".join(generator.choices(pieces, k=generator.randint(0, 80)))
        starts = sorted(generator.choices(range(len(text) + 1), k=3))
        marks = tuple(Heading(start, 1, "Word") for start in starts if start < len(text))
        doc = Document("d", "v", "s", "t", text, headings=marks)
        max_tokens = generator.randint(1, 25)
        place = 0
        for start, end in chunk(doc, sentences=generator.randint(1, 7), max_tokens=max_tokens):
            assert not text[place:start].strip()
            assert start < end
            assert text[start:end] == text[start:end].strip()
            assert count_tokens(text[start:end]) <= max_tokens
            place = end
        assert not text[place:].strip()
