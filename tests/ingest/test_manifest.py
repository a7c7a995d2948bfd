import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.manifest import Manifest, ManifestEntry

ENTRY = ManifestEntry("default", "docs/a.md", "docs", "/docs/a.md", "f" * 64, 3)


def test_what_was_recorded_is_found_after_a_restart(tmp_path: Path):
    file = tmp_path / "new" / "manifest.sqlite"
    manifest = Manifest(file)
    manifest.record([ENTRY, replace(ENTRY, document_id="docs/b.md", passages=0)])
    manifest.close()

    again = Manifest(file)
    assert again.find("default", "docs/a.md") == ENTRY
    assert again.find("default", "docs/b.md") == replace(ENTRY, document_id="docs/b.md", passages=0)
    again.close()


def test_a_document_is_its_tenants(tmp_path: Path):
    manifest = Manifest(tmp_path / "manifest.sqlite")
    manifest.record([ENTRY])
    assert manifest.find("other", "docs/a.md") is None
    manifest.record([replace(ENTRY, tenant="other", passages=9)])
    assert manifest.find("default", "docs/a.md") == ENTRY
    manifest.close()


def test_a_new_version_replaces_the_old_entry(tmp_path: Path):
    manifest = Manifest(tmp_path / "manifest.sqlite")
    newer = replace(ENTRY, content_hash="0" * 64, passages=5)
    manifest.record([ENTRY])
    manifest.record([newer])
    assert manifest.find("default", "docs/a.md") == newer
    manifest.close()


def test_entries_are_recorded_all_or_none(tmp_path: Path):
    manifest = Manifest(tmp_path / "manifest.sqlite")
    with pytest.raises(sqlite3.IntegrityError):
        manifest.record([ENTRY, replace(ENTRY, document_id="docs/b.md", path=None)])  # type: ignore[arg-type]
    assert manifest.find("default", "docs/a.md") is None
    manifest.record([ENTRY])
    assert manifest.find("default", "docs/a.md") == ENTRY
    manifest.close()


def test_a_begun_document_is_unfinished_until_it_is_recorded(tmp_path: Path):
    file = tmp_path / "manifest.sqlite"
    manifest = Manifest(file)
    manifest.begin([ENTRY])
    manifest.close()  # as a crash would

    again = Manifest(file)
    assert again.is_unfinished("default", "docs/a.md")
    assert not again.is_unfinished("other", "docs/a.md")
    assert again.find("default", "docs/a.md") is None
    again.begin([ENTRY])
    again.record([ENTRY])
    assert not again.is_unfinished("default", "docs/a.md")
    again.close()


def test_a_manifest_that_begins_another_collection_knows_nothing(tmp_path: Path):
    manifest = Manifest(tmp_path / "manifest.sqlite")
    assert manifest.collection_id is None
    manifest.begin_collection("first", adopted=False)
    manifest.record([ENTRY])
    manifest.begin([replace(ENTRY, document_id="docs/b.md")])
    manifest.begin_collection("second", adopted=True)
    assert (manifest.collection_id, manifest.is_adopted) == ("second", True)
    assert manifest.find("default", "docs/a.md") is None
    assert not manifest.is_unfinished("default", "docs/b.md")
    manifest.close()


def test_a_manifest_that_forgets_describes_no_collection(tmp_path: Path):
    manifest = Manifest(tmp_path / "manifest.sqlite")
    manifest.begin_collection("first", adopted=True)
    manifest.record([ENTRY])
    manifest.forget()
    assert (manifest.collection_id, manifest.is_adopted) == (None, False)
    assert manifest.find("default", "docs/a.md") is None
    manifest.close()
