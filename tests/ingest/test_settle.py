"""Whatever ended a run, and whatever manifest and store lost: what the next run makes of it."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from ingest.manifest import Changes, DocumentRecord, ItemRecord, Manifest
from ingest.settle import Settled, settle
from rag.errors import StoreError
from tests.ingest.bench import SOURCE, SPEC, TENANT, Bench, counts, numbered

LONG = numbered("sentence", range(7))
SCOPE = (SPEC.id, TENANT, SOURCE)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def settled(bench: Bench) -> tuple[Settled, list[DocumentRecord]]:
    manifest = Manifest(bench.manifest_file)
    try:
        found = await settle(bench.store, manifest, TENANT, SOURCE)
        return found, list(manifest.documents(SPEC.id, TENANT))
    finally:
        manifest.close()


def recorded(bench: Bench) -> list[DocumentRecord]:
    manifest = Manifest(bench.manifest_file)
    try:
        return list(manifest.documents(SPEC.id, TENANT))
    finally:
        manifest.close()


def version_of(bench: Bench, name: str) -> str:
    return next(record.version for record in recorded(bench) if record.document_id == f"docs/{name}")


def lose(bench: Bench, name: str, *ordinals: int) -> None:
    """As if the store had lost these passages of the document, or all."""
    version = version_of(bench, name)
    for passage in bench.passages:
        if passage.version == version and (not ordinals or passage.ordinal in ordinals):
            del bench.store.points[passage.id]


async def test_where_both_agree_nothing_is_compared_or_changed(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    bench.write(a_md=LONG, b_md=LONG, c_md="Other.")
    await bench.ingest()
    before = recorded(bench)

    async def versions(*_: str) -> None:
        pytest.fail("every version is compared")

    monkeypatch.setattr(bench.store, "versions", versions)
    assert await settled(bench) == (Settled(frozenset()), before)


async def test_a_manifest_that_was_lost_is_restored_from_the_store(bench: Bench):
    bench.write(a_md=LONG, b_md=LONG, c_md="Other.", r_jsonl='{"text": "One."}\n{"text": "Two."}\n')
    await bench.ingest()
    before = recorded(bench)
    bench.manifest_file.unlink()

    found, after = await settled(bench)
    assert found == Settled(frozenset())
    assert [(r.document_id, r.content_hash, r.version, r.passages) for r in after] == [
        (r.document_id, r.content_hash, r.version, r.passages) for r in before
    ]
    report = await bench.ingest()
    assert (report.embedded, report.passages, report.added) == (0, 0, 0)
    assert recorded(bench) == before


async def test_documents_inside_a_listed_or_known_file_are_the_files(bench: Bench):
    bench.write(**{"r#x_jsonl": '{"id": "a#b", "text": "One."}\n', "m_jsonl": '{"text": "Two."}\n'})
    await bench.ingest()
    bench.manifest_file.unlink()
    manifest = Manifest(bench.manifest_file)
    manifest.note_listed(SOURCE, "docs/r#x.jsonl", "/docs/r#x.jsonl")
    manifest.record_items([ItemRecord(TENANT, SOURCE, "docs/m.jsonl", "/docs/m.jsonl", "", 1)])
    await settle(bench.store, manifest, TENANT, SOURCE)
    items = {record.document_id: record.item_id for record in manifest.documents(SPEC.id, TENANT)}
    assert items == {"docs/r#x.jsonl#a#b": "docs/r#x.jsonl", "docs/m.jsonl#1": "docs/m.jsonl"}
    manifest.close()


@pytest.mark.usefixtures("in_small_steps")
async def test_a_manifest_that_lost_any_number_of_its_last_transactions_is_brought_up_to_date(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    snapshots: list[Path] = []
    record = Manifest.record

    def recording(manifest: Manifest, *arguments) -> None:
        record(manifest, *arguments)
        snapshots.append(tmp_path / f"snapshot-{len(snapshots)}.sqlite")
        copy = sqlite3.connect(snapshots[-1])
        manifest.connection.backup(copy)
        copy.close()

    monkeypatch.setattr(Manifest, "record", recording)
    bench.write(a_md="First.", b_md=LONG, c_md="Old.", r_jsonl='{"id": "x", "text": "One."}\n{"id": "y", "text": "2."}')
    await bench.ingest()
    bench.write(a_md="Second.", d_md=LONG, e_md=LONG, r_jsonl='{"id": "y", "text": "Two."}\n')
    await bench.ingest()
    bench.write(b_md="Old.", d_md="First.", f_md="New.")
    await bench.ingest()
    (bench.docs / "c.md").unlink()
    await bench.remove("docs/c.md")
    monkeypatch.undo()

    wanted, texts, points = recorded(bench), bench.texts, dict(bench.store.points)
    hidden = dict(bench.store.hidden_versions)
    assert len(snapshots) > 8
    for snapshot in snapshots:
        shutil.copy(snapshot, bench.manifest_file)
        bench.store.points, bench.store.hidden_versions = dict(points), dict(hidden)
        found, after = await settled(bench)
        shown = [r for r in after if r.version]
        assert [(r.document_id, r.version) for r in shown] == [(r.document_id, r.version) for r in wanted]
        assert {record.document_id for record in found.lost} <= {"docs/c.md", "docs/r.jsonl#x"}, "only what was deleted"
        report = await bench.ingest()
        assert report.embedded <= len(found.lost)
        await bench.remove("docs/c.md")
        assert bench.texts == texts
        assert bench.store.points.keys() == points.keys()
        assert recorded(bench) == wanted


@pytest.mark.parametrize("ordinals", [(0,), (1,), (0, 3), ()], ids=["first", "second", "two", "all"])
async def test_passages_that_the_store_lost_are_written_again_from_the_kept_text(
    bench: Bench, ordinals: tuple[int, ...]
):
    bench.write(a_md=LONG, b_md=LONG, c_md="Other.")
    await bench.ingest()
    whole = bench.store.points.keys() | set()
    lose(bench, "a.md", *ordinals)
    for file in ("a.md", "b.md"):
        (bench.docs / file).unlink()
    bench.embedder.texts.clear()

    report = await bench.ingest()
    assert report.failed == []
    assert report.embedded == len(bench.embedder.texts) == (len(ordinals) or 4)
    assert bench.store.points.keys() == whole
    assert bench.texts["docs/a.md"] == bench.texts["docs/b.md"]
    assert "".join(bench.texts["docs/a.md"]) == LONG
    assert bench.hidden == frozenset()
    assert counts(await bench.ingest()) == (0, 0, 1, 0)


async def test_half_a_document_is_hidden_as_soon_as_it_is_noticed(bench: Bench):
    bench.write(a_md=LONG)
    await bench.ingest()
    lose(bench, "a.md", 2)
    version = version_of(bench, "a.md")
    found, after = await settled(bench)
    assert found.leftover == {version} == bench.hidden
    assert [(record.document_id, record.version) for record in found.lost] == [("docs/a.md", "")]
    assert list(found.lost) == after
    assert await settled(bench) == (found, after), "a second time finds the same"


async def test_what_the_store_lost_and_whose_text_is_not_kept_is_named(bench: Bench):
    bench.write(a_md=LONG, b_md="Other.")
    await bench.ingest()
    lose(bench, "a.md", 0)
    (bench.docs / "a.md").unlink()
    manifest = Manifest(bench.manifest_file)
    manifest.connection.execute("DELETE FROM contents")
    manifest.close()
    report = await bench.ingest()
    (failure,) = report.failed
    assert failure.path == "docs/a.md"
    assert "ingest its file again" in failure.reason
    assert list(bench.texts) == ["docs/b.md"]


async def test_a_record_that_the_store_lost_and_its_file_does_not_hold_any_more_is_gone(bench: Bench):
    bench.write(r_jsonl='{"id": "x", "text": "One."}\n{"id": "y", "text": "Two."}')
    await bench.ingest()
    lose(bench, "r.jsonl#x")
    bench.write(r_jsonl='{"id": "y", "text": "Two."}\n')
    await bench.ingest()
    assert bench.texts == {"docs/r.jsonl#y": ["Two."]}
    assert [record.document_id for record in recorded(bench)] == ["docs/r.jsonl#y"]


async def test_a_version_that_is_shown_and_has_no_beginning_is_swept(bench: Bench):
    bench.write(a_md=LONG)
    await bench.ingest()
    lose(bench, "a.md", 0)
    bench.manifest_file.unlink()
    found, after = await settled(bench)
    assert (len(found.leftover), found.lost, after) == (1, (), [])
    assert found.leftover == bench.hidden
    await bench.ingest()
    assert "".join(bench.texts["docs/a.md"]) == LONG
    assert bench.hidden == frozenset()


@pytest.mark.usefixtures("in_small_steps")
async def test_hidden_leftovers_of_an_update_are_used_by_the_next_run_or_swept(bench: Bench):
    bench.write(a_md="Old.")
    await bench.ingest()
    bench.write(a_md=LONG)
    bench.store.survives = 3
    with pytest.raises(StoreError):
        await bench.ingest()
    bench.store.survives = None
    found, after = await settled(bench)
    assert len(found.leftover) == 1
    assert found.lost == ()
    assert [record.document_id for record in after] == ["docs/a.md"]

    bench.write(a_md="Changed meanwhile.")
    await bench.ingest()
    assert bench.texts == {"docs/a.md": ["Changed meanwhile."]}
    assert bench.hidden == frozenset()


@pytest.mark.parametrize("step", ["hidden", "deleted"])
async def test_what_was_deleted_and_not_recorded_stays_deleted(bench: Bench, step: str):
    bench.write(a_md="First.", b_md=LONG)
    await bench.ingest()
    version = version_of(bench, "a.md")
    await bench.store.hide(TENANT, SOURCE, {version})
    if step == "deleted":
        lose(bench, "a.md")
    found, after = await settled(bench)
    assert found == Settled(frozenset({version}) if step == "hidden" else frozenset())
    assert [record.document_id for record in after] == ["docs/b.md"]
    (bench.docs / "a.md").unlink()
    assert counts(await bench.ingest()) == (0, 0, 1, 0)
    assert list(bench.texts) == ["docs/b.md"]


async def test_an_update_that_was_shown_and_not_recorded_is_taken_as_done(bench: Bench):
    bench.write(a_md="Old.", b_md="Old.")
    await bench.ingest()
    before = bench.manifest_file.read_bytes()
    bench.write(a_md=LONG)
    await bench.ingest()
    wanted = recorded(bench)
    bench.manifest_file.write_bytes(before)
    bench.embedder.texts.clear()
    assert (await settled(bench))[1] == wanted
    assert counts(await bench.ingest()) == (0, 0, 2, 0)
    assert bench.embedder.texts == []


async def test_other_sources_and_tenants_are_left_alone(bench: Bench, tmp_path: Path):
    bench.write(a_md="Text.")
    wiki = tmp_path / "wiki"
    wiki.mkdir()
    (wiki / "w.md").write_text("Wiki.", encoding="utf-8")
    await bench.ingest(bench.docs, wiki)
    manifest = Manifest(bench.manifest_file)
    manifest.record(SPEC.id, "acme", SOURCE, Changes(4))
    manifest.record(*SCOPE, Changes(0, gone=["docs/a.md"]))
    wiki_epoch = manifest.epoch(SPEC.id, TENANT, "wiki")
    await settle(bench.store, manifest, TENANT, SOURCE)
    assert manifest.epoch(SPEC.id, "acme", SOURCE) == 4
    assert manifest.epoch(SPEC.id, TENANT, "wiki") == wiki_epoch
    assert [record.document_id for record in manifest.documents(SPEC.id, TENANT)] == ["docs/a.md", "wiki/w.md"]
    manifest.close()
