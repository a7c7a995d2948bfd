import random

import pytest

from ingest.load.detect import SUPPORTED_SUFFIXES, extract
from rag.errors import DocumentError
from tests.ingest.load.test_pdf import written


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
    ],
)
def test_content_decides_before_the_suffix(name, data, media_type):
    assert extract(data, name).media_type == media_type


@pytest.mark.parametrize("name", ["report.docx", "photo.png", "data.csv"])
def test_an_unsupported_format_is_named_with_what_is_supported(name):
    with pytest.raises(DocumentError) as caught:
        extract(b"PK\x03\x04 anything", name)
    suffix = "." + name.split(".")[1]
    assert str(caught.value) == (
        f"unsupported format {suffix}; supported: .htm, .html, .markdown, .md, .pdf, .text, .txt, .xhtml"
    )
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
