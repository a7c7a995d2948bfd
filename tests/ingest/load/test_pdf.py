import contextlib
import logging
import random
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import pytest
from pypdf import PdfReader, PdfWriter
from pypdf.generic import NameObject
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from ingest.load import pdf
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


def drawn(*pages) -> bytes:
    """A PDF of pages that functions draw."""
    buffer = BytesIO()
    canvas = Canvas(buffer)
    for page in pages:
        page(canvas)
    canvas.save()
    return buffer.getvalue()


def text(canvas):
    canvas.drawString(50, 800, "text")
    canvas.showPage()


def blank(canvas):
    canvas.showPage()


def framed(canvas):
    canvas.rect(10, 10, 100, 100)
    canvas.showPage()


def picture(canvas):
    # A bitmap of two by two points in the portable format that needs no library.
    canvas.drawImage(ImageReader(BytesIO(b"P6 2 2 255 " + bytes(range(12)))), 0, 0, 500, 800)
    canvas.showPage()


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


def test_a_damaged_file_is_repaired_without_a_word(caplog, capfd):
    damaged = written(["text"]).replace(b"startxref\n", b"startxref\n9")
    with caplog.at_level(logging.DEBUG, logger="pypdf._reader"):
        PdfReader(BytesIO(damaged))
        assert caplog.records, "the file is not damaged"
    caplog.clear()
    capfd.readouterr()
    with caplog.at_level(logging.DEBUG):
        assert load(damaged).text == "text"
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_pages_that_are_pictures_are_named_in_a_warning_and_blank_ones_are_not():
    extracted = load(drawn(text, blank, picture, picture, framed, picture, text))
    assert extracted.warnings == ("pages 3-4, 6 have no text layer: scanned pages need OCR",)
    assert len(extracted.page_starts) == 7
    assert load(drawn(text, picture)).warnings == ("page 2 has no text layer: scanned pages need OCR",)
    assert load(drawn(text, blank)).warnings == ()


def test_a_page_that_cannot_be_read_is_named_and_the_others_are_read():
    writer = PdfWriter(clone_from=PdfReader(BytesIO(written(["one"], ["two"], ["three"]))))
    writer.pages[1][NameObject("/Type")] = NameObject("/Nothing")
    buffer = BytesIO()
    writer.write(buffer)
    extracted = load(buffer.getvalue())
    assert extracted.text == "one\n\n\n\nthree"
    assert extracted.warnings == ("page 2 cannot be read: the file is damaged there",)


def test_a_file_of_too_many_pages_is_refused(monkeypatch):
    monkeypatch.setattr(pdf, "MAX_PAGES", 2)
    assert load(written(["one"], ["two"])).text == "one\n\ntwo"
    with pytest.raises(DocumentError, match="it has 3 pages, at most 2 are read: split the file"):
        load(written(["one"], ["two"], ["three"]))


def test_without_bookmarks_what_is_printed_large_or_bold_is_a_heading():
    def page(canvas):
        y = 800
        for font, size, line in (
            ("Helvetica", 20, "A Report on"),
            ("Helvetica", 20, "Several Things"),
            ("Helvetica", 14, "1 Beginnings"),
            *(("Helvetica", 10, "A line of the text that is as long as the others are."),) * 4,
            ("Helvetica-Bold", 10, "Details"),
            *(("Helvetica", 10, "A line of the text that is as long as the others are."),) * 4,
            ("Helvetica", 14, "2 Ends"),
            ("Helvetica", 10, "A last line."),
        ):
            canvas.setFont(font, size)
            canvas.drawString(50, y, line)
            y -= 1.2 * size
        canvas.showPage()

    extracted = load(drawn(page))
    assert [(heading.level, heading.text) for heading in extracted.headings] == [
        (1, "A Report on Several Things"),
        (2, "1 Beginnings"),
        (3, "Details"),
        (2, "2 Ends"),
    ]
    lines = [extracted.text[heading.start :].split("\n")[0] for heading in extracted.headings]
    assert [line.split()[0] for line in lines] == ["A", "1", "Details", "2"]


def test_bookmarks_that_are_found_count_more_than_print():
    def page(canvas):
        canvas.bookmarkPage("a")
        canvas.addOutlineEntry("Bookmarked", "a")
        for y, size, line in ((800, 20, "Printed large"), (770, 10, "Bookmarked"), (750, 10, "and a text after it")):
            canvas.setFont("Helvetica", size)
            canvas.drawString(50, y, line)
        canvas.showPage()

    assert [heading.text for heading in load(drawn(page)).headings] == ["Bookmarked"]


def test_a_bookmark_for_the_whole_counts_less_than_printed_headings():
    def page(canvas):
        canvas.bookmarkPage("a")
        canvas.addOutlineEntry("Title", "a")
        y = 800
        for size, line in ((14, "One"), (10, "a text"), (14, "Two"), (10, "more text"), (10, "Title"), (10, "end")):
            canvas.setFont("Helvetica", size)
            canvas.drawString(50, y, line)
            y -= 30
        canvas.showPage()

    assert [heading.text for heading in load(drawn(page)).headings] == ["One", "Two"]


def test_files_are_read_by_several_threads():
    files = [written([f"file {number}", "of several"]) for number in range(40)]
    with ThreadPoolExecutor(4) as threads:
        texts = [extracted.text for extracted in threads.map(load, files)]
    assert texts == [f"file {number}\nof several" for number in range(40)]


@pytest.mark.parametrize("seed", range(4))
def test_bytes_changed_at_random_end_in_text_or_in_a_reason(seed):
    choose = random.Random(seed)
    whole = written(["A page of text"] * 5, ["another"], title="A title", bookmarks=((0, 0, "A page"),))
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(choose.randrange(1, 30)):
            data[choose.randrange(len(data))] = choose.randrange(256)
        with contextlib.suppress(DocumentError):
            extracted = load(bytes(data))
            assert extracted.text
            assert all(0 <= heading.start < len(extracted.text) for heading in extracted.headings)
