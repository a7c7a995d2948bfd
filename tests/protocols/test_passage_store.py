"""One suite for every `PassageStore`: the fake that other tests rely on must be told apart from no real one."""

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from rag.adapters.bm25 import Bm25Encoder
from rag.adapters.qdrant_edge import QdrantEdgeStore
from rag.adapters.qdrant_server import QdrantServerStore, connect
from rag.errors import StoreBusyError, StoreError
from rag.filters import Comparison, Compound, Filter
from rag.retrieval.store import CollectionSpec, Hidden, IndexedPassage, PassageStore, Query, passage_id
from rag.types import Metadata, Passage, Ranking, SparseVector
from tests.fake_store import InMemoryStore
from tests.wire import Reply, WireServer

pytestmark = pytest.mark.filterwarnings(
    # qdrant-client's in-memory mode says so at every creation; indexes matter to a server's speed only.
    "ignore:Payload indexes have no effect in the local Qdrant:UserWarning"
)

DIMENSION = 8
SPEC = CollectionSpec("c0ffee", "hash", DIMENSION, "qdrant-bm25:none", "sentences=6", 6.5)
LEXICAL = Bm25Encoder(language="none", k1=1.2, b=0.75, average_length=6.5)
WORDS = "tide moon sea sun wine oak steel tank beer malt hop yeast".split()
ABSENT_ID = passage_id("acme", "absent", "v1", 0)


@dataclass(frozen=True)
class Place:
    """Where one kind of store keeps one collection; what is closed can be opened again."""

    kind: str
    folder: Path
    client: Any
    collection: str

    async def create(self, spec: CollectionSpec = SPEC) -> PassageStore:
        if self.kind == "fake":
            return InMemoryStore()
        if self.kind == "edge":
            return QdrantEdgeStore.create(self.folder, spec)
        return await QdrantServerStore.create(self.client, self.collection, spec)

    async def open(self) -> QdrantEdgeStore | QdrantServerStore:
        if self.kind == "edge":
            return QdrantEdgeStore.open(self.folder)
        return await QdrantServerStore.open(self.client, self.collection)

    async def exists(self) -> bool:
        if self.kind == "edge":
            return QdrantEdgeStore.exists(self.folder)
        return await QdrantServerStore.exists(self.client, self.collection)


async def places(kind: str, folder: Path):
    client, url, name = None, os.environ.get("QDRANT_URL"), f"test-{uuid4().hex}"
    if kind == "local":
        from qdrant_client import AsyncQdrantClient

        client = AsyncQdrantClient(":memory:")
    elif kind == "server":
        if not url:
            pytest.skip("QDRANT_URL does not name a Qdrant server on loopback")
        client = connect(url, api_key=None, prefer_grpc=False, timeout_s=30)
    yield Place(kind, folder / "collection", client, name)
    if kind == "server":
        admin = connect(str(url), api_key=None, prefer_grpc=False, timeout_s=30)
        await admin.delete_collection(name)
        await admin.close()


@pytest.fixture(params=["fake", "edge", "local", "server"])
async def place(request, tmp_path):
    async for each in places(request.param, tmp_path):
        yield each


@pytest.fixture(params=["edge", "local", "server"])
async def lasting_place(request, tmp_path):
    """Where a collection outlives the object that made it."""
    async for each in places(request.param, tmp_path):
        yield each


@pytest.fixture
async def store(place):
    """An empty store of every kind."""
    made = await place.create()
    yield made
    await made.close()


def passage(
    name: str,
    text: str = "moon",
    *,
    tenant: str = "acme",
    version: str = "v1",
    ordinal: int = 0,
    source: str = "manual",
    page: int | None = None,
    metadata: Metadata | None = None,
    rows: tuple[int, int] | None = None,
    also_in: tuple[str, ...] = (),
) -> Passage:
    return Passage(
        id=passage_id(tenant, name, version, ordinal),
        tenant=tenant,
        source=source,
        document_id=name,
        version=version,
        ordinal=ordinal,
        start=7,
        end=7 + len(text),
        text=text,
        title=f"Title of {name}",
        headings=("One", "Zwei — 二"),
        page=page,
        metadata=metadata or {},
        rows=rows,
        also_in=also_in,
    )


def direction(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)
    return vector / np.linalg.norm(vector)


def indexed(passages: Sequence[Passage], *, seed: int = 0) -> list[IndexedPassage]:
    """The passages with a dense vector each of its own, and their texts' term weights."""
    vectors = LEXICAL.encode_passages([each.text for each in passages])
    return [
        IndexedPassage(each, direction(seed + number), vector)
        for number, (each, vector) in enumerate(zip(passages, vectors, strict=True))
    ]


def asked(
    text: str = "moon", *, tenant: str = "acme", retrieve_k: int = 100, filter_: Filter | None = None, seed: int = 999
) -> Query:
    return Query(tenant, direction(seed), LEXICAL.encode_query(text), retrieve_k, filter_)


def library(count: int = 60) -> list[Passage]:
    """Passages of two tenants, of random words, three to a document."""
    generator = random.Random(23)
    return [
        passage(
            f"doc-{number // 3}",
            " ".join(generator.choices(WORDS, k=generator.randint(1, 14))),
            tenant="rival" if number % 5 == 4 else "acme",
            ordinal=number % 3,
        )
        for number in range(count)
    ]


def names(found: Iterable[Any]) -> list[str]:
    return sorted(each.document_id for each in found)


def assert_same(found: Mapping[str, Ranking], expected: Mapping[str, Ranking]) -> None:
    """The same candidates with the same scores, up to single precision."""
    assert list(found) == list(expected)
    for leg, ranking in expected.items():
        ours = {candidate.passage_id: candidate for candidate in found[leg]}
        assert {i: c.score for i, c in ours.items()} == pytest.approx(
            {candidate.passage_id: candidate.score for candidate in ranking}, abs=1e-4
        )
        assert all(ours[c.passage_id].document_id == c.document_id for c in ranking)
        assert len(ours) == len(found[leg])
        assert list(found[leg]) == sorted(found[leg], key=lambda c: (-c.score, c.passage_id))


async def test_what_is_written_is_read_as_it_was(store):
    written = [
        passage("plain"),
        passage(
            "full",
            "Text with “marks”,\n\ttabs, 中文, \U0001f600 and \u0301.",
            page=3,
            source="",
            metadata={
                "year": 2024,
                "ok": True,
                "no": False,
                "ratio": 0.5,
                "tags": ["a", "b"],
                "a.b c": "ß",
                "none": [],
            },
        ),
        passage("empty", ""),
        passage("table", "name: Ada", rows=(2, 17)),
        passage("original", also_in=("copy-a", "copy-b")),
    ]
    await store.upsert(indexed(written))
    found = await store.fetch("acme", [each.id for each in written])
    assert found == {each.id: each for each in written}
    assert type(found[written[1].id].metadata["ok"]) is bool
    assert isinstance(found[written[1].id].headings, tuple)


async def test_an_id_that_is_not_stored_is_left_out(store):
    (one,) = items = indexed([passage("one")])
    await store.upsert(items)
    assert await store.fetch("acme", [ABSENT_ID, one.passage.id]) == {one.passage.id: one.passage}
    assert await store.fetch("acme", [ABSENT_ID]) == {}
    assert await store.fetch("acme", []) == {}


async def test_an_upsert_replaces_the_passage_of_the_same_id(store):
    before, after = passage("one", "wine wine"), passage("one", "moon", metadata={"year": 2})
    await store.upsert(indexed([before, passage("other", "tide")]))
    await store.upsert(indexed([after], seed=50))
    assert await store.count("acme") == 2
    assert (await store.fetch("acme", [after.id]))[after.id] == after
    assert names((await store.search(asked("wine")))["bm25"]) == []
    found = await store.search(asked("moon", seed=50))
    assert names(found["bm25"]) == ["one"]
    assert found["dense"][0].passage_id == after.id
    assert found["dense"][0].score == pytest.approx(1, abs=1e-5)


async def test_both_legs_score_as_the_reference_does(store):
    reference = InMemoryStore()
    items = indexed(library())
    for part in (items[:17], items[17:]):
        await store.upsert(part)
        await reference.upsert(part)
    for number, text in enumerate(["moon", "moon tide unheard", "wine oak steel tank", "unheard", " ".join(WORDS)]):
        query = asked(text, seed=500 + number)
        found = await store.search(query)
        assert_same(found, await reference.search(query))
        assert len(found["dense"]) == await store.count("acme")


async def test_dense_scores_are_cosines_and_may_be_negative(store):
    vectors = [direction(1), -direction(1), direction(2)]
    passages = [passage(name) for name in ("same", "opposite", "other")]
    (term,) = LEXICAL.encode_passages(["moon"])
    await store.upsert([IndexedPassage(p, v, term) for p, v in zip(passages, vectors, strict=True)])
    (ranking,) = (await store.search(replace(asked(seed=1), lexical=None))).values()
    assert [candidate.document_id for candidate in ranking] == ["same", "other", "opposite"]
    assert [candidate.score for candidate in ranking] == pytest.approx(
        [1, float(direction(1) @ direction(2)), -1], abs=1e-5
    )


async def test_only_the_legs_asked_for_are_there(store):
    await store.upsert(indexed(library(10)))
    both = asked()
    assert list(await store.search(both)) == ["dense", "bm25"]
    assert list(await store.search(replace(both, lexical=None))) == ["dense"]
    assert list(await store.search(replace(both, dense=None))) == ["bm25"]
    assert await store.search(replace(both, dense=None, lexical=None)) == {}


async def test_an_empty_store_finds_nothing(store):
    assert await store.search(asked()) == {"dense": (), "bm25": ()}
    assert await store.count("acme") == 0


async def test_each_leg_returns_the_best_retrieve_k(store):
    await store.upsert(indexed(library()))
    whole = await store.search(asked("moon tide"))
    few = await store.search(asked("moon tide", retrieve_k=3))
    for leg in ("dense", "bm25"):
        assert len(few[leg]) == 3
        assert [c.score for c in few[leg]] == pytest.approx([c.score for c in whole[leg][:3]], abs=1e-5)


async def test_equal_scores_are_in_order_of_passage_id(store):
    twins = [passage(f"twin-{number}", "moon tide") for number in range(12)]
    (vector,) = LEXICAL.encode_passages(["moon tide"])
    await store.upsert([IndexedPassage(each, direction(3), vector) for each in twins])
    for ranking in (await store.search(asked())).values():
        assert [candidate.passage_id for candidate in ranking] == sorted(each.id for each in twins)


async def test_a_tenant_is_never_shown_what_is_anothers(store):
    ours, theirs = passage("ours"), passage("theirs", tenant="rival")
    await store.upsert(indexed([ours, theirs]))
    for ranking in (await store.search(asked())).values():
        assert names(ranking) == ["ours"]
    assert await store.fetch("acme", [ours.id, theirs.id]) == {ours.id: ours}
    assert await store.count("acme") == 1
    assert await store.count("nobody") == 0
    assert await store.count("acme", Comparison("eq", "document_id", "theirs")) == 0
    either = Compound("or", tuple(Comparison("eq", "document_id", name) for name in ("ours", "theirs")))
    assert await store.count("acme", either) == 1
    # The key reaches the user's own metadata, not the field that separates tenants.
    assert await store.count("acme", Comparison("eq", "tenant", "rival")) == 0


async def test_a_tenant_deletes_only_what_is_its_own(store):
    ours, theirs = passage("same"), passage("same", tenant="rival")
    await store.upsert(indexed([ours, theirs]))
    await store.delete("acme", Comparison("eq", "document_id", "same"))
    assert await store.count("acme") == 0
    assert await store.fetch("rival", [theirs.id]) == {theirs.id: theirs}


LISTED = {
    "a": passage("a", source="docs", page=1, metadata={"year": 2020, "draft": True, "lang": "en", "tags": ["x", "y"]}),
    "b": passage("b", source="docs", page=2, metadata={"year": 2024, "draft": False, "lang": "de", "tags": ["y"]}),
    "c": passage("c", source="wiki", page=7, metadata={"year": 1, "score": 2.5, "lang": "en", "tags": []}),
    "d": passage("d", source="wiki", version="v2", metadata={"score": -1.5, "flag": 1, "dotted.key": "one"}),
    "e": passage(
        "e",
        source="mail",
        metadata={"spaced key": "two", "größe": "three", "x[0]": "four", "size": 2.0, "year": 2024},
    ),
}
MATCHES: list[tuple[Filter, str]] = [
    (Comparison("eq", "source", "docs"), "ab"),
    (Comparison("eq", "source", "doc"), ""),
    (Comparison("eq", "document_id", "c"), "c"),
    (Comparison("eq", "version", "v2"), "d"),
    (Comparison("eq", "title", "Title of e"), "e"),
    (Comparison("eq", "page", 2), "b"),
    (Comparison("eq", "year", 2024), "be"),
    (Comparison("eq", "year", "2024"), ""),
    (Comparison("eq", "draft", True), "a"),
    (Comparison("eq", "draft", False), "b"),
    (Comparison("ne", "draft", True), "bcde"),
    (Comparison("eq", "flag", 1), "d"),
    (Comparison("eq", "flag", True), ""),
    (Comparison("eq", "draft", 1), ""),
    (Comparison("ne", "draft", 1), "abcde"),
    (Comparison("in", "draft", (0, 1)), ""),
    (Comparison("nin", "draft", (0, 1)), "abcde"),
    (Comparison("gte", "draft", 0), ""),
    (Comparison("eq", "size", 2), ""),
    (Comparison("lte", "size", 2), "e"),
    (Comparison("eq", "tags", "y"), "ab"),
    (Comparison("eq", "missing", "y"), ""),
    (Comparison("eq", "text", "moon"), ""),
    (Comparison("eq", "dotted.key", "one"), "d"),
    (Comparison("eq", "spaced key", "two"), "e"),
    (Comparison("eq", "größe", "three"), "e"),
    (Comparison("eq", "x[0]", "four"), "e"),
    (Comparison("ne", "source", "docs"), "cde"),
    (Comparison("ne", "tags", "x"), "bcde"),
    (Comparison("ne", "year", 2024), "acd"),
    (Comparison("ne", "missing", "y"), "abcde"),
    (Comparison("gt", "year", 2020), "be"),
    (Comparison("gte", "year", 2020), "abe"),
    (Comparison("lt", "year", 2020), "c"),
    (Comparison("lte", "year", 2020), "ac"),
    (Comparison("gt", "score", -2), "cd"),
    (Comparison("gte", "score", 2.5), "c"),
    (Comparison("lt", "score", 0), "d"),
    (Comparison("lte", "page", 2), "ab"),
    (Comparison("gt", "lang", 0), ""),
    (Comparison("in", "source", ("docs", "mail")), "abe"),
    (Comparison("in", "year", (1, 2020)), "ac"),
    (Comparison("in", "tags", ("x", "z")), "a"),
    (Comparison("in", "page", (7,)), "c"),
    (Comparison("in", "missing", ("x",)), ""),
    (Comparison("nin", "source", ("docs", "mail")), "cd"),
    (Comparison("nin", "year", (1, 2020)), "bde"),
    (Comparison("nin", "tags", ("x", "z")), "bcde"),
    (Compound("and", (Comparison("eq", "source", "docs"), Comparison("gt", "year", 2020))), "b"),
    (Compound("or", (Comparison("eq", "source", "mail"), Comparison("lt", "year", 2021))), "ace"),
    (Compound("and", (Comparison("ne", "source", "docs"), Comparison("ne", "source", "wiki"))), "e"),
    (Compound("or", (Comparison("ne", "source", "docs"), Comparison("eq", "lang", "de"))), "bcde"),
    (
        Compound(
            "and",
            (
                Compound("or", (Comparison("eq", "lang", "en"), Comparison("eq", "lang", "de"))),
                Compound("or", (Comparison("gte", "page", 7), Comparison("eq", "draft", False))),
            ),
        ),
        "bc",
    ),
    (
        Compound(
            "or",
            (
                Compound("and", (Comparison("eq", "lang", "en"), Comparison("lt", "year", 5))),
                Compound("and", (Comparison("eq", "source", "wiki"), Comparison("nin", "lang", ("en",)))),
            ),
        ),
        "cd",
    ),
    (Compound("and", (Comparison("eq", "source", "docs"), Comparison("eq", "source", "wiki"))), ""),
]


async def test_every_filter_holds_inside_both_legs_and_in_counts(store):
    strangers = [replace(each, id=passage_id("rival", n, "v1", 0), tenant="rival") for n, each in LISTED.items()]
    await store.upsert(indexed([*LISTED.values(), *strangers]))
    for filter_, expected in MATCHES:
        found = await store.search(asked(filter_=filter_, retrieve_k=max(1, len(expected))))
        assert {leg: "".join(names(ranking)) for leg, ranking in found.items()} == {
            "dense": expected,
            "bm25": expected,
        }, filter_
        assert await store.count("acme", filter_) == len(expected), filter_


@pytest.mark.parametrize(("filter_", "gone"), [MATCHES[0], MATCHES[8], *MATCHES[-5:]])
async def test_what_a_filter_matches_is_what_is_deleted(store, filter_, gone):
    await store.upsert(indexed(list(LISTED.values())))
    await store.delete("acme", filter_)
    left = await store.fetch("acme", [each.id for each in LISTED.values()])
    assert "".join(names(left.values())) == "".join(name for name in LISTED if name not in gone)
    assert await store.count("acme") == len(left)
    for ranking in (await store.search(asked())).values():
        assert names(ranking) == names(left.values())


async def test_deleting_the_old_version_of_a_document_leaves_the_new(store):
    old, new = passage("doc", version="v1"), passage("doc", version="v2")
    await store.upsert(indexed([old, new, passage("other")]))
    stale = Compound("and", (Comparison("eq", "document_id", "doc"), Comparison("ne", "version", "v2")))
    await store.delete("acme", stale)
    assert (await store.fetch("acme", [old.id, new.id])).keys() == {new.id}
    assert await store.count("acme") == 2


async def test_deleting_nothing_is_no_error(store):
    await store.upsert(indexed([passage("one")]))
    await store.delete("acme", Comparison("eq", "document_id", "absent"))
    assert await store.count("acme") == 1


async def test_a_filter_on_any_document_that_shares_a_passage_finds_it(store):
    shared = passage("original", "moon", also_in=("copy-a", "copy-b"))
    await store.upsert(indexed([shared, passage("alone", "moon tide")]))
    for name in ("original", "copy-a", "copy-b"):
        for filter_ in (Comparison("eq", "document_id", name), Comparison("in", "document_id", (name, "absent"))):
            found = await store.search(asked(filter_=filter_))
            # A candidate is called by the passage's own document, whichever was asked for.
            assert {leg: names(ranking) for leg, ranking in found.items()} == {
                "dense": ["original"],
                "bm25": ["original"],
            }
            assert await store.count("acme", filter_) == 1
        others = Comparison("ne", "document_id", name)
        assert names((await store.search(asked(filter_=others)))["dense"]) == ["alone"]


async def test_what_is_hidden_is_in_neither_leg_and_can_still_be_read(store):
    old, new = passage("doc", version="old"), passage("doc", version="new")
    await store.upsert(indexed([old, new, passage("other", version="same")]))
    await store.hide("acme", "manual", {"old"})
    for ranking in (await store.search(asked())).values():
        assert {candidate.passage_id for candidate in ranking} >= {new.id}
        assert old.id not in {candidate.passage_id for candidate in ranking}
        assert len(ranking) == 2
    assert await store.count("acme") == 3
    assert await store.fetch("acme", [old.id]) == {old.id: old}
    assert [item.passage for item in await store.retrieve("acme", [old.id])] == [old]


async def test_hidden_passages_take_no_place_among_the_best(store):
    await store.upsert(indexed([passage(f"doc-{n}", version=f"v{n}") for n in range(12)]))
    best = (await store.search(asked(retrieve_k=10)))["dense"]
    await store.hide("acme", "manual", {f"v{candidate.document_id[4:]}" for candidate in best})
    left = await store.search(asked(retrieve_k=10))
    gone = {candidate.document_id for candidate in best}
    for ranking in left.values():
        assert names(ranking) == sorted({f"doc-{n}" for n in range(12)} - gone)


async def test_hiding_holds_together_with_a_filter(store):
    await store.upsert(indexed([passage("doc", version="old", page=1), passage("doc", version="new", page=1)]))
    await store.hide("acme", "manual", {"old"})
    either = Compound("or", (Comparison("eq", "page", 1), Comparison("eq", "version", "old")))
    for ranking in (await store.search(asked(filter_=either))).values():
        assert [candidate.passage_id for candidate in ranking] == [passage("doc", version="new").id]


async def test_every_change_of_what_is_hidden_raises_the_epoch_by_one(store):
    assert await store.hidden("acme", "manual") == Hidden(0, frozenset())
    assert await store.hide("acme", "manual", {"a", "b"}) == 1
    assert await store.hidden("acme", "manual") == Hidden(1, frozenset({"a", "b"}))
    assert await store.hide("acme", "manual", ["b"]) == 2
    assert await store.hidden("acme", "manual") == Hidden(2, frozenset({"b"}))
    assert await store.hide("acme", "manual", ()) == 3
    assert await store.hidden("acme", "manual") == Hidden(3, frozenset())


async def test_each_source_of_each_tenant_hides_on_its_own(store):
    ours, wiki, theirs = (
        passage("ours", version="v-ours"),
        passage("wiki", version="v-wiki", source="wiki"),
        passage("theirs", version="v-ours", tenant="rival"),
    )
    await store.upsert(indexed([ours, wiki, theirs]))
    await store.hide("acme", "manual", {"v-ours"})
    assert names((await store.search(asked()))["bm25"]) == ["wiki"]
    assert names((await store.search(asked(tenant="rival")))["bm25"]) == ["theirs"]
    assert await store.hide("acme", "wiki", {"v-wiki"}) == 1
    assert names((await store.search(asked()))["bm25"]) == []
    assert await store.hide("acme", "manual", ()) == 2
    assert names((await store.search(asked()))["bm25"]) == ["ours"]
    assert await store.hidden("rival", "manual") == Hidden()
    assert await store.hidden("acme", "wiki") == Hidden(1, frozenset({"v-wiki"}))


async def test_showing_one_version_and_hiding_the_other_is_one_step(store):
    """Two documents change together, forth and back: no search sees a mixture, both, or neither."""
    versions = {"old": {"old-a", "old-b"}, "new": {"new-a", "new-b"}}
    await store.upsert(
        indexed([passage(version[-1], version=version) for pair in versions.values() for version in sorted(pair)])
    )
    version_of = {passage(v[-1], version=v).id: v for pair in versions.values() for v in pair}
    await store.hide("acme", "manual", versions["new"])
    flips = 10

    async def flip() -> None:
        for number in range(flips):
            await store.hide("acme", "manual", versions["old" if number % 2 == 0 else "new"])
            await asyncio.sleep(0)

    flipping = asyncio.create_task(flip())
    seen = []
    while not flipping.done():
        found = await store.search(asked())
        seen.append([frozenset(version_of[c.passage_id] for c in ranking) for ranking in found.values()])
        await asyncio.sleep(0)
    await flipping
    assert seen
    for dense, bm25 in seen:
        assert dense == bm25
        assert dense in [frozenset(pair) for pair in versions.values()]
    assert (await store.hidden("acme", "manual")).epoch == flips + 1


async def test_what_is_hidden_outlives_the_process(lasting_place):
    first = await lasting_place.create()
    await first.upsert(indexed([passage("doc", version="old"), passage("doc", version="new")]))
    await first.hide("acme", "manual", {"old"})
    await first.hide("rival", "größe", ())
    if lasting_place.kind == "edge":
        await first.close()
    second = await lasting_place.open()
    assert await second.hidden("acme", "manual") == Hidden(1, frozenset({"old"}))
    assert await second.hidden("rival", "größe") == Hidden(1)
    for ranking in (await second.search(asked())).values():
        assert [candidate.passage_id for candidate in ranking] == [passage("doc", version="new").id]
    assert await second.hide("acme", "manual", ()) == 2
    await second.close()


async def test_passages_are_retrieved_with_their_vectors_in_the_order_of_the_ids(store):
    items = indexed([*library(9), passage("theirs", tenant="rival")])
    await store.upsert(items)
    wanted = [item for item in reversed(items) if item.passage.tenant == "acme"]
    ids = [item.passage.id for item in reversed(items)]
    found = await store.retrieve("acme", [ABSENT_ID, *ids])
    assert [item.passage for item in found] == [item.passage for item in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dense.dtype == np.float32
        assert ours.dense == pytest.approx(theirs.dense, abs=1e-6)
        assert weights(ours.lexical) == pytest.approx(weights(theirs.lexical), rel=1e-6)
    assert list(await store.retrieve("acme", [])) == []


def weights(vector: SparseVector) -> dict[int, float]:
    return dict(zip(vector.indices, vector.values, strict=True))


async def test_versions_of_a_source_are_counted_hidden_or_not(store):
    await store.upsert(
        indexed(
            [
                *(passage("a", version="one", ordinal=n) for n in range(3)),
                passage("b", version="two"),
                passage("c", version="three", source="wiki"),
                passage("d", version="four", tenant="rival"),
            ]
        )
    )
    await store.hide("acme", "manual", {"two", "absent"})
    assert dict(await store.versions("acme", "manual")) == {"one": 3, "two": 1}
    assert dict(await store.versions("acme", "wiki")) == {"three": 1}
    assert dict(await store.versions("acme", "absent")) == {}
    await store.delete("acme", Comparison("in", "version", ("two",)))
    assert dict(await store.versions("acme", "manual")) == {"one": 3}


async def test_the_first_passage_of_a_version_is_that_of_ordinal_0(store):
    first = passage("a", version="one", ordinal=0)
    await store.upsert(
        indexed(
            [passage("a", version="one", ordinal=n) for n in (2, 1)] + [first, passage("b", version="late", ordinal=1)]
        )
    )
    assert await store.first_passage("acme", "one") == first
    assert await store.first_passage("acme", "late") is None
    assert await store.first_passage("acme", "absent") is None
    assert await store.first_passage("rival", "one") is None
    await store.hide("acme", "manual", {"one"})
    assert await store.first_passage("acme", "one") == first


async def test_optimizing_changes_no_result(store):
    await store.optimize()
    items = indexed(library())
    await store.upsert(items)
    await store.delete("acme", Comparison("eq", "document_id", "doc-3"))
    before = await store.search(asked("moon tide"))
    await store.optimize()
    assert_same(await store.search(asked("moon tide")), before)
    assert await store.count("acme") == 46


async def test_deleted_passages_vanish_at_once_though_their_words_may_count_for_a_while(store):
    items = indexed(library())
    await store.upsert(items)
    await store.delete("acme", Comparison("eq", "document_id", "doc-3"))
    await store.optimize()
    reference = InMemoryStore()
    left = [item for item in items if (item.passage.tenant, item.passage.document_id) != ("acme", "doc-3")]
    await reference.upsert(left)
    found, expected = await store.search(asked("moon tide")), await reference.search(asked("moon tide"))
    assert_same({"dense": found["dense"]}, {"dense": expected["dense"]})
    # Qdrant counts a deleted passage in document frequencies until it rebuilds the segment.
    assert {c.passage_id: c.score for c in found["bm25"]} == pytest.approx(
        {c.passage_id: c.score for c in expected["bm25"]}, rel=0.1
    )


async def test_a_collection_remembers_how_it_was_built(lasting_place):
    assert not await lasting_place.exists()
    made = await lasting_place.create()
    assert made.spec == SPEC
    assert await lasting_place.exists()
    if lasting_place.kind == "edge":
        await made.close()
    reopened = await lasting_place.open()
    assert reopened.spec == SPEC
    await reopened.close()


async def test_what_does_not_exist_cannot_be_opened(lasting_place):
    with pytest.raises(StoreError, match=r"there is no collection .*restore it.*, or ingest anew"):
        await lasting_place.open()


async def test_a_collection_is_not_made_twice(lasting_place):
    made = await lasting_place.create()
    await made.upsert(indexed([passage("one")]))
    # The in-memory mode has an error of its own where a server answers 409.
    with pytest.raises(ValueError if lasting_place.kind == "local" else StoreError, match="already"):
        await lasting_place.create()
    assert await made.count("acme") == 1
    await made.close()


async def test_a_foreign_payload_is_refused(lasting_place):
    made = await lasting_place.create()
    await _write_foreign_point(made)
    with pytest.raises(StoreError, match=f"point {ABSENT_ID} holds a foreign payload .*use a collection of its own"):
        await made.fetch("acme", [ABSENT_ID])
    await made.close()


async def _write_foreign_point(store: QdrantEdgeStore | QdrantServerStore) -> None:
    payload = {"tenant": "acme", "page_content": "Written by another program."}
    if isinstance(store, QdrantEdgeStore):
        import qdrant_edge as edge

        point = edge.Point(ABSENT_ID, {"dense": direction(0).tolist()}, payload)
        store._shard.update(edge.UpdateOperation.upsert_points([point]))
    else:
        from qdrant_client import models

        point = models.PointStruct(id=ABSENT_ID, vector={"dense": direction(0).tolist()}, payload=payload)
        await store._client.upsert(store._collection, [point], wait=True)


async def test_an_edge_folder_keeps_its_passages(tmp_path):
    items = indexed(library())
    first = QdrantEdgeStore.create(tmp_path / "edge", SPEC)
    await first.upsert(items)
    before = await first.search(asked("moon tide"))
    await first.close()
    second = QdrantEdgeStore.open(tmp_path / "edge")
    assert await second.search(asked("moon tide")) == before
    assert await second.count("rival") == 12
    await second.close()


async def test_an_edge_folder_in_use_is_refused_with_the_remedy(tmp_path):
    folder = tmp_path / "edge"
    owner = QdrantEdgeStore.create(folder, SPEC)
    refused = _open_in_another_process(folder)
    assert refused.startswith(f"{StoreBusyError.__name__}: {folder} is in use by another process")
    assert "`rag serve` or `rag ingest`" in refused
    assert "set store.url to a Qdrant server" in refused
    # The engine would touch the files before it noticed their owner, whose next flush then failed.
    await owner.upsert(indexed(library()))
    await owner.optimize()
    assert await owner.count("rival") == 12
    await owner.close()
    assert _open_in_another_process(folder) == "opened"


def _open_in_another_process(folder: Path) -> str:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from rag.adapters.qdrant_edge import QdrantEdgeStore\n"
        "from rag.errors import RagError\n"
        "try:\n"
        "    QdrantEdgeStore.open(Path(sys.argv[1]))\n"
        "    print('opened')\n"
        "except RagError as error:\n"
        "    print(f'{type(error).__name__}: {error}')\n"
    )
    command = [sys.executable, "-c", program, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


async def test_what_a_crash_left_of_an_edge_folder_is_made_anew(tmp_path):
    folder = tmp_path / "edge"
    crashed = QdrantEdgeStore.create(folder, SPEC)
    await crashed.close()
    (folder / "collection.json").unlink()  # it is written last
    assert not QdrantEdgeStore.exists(folder)
    made = QdrantEdgeStore.create(folder, SPEC)
    await made.upsert(indexed([passage("one")]))
    assert await made.count("acme") == 1
    await made.close()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"dimension": 8}', '{"made_by": "another"}'])
def test_an_edge_folder_with_a_damaged_description_is_refused(tmp_path, content):
    (tmp_path / "collection.json").write_text(content)
    with pytest.raises(StoreError):
        QdrantEdgeStore.open(tmp_path)


async def test_a_server_collection_of_another_program_is_refused():
    from qdrant_client import AsyncQdrantClient, models

    client = AsyncQdrantClient(":memory:")
    await client.create_collection("theirs", models.VectorParams(size=4, distance=models.Distance.COSINE))
    with pytest.raises(StoreError, match=r"'theirs' has no description .* Choose another store\.collection"):
        await QdrantServerStore.open(client, "theirs")
    await client.close()


@pytest.mark.parametrize("prefer_grpc", [False, True])
async def test_a_server_that_is_not_there_is_named_as_the_cause(prefer_grpc):
    client = connect("http://127.0.0.1:9", api_key=None, prefer_grpc=prefer_grpc, timeout_s=1)
    with pytest.raises(StoreError, match=r"the Qdrant server cannot be reached; check store\.url"):
        await QdrantServerStore.open(client, "passages")
    await client.close()


@pytest.fixture(params=["local", "server"])
async def served_place(request, tmp_path):
    """Where what is hidden stands in points beside the passages."""
    async for each in places(request.param, tmp_path):
        yield each


async def test_the_points_that_say_what_is_hidden_are_no_passages(served_place):
    store = await served_place.create()
    for tenant, source in (("acme", "manual"), ("acme", "wiki"), ("rival", "manual")):
        await store.hide(tenant, source, {"v9"})
    for tenant in ("acme", "rival"):
        assert await store.count(tenant) == 0
        assert await store.count(tenant, Comparison("nin", "version", ("v1",))) == 0
        assert await store.search(asked(tenant=tenant)) == {"dense": (), "bm25": ()}
        assert await store.versions(tenant, "manual") == {}
    await store.upsert(indexed([passage("doc")]))
    assert await store.count("acme") == 1
    await store.delete("acme", Comparison("ne", "document_id", "absent"))
    assert await store.hidden("acme", "manual") == Hidden(1, frozenset({"v9"}))
    await store.close()


async def test_more_sources_than_one_answer_holds_hide_all_the_same(served_place, monkeypatch):
    store = await served_place.create()
    scroll = served_place.client.scroll
    monkeypatch.setattr(served_place.client, "scroll", lambda *a, limit, **named: scroll(*a, limit=2, **named))
    await store.upsert(indexed([passage("doc", version="old"), passage("doc", version="new")]))
    for number in range(7):
        await store.hide("acme", f"source-{number}", {f"v{number}", "old"} if number == 5 else {f"v{number}"})
    for number in range(7):
        assert f"v{number}" in (await store.hidden("acme", f"source-{number}")).versions
    for ranking in (await store.search(asked())).values():
        assert [candidate.passage_id for candidate in ranking] == [passage("doc", version="new").id]
    await store.close()


def _slow_down(seconds: str) -> Reply:
    return Reply((b"{}",), status=429, headers={"Content-Type": "application/json", "Retry-After": seconds})


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """How long the store waited, in seconds; it does not really."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("rag.adapters.qdrant_server.asyncio.sleep", sleep)
    return waited


async def test_a_write_waits_as_long_as_the_server_asks_and_is_repeated(waits):
    done = Reply((b'{"result": {"operation_id": 1, "status": "completed"}, "status": "ok", "time": 0}',))
    with WireServer() as server:
        server.script(_slow_down("7"), _slow_down("0"), done)
        client = connect(server.url, api_key=None, prefer_grpc=False, timeout_s=5)
        store = QdrantServerStore(client, "passages", SPEC)
        await store.upsert(indexed([passage("one")]))
        server.script(_slow_down("600"), done)
        await store.delete("acme", Comparison("eq", "document_id", "one"))
        await store.close()
    assert waits == [7, 0.1, 30]
    assert len({request.body for request in server.requests[:3]}) == 1
    assert [request.path for request in server.requests] == [
        *["/collections/passages/points?wait=true"] * 3,
        *["/collections/passages/points/delete?wait=true"] * 2,
    ]


async def test_a_server_that_never_takes_a_write_is_given_up(waits):
    with WireServer() as server:
        server.always(_slow_down("20"))
        client = connect(server.url, api_key=None, prefer_grpc=False, timeout_s=5)
        store = QdrantServerStore(client, "passages", SPEC)
        with pytest.raises(StoreError, match="asks to slow down"):
            await store.upsert(indexed([passage("one")]))
        await store.close()
    assert sum(waits) == 300


async def test_any_passage_can_be_scored_as_a_search_would(store):
    reference = InMemoryStore()
    items = indexed(library())
    await store.upsert(items)
    await reference.upsert(items)
    first, second = ([item.passage.id for item in items][start::3] for start in (0, 1))
    for chosen in ({"dense": first, "bm25": second}, {"dense": [], "bm25": first}, {"dense": second}):
        query = asked("moon tide")
        expected, found = await reference.score(query, chosen), await store.score(query, chosen)
        assert list(found) == list(expected)
        for leg, ranking in expected.items():
            assert [c.document_id for c in found[leg]] == [c.document_id for c in ranking]
            assert [c.score for c in found[leg]] == pytest.approx([c.score for c in ranking], abs=1e-4)


async def test_scores_of_what_is_not_there_or_not_ones_own_are_left_out(store):
    own, strange = passage("own"), replace(passage("strange"), tenant="rival")
    await store.upsert(indexed([own, strange]))
    nowhere = passage_id("acme", "nowhere", "v1", 0)
    ids = [own.id, strange.id, nowhere]
    found = await store.score(asked("moon"), {"dense": ids, "bm25": ids})
    assert {leg: [c.passage_id for c in ranking] for leg, ranking in found.items()} == {
        "dense": [own.id],
        "bm25": [own.id],
    }
    assert await store.score(asked("moon"), {"dense": [], "bm25": []}) == await store.score(asked("moon"), {}) == {}
