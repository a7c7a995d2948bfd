import struct
import tracemalloc
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from ingest.load import archive
from ingest.load.archive import open_archive
from ingest.load.detect import extract
from ingest.load.xml_tree import elements, parse
from rag.errors import DocumentError


def zipped(members: dict[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def test_members_are_found_whatever_their_case_and_slashes():
    opened = open_archive(zipped({"word/Document.xml": b"text"}))
    assert opened.names == ("word/Document.xml",)
    assert opened.read("/WORD\\document.xml") == b"text"
    assert "word/other.xml" not in opened
    with pytest.raises(DocumentError, match=r"word/other\.xml is missing"):
        opened.read("word/other.xml")


def test_an_archive_that_promises_too_many_bytes_is_refused(monkeypatch):
    monkeypatch.setattr(archive, "MAX_EXPANDED_BYTES", 1000)
    with pytest.raises(DocumentError, match=r"expands to 1,001 bytes"):
        open_archive(zipped({"a": b"x" * 500, "b": b"x" * 501}))
    assert open_archive(zipped({"a": b"x" * 500, "b": b"x" * 500})).names == ("a", "b")


def test_a_zip_bomb_is_refused_by_its_ratio_before_anything_is_unpacked():
    data = zipped({"word/document.xml": bytes(60_000_000)})
    tracemalloc.start()
    with pytest.raises(DocumentError, match="as zip bombs do"):
        open_archive(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_an_archive_with_too_many_members_is_refused(monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    assert len(open_archive(zipped(dict.fromkeys("abc", b""))).names) == 3
    with pytest.raises(DocumentError, match="over 3 members"):
        open_archive(zipped(dict.fromkeys("abcd", b"")))


def test_a_member_that_holds_more_than_its_header_says_is_not_expanded():
    data = bytearray(zipped({"a": b"x" * 1_000_000}))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = data.index(signature) + offset
        assert struct.unpack_from("<I", data, place) == (1_000_000,)
        struct.pack_into("<I", data, place, 100)
    opened = open_archive(bytes(data))
    with pytest.raises(DocumentError, match="corrupt archive"):
        opened.read("a")
    with pytest.raises(DocumentError, match="corrupt archive"), opened.opened("a") as stream:
        assert len(stream.read(2_000_000)) <= 100


def test_a_member_too_long_to_be_read_as_a_whole_is_refused():
    with pytest.raises(DocumentError, match="a in it has 11 bytes, at most 10"):
        open_archive(zipped({"a": b"x" * 11})).read("a", max_bytes=10)


def test_an_encrypted_member_is_reported_as_password_protected():
    data = bytearray(zipped({"a": b"secret"}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    with pytest.raises(DocumentError, match="password-protected"):
        open_archive(bytes(data))


def test_a_method_whose_expansion_cannot_be_bounded_is_refused():
    with pytest.raises(DocumentError, match="unusual method"):
        open_archive(zipped({"a": b"x"}, zipfile.ZIP_LZMA))


@pytest.mark.parametrize("cut", [10, 60, -10])
def test_half_an_archive_is_corrupt(cut):
    with pytest.raises(DocumentError, match="corrupt archive"):
        open_archive(zipped({"a": b"x" * 100})[:cut])


def test_xml_that_declares_entities_is_refused():
    bomb = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;">]><a>&y;</a>'
    with pytest.raises(DocumentError, match=r"part\.xml declares XML entities"):
        parse(bomb.encode(), "part.xml")
    with pytest.raises(DocumentError, match="declares XML entities"):
        list(elements(BytesIO(bomb.encode()), "part.xml", frozenset({"a"})))
    external = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><a>&x;</a>'
    with pytest.raises(DocumentError, match="declares XML entities"):
        parse(external.encode("utf-16"), "part.xml")


def test_a_document_type_without_entities_is_read():
    assert parse(b'<!DOCTYPE a PUBLIC "-//X" "http://x.invalid/a.dtd"><a>text</a>', "part.xml").text == "text"


@pytest.mark.parametrize("data", [b"", b"  ", b"<a>", b"<a></b>", b"text", b"<a>\xff</a>"])
def test_xml_that_is_not_well_formed_is_corrupt(data):
    with pytest.raises(DocumentError, match=r"corrupt: part\.xml"):
        parse(data, "part.xml")
    with pytest.raises(DocumentError, match=r"corrupt: part\.xml"):
        list(elements(BytesIO(data), "part.xml", frozenset({"a"})))


def test_one_streamed_element_that_holds_a_million_others_is_refused(monkeypatch):
    monkeypatch.setattr("ingest.load.xml_tree.MAX_ELEMENTS", 10)
    row = b"<row>" + b"<c/>" * 9 + b"</row>"
    assert len(list(elements(BytesIO(b"<s>" + row * 5 + b"</s>"), "sheet", frozenset({"row"})))) == 5
    with pytest.raises(DocumentError, match="holds over 10 others"):
        list(elements(BytesIO(b"<s><row>" + b"<c/>" * 10 + b"</row></s>"), "sheet", frozenset({"row"})))


FORMATS = Path(__file__).parents[3].parent / "shared/data/formats/docling"


def published(*folders: str) -> list[Path]:
    found = (path for folder in folders for path in sorted((FORMATS / folder / "sources").iterdir()))
    return [path for path in found if path.suffix != ".pdf"]


@pytest.mark.skipif(not FORMATS.is_dir(), reason=f"no published files at {FORMATS}")
@pytest.mark.parametrize("folder", ["docx", "pptx", "xlsx", "odf", "epub", "xls"])
def test_every_published_file_converts_with_exact_offsets(folder):
    paths = published(folder)
    assert paths
    for path in paths:
        extracted = extract(path.read_bytes(), path.name)
        text = extracted.text
        starts = [heading.start for heading in extracted.headings]
        assert starts == sorted(set(starts)), path.name
        assert list(extracted.page_starts) == sorted(set(extracted.page_starts)), path.name
        rows = [start for start, _ in extracted.row_starts]
        assert rows == sorted(set(rows)), path.name
        assert all(0 <= start < len(text) for start in (*starts, *rows)), path.name
        for heading in extracted.headings:
            line = text[heading.start :].split("\n")[0]
            assert line.replace(" |  | ", " | ").lstrip("| ").startswith(heading.text[:20]), (path.name, heading)


@pytest.mark.skipif(not FORMATS.is_dir(), reason=f"no published files at {FORMATS}")
def test_every_published_file_of_an_old_format_is_reported_with_the_remedy():
    paths = published("doc", "ppt")
    assert paths
    for path in paths:
        with pytest.raises(DocumentError, match=r"save it as \.(docx|pptx)"):
            extract(path.read_bytes(), path.name)
