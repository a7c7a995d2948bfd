"""What deleting documents does to the collection, and what it leaves for the next run."""

import json
from contextlib import suppress

import pytest

from ingest import documents
from ingest.documents import delete_documents, find_targets, list_documents, show_document
from ingest.manifest import Manifest
from rag.bootstrap import open_collection_without_model, open_generations
from rag.errors import CollectionMismatchError, StoreBusyError, StoreError, UsageError
from rag.settings import Lexical
from tests.ingest.workplace import Workplace

TEXT = "Wine ferments in steel tanks."


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Workplace:
    return Workplace(tmp_path, monkeypatch)


async def delete(workplace: Workplace, *ids: str):
    return await delete_documents(workplace.settings, ids, "rag documents delete")


async def test_what_is_deleted_is_neither_searchable_nor_recorded_nor_kept(workplace):
    workplace.write("wine.txt", TEXT)
    workplace.write("oak.txt", "Oak comes later.")
    await workplace.sync()
    report = await delete(workplace, "docs/wine.txt")
    assert report.deleted == 1
    assert await workplace.texts() == {"docs/oak.txt": "Oak comes later."}
    _, rows = await workplace.state()
    assert [row[2] for row in rows["items"]] == ["docs/oak.txt"]
    assert len(rows["contents"]) == 1
    collection = await open_collection_without_model(workplace.settings)
    assert await collection.store.count("default") == 1
    assert (await collection.store.hidden("default", "docs")).versions == frozenset()
    await collection.store.close()


async def test_a_deleted_file_comes_back_with_the_next_run(workplace):
    workplace.write("wine.txt", TEXT)
    workplace.write("oak.txt", "Oak comes later.")
    await workplace.sync()
    await delete(workplace, "docs/wine.txt")
    report = await workplace.sync()
    assert (report.added, report.unchanged, report.failed) == (1, 1, [])
    assert (await workplace.texts())["docs/wine.txt"] == TEXT


async def test_a_copy_of_what_is_deleted_stays_searchable_under_its_own_name(workplace):
    for name in ("a.txt", "b.txt", "c.txt"):
        workplace.write(name, TEXT)
    await workplace.sync()
    embedded = workplace.embedder.calls
    await delete(workplace, "docs/a.txt")
    assert await workplace.texts() == {"docs/b.txt": TEXT, "docs/c.txt": TEXT}
    assert (await show_document(workplace.settings, "docs/b.txt")).also_in == ("docs/c.txt",)
    assert workplace.embedder.calls == embedded
    (workplace.docs / "a.txt").unlink()
    assert (await workplace.judged()).is_clean


async def test_one_document_of_a_file_is_deleted_with_what_is_inside_it_and_comes_back_when_it_is_read(workplace):
    workplace.write("all.jsonl", "\n".join(json.dumps({"id": n, "text": f"Record {n}."}) for n in (1, 10)))
    await workplace.sync()
    assert (await delete(workplace, "docs/all.jsonl#1")).deleted == 1
    assert await workplace.texts() == {"docs/all.jsonl#10": "Record 10."}
    report = await workplace.sync()
    assert (report.added, report.unchanged) == (1, 1)


async def test_deleting_everything_leaves_a_collection_that_works(workplace):
    for number in range(5):
        workplace.write(f"{number}.txt", f"Text {number}.")
    await workplace.sync()
    assert (await delete(workplace, *(f"docs/{number}.txt" for number in range(5)))).deleted == 5
    assert await workplace.texts() == {}
    assert (await workplace.sync()).added == 5


async def test_documents_are_deleted_in_batches(workplace, monkeypatch):
    monkeypatch.setattr(documents, "_BATCH_DOCUMENTS", 2)
    workplace.write("all.jsonl", "\n".join(json.dumps({"id": n, "text": f"Record {n}."}) for n in range(7)))
    workplace.write("wine.txt", TEXT)
    await workplace.sync()
    assert (await delete(workplace, "docs/all.jsonl")).deleted == 7
    assert await workplace.texts() == {"docs/wine.txt": TEXT}
    with pytest.raises(UsageError):
        await find_targets(workplace.settings, ["docs/all.jsonl"])


@pytest.mark.parametrize("call", ["hide", "delete"])
@pytest.mark.parametrize("number", [0, 1])
async def test_a_deletion_that_dies_half_way_is_completed_by_the_next(workplace, monkeypatch, call, number):
    from rag.adapters.qdrant_edge import QdrantEdgeStore

    for name in ("a.txt", "b.txt", "c.txt"):
        workplace.write(name, TEXT if name != "c.txt" else "Oak comes later.")
    await workplace.sync()
    real, calls = getattr(QdrantEdgeStore, call), 0

    async def failing(self, *arguments):
        nonlocal calls
        calls += 1
        if calls - 1 == number:
            raise StoreError("the disk is full")
        return await real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(QdrantEdgeStore, call, failing)
        with suppress(StoreError):
            await delete(workplace, "docs/a.txt")
    seen = await workplace.texts()
    assert seen in ({"docs/b.txt": TEXT, "docs/c.txt": "Oak comes later."}, seen | {"docs/a.txt": TEXT})
    with suppress(UsageError):  # where it was deleted before the death
        await delete(workplace, "docs/a.txt")
    assert await workplace.texts() == {"docs/b.txt": TEXT, "docs/c.txt": "Oak comes later."}
    (workplace.docs / "a.txt").unlink()
    report = await workplace.sync()
    assert (report.unchanged, report.added, report.updated) == (2, 0, 0)


async def test_other_lexical_settings_are_refused_since_copies_would_be_weighed_by_them(workplace):
    workplace.write("wine.txt", TEXT)
    await workplace.sync()
    german = workplace.settings.model_copy(update={"lexical": Lexical(language="german")})
    with pytest.raises(CollectionMismatchError, match="lexical: built with"):
        await delete_documents(german, ["docs/wine.txt"], "rag documents delete")
    assert len(await workplace.texts()) == 1


async def test_other_chunking_is_no_obstacle(workplace):
    workplace.write("wine.txt", TEXT)
    await workplace.sync()
    workplace.sentences = 5
    assert (await delete(workplace, "docs/wine.txt")).deleted == 1


async def test_a_collection_that_is_in_use_is_not_changed(workplace):
    workplace.write("wine.txt", TEXT)
    await workplace.sync()
    generations = open_generations(workplace.settings)
    store = await generations.open(str(await generations.live()))
    with pytest.raises(StoreBusyError):
        await delete(workplace, "docs/wine.txt")
    await store.close()
    assert len(await workplace.texts()) == 1
    assert len((await list_documents(workplace.settings, source=None, limit=9))[0]) == 1


async def test_only_the_configured_tenant_is_seen(workplace):
    workplace.write("wine.txt", TEXT)
    await workplace.sync()
    data = workplace.settings.data.model_copy(update={"tenant": "rival"})
    rival = workplace.settings.model_copy(update={"data": data})
    assert await list_documents(rival, source=None, limit=9) == ([], False)
    with pytest.raises(UsageError, match="there is no document"):
        await delete_documents(rival, ["docs/wine.txt"], "rag documents delete")
    with pytest.raises(UsageError):
        await show_document(rival, "docs/wine.txt")
    assert len(await workplace.texts()) == 1


async def test_a_text_that_is_not_kept_is_shown_as_absent(workplace):
    workplace.write("wine.txt", TEXT)
    await workplace.sync()
    manifest = Manifest(workplace.manifest_file)
    manifest.connection.execute("DELETE FROM contents")
    manifest.close()
    shown = await show_document(workplace.settings, "docs/wine.txt")
    assert shown.record is not None
    assert shown.content is None
