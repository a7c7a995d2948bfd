from ingest.chunking.sections import heading_spans, section_paragraphs, section_sentences, sections
from rag.types import Document, Heading


def document(text: str, *headings: str) -> Document:
    """A document whose headings are found by their text."""
    marks = tuple(Heading(start=text.index(heading), level=1, text=heading.strip("# ")) for heading in headings)
    return Document(id="d", version="v", source="s", title="t", text=text, headings=marks)


def test_a_heading_line_holds_its_markup_and_underline():
    doc = document("a\n\n## [One](address) ##\nb\n\nTwo\n=====\nc", "One", "Two")
    assert [doc.text[start:end] for start, end in heading_spans(doc)] == [
        "## [One](address) ##",
        "Two\n=====",
    ]


def test_an_outline_entry_that_is_no_line_of_the_text_has_no_heading_line():
    text = "A paragraph which goes on and on. " * 20
    doc = Document("d", "v", "s", "t", text, headings=(Heading(0, 1, "Chapter"), Heading(34, 1, "Next")))
    assert heading_spans(doc) == [(0, 0), (34, 34)]
    assert [(section.start, section.body) for section in sections(doc)] == [(0, 0), (34, 34)]


def test_headings_without_text_share_the_section_of_the_next():
    text = "Preface.\n\n# A\n\n## B\n\nText.\n\n# C\nMore.\n\n# D\n"
    found = sections(document(text, "# A", "## B", "# C", "# D"))
    assert [text[section.start : section.end] for section in found] == [
        "Preface.",
        "# A\n\n## B\n\nText.",
        "# C\nMore.",
        "# D",
    ]
    assert [text[section.body : section.end] for section in found] == ["Preface.", "Text.", "More.", ""]


def test_two_headings_at_one_place_make_one_section():
    doc = Document("d", "v", "s", "t", "One. Two.", headings=(Heading(0, 1, "One"), Heading(0, 2, "One")))
    assert [(section.start, section.end) for section in sections(doc)] == [(0, 9)]


def test_a_text_of_white_space_has_no_sections():
    assert sections(document(" \n\n ")) == []


def test_the_heading_belongs_to_the_first_sentence_and_the_first_paragraph():
    text = "# A\n\nOne. Two\nthree.\n \nFour.\fFive."
    (section,) = sections(document(text, "# A"))
    sentences = [text[start:end] for start, end in section_sentences(text, section)]
    assert sentences == ["# A\n\nOne.", "Two\nthree.", "Four.", "Five."]
    paragraphs = [text[part.start : part.end] for part in section_paragraphs(text, section)]
    assert paragraphs == ["# A\n\nOne. Two\nthree.", "Four.", "Five."]
