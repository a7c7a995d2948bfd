"""One suite for every `Generations`: which collection is served, and what may be dropped."""

import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from rag.adapters.qdrant_edge import QdrantEdgeStore
from rag.adapters.qdrant_edge_generations import QdrantEdgeGenerations
from rag.adapters.qdrant_server import connect
from rag.adapters.qdrant_server_generations import QdrantServerGenerations
from rag.errors import StoreBusyError, StoreError
from rag.retrieval.profile import RetrievalProfile
from rag.retrieval.store import CollectionSpec, Generations
from tests.protocols.test_passage_store import indexed, passage

pytestmark = pytest.mark.filterwarnings(
    # qdrant-client's in-memory mode says so at every creation; indexes matter to a server's speed only.
    "ignore:Payload indexes have no effect in the local Qdrant:UserWarning"
)

FIRST = CollectionSpec("1111aaaa" * 4, "hash", 8, "qdrant-bm25:none", "sentences=6", 6.5)
SECOND = replace(FIRST, id="2222bbbb" * 4, chunker="recursive", average_length=7.5)


@dataclass
class Kept:
    """A client that outlives those who close it, since the in-memory mode forgets everything then."""

    client: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    async def close(self) -> None:
        pass


@dataclass(frozen=True)
class Home:
    """Where generations of one kind live: each call is another process's view of the same ones."""

    kind: str
    folder: Path
    admin: Any
    name: str

    def generations(self, name: str | None = None) -> Generations:
        if self.kind == "edge":
            return QdrantEdgeGenerations(self.folder / (name or self.name))
        if self.kind == "local":
            return QdrantServerGenerations(lambda: self.admin, name or self.name)
        return QdrantServerGenerations(_connect, name or self.name)


def _connect() -> Any:
    return connect(os.environ["QDRANT_URL"], api_key=None, prefer_grpc=False, timeout_s=30)


async def homes(kind: str, folder: Path) -> AsyncIterator[Home]:
    name = f"test-{uuid4().hex}"
    if kind == "edge":
        yield Home(kind, folder, None, name)
        return
    if kind == "server" and not os.environ.get("QDRANT_URL"):
        pytest.skip("QDRANT_URL does not name a Qdrant server on loopback")
    from qdrant_client import AsyncQdrantClient

    client = AsyncQdrantClient(":memory:") if kind == "local" else _connect()
    yield Home(kind, folder, Kept(client), name)
    if kind == "server":
        for collection in (await client.get_collections()).collections:
            if collection.name.startswith(name):
                await client.delete_collection(collection.name)
    await client.close()


@pytest.fixture(params=["edge", "local", "server"])
async def home(request, tmp_path):
    async for each in homes(request.param, tmp_path):
        yield each


@pytest.fixture(params=["local", "server"])
async def server_home(request, tmp_path):
    async for each in homes(request.param, tmp_path):
        yield each


@pytest.fixture
async def generations(home):
    made = home.generations()
    yield made
    await made.close()


async def made(generations: Generations, *specs: CollectionSpec, live: CollectionSpec | None = None) -> None:
    """Generations that are closed again."""
    for spec in specs:
        await (await generations.create(spec)).close()
    if live is not None:
        await generations.make_live(live.id)


async def test_nothing_is_live_at_first(generations):
    assert await generations.live() is None
    assert list(await generations.all()) == []


async def test_a_generation_is_not_live_when_it_is_made(generations):
    store = await generations.create(FIRST)
    assert store.spec == FIRST
    assert await generations.live() is None
    assert list(await generations.all()) == [FIRST.id]
    await store.close()


async def test_the_live_one_is_switched_and_the_former_is_kept(home, generations):
    await made(generations, SECOND, FIRST, live=FIRST)
    another = home.generations()
    assert await generations.live() == await another.live() == FIRST.id
    await another.make_live(SECOND.id)
    assert await generations.live() == SECOND.id
    await another.make_live(SECOND.id)
    assert await generations.live() == SECOND.id
    assert list(await generations.all()) == [FIRST.id, SECOND.id]
    await another.close()


async def test_who_has_the_former_one_open_goes_on_with_it(generations):
    store = await generations.create(FIRST)
    await store.upsert(indexed([passage("doc")]))
    await generations.make_live(FIRST.id)
    await made(generations, SECOND, live=SECOND)
    assert await store.count("acme") == 1
    await store.close()


async def test_each_generation_holds_passages_of_its_own(generations):
    for number, spec in enumerate((FIRST, SECOND), start=1):
        store = await generations.create(spec)
        await store.upsert(indexed([passage(f"doc-{n}") for n in range(number)]))
        await store.close()
    for number, spec in enumerate((FIRST, SECOND), start=1):
        store = await generations.open(spec.id)
        assert store.spec == spec
        assert await store.count("acme") == number
        await store.close()


async def test_what_one_was_built_with_is_told_while_it_is_open(generations):
    store = await generations.create(FIRST)
    assert await generations.spec(FIRST.id) == FIRST
    await store.close()
    assert await generations.spec(FIRST.id) == FIRST


async def test_one_that_is_not_there_is_neither_opened_nor_described(generations):
    with pytest.raises(StoreError, match="there is no collection"):
        await generations.open("absent")
    with pytest.raises(StoreError, match="there is no collection"):
        await generations.spec("absent")


async def test_the_live_one_is_not_dropped(generations):
    await made(generations, FIRST, live=FIRST)
    with pytest.raises(StoreError, match=f"the collection {FIRST.id} is live and is not dropped"):
        await generations.drop(FIRST.id)
    assert list(await generations.all()) == [FIRST.id]


async def test_what_is_dropped_is_gone_and_the_others_stay(generations):
    await made(generations, FIRST, SECOND, live=SECOND)
    await generations.drop(FIRST.id)
    assert list(await generations.all()) == [SECOND.id]
    assert await generations.live() == SECOND.id
    with pytest.raises(StoreError):
        await generations.open(FIRST.id)


async def test_a_name_that_another_begins_with_has_generations_of_its_own(home, generations):
    longer = home.generations(f"{home.name}-more")
    await made(longer, SECOND, live=SECOND)
    assert await generations.live() is None
    assert list(await generations.all()) == []
    await made(generations, FIRST)
    assert list(await longer.all()) == [SECOND.id]
    await longer.close()


async def test_a_name_with_two_dashes_in_it_has_generations_of_its_own(home, generations):
    longer = home.generations(f"{home.name}--old")
    store = await longer.create(SECOND)
    await store.upsert(indexed([passage("doc")]))
    await longer.make_live(SECOND.id)
    assert list(await generations.all()) == []
    assert list(await longer.all()) == [SECOND.id]
    assert await store.count("acme") == 1
    await store.close()
    await longer.close()


async def test_a_server_collection_of_another_name_is_not_dropped(server_home):
    generations, longer = server_home.generations(), server_home.generations(f"{server_home.name}--old")
    await made(longer, FIRST, SECOND, live=SECOND)
    for spec in (FIRST, SECOND):
        with pytest.raises(StoreError, match=r"is no collection of .* and is not dropped"):
            await generations.drop(f"old--{spec.id}")
    assert list(await longer.all()) == [FIRST.id, SECOND.id]
    await longer.close()
    await generations.close()


async def test_a_server_collection_that_another_alias_points_to_is_not_dropped(server_home):
    from qdrant_client import models

    generations = server_home.generations()
    await made(generations, FIRST, SECOND, live=SECOND)
    alias = models.CreateAlias(collection_name=f"{server_home.name}--{FIRST.id}", alias_name=f"{server_home.name}-kept")
    await server_home.admin.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    with pytest.raises(StoreError, match=r"is served under the alias '.*-kept' and is not dropped"):
        await generations.drop(FIRST.id)
    assert list(await generations.all()) == [FIRST.id, SECOND.id]
    await generations.close()


async def test_an_alias_of_that_name_to_a_collection_that_is_not_ours_is_refused(server_home):
    from qdrant_client import models

    other, generations = server_home.generations(f"{server_home.name}-other"), server_home.generations()
    await made(other, FIRST)
    alias = models.CreateAlias(collection_name=f"{server_home.name}-other--{FIRST.id}", alias_name=server_home.name)
    await server_home.admin.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    with pytest.raises(StoreError, match=r"not made by this service.* Choose another store\.collection"):
        await generations.live()
    await other.close()
    await generations.close()


async def test_dropping_one_that_is_gone_already_does_nothing(generations):
    await made(generations, FIRST, SECOND, live=SECOND)
    await generations.drop(FIRST.id)
    await generations.drop(FIRST.id)
    assert list(await generations.all()) == [SECOND.id]


async def test_an_embedded_one_that_is_open_is_not_dropped(tmp_path):
    generations = QdrantEdgeGenerations(tmp_path)
    await made(generations, FIRST, SECOND, live=SECOND)
    store = await generations.open(FIRST.id)
    with pytest.raises(StoreBusyError):
        await generations.drop(FIRST.id)
    assert await store.count("acme") == 0
    await store.close()
    await generations.drop(FIRST.id)
    assert list(await generations.all()) == [SECOND.id]


async def test_an_embedded_one_whose_making_crashed_is_no_generation(tmp_path):
    generations = QdrantEdgeGenerations(tmp_path)
    await made(generations, FIRST)
    (tmp_path / FIRST.id / "collection.json").unlink()  # it is written last
    assert list(await generations.all()) == []
    await made(generations, FIRST)
    assert QdrantEdgeStore.exists(tmp_path / FIRST.id)


async def test_what_a_kill_left_of_a_dropped_one_is_no_generation_and_is_removed(tmp_path):
    third = replace(FIRST, id="3333cccc" * 4)
    for finish in ("drop it again", "drop another", "create"):
        generations = QdrantEdgeGenerations(tmp_path / finish)
        await made(generations, FIRST, SECOND, third, live=third)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shutil, "rmtree", _killed)
            with pytest.raises(Killed):
                await generations.drop(FIRST.id)
        assert (tmp_path / finish / FIRST.id).is_dir()
        assert list(await generations.all()) == [SECOND.id, third.id]
        if finish == "create":
            await made(generations, replace(FIRST, id="4444dddd" * 4))
        else:
            await generations.drop(FIRST.id if finish == "drop it again" else SECOND.id)
        assert not (tmp_path / finish / FIRST.id).exists()


async def test_a_kill_between_any_two_steps_of_a_drop_leaves_nothing_that_cannot_be_dropped(tmp_path):
    removed = 0
    for survives in range(3):
        generations = QdrantEdgeGenerations(tmp_path / str(survives))
        await made(generations, FIRST, SECOND, live=SECOND)
        unlink, steps = os.unlink, iter(range(survives))

        def dying(*arguments: Any, steps: Any = steps, unlink: Any = unlink, **named: Any) -> None:
            if next(steps, None) is None:
                raise Killed
            unlink(*arguments, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "unlink", dying)
            with pytest.raises(Killed):
                await generations.drop(FIRST.id)
        removed += FIRST.id not in await generations.all()
        await generations.drop(FIRST.id)
        assert list(await generations.all()) == [SECOND.id]
        assert not (tmp_path / str(survives) / FIRST.id).exists()
    assert removed == 2, "the description goes first"


async def test_only_folders_of_collections_are_removed_and_the_live_one_never(tmp_path):
    generations = QdrantEdgeGenerations(tmp_path)
    await made(generations, FIRST, live=FIRST)
    (tmp_path / FIRST.id / "collection.json").unlink()
    (tmp_path / "notes").mkdir()
    await made(generations, SECOND)
    assert (tmp_path / FIRST.id / "shard").is_dir()
    assert (tmp_path / "notes").is_dir()


class Killed(BaseException):
    """Nothing that runs may catch it, as nothing catches a kill."""


def _killed(*_: object) -> None:
    raise Killed


async def test_a_damaged_note_of_the_live_one_is_named(tmp_path):
    (tmp_path / "live").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(StoreError, match=r"live cannot be read"):
        await QdrantEdgeGenerations(tmp_path).live()


async def test_a_server_collection_of_that_name_that_is_not_ours_is_refused(server_home):
    from qdrant_client import models

    await server_home.admin.create_collection(
        server_home.name, models.VectorParams(size=4, distance=models.Distance.COSINE)
    )
    generations = server_home.generations()
    with pytest.raises(StoreError, match=r"not made by this service.* Choose another store\.collection"):
        await generations.live()
    with pytest.raises(StoreError, match=r"Choose another store\.collection"):
        await generations.make_live(FIRST.id)
    assert list(await generations.all()) == []
    await generations.close()


async def test_a_server_that_is_not_there_is_named_as_the_cause():
    def nowhere() -> Any:
        return connect("http://127.0.0.1:9", api_key=None, prefer_grpc=False, timeout_s=1)

    generations = QdrantServerGenerations(nowhere, "passages")
    for call in (generations.live(), generations.all(), generations.open("a"), generations.create(FIRST)):
        with pytest.raises(StoreError, match=r"the Qdrant server cannot be reached; check store\.url"):
            await call
    await generations.close()


PROFILE = RetrievalProfile(
    embedding="hash",
    fusion="convex",
    weight_dense=0.65,
    rrf_k=60,
    reranker=None,
    is_rerank_on=False,
    rerank_weight=0.5,
    rerank_gain=0.0,
    judged="questions, split test, 120 queries",
    gain=0.012,
    measure="ndcg@10",
)


async def test_what_was_tuned_is_kept_with_a_generation_also_while_it_is_open(generations):
    store = await generations.create(FIRST)
    assert await generations.profile(FIRST.id) is None
    await generations.keep_profile(FIRST.id, replace(PROFILE, weight_dense=0.1, reranker="former"))
    await generations.keep_profile(FIRST.id, PROFILE)
    assert await generations.profile(FIRST.id) == PROFILE
    assert await generations.spec(FIRST.id) == FIRST
    await store.close()


async def test_a_damaged_profile_is_named_with_its_remedy(tmp_path):
    generations = QdrantEdgeGenerations(tmp_path)
    store = await generations.create(FIRST)
    (tmp_path / FIRST.id / "profile.json").write_text('{"fusion": "convex"}')
    with pytest.raises(StoreError, match="rag eval tune"):
        await generations.profile(FIRST.id)
    await store.close()
