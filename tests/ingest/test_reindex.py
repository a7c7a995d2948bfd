"""`rag reindex` over the real embedded store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingest.discover import discover
from ingest.documents import delete_documents
from ingest.manifest import Manifest
from ingest.pipeline import Ingestion
from ingest.run import Observer
from ingest.sync import Pruning, ingest_files
from rag.bootstrap import live_generation, open_generations
from rag.errors import ConfigurationError, ModelRuntimeError, StoreBusyError, StoreError
from rag.retrieval.store import Query
from tests.fake_store import HashEmbedder
from tests.ingest.bench import TENANT, FragileEmbedder, numbered
from tests.ingest.workplace import StoppingEmbedder, Workplace


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    return Workplace(tmp_path, monkeypatch)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, in_small_steps: None) -> None:
    monkeypatch.setattr("ingest.reindex.SAMPLE_PASSAGES", 4)


async def fill(place: Workplace, files: int = 6) -> None:
    for number in range(files):
        place.write(f"f{number:02}.txt", numbered(f"file {number} sentence", range(4)))
    place.write("copy.txt", (place.docs / "f00.txt").read_text())
    await place.sync()


async def generations(place: Workplace) -> list[str]:
    return list(await open_generations(place.settings).all())


async def test_the_collection_is_built_anew_from_the_kept_text(place: Workplace):
    await fill(place)
    wanted, live = await place.texts(), await live_generation(place.settings)
    for file in place.docs.iterdir():
        file.unlink()
    place.sentences = 1
    done = await place.reindex()

    assert (done.former, done.live) == (live, await live_generation(place.settings))
    assert done.live != live
    assert (done.report.added, done.report.embedded, done.report.failed) == (7, 6 * 4, [])
    assert await place.texts() == wanted
    assert (await place.see()).passages == 6 * 4
    assert sorted(await generations(place)) == sorted([live, done.live])


async def test_what_was_ingested_before_is_unchanged_after_a_reindex(place: Workplace):
    await fill(place)
    place.sentences = 1
    await place.reindex()
    report = await place.sync()
    assert (report.unchanged, report.embedded, report.passages) == (7, 0, 0)


async def test_the_live_collection_is_served_until_the_switch_and_after_it_to_who_has_it_open(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
):
    await fill(place)
    live = await live_generation(place.settings)
    store = await open_generations(place.settings).open(live)
    (vector,) = await HashEmbedder().embed_queries(["file 3 sentence 2"])
    seen = []

    class Searching(FragileEmbedder):
        async def embed_passages(self, texts):
            assert await live_generation(place.settings) == live
            seen.append(await store.search(Query(TENANT, vector, None, 100)))
            return await super().embed_passages(texts)

    place.embedder, place.sentences = Searching(), 1
    notices = []
    before = await store.search(Query(TENANT, vector, None, 100))
    done = await place.reindex(observer=Observer(notify=notices.append))
    assert seen
    assert all(ranking == before for ranking in [*seen, await store.search(Query(TENANT, vector, None, 100))])
    assert "the live collection is in use" in notices[0]
    assert await live_generation(place.settings) == done.live != live
    await store.close()


async def test_the_former_collection_is_kept_until_it_is_dropped(place: Workplace):
    await fill(place)
    place.sentences = 1
    done = await place.reindex()
    store = await open_generations(place.settings).open(done.former)
    with pytest.raises(StoreBusyError, match=r"still in use.*restart it, then drop again"):
        await place.drop_former()
    await store.close()

    assert await place.drop_former() == [done.former]
    assert await generations(place) == [done.live]
    assert len(await place.texts()) == 7
    assert await place.documents(done.former) == []
    assert await place.drop_former() == []


async def test_the_former_collection_can_be_served_again(place: Workplace):
    await fill(place)
    place.sentences = 1
    done = await place.reindex()
    await open_generations(place.settings).make_live(done.former)
    place.sentences = 2
    assert len(await place.texts()) == 7
    assert (await place.sync()).unchanged == 7


async def test_with_the_same_settings_there_is_nothing_to_do_unless_forced(place: Workplace):
    await fill(place)
    before, live = await place.state(), await live_generation(place.settings)
    notices = []
    done = await place.reindex(observer=Observer(notify=notices.append))
    assert (done.live, done.former, done.report.embedded) == (live, None, 0)
    assert "--force" in notices[0]
    assert await place.state() == before
    assert (await place.reindex(force=True)).former == live
    assert len(await place.texts()) == 7


async def test_without_a_collection_there_is_nothing_to_build(place: Workplace):
    with pytest.raises(ConfigurationError, match="nothing is ingested yet"):
        await place.reindex()


async def test_a_text_that_is_not_kept_is_refused_before_anything_is_built(place: Workplace):
    await fill(place)
    manifest = Manifest(place.manifest_file)
    record = manifest.document(await live_generation(place.settings), TENANT, "docs/f03.txt")
    manifest.connection.execute("DELETE FROM contents WHERE content_hash = ?", (record.content_hash,))
    manifest.close()
    before = await place.state()
    place.sentences = 1
    with pytest.raises(StoreError, match=r"the text of 1 documents is not kept here \(the first: docs/f03\.txt\)"):
        await place.reindex()
    assert await place.state() == before
    assert len(await generations(place)) == 1


async def test_both_remedies_for_texts_that_are_not_kept_work(place: Workplace):
    await fill(place)
    for file in place.manifest_file.parent.glob("manifest.sqlite*"):
        file.unlink()
    (place.docs / "f03.txt").unlink()
    await place.sync()
    place.sentences = 1
    with pytest.raises(StoreError, match=r"text of 1 documents.*: docs/f03.*rag documents delete docs/f03\.txt$"):
        await place.reindex()
    await delete_documents(place.settings, ["docs/f03.txt"], "rag documents delete docs/f03.txt")
    await place.reindex()
    assert (await place.judged()).is_clean


async def two_tenants(place: Workplace) -> str:
    """Documents of a second tenant beside the first one's; the live generation."""
    await fill(place)
    settings = place.settings
    other = settings.model_copy(update={"data": settings.data.model_copy(update={"tenant": "other"})})
    await ingest_files(
        other, discover([place.docs], None), Pruning(wanted=False, force=False), "rag ingest", Observer()
    )
    return str(await live_generation(place.settings))


@pytest.mark.parametrize("moment", ["run_arrivals", "finish"])
@pytest.mark.parametrize("tenant", [TENANT, "other"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_interruption_that_comes_when_nothing_is_embedded_prevents_the_switch(
    place: Workplace, monkeypatch: pytest.MonkeyPatch, moment: str, tenant: str, when: str
):
    live = await two_tenants(place)
    stops: list[Callable[[], None]] = []
    original = getattr(Ingestion, moment)

    async def interrupted(ingestion: Ingestion, *arguments: Any) -> Any:
        if (ingestion.tenant, when) == (tenant, "before"):
            stops[0]()
        result = await original(ingestion, *arguments)
        if (ingestion.tenant, when) == (tenant, "after"):
            stops[0]()
        return result

    place.sentences = 1
    with monkeypatch.context() as patch:
        patch.setattr(Ingestion, moment, interrupted)
        done = await place.reindex(observer=Observer(on_start=stops.append))
    assert (done.live, done.former, done.report.interrupted) == (live, None, True)
    assert await live_generation(place.settings) == live
    assert len(stops) == 1, (
        "a handler for each tenant makes the first Ctrl-C after a second one's start the first again"
    )

    done = await place.reindex()
    assert (done.former, done.report.interrupted) == (live, False)
    assert (await place.judged()).is_clean
    manifest = Manifest(place.manifest_file)
    assert {each for each, _ in manifest.sources(done.live)} == {TENANT, "other"}
    manifest.close()


@pytest.mark.parametrize("command", ["drop", "reindex"])
@pytest.mark.parametrize("dies_at", ["rmtree", "forget"])
async def test_a_drop_that_was_killed_is_finished_by_what_comes_next(
    place: Workplace, monkeypatch: pytest.MonkeyPatch, command: str, dies_at: str
):
    await fill(place)
    place.sentences = 1
    former = (await place.reindex()).former

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        target = "shutil.rmtree" if dies_at == "rmtree" else "ingest.manifest.Manifest.forget_generation"
        patch.setattr(target, killed)
        with pytest.raises(KeyboardInterrupt):
            await place.drop_former()
    assert await place.documents(former) != []
    if command == "drop":
        assert await place.drop_former() == [former]
    else:
        await place.reindex(force=True)
    assert await place.documents(former) == []
    assert former not in await generations(place)
    assert not (place.manifest_file.parent / str(former)).exists()
    assert (await place.judged()).is_clean


@pytest.mark.usefixtures("small")
async def test_an_interrupted_reindex_is_continued_and_embeds_only_the_rest(place: Workplace):
    await fill(place)
    live, wanted = await live_generation(place.settings), await place.texts()
    place.sentences = 1
    place.embedder = stopping = StoppingEmbedder(stops_at=4)
    done = await place.reindex(observer=stopping.observer)
    assert (done.live, done.former, done.report.interrupted) == (live, None, True)
    assert await live_generation(place.settings) == live
    embedded = done.report.embedded
    assert 0 < embedded < 24

    place.embedder = FragileEmbedder()
    done = await place.reindex()
    assert done.former == live
    assert done.report.embedded == len(place.embedder.texts) == 24 - embedded
    assert await place.texts() == wanted
    assert len(await generations(place)) == 2


@pytest.mark.usefixtures("small")
async def test_a_reindex_that_failed_leaves_the_live_collection_and_is_continued(place: Workplace):
    await fill(place)
    live, wanted = await live_generation(place.settings), await place.texts()
    place.sentences = 1
    place.embedder.fails_at = place.embedder.calls + 3
    with pytest.raises(ModelRuntimeError):
        await place.reindex()
    assert await live_generation(place.settings) == live
    assert await place.texts() == wanted
    place.embedder = FragileEmbedder()
    assert (await place.reindex()).report.embedded < 24
    assert await place.texts() == wanted


@pytest.mark.usefixtures("small")
async def test_what_changes_between_an_interruption_and_the_end_is_as_it_is_last(place: Workplace):
    await fill(place)
    place.sentences = 1
    place.embedder = stopping = StoppingEmbedder(stops_at=6)
    await place.reindex(observer=stopping.observer)

    place.sentences, place.embedder = 2, FragileEmbedder()
    built = sorted(record.document_id for record in await place.documents(await _building(place)))
    assert built
    for name in ("f00.txt", "copy.txt", "f01.txt"):
        (place.docs / name).unlink()
    place.write("f02.txt", "Changed. Meanwhile.")
    place.write("new.txt", "New.")
    await place.sync(prune=True, force=True)

    place.sentences = 1
    await place.reindex()
    assert (await place.judged()).is_clean


@pytest.mark.usefixtures("small")
async def test_a_source_that_was_emptied_between_an_interruption_and_the_end_is_empty(place: Workplace):
    await fill(place)
    await place.stream({"id": "a", "text": "One."})
    place.sentences = 1
    place.embedder = stopping = StoppingEmbedder(stops_at=6)
    await place.reindex(observer=stopping.observer)
    place.sentences, place.embedder = 2, FragileEmbedder()
    for file in place.docs.iterdir():
        file.unlink()
    await place.sync(prune=True, force=True)
    place.sentences = 1
    done = await place.reindex()
    assert [record.document_id for record in await place.documents(done.live)] == ["feed/a"]
    assert await place.texts() == {}


@pytest.mark.usefixtures("small")
async def test_what_was_begun_with_other_settings_is_dropped(place: Workplace):
    await fill(place)
    live = await live_generation(place.settings)
    place.sentences = 1
    place.embedder = stopping = StoppingEmbedder(stops_at=4)
    await place.reindex(observer=stopping.observer)
    begun = await _building(place)
    place.sentences, place.embedder = 3, FragileEmbedder()
    done = await place.reindex()
    assert begun not in await generations(place)
    assert sorted(await generations(place)) == sorted([live, done.live])
    assert await place.documents(begun) == []


async def test_every_source_is_built(place: Workplace):
    await fill(place)
    await place.stream({"id": "a", "text": "One."}, {"id": "b", "text": "Two."})
    before = {record.document_id for record in await place.documents()}
    place.sentences = 1
    done = await place.reindex()
    assert {record.document_id for record in await place.documents(done.live)} == before
    assert {record.source for record in await place.documents(done.live)} == {"docs", "feed"}


@pytest.mark.parametrize("is_served", [False, True])
async def test_a_manifest_that_was_lost_does_not_make_the_collection_empty(place: Workplace, is_served: bool):
    await fill(place)
    wanted, live = await place.texts(), await live_generation(place.settings)
    for file in place.manifest_file.parent.glob("manifest.sqlite*"):
        file.unlink()
    place.sentences = 1
    if is_served:
        store = await open_generations(place.settings).open(live)
        with pytest.raises(StoreBusyError):
            await place.reindex()
        await store.close()
    else:
        with pytest.raises(StoreError, match="sources that the manifest does not know; run `rag ingest` over every"):
            await place.reindex()
    assert await live_generation(place.settings) == live

    place.sentences = 2
    assert (await place.sync()).embedded == 0
    place.sentences = 1
    await place.reindex()
    assert await place.texts() == wanted


async def test_what_the_manifest_lost_of_the_live_collection_is_not_lost_there(place: Workplace):
    await fill(place)
    before = place.manifest_file.read_bytes()
    place.write("later.txt", "Later.")
    await place.sync()
    place.manifest_file.write_bytes(before)
    place.sentences = 1
    with pytest.raises(StoreError, match=r"docs/later\.txt"):
        await place.reindex()
    place.sentences = 2
    await place.sync()
    place.sentences = 1
    await place.reindex()
    assert (await place.judged()).is_clean


async def _building(place: Workplace) -> str:
    live = await live_generation(place.settings)
    (building,) = [generation for generation in await generations(place) if generation != live]
    return building
