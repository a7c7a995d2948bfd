import logging
from io import BytesIO

import pytest
from pypdf import PdfReader, PdfWriter
from reportlab.pdfgen.canvas import Canvas

from ingest.load.pdf import load
from rag.errors import DocumentError


def written(*pages: list[str], title: str | None = None, bookmarks: tuple[tuple[int, int, str], ...] = ()) -> bytes:
    """A PDF of text lines; bookmarks are (page from 0, level from 0, title)."""
    buffer = BytesIO()
    canvas = Canvas(buffer)
    if title is not None:
        canvas.setTitle(title)
    for number, lines in enumerate(pages):
        for bookmarked, level, name in bookmarks:
            if bookmarked == number:
                canvas.bookmarkPage(name)
                canvas.addOutlineEntry(name, name, level)
        text = canvas.beginText(50, 800)
        for line in lines:
            text.textLine(line)
        canvas.drawText(text)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def locked(data: bytes, user_password: str) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(BytesIO(data)))
    writer.encrypt(user_password=user_password, owner_password="owner", algorithm="AES-256")
    buffer = BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


def test_pages_are_joined_by_a_blank_line_and_start_where_they_say():
    extracted = load(written(["First page."], [], ["Third", "page."]))
    assert extracted.text == "First page.\n\n\n\nThird\npage."
    assert extracted.page_starts == (0, 13, 15)
    assert extracted.media_type == "application/pdf"


def test_bookmarks_are_headings_where_their_words_stand():
    data = written(
        ["In this part the scope is defined.", "1. Scope", "Text about the scope of it."],
        ["Chapter 2: Terms", "of Use", "More text."],
        bookmarks=((0, 0, "Scope"), (0, 1, "Not on this page"), (1, 0, "Terms of use"), (1, 1, "More")),
    )
    extracted = load(data)
    assert [(heading.level, heading.text) for heading in extracted.headings] == [
        (1, "Scope"),
        (1, "Terms of use"),
        (2, "More"),
    ]
    starts = [extracted.text[heading.start :].split("\n")[0] for heading in extracted.headings]
    assert starts == ["1. Scope", "Chapter 2: Terms", "More text."]


def test_a_bookmark_that_stands_twice_on_a_page_is_found_on_its_own_line():
    data = written(["Results are given in the next part.", "Results", "None."], bookmarks=((0, 0, "Results"),))
    extracted = load(data)
    assert extracted.text[extracted.headings[0].start :] == "Results\nNone."


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Annual Report 2024", "Annual Report 2024"),
        ("untitled", None),
        ("Microsoft Word - report_final.doc", None),
        ("report_v2.docx", None),
        ("PowerPoint Presentation", None),
        ("Document1", None),
        ("C:\\work\\report", None),
        (" 12 ", None),
    ],
)
def test_a_title_counts_only_if_a_person_wrote_it(title, expected):
    assert load(written(["text"], title=title)).title == expected


def test_document_information_is_metadata():
    writer = PdfWriter(clone_from=PdfReader(BytesIO(written(["text"]))))
    writer.add_metadata({"/Author": "A. Writer", "/Subject": "Things", "/Keywords": "one, two;three"})
    buffer = BytesIO()
    writer.write(buffer)
    assert load(buffer.getvalue()).metadata == {
        "author": "A. Writer",
        "subject": "Things",
        "keywords": ["one", "two", "three"],
    }


def test_a_locked_pdf_is_reported_as_password_protected():
    with pytest.raises(DocumentError, match="password-protected"):
        load(locked(written(["secret"]), user_password="1234"))


def test_a_pdf_locked_only_against_changes_is_read():
    assert load(locked(written(["open to readers"]), user_password="")).text == "open to readers"


def test_pages_without_a_text_layer_need_ocr():
    buffer = BytesIO()
    canvas = Canvas(buffer)
    canvas.rect(10, 10, 100, 100, fill=1)
    canvas.showPage()
    canvas.save()
    with pytest.raises(DocumentError, match="no text layer: scanned pages need OCR"):
        load(buffer.getvalue())


@pytest.mark.parametrize("data", [b"%PDF-1.7\nnothing that follows", written(["text"])[:200], b"no PDF at all"])
def test_a_corrupt_pdf_is_reported_as_such(data):
    with pytest.raises(DocumentError, match="corrupt PDF"):
        load(data)


def test_an_empty_file_is_reported_as_such():
    with pytest.raises(DocumentError, match="empty"):
        load(b"")


def test_repairs_are_not_logged_and_the_log_level_is_left_as_it_was(caplog):
    logger = logging.getLogger("pypdf")
    before = logger.level
    damaged = written(["text"]).replace(b"startxref\n", b"startxref\n9")
    with caplog.at_level(logging.DEBUG, logger="pypdf._reader"):
        PdfReader(BytesIO(damaged))
        assert caplog.records, "the damage does not make pypdf log"
    caplog.clear()
    assert load(damaged).text == "text"
    assert caplog.records == []
    assert logger.level == before
