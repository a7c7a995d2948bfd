import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.manifest import Changes, DocumentRecord, ItemRecord, Manifest
from rag.errors import StoreError

ITEM = ItemRecord("default", "docs", "docs/a.md", "/docs/a.md", "f" * 64, 1)
DOCUMENT = DocumentRecord("c0ffee", "default", "docs/a.md", "docs", "docs/a.md", "f" * 32, "f" * 40, 3)
SCOPE = ("c0ffee", "default", "docs")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "new" / "manifest.sqlite"


@pytest.fixture
def manifest(file: Path) -> Iterator[Manifest]:
    opened = Manifest(file)
    yield opened
    opened.close()


def document(name: str, **other: object) -> DocumentRecord:
    return replace(DOCUMENT, document_id=f"docs/{name}", item_id=f"docs/{name}", **other)


def item(name: str, **other: object) -> ItemRecord:
    return replace(ITEM, item_id=f"docs/{name}", location=f"/docs/{name}", **other)


def test_what_was_recorded_is_found_after_a_restart(manifest: Manifest, file: Path):
    other = document("b.md", passages=0)
    manifest.record(*SCOPE, Changes(7, documents=[DOCUMENT, other], items=[ITEM]))
    manifest.close()

    again = Manifest(file)
    assert again.item("default", "docs", "docs/a.md") == ITEM
    assert again.document("c0ffee", "default", "docs/a.md") == DOCUMENT
    assert list(again.documents("c0ffee", "default")) == [DOCUMENT, other]
    assert again.epoch(*SCOPE) == 7
    again.close()


def test_documents_and_epochs_are_their_generations_and_tenants(manifest: Manifest):
    manifest.record(*SCOPE, Changes(7, documents=[DOCUMENT]))
    assert manifest.document("other", "default", "docs/a.md") is None
    assert manifest.document("c0ffee", "other", "docs/a.md") is None
    assert list(manifest.documents("c0ffee", "default", "wiki")) == []
    elsewhere = (("other", "default", "docs"), ("c0ffee", "other", "docs"), ("c0ffee", "default", "wiki"))
    assert [manifest.epoch(*scope) for scope in elsewhere] == [0, 0, 0]
    assert manifest.versions("other", "default", "docs") == {}


def test_a_new_version_replaces_the_old_record(manifest: Manifest):
    newer = replace(DOCUMENT, content_hash="0" * 32, version="0" * 40, passages=5)
    manifest.record(*SCOPE, Changes(1, documents=[DOCUMENT]))
    manifest.record(*SCOPE, Changes(2, documents=[newer]))
    assert list(manifest.documents("c0ffee", "default")) == [newer]
    assert manifest.versions(*SCOPE) == {"0" * 40: 5}


def test_what_is_gone_is_recorded_with_what_comes(manifest: Manifest):
    manifest.record(*SCOPE, Changes(1, documents=[DOCUMENT], items=[ITEM, item("b.md")]))
    manifest.record(*SCOPE, Changes(2, documents=[document("b.md")], gone=["docs/a.md"], gone_items=["docs/a.md"]))
    assert [record.document_id for record in manifest.documents("c0ffee", "default")] == ["docs/b.md"]
    assert [record.item_id for record in manifest.items("default")] == ["docs/b.md"]


def test_changes_are_recorded_all_or_none(manifest: Manifest):
    manifest.record(*SCOPE, Changes(1, documents=[DOCUMENT], items=[ITEM]))
    broken = document("b.md", passages=None)
    with pytest.raises(sqlite3.IntegrityError):
        manifest.record(*SCOPE, Changes(2, [document("c.md"), broken], ["docs/a.md"], [item("b.md")], ["docs/a.md"]))
    assert list(manifest.documents("c0ffee", "default")) == [DOCUMENT]
    assert list(manifest.items("default")) == [ITEM]
    assert manifest.epoch(*SCOPE) == 1
    manifest.record(*SCOPE, Changes(2))
    assert manifest.epoch(*SCOPE) == 2


def test_items_that_failed_are_listed_with_the_reason(manifest: Manifest):
    failed = item("b.md", error="the file is empty")
    manifest.record_items([ITEM, failed])
    assert list(manifest.items("default")) == [ITEM, failed]
    assert list(manifest.items("default", failed=True)) == [failed]
    assert list(manifest.items("other")) == []


def test_the_documents_of_an_item_and_of_a_content_are_found(manifest: Manifest):
    inside = replace(document("m.eml#a.txt"), item_id="docs/m.eml", content_hash="0" * 32)
    manifest.record(*SCOPE, Changes(1, documents=[DOCUMENT, document("m.eml"), inside]))
    of_item = manifest.documents_of_item("c0ffee", "default", "docs", "docs/m.eml")
    assert [record.document_id for record in of_item] == ["docs/m.eml", "docs/m.eml#a.txt"]
    same = manifest.documents_with_content("c0ffee", "default", "docs", "f" * 32)
    assert {record.document_id for record in same} == {"docs/a.md", "docs/m.eml"}
    assert manifest.documents_with_content("c0ffee", "default", "wiki", "f" * 32) == []


def test_documents_of_one_version_are_counted_once_and_lost_ones_not(manifest: Manifest):
    lost = document("c.md", version="", passages=0)
    manifest.record(*SCOPE, Changes(1, documents=[DOCUMENT, document("b.md"), lost]))
    assert manifest.versions(*SCOPE) == {"f" * 40: 3}
    assert manifest.lost(*SCOPE) == [lost]


def test_sources_are_those_of_documents(manifest: Manifest):
    manifest.record(*SCOPE, Changes(1, documents=[DOCUMENT, document("b.md")]))
    manifest.record("c0ffee", "acme", "wiki", Changes(1, documents=[document("c.md", tenant="acme", source="wiki")]))
    assert manifest.sources("c0ffee") == [("acme", "wiki"), ("default", "docs")]
    assert manifest.sources("other") == []


def test_contents_are_kept_until_no_document_of_any_generation_has_them(manifest: Manifest):
    manifest.keep_contents([("f" * 32, b"one"), ("0" * 32, b"two")])
    manifest.keep_contents([("f" * 32, b"the same again")])
    manifest.record("former", "default", "docs", Changes(1, documents=[replace(DOCUMENT, generation="former")]))
    manifest.forget_unused_contents()
    assert (manifest.content("f" * 32), manifest.content("0" * 32)) == (b"one", None)
    manifest.forget_generation("former")
    manifest.forget_unused_contents()
    assert manifest.content("f" * 32) is None


def test_a_generation_that_is_forgotten_leaves_the_others(manifest: Manifest):
    manifest.record(*SCOPE, Changes(1, documents=[DOCUMENT]))
    manifest.record("new", "default", "docs", Changes(2, documents=[replace(DOCUMENT, generation="new")]))
    manifest.mark_generation("new", "building")
    manifest.mark_generation("c0ffee", "former")
    assert manifest.generations() == {"new": "building", "c0ffee": "former"}
    manifest.mark_generation("new", None)
    manifest.forget_generation("c0ffee")
    assert manifest.generations() == {}
    assert (manifest.epoch(*SCOPE), manifest.epoch("new", "default", "docs")) == (0, 2)
    assert manifest.sources("c0ffee") == []
    assert manifest.sources("new") == [("default", "docs")]


def test_what_vanished_is_what_is_known_of_the_source_and_not_listed(manifest: Manifest):
    only_as_document = replace(document("m.eml#a.txt"), item_id="docs/m.eml")
    elsewhere = replace(ITEM, source="wiki", item_id="wiki/x.md")
    manifest.record(*SCOPE, Changes(1, documents=[DOCUMENT, only_as_document], items=[ITEM, item("b.md"), elsewhere]))
    assert manifest.known_items(*SCOPE) == 2  # b.md never became a document
    assert manifest.note_listed("docs", "docs/b.md", "/docs/b.md")
    assert manifest.note_listed("wiki", "docs/a.md", "/other/a.md")
    assert manifest.vanished(*SCOPE) == ["docs/a.md", "docs/m.eml"]
    assert manifest.is_listed("docs", "docs/b.md")
    assert not manifest.is_listed("docs", "docs/a.md")


def test_failures_are_forgotten_when_their_files_are_gone(manifest: Manifest):
    manifest.record(*SCOPE, Changes(1, documents=[DOCUMENT], items=[ITEM, item("gone.md"), item("there.md")]))
    assert manifest.note_listed("docs", "docs/there.md", "/docs/there.md")
    manifest.forget_vanished_failures(*SCOPE)
    assert [known.item_id for known in manifest.items("default")] == ["docs/a.md", "docs/there.md"]


def test_an_id_is_listed_for_one_place_only_and_for_one_run(manifest: Manifest, file: Path):
    assert manifest.note_listed("docs", "docs/a.md", "/docs/a.md")
    assert manifest.note_listed("docs", "docs/a.md", "/docs/a.md")
    assert not manifest.note_listed("docs", "docs/a.md", "/elsewhere/docs/a.md")
    later = Manifest(file)
    assert later.note_listed("docs", "docs/a.md", "/elsewhere/docs/a.md")
    later.close()


def test_a_manifest_of_another_release_is_refused_with_the_remedy(file: Path):
    file.parent.mkdir()
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE documents (tenant TEXT)")
    connection.close()
    with pytest.raises(StoreError, match=r"another release.*delete the folder .*ingest again"):
        Manifest(file)


def test_two_can_read_while_one_writes(manifest: Manifest, file: Path):
    reader = Manifest(file)
    manifest.record(*SCOPE, Changes(1, documents=[DOCUMENT]))
    assert list(reader.documents("c0ffee", "default")) == [DOCUMENT]
    reader.close()
