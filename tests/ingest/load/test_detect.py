import random
import struct

import pytest

from ingest.load.detect import SUPPORTED_SUFFIXES, extract
from ingest.load.legacy import MAGIC
from rag.errors import DocumentError
from tests.ingest.load import test_docx, test_epub, test_odf, test_outlook, test_pptx, test_rtf, test_xlsx
from tests.ingest.load.test_archive import zipped
from tests.ingest.load.test_pdf import written

OFFICE = "application/vnd.openxmlformats-officedocument."


@pytest.mark.parametrize(
    ("name", "data", "media_type"),
    [
        ("a.txt", b"plain", "text/plain"),
        ("README", b"plain", "text/plain"),
        ("A.MD", b"# Title", "text/markdown"),
        ("a.md", b'<h1 align="center">Title</h1>\n\n## Part', "text/markdown"),
        ("a.html", b"<p>fragment", "text/html"),
        ("a.txt", b"\n<!-- saved -->\n<!DOCTYPE HTML><p>page", "text/html"),
        ("a.pdf", b'<?xml version="1.0"?><html><body>an error page</html>', "text/html"),
        ("a.txt", "<html><p>wide".encode("utf-16"), "text/html"),
        ("a.bin", written(["text"]), "application/pdf"),
        ("a.txt", b"The header %PDF-1.7 begins a PDF.", "text/plain"),
        ("a.txt", b"WEBVTT\n\n00:01.000 --> 00:02.000\nHello", "text/vtt"),
        ("a.txt", b"Received: by x\n\twith y\nFrom: a@example.org\nSubject: s\n\nHello", "message/rfc822"),
        ("a.txt", b"From: the editor\nSubject: a note\n\nHello", "text/plain"),
        ("a.md", b"From: a@example.org\nMIME-Version: 1.0\n\nHello", "text/markdown"),
        ("a.csv", b"a,b\n1,2", "text/csv"),
        ("a.jsonl", b'{"text": "t"}', "application/jsonl"),
        ("a.py", b"x = 1", "text/plain"),
        ("a.doc", test_rtf.rtf(b"text"), "application/rtf"),
        ("a.doc", test_docx.package(test_docx.paragraph("text")), OFFICE + "wordprocessingml.document"),
        ("a.zip", test_pptx.saved(test_pptx.titled()), OFFICE + "presentationml.presentation"),
        ("book", test_xlsx.saved(test_xlsx.workbook(Data=[["x"]])), OFFICE + "spreadsheetml.sheet"),
        ("a.docx", test_odf.document("text", "<text:p>text</text:p>"), "application/vnd.oasis.opendocument.text"),
        ("a.doc", test_outlook.compound_file(test_outlook.MESSAGE), "application/vnd.ms-outlook"),
        ("mail", test_outlook.compound_file(test_outlook.MESSAGE), "application/vnd.ms-outlook"),
        ("a.zip", test_epub.book(test_epub.page("<p>text</p>")), "application/epub+zip"),
    ],
)
def test_content_decides_before_the_suffix(name, data, media_type):
    assert extract(data, name).media_type == media_type


@pytest.mark.parametrize("name", ["report.pages", "photo.png", "data.parquet"])
def test_an_unsupported_format_is_named_with_the_remedy(name):
    with pytest.raises(DocumentError) as caught:
        extract(b"PK\x03\x04 anything", name)
    suffix = "." + name.split(".")[1]
    assert str(caught.value) == f"unsupported format {suffix}; convert it to one that docs/formats.md lists"
    assert suffix not in SUPPORTED_SUFFIXES


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html", "a.pdf", "a.docx"])
def test_an_empty_file_is_reported_whatever_its_name(name):
    with pytest.raises(DocumentError, match="empty"):
        extract(b"", name)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt", b" \n\t\n"),
        ("a.md", b"---\nkey: value\n---\n<!-- x -->\n"),
        ("a.html", b"<html><script>x</script></html>"),
    ],
)
def test_a_file_without_text_is_reported(name, data):
    with pytest.raises(DocumentError, match="no text"):
        extract(data, name)


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html", "noise"])
def test_a_binary_file_is_reported(name):
    with pytest.raises(DocumentError, match="binary file"):
        extract(random.Random(7).randbytes(4000), name)


def test_a_pdf_that_is_none_is_reported_as_corrupt():
    with pytest.raises(DocumentError, match="corrupt PDF"):
        extract(b"just words", "a.pdf")


def test_a_parser_that_crashes_is_a_fault_of_the_file_not_of_the_run(monkeypatch):
    def crash(_: bytes) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr("ingest.load.pdf.load", crash)
    with pytest.raises(DocumentError, match=r"the parser failed on it \(RecursionError: too deep\)"):
        extract(b"%PDF-1.7 ...", "deep.pdf")


def test_half_a_character_in_front_matter_is_a_fault_of_the_file():
    with pytest.raises(DocumentError, match="lone surrogate"):
        extract(b'---\ntitle: "\\ud800"\n---\nText.', "a.md")


def ole(stream: str) -> bytes:
    """An OLE container with one empty stream (MS-CFB): header, allocation table, directory."""
    free, end, table = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD

    def entry(name: str, kind: int, child: int) -> bytes:
        written = (name + "\0").encode("utf-16-le")
        return struct.pack("<64sHBB3I16sI16sIQ", written, len(written), kind, 1, free, free, child, b"", 0, b"", end, 0)

    header = struct.pack(
        "<8s16s5H6x9I", MAGIC, b"", 0x3E, 3, 0xFFFE, 9, 6, 0, 1, 1, 0, 4096, end, 0, end, 0
    ) + struct.pack("<109I", 0, *[free] * 108)
    sectors = struct.pack("<128I", table, end, *[free] * 126)
    return header + sectors + entry("Root Entry", 5, 1) + entry(stream, 2, free) + bytes(256)


@pytest.mark.parametrize(
    ("name", "stream", "reason"),
    [
        ("a.doc", "WordDocument", r"Word 97-2003 \(\.doc\); save it as \.docx"),
        ("a.docx", "WordDocument", r"save it as \.docx"),
        ("a.ppt", "PowerPoint Document", r"PowerPoint 97-2003 \(\.ppt\); save it as \.pptx"),
        ("a.docx", "EncryptedPackage", "password-protected document: remove the password first"),
        ("a", "EncryptedPackage", "password-protected"),
        ("a.xls", "Workbook", "corrupt workbook"),
        ("a.docx", "Other", "corrupt archive"),
        ("a.vsd", "Other", r"unsupported format \.vsd"),
    ],
)
def test_an_old_office_file_is_reported_with_the_remedy(name, stream, reason):
    with pytest.raises(DocumentError, match=reason):
        extract(ole(stream), name)


@pytest.mark.parametrize("name", ["a.zip", "a.docx", "a.txt", "a"])
def test_an_archive_without_a_document_is_reported(name):
    with pytest.raises(DocumentError, match="unsupported archive"):
        extract(zipped({"photo.png": b"x"}), name)


@pytest.mark.parametrize("name", ["a.docx", "a.pptx", "a.xlsx", "a.odt", "a.epub"])
def test_an_office_file_that_is_none_is_reported_as_corrupt(name):
    with pytest.raises(DocumentError, match="corrupt"):
        extract(b"just words", name)


def test_a_binary_workbook_is_reported_with_the_remedy():
    book = test_xlsx.saved(test_xlsx.workbook(Data=[["x"]]))
    listing = test_xlsx.changed(book, "_rels/.rels", b"xl/workbook.xml", b"xl/workbook.bin")
    with pytest.raises(DocumentError, match=r"binary workbook \(\.xlsb\); save it as \.xlsx"):
        extract(listing, "a.xlsb")
