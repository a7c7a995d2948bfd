from dataclasses import replace

import pytest

from ingest.chunking.passages import make_passages
from rag.retrieval.passage_text import indexed_text
from rag.retrieval.store import passage_id
from rag.types import Document, Heading, Passage

TEXT = "Zero.\n# A\n## B\nOne. Two.\n## C\nThree.\n# D\nFour."
HEADINGS = tuple(
    Heading(TEXT.index(line), level, line[-1]) for line, level in (("# A", 1), ("## B", 2), ("## C", 2), ("# D", 1))
)
DOCUMENT = Document(
    id="doc",
    version="v1",
    source="manual",
    title="Title",
    text=TEXT,
    headings=HEADINGS,
    page_starts=(0, TEXT.index("Two"), TEXT.index("# D")),
    metadata={"year": 2024},
)


def passage_at(first: str, last: str, document: Document = DOCUMENT) -> Passage:
    span = (TEXT.index(first), TEXT.index(last) + len(last))
    return make_passages(document, tenant="acme", spans=[span])[0]


def test_a_passage_carries_its_document_and_its_place():
    spans = [(0, 5), (TEXT.index("Two"), TEXT.index("Two") + 4)]
    first, second = make_passages(DOCUMENT, tenant="acme", spans=spans)
    assert second == Passage(
        id=passage_id("acme", "doc", "v1", 1),
        tenant="acme",
        source="manual",
        document_id="doc",
        version="v1",
        ordinal=1,
        start=spans[1][0],
        end=spans[1][1],
        text="Two.",
        title="Title",
        headings=("A", "B"),
        page=2,
        metadata={"year": 2024},
    )
    assert (first.ordinal, first.id, first.page) == (0, passage_id("acme", "doc", "v1", 0), 1)


@pytest.mark.parametrize(
    ("first", "last", "path"),
    [
        ("Zero.", "Zero.", ()),
        ("# A", "One.", ("A", "B")),
        ("One.", "One.", ("A", "B")),
        ("## C", "Three.", ("A", "C")),
        ("Three.", "Three.", ("A", "C")),
        ("# D", "Four.", ("D",)),
        ("Zero.", "Four.", ()),
        ("Two.", "Three.", ("A", "B")),
    ],
)
def test_headings_are_those_that_hold_where_the_text_of_the_passage_starts(first, last, path):
    assert passage_at(first, last).headings == path


def test_a_document_without_pages_has_passages_without_pages():
    assert passage_at("Zero.", "Zero.", replace(DOCUMENT, page_starts=())).page is None


@pytest.mark.parametrize(("first", "page"), [("Zero.", 1), ("One.", 1), ("Two.", 2), ("# D", 3)])
def test_the_page_is_that_of_the_start(first, page):
    assert passage_at(first, "Four.").page == page


@pytest.mark.parametrize(
    ("title", "headings", "expected"),
    [
        ("Title", ("A", "B"), "Title\nA > B\nText."),
        ("Title", ("Title", "B"), "Title\nB\nText."),
        ("Title", ("Title",), "Title\nText."),
        ("", ("A",), "A\nText."),
        ("", (), "Text."),
    ],
)
def test_what_is_embedded_names_title_and_headings_once(title, headings, expected):
    passage = replace(passage_at("Zero.", "Zero."), title=title, headings=headings, text="Text.")
    assert indexed_text(passage) == expected


def test_a_context_is_embedded_between_the_headings_and_the_text():
    passage = replace(passage_at("Zero.", "Zero."), title="Title", headings=("A", "B"), text="Text.\n", context="Why.")
    assert indexed_text(passage) == "Title\nA > B\nWhy.\nText."


def test_rows_are_those_of_the_sheet_that_the_passage_is_on():
    text = "Stock\nName | Count\nBolts | 7\n\nBudget\nTeam | Total\nSales | 9\n"
    starts = [text.index(line) for line in ("Name", "Bolts", "Team", "Sales")]
    document = Document(
        id="docs/a.xlsx",
        version="v",
        source="docs",
        title="",
        text=text,
        page_starts=(0, text.index("Budget")),
        row_starts=tuple(zip(starts, (1, 2, 1, 2), strict=True)),
    )
    spans = [(0, text.index("Budget")), (text.index("Budget"), len(text))]
    first, second = make_passages(document, tenant="acme", spans=spans)
    assert (first.page, first.rows, second.page, second.rows) == (1, (1, 2), 2, (1, 2))
    (inside,) = make_passages(document, tenant="acme", spans=[(text.index("7"), text.index("7") + 1)])
    (between,) = make_passages(document, tenant="acme", spans=[(text.index("Budget"), text.index("Team") - 1)])
    assert (inside.rows, between.rows) == ((2, 2), None)
