"""Runs that ended at awkward moments, or on awkward files, through the real store and manifest."""

import asyncio
import json
import shutil
from collections.abc import Callable

import pytest
import qdrant_edge as edge

from ingest import sync
from ingest.discover import discover
from ingest.manifest import Manifest
from ingest.report import Progress
from ingest.run import Observer
from ingest.sync import Pruning
from rag.bootstrap import open_generations
from tests.ingest import bench
from tests.ingest.workplace import Workplace

LONG = " ".join(["Old words here. More of it."] * 6)


class Died(BaseException):
    """As if the process ended here."""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Workplace:
    return Workplace(tmp_path, monkeypatch)


def records(count: int, word: str = "old") -> str:
    return "\n".join(json.dumps({"id": number, "text": f"Record {number} says {word}."}) for number in range(count))


async def dies_while_recording(place: Workplace, monkeypatch) -> None:
    record = Manifest.record

    def dying(manifest, generation, tenant, source, changes):
        if changes.documents or changes.gone:
            raise Died
        record(manifest, generation, tenant, source, changes)

    with monkeypatch.context() as patched:
        patched.setattr(Manifest, "record", dying)
        with pytest.raises(BaseException):  # noqa: B017, PT011 - a group of them, or the one
            await place.sync()


async def lose_a_passage(place: Workplace, document_id: str) -> None:
    (record,) = [known for known in await place.documents() if known.document_id == document_id]
    generations = open_generations(place.settings)
    store = await generations.open(str(await generations.live()))
    first = await store.first_passage("default", record.version)
    assert first is not None
    store._shard.update(edge.UpdateOperation.delete_points([first.id]))  # type: ignore[attr-defined]
    await store.close()


async def test_a_file_that_goes_back_after_a_kill_is_not_left_in_its_other_version(place, monkeypatch):
    place.write("a.txt", "Old words here. More of it.")
    await place.sync()
    place.write("a.txt", "Brand new words. Second sentence.")
    await dies_while_recording(place, monkeypatch)
    place.write("a.txt", "Old words here. More of it.")
    await place.sync()
    assert await place.texts() == {"docs/a.txt": "Old words here. More of it."}


async def test_a_file_of_records_that_goes_back_after_an_interruption_is_not_left_half_new(
    place, monkeypatch, in_small_steps
):
    place.write("all.jsonl", records(100))
    await place.sync()
    place.write("all.jsonl", records(100, "NEW"))
    stops: list[Callable[[], None]] = []

    def stop_early(progress: Progress) -> None:
        if progress.passages >= 40:
            stops[0]()

    report = await place.sync(observer=Observer(on_progress=stop_early, on_start=stops.append))
    assert report.interrupted
    assert 0 < report.updated < 100
    place.write("all.jsonl", records(100))
    await place.sync()
    assert not [text for text in (await place.texts()).values() if "NEW" in text]


async def test_a_run_that_dies_while_it_repairs_loses_nothing(place, monkeypatch):
    place.write("a.txt", LONG)
    place.write("b.txt", "Other. Thing.")
    await place.sync()
    await lose_a_passage(place, "docs/a.txt")
    (place.docs / "a.txt").unlink()  # nothing but the kept text is left
    await dies_while_recording(place, monkeypatch)
    await place.sync()
    assert (await place.texts())["docs/a.txt"] == LONG


async def test_what_was_lost_and_is_read_again_is_no_failure(place):
    place.write("a.txt", LONG)
    await place.sync()
    await lose_a_passage(place, "docs/a.txt")
    manifest = Manifest(place.manifest_file)
    manifest.connection.execute("DELETE FROM contents")
    manifest.close()
    report = await place.sync()
    assert report.failed == []
    assert await place.texts() == {"docs/a.txt": LONG}


async def test_a_record_that_is_gone_goes_also_after_the_manifest_was_lost(place):
    place.write("all.jsonl", records(3))
    await place.sync()
    for file in place.manifest_file.parent.glob("manifest.sqlite*"):
        file.unlink()
    place.write("all.jsonl", records(2))
    await place.sync()
    assert list(await place.texts()) == ["docs/all.jsonl#0", "docs/all.jsonl#1"]


async def test_one_source_never_takes_the_documents_of_another(place, tmp_path):
    same = "\n".join(json.dumps({"id": number, "text": "The very same text."}) for number in (1, 2))
    place.write("b/c.jsonl", same)
    await place.sync()
    other = tmp_path / "other"
    other.mkdir()
    (other / "c.jsonl").write_text(json.dumps({"id": 1, "text": "Quite another text."}))
    report = await sync.ingest_files(place.settings, discover([other], "docs/b"), Pruning(), "ingest", Observer())
    assert [failure.reason for failure in report.failed] == [
        "the document id 'docs/b/c.jsonl#1' belongs to the source 'docs'; pass another --source NAME"
    ]
    assert set(await place.texts()) == {"docs/b/c.jsonl#1", "docs/b/c.jsonl#2"}


async def test_a_file_called_like_a_record_does_not_swap_with_it(place):
    place.write("all.jsonl", json.dumps({"id": "x.md", "text": "Inside the file of records."}))
    place.write("all.jsonl#x.md", "Outside of it.")
    first = await place.sync()
    again = await place.sync()
    assert len(first.failed) == len(again.failed) == 1
    assert (first.embedded, again.embedded, again.updated) == (1, 0, 0)


async def test_a_copy_keeps_a_title_that_happens_to_be_a_file_name(place):
    place.write("z/notes.md", "# notes\n\nSome text of it. Another sentence.")
    await place.sync()
    place.write("a/alpha.md", "# notes\n\nSome text of it. Another sentence.")
    await place.sync()
    generations = open_generations(place.settings)
    store = await generations.open(str(await generations.live()))
    (version,) = await store.versions("default", "docs")
    first = await store.first_passage("default", version)
    await store.close()
    assert first is not None
    assert (first.title, first.document_id, first.also_in) == ("notes", "docs/a/alpha.md", ("docs/z/notes.md",))


async def test_a_folder_that_moved_is_known_by_its_new_place(place, tmp_path):
    place.write("b.txt", "Other. Thing.")
    await place.sync()
    moved = tmp_path / "new" / "docs"
    moved.parent.mkdir()
    shutil.move(str(place.docs), str(moved))
    found = discover([moved], None)
    await sync.ingest_files(place.settings, found, Pruning(), "ingest", Observer())
    place.write("b.txt", "Something else is here now.")
    report = await sync.ingest_files(place.settings, found, Pruning(), "ingest", Observer())
    assert (report.unchanged, report.failed) == (1, [])


async def test_progress_counts_files_and_not_what_is_in_them(place):
    place.write("all.jsonl", records(1500))
    seen: list[Progress] = []
    await place.sync(observer=Observer(on_progress=seen.append))
    assert {progress.total for progress in seen} == {1}
    assert max(progress.documents for progress in seen) == seen[-1].documents == 1


async def test_a_run_that_is_stopped_prepares_nothing_more(place, monkeypatch):
    for number in range(60):
        place.write(f"{number}.txt", f"Text {number} it.")
    prepared = 0
    turn = asyncio.Semaphore(1)
    stops: list[Callable[[], None]] = []
    prepare = bench.InProcessPool.run

    async def one_at_a_time(pool, item):
        nonlocal prepared
        async with turn:
            prepared += 1
            if prepared == 3:
                stops[0]()
            await asyncio.sleep(0)
            return await prepare(pool, item)

    monkeypatch.setattr(bench.InProcessPool, "run", one_at_a_time)
    report = await place.sync(observer=Observer(on_start=stops.append))
    assert report.interrupted
    assert prepared <= 4
