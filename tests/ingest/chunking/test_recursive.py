import random
from itertools import pairwise

import pytest

from ingest.chunking.recursive import chunk
from rag.errors import ConfigurationError
from rag.tokens import count_tokens
from rag.types import Document, Heading


def document(text: str, *headings: str) -> Document:
    marks = tuple(Heading(start=text.index(heading), level=1, text=heading.strip("# ")) for heading in headings)
    return Document(id="d", version="v", source="s", title="t", text=text, headings=marks)


def texts(doc: Document, max_tokens: int, overlap_tokens: int = 0) -> list[str]:
    spans = chunk(doc, max_tokens=max_tokens, overlap_tokens=overlap_tokens)
    return [doc.text[start:end] for start, end in spans]


def test_small_paragraphs_are_merged_up_to_the_limit():
    assert texts(document("One two.\n\nThree four.\n\nFive six."), 6) == [
        "One two.\n\nThree four.",
        "Five six.",
    ]


def test_a_paragraph_that_is_too_long_is_cut_at_sentences_and_a_sentence_at_tokens():
    text = "One two. Three four five. A b c d e f g h i j."
    assert texts(document(text), 7) == ["One two. Three four five.", "A b c d e f", "g h i j."]


def test_sections_are_not_merged_and_do_not_overlap():
    text = "# A\n\nOne two.\n\n# B\n\nThree."
    assert texts(document(text, "# A", "# B"), 50, 10) == ["# A\n\nOne two.", "# B\n\nThree."]


def test_a_heading_never_stands_alone_before_its_text():
    text = "# A b c\n\nOne two three four. Five six."
    assert texts(document(text, "# A b c"), 9) == ["# A b c\n\nOne two three four.", "Five six."]


def test_neighbours_share_whole_sentences():
    text = "One two. Three four. Five six. Seven eight. Nine ten."
    assert texts(document(text), 9, 3) == [
        "One two. Three four. Five six.",
        "Five six. Seven eight. Nine ten.",
    ]


def test_neighbours_share_the_end_of_a_sentence_that_is_longer_than_the_overlap():
    text = "A b c d e f g h. I j k l m."
    assert texts(document(text), 12, 4) == ["A b c d e f g h.", "f g h. I j k l m."]


@pytest.mark.parametrize("overlap", [10, 11])
def test_an_overlap_as_long_as_the_chunk_is_refused_by_name(overlap):
    with pytest.raises(ConfigurationError, match=r"chunking\.overlap_tokens"):
        chunk(document("One."), max_tokens=10, overlap_tokens=overlap)


def test_a_paragraph_of_24000_words_keeps_within_the_tokens_and_overlaps():
    doc = document(" ".join(f"w{number}" for number in range(24_000)))
    groups = texts(doc, 200, 40)
    assert all(count_tokens(group) <= 200 for group in groups)
    assert all(earlier.split()[-40:] == later.split()[:40] for earlier, later in pairwise(groups))
    assert len(groups) == 150


def test_chinese_without_spaces_keeps_within_the_tokens():
    text = "今天天气很好我们去公园散步" * 100
    assert all(count_tokens(group) <= 50 for group in texts(document(text), 50, 10))
    assert "".join(texts(document(text), 50)) == text


def test_chunks_are_in_order_and_hold_every_character_that_is_not_white_space():
    generator = random.Random(7)
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
        "\f",
    ]
    for _ in range(400):
        text = "".join(generator.choices(pieces, k=generator.randint(0, 80)))
        starts = sorted(generator.choices(range(len(text) + 1), k=2))
        marks = tuple(Heading(start, 1, "Word") for start in starts if start < len(text))
        doc = Document("d", "v", "s", "t", text, headings=marks)
        max_tokens = generator.randint(1, 25)
        overlap = generator.randint(0, max_tokens - 1)
        previous, place = -1, 0
        for start, end in chunk(doc, max_tokens=max_tokens, overlap_tokens=overlap):
            assert previous < start < end
            assert place < end
            assert not text[place:start].strip()
            assert count_tokens(text[start:end]) <= max_tokens
            assert count_tokens(text[start : max(start, place)]) <= overlap
            assert text[start:end] == text[start:end].strip()
            previous, place = start, end
        assert not text[place:].strip()
