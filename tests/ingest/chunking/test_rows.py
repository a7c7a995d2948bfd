import pytest

from ingest.chunking import recursive, sentence_window
from tests.ingest.chunking.documents import check, check_graphemes, check_rows, documents, table

ROWS = [f"Item {number}. Of many! | {number}" for number in range(20)]


def test_a_row_counts_as_one_sentence_whatever_stands_in_its_cells():
    doc = table(ROWS)
    spans = sentence_window.chunk(doc, sentences=6, max_tokens=200)
    assert [doc.text[start:end].count("Item") for start, end in spans] == [5, 6, 6, 3]
    assert doc.text[slice(*spans[0])].startswith("Name. | Amount.\nItem 0.")


@pytest.mark.parametrize(("max_tokens", "overlap"), [(8, 0), (20, 0), (30, 9), (40, 5)])
def test_recursive_chunks_begin_with_whole_rows_and_repeat_whole_rows(max_tokens, overlap):
    doc = table(ROWS)
    spans = recursive.chunk(doc, max_tokens=max_tokens, overlap_tokens=overlap)
    assert {start for start, _ in spans} <= {0, *(start for start, _ in doc.row_starts)}
    check(doc, spans, max_tokens=max_tokens, overlap_tokens=overlap)


def test_a_row_that_leaves_no_room_for_the_overlap_stays_whole_without_it():
    doc = table(["Long " * 28 + f"{number}. End." for number in range(3)])
    spans = recursive.chunk(doc, max_tokens=34, overlap_tokens=20)
    assert [doc.text[start:end].count("Long") for start, end in spans] == [0, 28, 28, 28]


def test_a_row_that_does_not_fit_is_divided_at_its_sentences():
    doc = table(["One two three. Four five six. Seven eight nine.", "Ten."])
    spans = sentence_window.chunk(doc, sentences=6, max_tokens=9)
    assert [doc.text[start:end] for start, end in spans] == [
        "Name. | Amount.\nOne two three.",
        "Four five six. Seven eight nine.",
        "Ten.",
    ]


def test_text_before_a_table_and_after_a_heading_is_no_row():
    doc = table(ROWS[:2], before="Notes of a kind. And more.\n\n")
    spans = sentence_window.chunk(doc, sentences=1, max_tokens=50)
    assert [doc.text[start:end] for start, end in spans] == [
        "Notes of a kind.",
        "And more.",
        "Name. | Amount.",
        *ROWS[:2],
    ]


def test_a_row_with_an_empty_line_inside_stays_whole():
    doc = table(["a: one\n\nb: two", "a: three\n\nb: four"])
    spans = recursive.chunk(doc, max_tokens=6, overlap_tokens=0)
    assert [doc.text[start:end] for start, end in spans][1:] == ["a: one\n\nb: two", "a: three\n\nb: four"]


@pytest.mark.parametrize("with_rows", [False, True])
def test_no_row_and_no_grapheme_is_divided(with_rows):
    for doc, generator in documents(400, seed=21, with_rows=with_rows):
        max_tokens = generator.randint(2, 30)
        overlap = generator.randint(0, max_tokens - 1)
        for spans, shared in (
            (sentence_window.chunk(doc, sentences=generator.randint(1, 5), max_tokens=max_tokens), 0),
            (recursive.chunk(doc, max_tokens=max_tokens, overlap_tokens=overlap), overlap),
        ):
            check(doc, spans, max_tokens=max_tokens, overlap_tokens=shared)
            check_rows(doc, spans, max_tokens=max_tokens)
            if max_tokens - shared >= 9:
                check_graphemes(doc, spans)
