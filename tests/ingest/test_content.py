from dataclasses import replace

import pytest

from ingest.content import pack, title_without_one, to_document, unpack
from ingest.load.extracted import Child, Extracted
from ingest.plan import CONTENT_HASH_LENGTH, Group
from rag.types import Heading

FULL = Extracted(
    text="# Gezeiten\n\nDer Mond 🌊 – nicht der Wind.\n1\t2\n",
    title="On tides",
    headings=(Heading(0, 1, "Gezeiten"), Heading(12, 2, "")),
    page_starts=(0, 12),
    metadata={"year": 1904, "share": 0.5, "is_draft": False, "tags": ["sea", "moon"], "ключ": "значение"},
    media_type="text/markdown",
    row_starts=((0, 1), (12, 7)),
)


@pytest.mark.parametrize("content", [FULL, Extracted(text="", title=None), Extracted(text="x", title="")])
def test_what_is_packed_is_unpacked_as_it_was(content: Extracted):
    assert unpack(pack(content)[1]) == content


def test_a_value_keeps_its_type():
    metadata = unpack(pack(FULL)[1]).metadata
    assert {key: type(value) for key, value in metadata.items()} == {
        key: type(value) for key, value in FULL.metadata.items()
    }


def test_children_and_warnings_are_the_files_and_not_the_contents():
    with_more = replace(FULL, children=(Child("a.txt", b"x"),), warnings=("page 3 has no text",))
    assert pack(with_more) == pack(FULL)


def test_the_hash_is_of_everything_that_is_kept_and_of_its_order_nowhere():
    others = [
        replace(FULL, text=FULL.text + "."),
        replace(FULL, title=None),
        replace(FULL, title=""),
        replace(FULL, headings=FULL.headings[:1]),
        replace(FULL, page_starts=(0,)),
        replace(FULL, row_starts=()),
        replace(FULL, metadata={**FULL.metadata, "year": "1904"}),
        replace(FULL, media_type="text/plain"),
    ]
    hashes = {pack(content)[0] for content in [FULL, *others]}
    assert len(hashes) == 1 + len(others)
    assert {len(content_hash) for content_hash in hashes} == {CONTENT_HASH_LENGTH}
    reordered = replace(FULL, metadata=dict(reversed(FULL.metadata.items())))
    assert pack(reordered) == pack(FULL)


def test_the_document_of_a_group_is_its_first_and_names_the_others():
    document = to_document(FULL, Group("f" * 32, ("docs/a.md", "docs/b.md")), "docs")
    assert (document.id, document.also_in, document.source) == ("docs/a.md", ("docs/b.md",), "docs")
    assert document.version == Group("f" * 32, ("docs/a.md", "docs/b.md")).version
    assert (document.text, document.title, document.headings) == (FULL.text, FULL.title, FULL.headings)
    assert (document.page_starts, document.row_starts) == (FULL.page_starts, FULL.row_starts)
    assert document.metadata == {**FULL.metadata, "media_type": "text/markdown"}


def test_a_content_without_a_title_is_called_by_its_files_name():
    assert to_document(replace(FULL, title=None), Group("f" * 32, ("docs/guide/tides.v2.md",)), "docs").title == (
        "tides.v2"
    )
    assert title_without_one("docs/mail.eml#attached.pdf") == "attached"
    assert to_document(replace(FULL, title=""), Group("f" * 32, ("docs/a.md",)), "docs").title == ""
