import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.items import FileItem, RecordItem, printable
from ingest.load.extracted import Extracted
from rag.errors import DocumentError


def test_a_file_is_read_whole_and_left_to_a_parser(tmp_path: Path):
    (tmp_path / "a.md").write_bytes(b"\xff\x00Text.")
    item = FileItem(tmp_path / "a.md", "docs", "docs/a.md")
    assert item.read() == b"\xff\x00Text."
    assert item.parsed() is None
    assert (item.name, item.location) == ("a.md", str(tmp_path / "a.md"))


def test_a_file_that_is_gone_is_refused_with_the_reason(tmp_path: Path):
    with pytest.raises(DocumentError, match=r"^cannot be read: No such file or directory$"):
        FileItem(tmp_path / "a.md", "docs", "docs/a.md").read()


def test_a_file_that_is_too_large_is_refused_with_both_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ingest.items.MAX_FILE_BYTES", 1000)
    (tmp_path / "a.md").write_bytes(b"x" * 1000)
    assert len(FileItem(tmp_path / "a.md", "docs", "docs/a.md").read()) == 1000
    (tmp_path / "a.md").write_bytes(b"x" * 1001)
    with pytest.raises(DocumentError, match=r"^too large: 1,001 bytes, at most 1,000 are read$"):
        FileItem(tmp_path / "a.md", "docs", "docs/a.md").read()


def test_a_location_can_be_printed_whatever_the_name_is(tmp_path: Path):
    path = tmp_path / b"caf\xe9.md".decode("utf-8", "surrogateescape")
    location = FileItem(path, "docs", "docs/x.md").location
    assert location == f"{tmp_path}/caf\\udce9.md"
    location.encode()


def test_a_record_says_what_it_holds_without_a_parser():
    content = Extracted(text="Wine ferments.", title=None)
    item = RecordItem(b'{"text": "Wine ferments."}', content, "feed", "feed/7", "standard input, line 3")
    assert item.read() == b'{"text": "Wine ferments."}'
    assert item.parsed() is content
    assert item.name == "record.jsonl"


@pytest.mark.parametrize(
    "item",
    [
        FileItem(Path("/docs/a.md"), "docs", "docs/a.md"),
        RecordItem(b"{}", Extracted(text="Text.", title="T"), "feed", "feed/1", "standard input, line 1"),
    ],
)
def test_an_item_is_the_same_in_another_process(item: FileItem | RecordItem):
    assert pickle.loads(pickle.dumps(item)) == item


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_refused_without_waiting_for_it(tmp_path: Path, make: Callable[[Path], None]):
    make(tmp_path / "x.md")
    with pytest.raises(DocumentError, match=r"^not a regular file"):
        FileItem(tmp_path / "x.md", "docs", "docs/x.md").read()


def test_text_that_is_unicode_is_printed_as_it_is():
    assert printable("größe/\N{SNOWMAN}.md") == "größe/\N{SNOWMAN}.md"
    assert printable(Path(os.fsdecode(b"a\xff"))) == "a\\udcff"
