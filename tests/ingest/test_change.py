from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.change import Batch, Change, EmbeddedPassages, NewDocument
from ingest.embed import passages_of
from ingest.load.extracted import Extracted
from ingest.manifest import Changes, ItemRecord, Manifest
from ingest.plan import Group
from ingest.prepare import PreparedContent, prepare_content
from rag.errors import StoreError
from rag.filters import Comparison, Filter
from rag.retrieval.passage_text import indexed_text
from rag.retrieval.store import IndexedPassage, Query
from tests.fake_store import HashEmbedder
from tests.ingest.bench import PREPARATION, SOURCE, SPEC, TENANT, FragileStore, OpenedCollection, numbered

LONG = numbered("sentence", range(5))


class RecordingStore(FragileStore):
    """Remembers every step with what it was about; can lose passages that it was given."""

    def __init__(self, steps: list[tuple[str, object]]) -> None:
        super().__init__()
        self.steps = steps
        self.loses = 0

    async def hide(self, tenant: str, source: str, versions: Collection[str]) -> int:
        self.steps.append(("hide", frozenset(versions)))
        return await super().hide(tenant, source, versions)

    async def upsert(self, passages: Sequence[IndexedPassage]) -> None:
        self.steps.append(("upsert", frozenset(item.passage.version for item in passages)))
        await super().upsert(passages[self.loses :])

    async def count(self, tenant: str, filter: Filter | None = None) -> int:  # noqa: A002
        self.steps.append(("count", frozenset(filter.value)))
        return await super().count(tenant, filter)

    async def delete(self, tenant: str, filter: Filter) -> None:  # noqa: A002
        self.steps.append(("delete", frozenset(filter.value)))
        await super().delete(tenant, filter)


class RecordingManifest(Manifest):
    def __init__(self, file: Path, steps: list[tuple[str, object]]) -> None:
        super().__init__(file)
        self.steps = steps

    def record(self, generation: str, tenant: str, source: str, changes: Changes) -> None:
        self.steps.append(("record", changes.epoch))
        super().record(generation, tenant, source, changes)


class Desk:
    """A collection with its manifest, and what happened to both."""

    def __init__(self, folder: Path) -> None:
        self.steps: list[tuple[str, object]] = []
        self.store = RecordingStore(self.steps)
        self.collection = OpenedCollection(self.store)
        self.manifest = RecordingManifest(folder / "manifest.sqlite", self.steps)
        self.embedder = HashEmbedder()

    async def change(self, gone: Sequence[str] = (), leftover: frozenset[str] = frozenset(), **texts: str) -> Change:
        """Carry out a batch; only what is unwritten after the copies is embedded."""
        contents = [content_of(name, text) for name, text in texts.items()]
        change = self.begun(contents, gone, leftover)
        await change.begin()
        for content in {c.content_hash: c for c in contents if c.content_hash in change.unwritten}.values():
            await change.write(await self.embedded(content))
        await change.finish()
        return change

    def begun(
        self,
        contents: Sequence[PreparedContent],
        gone: Sequence[str] = (),
        leftover: frozenset[str] = frozenset(),
        items: Sequence[ItemRecord] = (),
    ) -> Change:
        documents = tuple(NewDocument(content.document_id, content) for content in contents)
        batch = Batch(SOURCE, documents, tuple(f"docs/{name}" for name in gone), tuple(items))
        return Change(self.collection, self.manifest, TENANT, batch, leftover)

    async def embedded(self, content: PreparedContent) -> EmbeddedPassages:
        _, passages = passages_of(content, Group(content.content_hash, (content.document_id,)), SOURCE, TENANT)
        return EmbeddedPassages(passages, await self.embedder.embed_passages([indexed_text(p) for p in passages]))

    async def shown(self) -> dict[str, str]:
        """The text that a search sees of each document."""
        query = Query(TENANT, (await self.embedder.embed_queries(["text"]))[0], None, 100)
        ranking = (await self.store.search(query))["dense"]
        passages = sorted((self.store.points[c.passage_id].passage for c in ranking), key=lambda p: p.ordinal)
        texts: dict[str, str] = {}
        for passage in passages:
            for document_id in (passage.document_id, *passage.also_in):
                texts[document_id] = texts.get(document_id, "") + passage.text
        return dict(sorted(texts.items()))

    def version(self, name: str) -> str:
        return self.manifest.document(SPEC.id, TENANT, f"docs/{name}").version


def content_of(name: str, text: str) -> PreparedContent:
    return prepare_content(f"docs/{name}", Extracted(text=text, title=None), PREPARATION.chunking)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.manifest.close()


async def test_the_steps_of_an_update_are_in_the_order_that_no_death_can_harm(desk: Desk):
    await desk.change(a="Old.")
    old = desk.version("a")
    desk.steps.clear()
    await desk.change(a=LONG)
    new = desk.version("a")
    assert desk.steps == [
        ("hide", {new}),
        ("upsert", {new}),
        ("count", {new}),
        ("hide", {old}),
        ("delete", {old}),
        ("record", 4),
    ]
    assert desk.manifest.epoch(SPEC.id, TENANT, SOURCE) == (await desk.store.hidden(TENANT, SOURCE)).epoch


async def test_a_deletion_is_hidden_before_it_is_deleted_and_then_recorded(desk: Desk):
    await desk.change(a="Old.", b="Stays.")
    old = desk.version("a")
    desk.steps.clear()
    await desk.change(gone=["a"])
    assert desk.steps == [("hide", {old}), ("delete", {old}), ("record", 3)]
    assert await desk.shown() == {"docs/b": "Stays."}


async def test_what_is_written_is_not_seen_before_it_is_whole(desk: Desk):
    await desk.change(a="Old.")
    content = content_of("a", LONG)
    change = desk.begun([content])
    await change.begin()
    assert await desk.shown() == {"docs/a": "Old."}
    assert await change.write(await desk.embedded(content)) == 3
    assert await desk.shown() == {"docs/a": "Old."}
    await change.finish()
    assert await desk.shown() == {"docs/a": LONG}


async def test_where_the_store_holds_less_than_was_written_nothing_is_shown(desk: Desk):
    await desk.change(a="Old.")
    before = list(desk.manifest.documents(SPEC.id, TENANT))
    desk.store.loses = 1
    with pytest.raises(StoreError, match=r"of 3 passages written to 'docs' the store holds 2; .*Run it again"):
        await desk.change(a=LONG)
    assert await desk.shown() == {"docs/a": "Old."}
    assert list(desk.manifest.documents(SPEC.id, TENANT)) == before

    desk.store.loses = 0
    await desk.change(a=LONG)
    assert await desk.shown() == {"docs/a": LONG}


async def test_passages_that_another_release_left_under_the_same_version_do_not_stand_in_the_way_for_ever(desk: Desk):
    content = content_of("a", LONG)
    await desk.change(a=LONG)
    version = desk.version("a")
    await desk.change(gone=["a"])
    await desk.store.hide(TENANT, SOURCE, {version})
    embedded = await desk.embedded(content)
    weights = desk.collection.lexical.encode_passages([passage.text for passage in embedded.passages])
    surplus = [
        replace(passage, id=f"surplus {passage.ordinal}", ordinal=passage.ordinal + 10) for passage in embedded.passages
    ]
    await desk.store.upsert([IndexedPassage(*parts) for parts in zip(surplus, embedded.vectors, weights, strict=True)])
    with pytest.raises(StoreError):
        await desk.change(a=LONG, leftover=frozenset({version}))
    await desk.change(a=LONG, leftover=frozenset({version}))
    assert await desk.shown() == {"docs/a": LONG}


async def test_the_same_content_in_two_places_is_stored_once_and_found_under_both(desk: Desk):
    await desk.change(a=LONG, b=LONG)
    assert len(desk.store.points) == 3
    assert await desk.shown() == {"docs/a": LONG, "docs/b": LONG}
    for name in ("docs/a", "docs/b"):
        assert await desk.store.count(TENANT, Comparison("eq", "document_id", name)) == 3


async def test_a_copy_that_comes_later_is_written_without_being_embedded(desk: Desk):
    await desk.change(a=LONG)
    vectors = {p.passage.ordinal: p.dense for p in desk.store.points.values()}
    change = desk.begun([content_of("b", LONG)])
    await change.begin()
    assert change.unwritten == set()
    await change.finish()
    assert (change.added, change.updated) == (1, 0)
    assert await desk.shown() == {"docs/a": LONG, "docs/b": LONG}
    assert all((p.dense == vectors[p.passage.ordinal]).all() for p in desk.store.points.values())
    assert len(desk.store.points) == 3


async def test_passages_of_a_content_that_was_copied_are_passed_over(desk: Desk):
    await desk.change(a=LONG)
    content = content_of("b", LONG)
    change = desk.begun([content])
    await change.begin()
    assert await change.write(await desk.embedded(content)) == 0
    await change.finish()
    assert len(desk.store.points) == 3


@pytest.mark.parametrize("gone", ["a", "b", "c"])
async def test_one_of_several_that_share_a_content_goes_and_the_others_stay(desk: Desk, gone: str):
    await desk.change(a=LONG, b=LONG, c=LONG)
    await desk.change(gone=[gone])
    assert await desk.shown() == {f"docs/{name}": LONG for name in "abc" if name != gone}
    assert len(desk.store.points) == 3


async def test_one_of_two_that_share_a_content_changes_and_the_other_keeps_it(desk: Desk):
    await desk.change(a=LONG, b=LONG)
    await desk.change(a="Other.")
    assert await desk.shown() == {"docs/a": "Other.", "docs/b": LONG}


async def test_two_documents_can_swap_their_contents(desk: Desk):
    await desk.change(a=LONG, b="Other.")
    change = desk.begun([content_of("a", "Other."), content_of("b", LONG)])
    await change.begin()
    assert change.unwritten == set(), "both are in the store already"
    await change.finish()
    assert await desk.shown() == {"docs/a": "Other.", "docs/b": LONG}


async def test_a_document_that_moves_is_called_by_its_new_name(desk: Desk):
    await desk.change(old=LONG)
    await desk.change(gone=["old"], new=LONG)
    assert {p.passage.title for p in desk.store.points.values()} == {"new"}
    assert await desk.shown() == {"docs/new": LONG}
    for point in desk.store.points.values():
        (weights,) = desk.collection.lexical.encode_passages([f"new\n{point.passage.text.strip()}"])
        assert point.lexical == weights


async def test_a_long_content_is_copied_in_slices(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    await desk.change(a=LONG)
    monkeypatch.setattr("ingest.change.SLICE_PASSAGES", 2)
    desk.steps.clear()
    await desk.change(b=LONG)
    assert [name for name, _ in desk.steps].count("upsert") == 2
    assert await desk.shown() == {"docs/a": LONG, "docs/b": LONG}


async def test_a_copy_of_which_the_store_lost_a_part_is_not_shown(desk: Desk):
    await desk.change(a=LONG)
    lost = next(p.passage.id for p in desk.store.points.values() if p.passage.ordinal == 1)
    del desk.store.points[lost]
    with pytest.raises(StoreError, match="the store holds 2"):
        await desk.change(b=LONG)
    assert "docs/b" not in await desk.shown()


async def test_leftovers_of_an_earlier_run_stay_hidden_until_they_are_written(desk: Desk):
    await desk.change(a="Old.")
    content = content_of("a", LONG)
    interrupted = desk.begun([content])
    await interrupted.begin()
    await interrupted.write(await desk.embedded(content))
    leftover = interrupted.appearing

    await desk.change(b="Another.", leftover=leftover)
    assert await desk.shown() == {"docs/a": "Old.", "docs/b": "Another."}
    assert leftover <= (await desk.store.hidden(TENANT, SOURCE)).versions
    await desk.change(a=LONG, leftover=leftover)
    assert await desk.shown() == {"docs/a": LONG, "docs/b": "Another."}


async def test_a_change_of_nothing_but_items_leaves_the_store_alone(desk: Desk):
    await desk.change(a="Old.")
    desk.steps.clear()
    item = ItemRecord(TENANT, SOURCE, "docs/a", "/docs/a", "hash", 1)
    change = desk.begun([], items=[item])
    await change.begin()
    await change.finish()
    assert desk.steps == [("record", 2)]
    assert desk.manifest.item(TENANT, SOURCE, "docs/a") == item


async def test_a_document_that_is_found_in_another_item_is_recorded_there(desk: Desk):
    await desk.change(a=LONG)
    change = Change(
        desk.collection,
        desk.manifest,
        TENANT,
        Batch(SOURCE, (NewDocument("docs/archive", content_of("a", LONG)),)),
        frozenset(),
    )
    await change.begin()
    await change.finish()
    assert desk.manifest.document(SPEC.id, TENANT, "docs/a").item_id == "docs/archive"
    assert len(desk.store.points) == 3


async def test_a_document_without_a_passage_is_recorded_as_one(desk: Desk):
    empty = PreparedContent("docs/a", "f" * 32, Extracted(text="", title="Nothing"), b"", [])
    change = desk.begun([empty])
    await change.begin()
    await change.finish()
    assert desk.manifest.document(SPEC.id, TENANT, "docs/a").passages == 0
