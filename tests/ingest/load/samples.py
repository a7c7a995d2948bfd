"""A small file of every kind that is read, each with the word "needle" in it."""

import struct
from collections.abc import Callable, Mapping
from functools import cache

import docx

from ingest.load.code import LANGUAGES
from tests.ingest.load import test_docx, test_epub, test_odf, test_pptx, test_rtf, test_xlsx
from tests.ingest.load.test_jats import article
from tests.ingest.load.test_outlook import compound_file, properties, strings
from tests.ingest.load.test_pdf import written

SENTENCE = "Look for the needle in this haystack."

_CODE: Mapping[str, str] = {
    "c": "int needle(void) { return 1; }\n",
    "c#": "class Needle { int needle() { return 1; } }\n",
    "c++": "namespace hay { int needle() { return 1; } }\n",
    "clojure": "(defn needle [] 1)\n",
    "css": ".needle { color: red }\n",
    "dart": "int needle() => 1;\n",
    "elixir": "defmodule Hay do\n  def needle, do: 1\nend\n",
    "go": "package hay\n\nfunc needle() int { return 1 }\n",
    "graphql": "type Hay { needle: Int }\n",
    "groovy": "def needle() { 1 }\n",
    "haskell": "needle :: Int\nneedle = 1\n",
    "java": "class Hay { int needle() { return 1; } }\n",
    "javascript": "function needle() { return 1 }\n",
    "julia": "needle() = 1\n",
    "kotlin": "fun needle() = 1\n",
    "lua": "function needle() return 1 end\n",
    "objective-c": "@interface Hay\n- (int)needle;\n@end\n",
    "perl": "sub needle { 1 }\n",
    "php": "<?php function needle() { return 1; }\n",
    "powershell": "function needle { 1 }\n",
    "protobuf": "message Hay { int32 needle = 1; }\n",
    "python": "class Hay:\n    def needle(self):\n        return 1\n",
    "r": "needle <- function() 1\n",
    "ruby": "def needle = 1\n",
    "rust": "fn needle() -> i32 { 1 }\n",
    "scala": "def needle = 1\n",
    "shell": "needle() { echo 1; }\n",
    "sql": "SELECT needle FROM hay;\n",
    "swift": "func needle() -> Int { 1 }\n",
    "terraform": 'resource "hay" "needle" {}\n',
    "tsx": "const needle = () => <p>1</p>\n",
    "typescript": "function needle(): number { return 1 }\n",
}


def _word() -> bytes:
    document = docx.Document()
    document.add_heading("Haystack", level=1)
    document.add_paragraph(SENTENCE)
    table = document.add_table(rows=2, cols=2)
    table.cell(0, 0).merge(table.cell(1, 0)).text = "label"
    table.cell(1, 1).text = "value"
    return test_docx.saved(document)


def _slides() -> bytes:
    presentation = test_pptx.titled()
    test_pptx.slide(presentation, SENTENCE).notes_slide.notes_text_frame.text = "Said aloud."
    return test_pptx.saved(presentation)


def _workbook() -> bytes:
    book = test_xlsx.workbook(Data=[["k", "v"], ["needle", 1], [None, 2.5]])
    book["Data"].merge_cells("A2:A3")
    return test_xlsx.saved(book)


def _binary_workbook() -> bytes:
    return test_xlsx.changed(_workbook(), "_rels/.rels", b"xl/workbook.xml", b"xl/workbook.bin")


def _old_workbook() -> bytes:
    """A sheet as Excel 2 wrote it, [MS-XLS] before there were containers: begin, a label, a number, end."""
    text = b"needle"
    return b"".join(
        struct.pack("<HH", kind, len(content)) + content
        for kind, content in (
            (0x0009, struct.pack("<HH", 2, 0x10)),
            (0x0004, struct.pack("<HH3sB", 0, 0, bytes(3), len(text)) + text),
            (0x0003, struct.pack("<HH3sd", 0, 1, bytes(3), 1.5)),
            (0x000A, b""),
        )
    )


def _old_container(stream: str) -> bytes:
    return compound_file({stream: b"needle"})


def _mail() -> bytes:
    return (
        b"From: Ann <ann@example.org>\r\nTo: bob@example.org\r\nSubject: Haystack\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n"
        + SENTENCE.encode()
        + b"\r\n--b\r\nContent-Type: text/plain\r\nContent-Disposition: attachment; filename=a.txt\r\n\r\nmore\r\n"
        b"--b--\r\n"
    )


def _outlook_mail() -> bytes:
    return compound_file({"__properties_version1.0": properties(32), **strings(p0037="Haystack", p1000=SENTENCE)})


def _plain() -> bytes:
    return SENTENCE.encode()


def _markdown() -> bytes:
    return f"---\nauthor: Ann\n---\n# Haystack\n\n{SENTENCE}\n".encode()


def _html() -> bytes:
    return f"<!DOCTYPE html><title>Haystack</title><h1>Haystack</h1><p>{SENTENCE}</p>".encode()


def _records() -> bytes:
    return f'{{"title": "Haystack", "text": "{SENTENCE}"}}\n'.encode()


def _odf(kind: str) -> bytes:
    body = {
        "text": test_odf.p(SENTENCE),
        "spreadsheet": f"<table:table table:name='Data'>{test_odf.row('needle', 'b')}</table:table>",
        "presentation": f"<draw:page><draw:custom-shape>{test_odf.p(SENTENCE)}</draw:custom-shape></draw:page>",
    }
    return test_odf.document(kind, body[kind])


_FILES: Mapping[str, Callable[[], bytes]] = {
    ".adoc .asc .asciidoc": lambda: f"= Haystack\n\n{SENTENCE}\n".encode(),
    ".cfg .conf .ini .properties": lambda: b"[hay]\nneedle = 1\n",
    ".csv": lambda: b"k,v\nneedle,1\n",
    ".doc .dot": lambda: _old_container("WordDocument"),
    ".docm .docx .dotm .dotx": _word,
    ".eml": _mail,
    ".epub": lambda: test_epub.book(test_epub.page(f"<p>{SENTENCE}</p>")),
    ".htm .html .xhtml": _html,
    ".json .jsonl .ndjson": _records,
    ".log .text .txt": _plain,
    ".markdown .md .mdx": _markdown,
    ".msg": _outlook_mail,
    ".nxml .xml": lambda: article(f"<p>{SENTENCE}</p>"),
    ".odp .otp": lambda: _odf("presentation"),
    ".ods .ots": lambda: _odf("spreadsheet"),
    ".odt .ott": lambda: _odf("text"),
    ".pdf": lambda: written([SENTENCE], ["Another page."], title="Haystack", bookmarks=((0, 0, "Look"),)),
    ".potm .potx .ppsm .ppsx .pptm .pptx": _slides,
    ".pps .ppt": lambda: _old_container("PowerPoint Document"),
    ".rst": lambda: f"Haystack\n========\n\n{SENTENCE}\n".encode(),
    ".rtf": lambda: test_rtf.rtf(SENTENCE.encode()),
    ".srt": lambda: f"1\n00:00:01,000 --> 00:00:02,000\n{SENTENCE}\n".encode(),
    ".toml": lambda: b"needle = 1\n",
    ".tsv": lambda: b"k\tv\nneedle\t1\n",
    ".vtt": lambda: f"WEBVTT\n\n00:01.000 --> 00:02.000\n{SENTENCE}\n".encode(),
    ".xls": _old_workbook,
    ".xlsb": _binary_workbook,
    ".xlsm .xlsx .xltm .xltx": _workbook,
    ".yaml .yml": lambda: b"needle: 1\n",
}

REFUSED: Mapping[str, str] = {
    ".doc": "save it as .docx",
    ".dot": "save it as .docx",
    ".pps": "save it as .pptx",
    ".ppt": "save it as .pptx",
    ".xlsb": "save it as .xlsx",
}
"""Suffixes that are known only to name the remedy."""


@cache
def sample(suffix: str) -> bytes:
    """A file of the kind; a KeyError where nobody made one."""
    if suffix in LANGUAGES:
        return _CODE[LANGUAGES[suffix]].encode()
    return {each: make for suffixes, make in _FILES.items() for each in suffixes.split()}[suffix]()
