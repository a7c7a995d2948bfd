import numpy as np
import pytest

from ingest.chunking.semantic import chunk, embedded_text, embedded_tokens, groups
from rag.tokens import count_tokens
from rag.types import Document, Heading
from tests.ingest.chunking.documents import check, check_graphemes, check_rows, documents, table


def document(text: str, *headings: str) -> Document:
    marks = tuple(Heading(start=text.index(heading), level=1, text=heading.strip("# ")) for heading in headings)
    return Document(id="d", version="v", source="s", title="t", text=text, headings=marks)


def sentences(count: int) -> str:
    return " ".join(f"Sentence {number}." for number in range(count))


def turning(count: int, *, after: dict[int, float]) -> np.ndarray:
    """Vectors in a plane that turn by an angle before the given positions, and by a little everywhere else."""
    angles = np.cumsum([after.get(position, 0.01) for position in range(count)])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def texts(doc: Document, vectors: np.ndarray, *, max_tokens=60, min_tokens=6, percentile=90.0) -> list[str]:
    found = groups(doc, buffer_sentences=1, max_tokens=max_tokens)
    spans = chunk(
        doc, groups=found, vectors=vectors, percentile=percentile, max_tokens=max_tokens, min_tokens=min_tokens
    )
    check(doc, spans, max_tokens=max_tokens)
    return [doc.text[start:end] for start, end in spans]


def counts(*arguments, **options) -> list[int]:
    return [text.count(".") for text in texts(*arguments, **options)]


def test_a_sentence_is_embedded_with_its_neighbours_in_its_section():
    doc = document("One. Two. Three.\n\n# B\n\nFour.", "# B")
    found = groups(doc, buffer_sentences=1, max_tokens=50)
    assert [doc.text[group.start : group.end] for group in found] == ["One.", "Two.", "Three.", "# B\n\nFour."]
    assert [embedded_text(doc, group) for group in found] == [
        "One. Two.",
        "One. Two. Three.",
        "Two. Three.",
        "# B\n\nFour.",
    ]
    assert [group.opens_section for group in found] == [True, False, False, True]


def test_as_many_neighbours_are_embedded_as_fit():
    doc = document("A b c. D e f. G h i. J k l. M n o.")
    found = groups(doc, buffer_sentences=2, max_tokens=12)
    assert embedded_text(doc, found[2]) == "D e f. G h i. J k l."
    assert embedded_text(doc, found[0]) == "A b c. D e f. G h i."


@pytest.mark.parametrize("buffer", [0, 1, 2])
def test_the_cost_is_told_in_tokens(buffer):
    doc = document(sentences(40))
    found = groups(doc, buffer_sentences=buffer, max_tokens=200)
    assert embedded_tokens(doc, found) == sum(count_tokens(embedded_text(doc, group)) for group in found)
    # Nobody has neighbours beyond the ends.
    assert embedded_tokens(doc, found) == 3 * (40 * (1 + 2 * buffer) - buffer * (buffer + 1))


def test_a_chunk_ends_where_the_meaning_turns():
    vectors = turning(20, after={7: 1.0, 12: 0.8})
    assert counts(document(sentences(20)), vectors) == [7, 5, 8]


def test_the_percentile_is_that_of_numpy_over_the_whole_document():
    generator = np.random.default_rng(3)
    turns = generator.uniform(0.1, 1.0, size=40)
    doc = document(sentences(40))
    vectors = turning(40, after=dict(enumerate(turns)))
    distances = 1 - np.cos(turns[1:])
    for percentile in (60, 80, 95):
        threshold = np.percentile(distances, percentile)
        bounds = [0, *(1 + np.flatnonzero(distances > threshold)), 40]
        assert counts(doc, vectors, percentile=percentile, max_tokens=500, min_tokens=0) == np.diff(bounds).tolist()


def test_a_percentile_of_100_leaves_only_the_size():
    vectors = turning(20, after={7: 1.0})
    assert counts(document(sentences(20)), vectors, percentile=100.0) == [20]


def test_a_document_too_short_for_its_percentile_has_no_breakpoints():
    # At the 90th percentile ten distances, which eleven sentences have, are needed.
    assert counts(document(sentences(10)), turning(10, after={5: 1.0})) == [10]
    assert counts(document(sentences(11)), turning(11, after={5: 1.0})) == [5, 6]


def test_one_sentence_and_none_are_one_chunk_and_none():
    assert texts(document("One."), turning(1, after={})) == ["One."]
    assert texts(document(" \n"), np.zeros((0, 2), dtype=np.float32)) == []


def test_of_two_breakpoints_that_are_too_close_the_larger_counts():
    vectors = turning(30, after={7: 0.8, 8: 1.0, 29: 1.2})
    assert counts(document(sentences(30)), vectors, max_tokens=200, min_tokens=6) == [8, 22]


def test_a_long_stretch_is_divided_at_its_largest_distance():
    doc = document(sentences(30))
    assert counts(doc, turning(30, after={17: 0.5}), percentile=100.0) == [17, 13]
    # A larger one in the first half would leave a chunk that is needlessly short.
    assert counts(doc, turning(30, after={4: 0.9, 17: 0.5}), percentile=100.0) == [17, 13]


def test_a_long_stretch_without_any_turn_is_divided_evenly():
    doc = document(sentences(30))
    vectors = np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (30, 1))
    assert counts(doc, vectors, percentile=100.0) == [15, 15]


def test_no_chunk_crosses_a_heading_and_its_distance_does_not_count():
    text = sentences(12) + "\n\n# B\n\n" + sentences(12)
    vectors = turning(24, after={12: 3.0, 18: 0.5})
    assert [part.count(".") for part in texts(document(text, "# B"), vectors, min_tokens=13)] == [12, 6, 6]


def test_a_paragraph_of_24000_words_keeps_within_the_tokens():
    doc = document(" ".join(f"w{number}" for number in range(24_000)))
    found = groups(doc, buffer_sentences=1, max_tokens=200)
    assert all(count_tokens(embedded_text(doc, group)) <= 200 for group in found)
    assert all(count_tokens(text) <= 200 for text in texts(doc, turning(len(found), after={}), max_tokens=200))


@pytest.mark.parametrize("with_rows", [False, True])
def test_chunks_are_in_order_and_hold_every_character_that_is_not_white_space(with_rows):
    vectors_of = np.random.default_rng(1)
    for doc, generator in documents(300, seed=11, with_rows=with_rows):
        max_tokens = generator.randint(1, 25)
        found = groups(doc, buffer_sentences=generator.randint(0, 2), max_tokens=max_tokens)
        vectors = vectors_of.normal(size=(len(found), 3)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        spans = chunk(
            doc,
            groups=found,
            vectors=vectors,
            percentile=generator.choice([0.0, 50.0, 90.0]),
            max_tokens=max_tokens,
            min_tokens=generator.randint(0, 30),
        )
        check(doc, spans, max_tokens=max_tokens)
        check_rows(doc, spans, max_tokens=max_tokens)
        if max_tokens >= 9:
            check_graphemes(doc, spans)


def test_rows_are_embedded_and_kept_whole():
    doc = table([f"Item {number}. Of many. | {number}" for number in range(30)])
    found = groups(doc, buffer_sentences=0, max_tokens=30)
    assert [group.start for group in found] == [0, *(start for start, _ in doc.row_starts)]
    spans = chunk(doc, groups=found, vectors=turning(31, after={}), percentile=90, max_tokens=30, min_tokens=5)
    assert {start for start, _ in spans} <= {group.start for group in found}
