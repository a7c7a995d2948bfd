"""Composing an ingestion: what goes wrong before the first document."""

import pytest

from ingest.manifest import Manifest, ManifestEntry
from ingest.run import open_ingestion
from rag.bootstrap import collection_dir
from rag.errors import StoreError
from rag.settings import Data, Settings
from tests.fake_store import HashEmbedder


async def test_a_damaged_manifest_is_a_store_error_that_names_it(tmp_path):
    settings = Settings(data=Data(dir=tmp_path))
    manifest = collection_dir(settings) / "manifest.sqlite"
    manifest.parent.mkdir(parents=True)
    manifest.write_bytes(b"this is no database, but it is long enough to be taken for one" * 20)
    with pytest.raises(StoreError, match=r"the manifest in .*passages failed"):
        async with open_ingestion(settings, HashEmbedder()):
            pass


async def test_a_manifest_whose_collection_is_gone_skips_nothing(tmp_path):
    settings = Settings(data=Data(dir=tmp_path))
    manifest = Manifest(collection_dir(settings) / "manifest.sqlite")
    manifest.begin_collection("gone", adopted=False)
    manifest.record([ManifestEntry("default", "docs/a.md", "docs", "/docs/a.md", "hash", 1)])
    manifest.close()
    async with open_ingestion(settings, HashEmbedder()) as ingestion:
        assert ingestion.manifest.find("default", "docs/a.md") is None
