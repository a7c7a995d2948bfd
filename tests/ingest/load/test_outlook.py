import struct
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingest.load.extracted import Child
from ingest.load.outlook import load
from rag.errors import DocumentError

SECTOR = 512
FREE, END = 0xFFFFFFFF, 0xFFFFFFFE
PUBLISHED = Path(__file__).parents[3].parent / "shared/data/formats/docling/email/sources"


def compound_file(tree):
    """An OLE file of {name: bytes or {...}}; streams are padded with NULs to the size that needs no mini stream."""
    entries = []
    sectors = []

    def add(name, content, kind):
        entry = {"name": name, "kind": kind, "child": FREE, "right": FREE, "start": END, "size": 0}
        index = len(entries)
        entries.append(entry)
        if isinstance(content, bytes):
            data = content.ljust(4096, b"\0")
            data += b"\0" * (-len(data) % SECTOR)
            entry["start"], entry["size"] = len(sectors), max(len(content), 4096)
            sectors.extend(data[at : at + SECTOR] for at in range(0, len(data), SECTOR))
            links.extend([*range(entry["start"] + 1, len(sectors)), END])
            return index
        before = None
        for key in sorted(content, key=lambda name: (len(name), name.upper())):
            child = add(key, content[key], 2 if isinstance(content[key], bytes) else 1)
            if before is None:
                entry["child"] = child
            else:
                entries[before]["right"] = child
            before = child
        return index

    links = []
    add("Root Entry", tree, 5)
    directory = b"".join(
        entry["name"].encode("utf-16-le").ljust(64, b"\0")
        + struct.pack("<HBB", 2 * len(entry["name"]) + 2, entry["kind"], 1)
        + struct.pack("<III", FREE, entry["right"], entry["child"])
        + bytes(36)
        + struct.pack("<IQ", entry["start"], entry["size"])
        for entry in entries
    )
    directory += bytes(-len(directory) % SECTOR)
    directory_start = len(sectors)
    sectors.extend(directory[at : at + SECTOR] for at in range(0, len(directory), SECTOR))
    links.extend([*range(directory_start + 1, len(sectors)), END])
    tables = -(-(len(links) + 8) // 128)
    table_start = len(links)
    links.extend([0xFFFFFFFD] * tables)
    links.extend([FREE] * (tables * 128 - len(links)))
    table = struct.pack(f"<{len(links)}I", *links)
    header = (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
        + bytes(16)
        + struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6)
        + bytes(10)
        + struct.pack("<IIIIIIIII", tables, directory_start, 0, 4096, END, 0, END, 0, table_start)
    )
    more = [table_start + number for number in range(1, tables)]
    header += struct.pack(f"<{len(more)}I", *more) if more else b""
    return header.ljust(SECTOR, b"\xff") + b"".join(sectors) + table


def properties(header, **fixed):
    entries = b"".join(
        struct.pack("<HHI", 0, int(name[1:], 16), 6) + value.to_bytes(8, "little") for name, value in fixed.items()
    )
    return bytes(header) + entries


def strings(**values):
    return {f"__substg1.0_{name[1:]}001F": value.encode("utf-16-le") for name, value in values.items()}


def ticks(date):
    return int((date - datetime(1601, 1, 1, tzinfo=UTC)).total_seconds()) * 10_000_000


INNER = {"__properties_version1.0": properties(24), **strings(p0037="Inner", p1000="The original.")}
MESSAGE = {
    "__properties_version1.0": properties(32, p0039=ticks(datetime(2025, 6, 2, 8, 30, tzinfo=UTC))),
    **strings(
        p0037="Results", p1000="Größe\r\n\r\n> quoted", p0C1A="Ann", p0C1F="/O=CORP/CN=ANN", p5D01="ann@example.org"
    ),
    **strings(p1035="<abc@example.org>"),
    "__recip_version1.0_#00000000": {
        "__properties_version1.0": properties(8, p0C15=1),
        **strings(p3001="Bob", p39FE="bob@example.org"),
    },
    "__recip_version1.0_#00000001": {
        "__properties_version1.0": properties(8, p0C15=2),
        **strings(p3001="cy@example.org", p3003="cy@example.org"),
    },
    "__attach_version1.0_#00000000": {
        "__properties_version1.0": properties(8),
        "__substg1.0_37010102": b"x" * 5000,
        **strings(p3707="notes.txt", p370E="text/plain"),
    },
    "__attach_version1.0_#00000001": {
        "__properties_version1.0": properties(8),
        "__substg1.0_37010102": b"\x89PNG",
        **strings(p3704="logo.png"),
    },
    "__attach_version1.0_#00000002": {"__properties_version1.0": properties(8), "__substg1.0_3701000D": INNER},
}


def test_a_mail_has_its_body_headers_and_attachments_but_no_pictures():
    extracted = load(compound_file(MESSAGE))
    assert extracted.text.strip() == "Größe\n\n> quoted"
    assert extracted.title == "Results"
    assert extracted.metadata == {
        "from": "Ann <ann@example.org>",
        "to": ["Bob <bob@example.org>"],
        "cc": ["cy@example.org"],
        "date": "2025-06-02T08:30:00+00:00",
        "message_id": "abc@example.org",
    }
    notes, inner = extracted.children
    assert notes == Child("notes.txt", b"x" * 5000)
    assert inner.name == "Inner.msg"
    assert (inner.content.title, inner.content.text.strip()) == ("Inner", "The original.")


def test_a_body_with_markup_counts_where_there_is_no_plain_one():
    message = {
        "__properties_version1.0": properties(32),
        **strings(p0037="Offer"),
        "__substg1.0_10130102": b"<h1>Prices</h1><p>Low.</p>",
    }
    extracted = load(compound_file(message))
    assert "Low." in extracted.text
    assert [heading.text for heading in extracted.headings] == ["Prices"]


def test_a_body_in_eight_bits_is_read_in_its_code_page():
    message = {
        "__properties_version1.0": properties(32, p3FFD=1251),
        "__substg1.0_1000001E": "Привет, мир".encode("cp1251"),
    }
    assert load(compound_file(message)).text.strip() == "Привет, мир"


def test_a_body_that_is_there_as_rtf_only_is_a_warning():
    message = {"__properties_version1.0": properties(32), "__substg1.0_10090102": b"LZFu"}
    assert "RTF" in load(compound_file(message)).warnings[0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"uint8 level\nstring name\n", "no Outlook mail"),
        (compound_file({"WordDocument": b"x"}), "no Outlook mail"),
        (compound_file(MESSAGE)[:700], "damaged Outlook mail"),
    ],
)
def test_what_is_no_mail_is_reported(data, reason):
    with pytest.raises(DocumentError, match=reason):
        load(data)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"no published mails at {PUBLISHED}")
def test_a_published_mail_is_read_with_its_attachments():
    extracted = load((PUBLISHED / "msg_with_attachment.msg").read_bytes())
    assert extracted.text.strip() == "This email contains an attachment."
    assert extracted.metadata["from"] == "Alice Example <alice@example.com>"
    assert [child.name for child in extracted.children] == ["test.txt", "report.pdf"]
