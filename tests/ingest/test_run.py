"""Composing an ingestion: what goes wrong around the documents."""

import sqlite3
from pathlib import Path

import pytest

from ingest.run import MANIFEST_FILE, Observer, logged_run, logged_run_of, open_manifest, preparation_of
from ingest.runs import RunLog
from rag.bootstrap import collection_dir
from rag.errors import ConfigurationError, ModelRuntimeError, StoreBusyError, StoreError
from rag.settings import Chunking, Data, Ingest, JsonFields, Settings
from tests.fake_store import HashEmbedder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=Data(dir=tmp_path))


def runs(settings: Settings) -> list[tuple[str, str | None]]:
    with open_manifest(settings, write=False) as manifest:
        return [(run.state, run.error) for run in RunLog(manifest.connection).all(10)]


def test_a_damaged_manifest_is_a_store_error_that_names_it(settings: Settings):
    file = collection_dir(settings) / MANIFEST_FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(b"this is no database, but it is long enough to be taken for one" * 20)
    with pytest.raises(StoreError, match=r"the manifest in .*passages failed"), open_manifest(settings):
        pass


def test_one_process_writes_at_a_time_while_others_read(settings: Settings):
    with open_manifest(settings):
        with pytest.raises(StoreBusyError, match="another process is writing"), open_manifest(settings):
            pass
        with open_manifest(settings, write=False):
            pass
    with open_manifest(settings):
        pass


def test_a_manifest_is_free_again_after_an_error(settings: Settings):
    with pytest.raises(StoreError, match="failed: database or disk is full"), open_manifest(settings):
        raise sqlite3.OperationalError("database or disk is full")
    with open_manifest(settings):
        pass


async def test_the_end_of_a_run_is_in_the_log_however_it_comes(settings: Settings):
    async with logged_run_of(settings, "rag ingest docs"):
        pass
    async with logged_run_of(settings, "rag ingest docs") as (_, report):
        report.interrupted = True
    with pytest.raises(ModelRuntimeError):
        async with logged_run_of(settings, "rag ingest docs"):
            raise ModelRuntimeError("the model failed")
    with pytest.raises(KeyboardInterrupt):
        async with logged_run_of(settings, "rag ingest docs"):
            raise KeyboardInterrupt
    assert runs(settings) == [
        ("interrupted", "KeyboardInterrupt"),
        ("failed", "the model failed"),
        ("interrupted", None),
        ("done", None),
    ]


async def test_a_run_can_be_stopped_by_who_watches_it(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ingest.run.build_embedder", lambda *_: HashEmbedder())
    stops = []
    async with logged_run(settings, "rag ingest docs", Observer(on_start=stops.append)) as (ingestion, _):
        stops[0]()
        report = await ingestion.run([])
    assert report.interrupted
    assert runs(settings) == [("interrupted", None)]


async def test_the_embedder_is_closed_also_after_an_error(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    class Closing(HashEmbedder):
        closed = False

        async def close(self) -> None:
            self.closed = True

    embedder = Closing()
    monkeypatch.setattr("ingest.run.build_embedder", lambda *_: embedder)
    with pytest.raises(ModelRuntimeError):
        async with logged_run(settings, "rag ingest docs", Observer()):
            raise ModelRuntimeError("the model failed")
    assert embedder.closed


def test_items_are_prepared_as_configured(tmp_path: Path):
    settings = Settings(
        data=Data(dir=tmp_path),
        chunking=Chunking(sentences=3),
        ingest=Ingest(json_fields=JsonFields(id=("sku",), title=("label",), text=("words",))),
    )
    preparation = preparation_of(settings)
    assert preparation.chunking == settings.chunking
    assert (preparation.fields.id, preparation.fields.title, preparation.fields.text) == (
        ("sku",),
        ("label",),
        ("words",),
    )


def test_sizes_that_do_not_fit_are_refused_before_anything_is_read(tmp_path: Path):
    chunking = Chunking(strategy="fixed", max_tokens=10, overlap_tokens=10)
    with pytest.raises(ConfigurationError):
        preparation_of(Settings(data=Data(dir=tmp_path), chunking=chunking))
