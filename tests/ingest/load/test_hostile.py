"""Files that mean harm or were harmed on their way: each is read or refused with a reason, and soon."""

import io
import random
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.items import FileItem
from ingest.load.detect import extract
from ingest.load.formats import PARSERS
from ingest.load.json_records import FieldMapping
from ingest.prepare import Preparation, prepare_item
from ingest.workers import WorkerPool
from rag.errors import DocumentError
from rag.settings import Chunking, Ingest
from tests.ingest.load.samples import sample

PUBLISHED = Path(__file__).parents[3].parent / "shared/data/formats/docling"

SECONDS = 10.0
LARGE = 30_000_000
DEEP = 100_000
# One suffix of every parser that opens a container or has a grammar, and one of each kind of text.
KINDS = sorted({parser: suffix for suffix, parser in sorted(PARSERS.items(), reverse=True)}.values())


def outcome(data: bytes, name: str) -> str:
    """What came of it: "read", or the reason why not."""
    started = time.perf_counter()
    try:
        extract(data, name)
    except DocumentError as error:
        reason = str(error)
        assert reason
    else:
        reason = "read"
    assert time.perf_counter() - started < SECONDS, name
    return reason


def rewritten(data: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """An archive whose members are changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, change(name, source.read(name)))
    return buffer.getvalue()


BODIES = {
    ".docx": "word/document.xml",
    ".pptx": "ppt/slides/slide1.xml",
    ".xlsx": "xl/worksheets/sheet1.xml",
    ".odt": "content.xml",
    ".epub": "OEBPS/text/chapter 0.xhtml",
}


@pytest.mark.parametrize("suffix", BODIES)
def test_a_zip_bomb_is_refused(suffix):
    bomb = rewritten(sample(suffix), lambda name, data: data + b" " * 80_000_000 if name == BODIES[suffix] else data)
    assert len(bomb) < 200_000
    assert "zip bombs" in outcome(bomb, f"a{suffix}")


@pytest.mark.parametrize("suffix", [".docx", ".xlsx", ".epub"])
def test_members_that_share_their_bytes_are_counted_each(suffix):
    """As in the bombs whose directory points many times to the same packed bytes."""
    data = rewritten(sample(suffix), lambda name, data: data + b" " * 900_000 if name == BODIES[suffix] else data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start, count = archive.start_dir, len(archive.namelist())
    entries = data[start:-22]
    copies = 400
    end = bytearray(data[-22:])
    end[8:12] = (count * copies).to_bytes(2, "little") * 2
    end[12:16] = (len(entries) * copies).to_bytes(4, "little")
    assert "zip bombs" in outcome(data[:start] + entries * copies + bytes(end), f"a{suffix}")


BOMB = '<!DOCTYPE x [<!ENTITY a "needle">' + "".join(
    f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
OUTSIDE = '<!DOCTYPE x [<!ENTITY j SYSTEM "file:///etc/hostname">'


@pytest.mark.parametrize("suffix", [".docx", ".pptx", ".xlsx", ".odt", ".epub", ".xml"])
@pytest.mark.parametrize("prolog", [BOMB, OUTSIDE], ids=["bomb", "outside"])
def test_entities_are_neither_expanded_nor_fetched(suffix, prolog):
    def armed(data: bytes) -> bytes:
        declaration = data[: data.find(b"?>") + 2] if data.startswith(b"<?xml") else b""
        rest = data[len(declaration) :].replace(b"needle", b"&j;")
        return declaration + prolog.encode() + b"]>" + rest

    data = sample(suffix)
    if suffix == ".xml":
        data = armed(b"<?xml version='1.0'?>" + data[data.index(b"<article>") :])
    else:
        data = rewritten(data, lambda name, data: armed(data) if name == BODIES[suffix] else data)
    if suffix == ".epub":  # its chapters are pages of HTML, which has no entities of its own
        assert len(extract(data, "a.epub").text) < 1000
    else:
        assert "declares XML entities" in outcome(data, f"a{suffix}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "before", "repeated", "after"),
    [
        (".csv", b"a,b\n1,", b"x,", b""),
        (".html", b"<p>", b"word ", b""),
        (".json", b'{"text": "', b"word ", b'"}'),
    ],
)
def test_a_line_of_thirty_million_characters_is_read_or_refused_soon(suffix, before, repeated, after):
    outcome(before + repeated * (LARGE // len(repeated)) + after, f"a{suffix}")


@pytest.mark.parametrize("suffix", [".adoc", ".md", ".py", ".rst", ".srt", ".txt", ".xml"])
@pytest.mark.parametrize("repeated", [b"word ", b"`a ", b"*a ", b"<a ", b"[a](", b"|"])
def test_marks_that_never_close_cost_no_more_than_words(suffix, repeated):
    outcome(repeated * (300_000 // len(repeated)), f"a{suffix}")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", b"[" * DEEP + b"]" * DEEP),
        ("a.json", b'{"a":' * DEEP + b"1" + b"}" * DEEP),
        ("a.jsonl", b"[" * DEEP + b"]" * DEEP + b'\n{"text": "fine"}\n'),
        ("a.html", b"<div>" * DEEP + b"core" + b"</div>" * DEEP),
        ("a.html", b"<table><tr><td>" * DEEP + b"core"),
        ("a.html", b"<ul><li>" * DEEP + b"core"),
        ("a.xml", b"<article><front/><body>" + b"<sec>" * DEEP + b"</sec>" * DEEP + b"</body></article>"),
        ("a.rtf", b"{\\rtf1" + b"{" * DEEP + b"core" + b"}" * DEEP),
        ("a.md", b"> " * DEEP + b"core"),
        ("a.md", b"---\n" + b"[" * DEEP + b"\n---\ncore"),
        ("a.rst", b".. note:: " * DEEP + b"core"),
        ("a.adoc", b"*" * DEEP + b" core\n" + b"====\n" * DEEP),
        ("a.py", b"(" * (DEEP // 4) + b"core"),  # the grammar takes time that grows with the square
        ("a.py", b"".join(b" " * depth + b"class C:\n" for depth in range(2000))),
        ("a.js", b"function f() {" * DEEP),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_nested_a_hundred_thousand_deep_is_read_or_refused(name, data):
    outcome(data, name)


@pytest.mark.parametrize(
    ("suffix", "parent", "opened", "closed"),
    [
        (".docx", b"<w:body>", b"<w:sdt><w:sdtContent>", b"</w:sdtContent></w:sdt>"),
        (".docx", b"<w:body>", b"<w:tbl><w:tr><w:tc>", b"</w:tc></w:tr></w:tbl>"),
        (".odt", b"<office:text>", b"<text:section>", b"</text:section>"),
        (".odt", b"<office:text>", b"<text:list><text:list-item>", b"</text:list-item></text:list>"),
        (".pptx", b"<p:spTree>", b"<p:grpSp>", b"</p:grpSp>"),
    ],
)
def test_elements_of_an_office_file_that_are_nested_as_deep_are_read_or_refused(suffix, parent, opened, closed):
    def deepened(name: str, data: bytes) -> bytes:
        if name != BODIES[suffix]:
            return data
        assert parent in data
        return data.replace(parent, parent + opened * DEEP + closed * DEEP)

    outcome(rewritten(sample(suffix), deepened), f"a{suffix}")


def pdf(*objects: str) -> bytes:
    """Numbered from 1; the first is the catalog."""
    body = b"%PDF-1.4\n"
    places = []
    for number, content in enumerate(objects, start=1):
        places.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    count = len(objects) + 1
    trailer = f"trailer\n<</Root 1 0 R/Size {count}>>\nstartxref\n{len(body)}\n%%EOF"
    return body + f"xref\n0 {count}\n0000000000 65535 f \n{table}{trailer}".encode()


@pytest.mark.parametrize(
    "objects",
    [
        ("<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Count 3/Kids[2 0 R 2 0 R 2 0 R]>>"),
        (
            "<</Type/Catalog/Pages 2 0 R>>",
            "<</Type/Pages/Count 4/Kids[3 0 R 3 0 R]>>",
            "<</Type/Pages/Parent 2 0 R/Count 4/Kids[2 0 R 2 0 R]>>",
        ),
        (
            "<</Type/Catalog/Pages 2 0 R>>",
            "<</Type/Pages/Count 2000000000/Kids[3 0 R]>>",
            "<</Type/Page/Parent 2 0 R>>",
        ),
        (
            "<</Type/Catalog/Pages 2 0 R/Outlines 4 0 R>>",
            "<</Type/Pages/Count 1/Kids[3 0 R]>>",
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>",
            "<</First 5 0 R/Last 5 0 R>>",
            "<</Title(a)/Next 5 0 R/First 5 0 R/Dest[3 0 R/Fit]>>",
        ),
        (
            "<</Type/Catalog/Pages 2 0 R>>",
            "<</Type/Pages/Count 1/Kids[3 0 R]>>",
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R/Resources<</XObject<</X 4 0 R>>>>>>",
            "<</Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X 4 0 R>>>>/Length 5>>\n"
            "stream\n/X Do\nendstream",
        ),
    ],
    ids=["page-tree", "two-nodes", "page-count", "bookmarks", "forms"],
)
def test_a_pdf_that_goes_in_circles_is_refused(objects):
    assert outcome(pdf(*objects), "a.pdf") != "read"


@pytest.mark.parametrize("suffix", KINDS)
def test_a_file_that_was_cut_off_is_read_or_refused(suffix):
    chance = random.Random(suffix)
    data = sample(suffix)
    for _ in range(20):
        outcome(data[: chance.randrange(len(data))], f"a{suffix}")


@pytest.mark.parametrize("suffix", KINDS)
def test_a_file_with_wrong_bytes_is_read_or_refused(suffix):
    chance = random.Random(suffix)
    data = sample(suffix)
    for attempt in range(20):
        broken = bytearray(data)
        for _ in range(1 + attempt):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        outcome(bytes(broken), f"a{suffix}")


@pytest.mark.parametrize("suffix", BODIES)
def test_a_container_whose_parts_have_wrong_bytes_is_read_or_refused(suffix):
    """Wrong bytes in packed data hardly get past the archive's checksums."""
    chance = random.Random(suffix)

    def damaged(_: str, data: bytes) -> bytes:
        broken = bytearray(data)
        for _ in range(chance.randrange(4)):
            if broken:
                broken[chance.randrange(len(broken))] = chance.choice(b"<>&\"'=/ \0a0\xff")
        return bytes(broken)

    for _ in range(20):
        outcome(rewritten(sample(suffix), damaged), f"a{suffix}")


@pytest.mark.slow
@pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"no published files at {PUBLISHED}")
async def test_no_published_file_crashes_or_hangs_its_worker():
    settings = Ingest()
    items = [
        FileItem(path, "docs", f"docs/{path.relative_to(PUBLISHED)}")
        for path in sorted(PUBLISHED.rglob("*"))
        if path.is_file() and path.suffix.lower() in PARSERS and "groundtruth" not in path.parts
    ]
    assert len(items) > 100
    preparation = Preparation(Chunking(), FieldMapping())
    refused: dict[str, str] = {}
    async with WorkerPool(prepare, workers=2, timeout_s=settings.timeout_s, memory_bytes=settings.memory_bytes) as pool:
        for item in items:
            try:
                assert (await pool.run((item, preparation))).contents
            except DocumentError as error:
                refused[item.name] = str(error)
    assert not {name: reason for name, reason in refused.items() if reason.startswith("its parser")}
    assert {reason.split(":")[0] for reason in refused.values()} <= {"unsupported format", "password-protected PDF"}
    assert len(refused) < 0.05 * len(items)


def prepare(task):
    return prepare_item(*task)
