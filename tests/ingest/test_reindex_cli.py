import asyncio

import pytest

from rag.bootstrap import open_generations
from tests.ingest.commands import rag, settled_in
from tests.ingest.workplace import Workplace

KEYS = {
    *("live", "former", "added", "updated", "unchanged", "deleted", "failed", "warnings"),
    *("passages", "embedded", "seconds", "encoder_seconds", "interrupted"),
}


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Workplace:
    return settled_in(tmp_path, monkeypatch)


@pytest.fixture
def workplace(empty) -> Workplace:
    empty.write("tides.txt", "The moon causes the tides. The sun helps. The wind does not. Nor does rain.")
    empty.write("wine.txt", "Wine ferments in steel tanks.")
    assert rag("ingest", "docs", "--json").status == 0
    return empty


async def _generations(workplace: Workplace) -> tuple[str | None, list[str]]:
    generations = open_generations(workplace.settings)
    try:
        return await generations.live(), list(await generations.all())
    finally:
        await generations.close()


def generations(workplace: Workplace) -> tuple[str | None, list[str]]:
    """The one that is served, and all."""
    return asyncio.run(_generations(workplace))


def test_a_collection_built_as_configured_is_left_as_it_is(workplace):
    before = generations(workplace)
    said = rag("reindex", "--json")
    assert (said.status, said.json.keys()) == (0, KEYS)
    assert (said.json["live"], said.json["former"]) == (before[0], None)
    assert "--force builds it anew" in said.err
    assert generations(workplace) == before
    assert "nothing had to be built" in rag("reindex").out


def test_other_settings_are_built_beside_it_and_served_from_then_on(workplace, monkeypatch):
    former, _ = generations(workplace)
    monkeypatch.setenv("RAG_CHUNKING__SENTENCES", "1")
    assert rag("ingest", "docs", "--json").error[1] == "collection_mismatch"
    said = rag("reindex", "--json")
    assert (said.status, said.json["former"], said.json["added"]) == (0, former, 2)
    assert said.json["passages"] == 5
    live, kept = generations(workplace)
    assert live == said.json["live"] != former
    assert kept == sorted([former, live])
    assert rag("ingest", "docs", "--json").json["unchanged"] == 2


def test_the_former_one_is_deleted_when_that_is_said(workplace):
    former, _ = generations(workplace)
    assert "rag reindex --drop-old deletes it" in rag("reindex", "--force").out
    live, _ = generations(workplace)
    said = rag("reindex", "--drop-old", "--json")
    assert (said.status, said.json) == (0, {"dropped": [former]})
    assert generations(workplace) == (live, [live])
    assert "former collections deleted: 0" in rag("reindex", "--drop-old").out


def test_deleting_the_former_one_builds_nothing(workplace, monkeypatch):
    before = generations(workplace)
    monkeypatch.setenv("RAG_CHUNKING__SENTENCES", "1")
    assert rag("reindex", "--drop-old", "--json").json == {"dropped": []}
    assert generations(workplace) == before


def test_a_former_one_that_is_in_use_is_not_deleted(workplace):
    former, _ = generations(workplace)
    store = asyncio.run(open_generations(workplace.settings).open(str(former)))
    try:
        assert rag("reindex", "--force", "--json").status == 0
        status, code, message = rag("reindex", "--drop-old", "--json").error
    finally:
        asyncio.run(store.close())
    assert (status, code) == (3, "store_busy")
    assert "restart it, then drop again" in message
    live, kept = generations(workplace)
    assert (live != former, former in kept) == (True, True)


def test_where_nothing_was_ingested_there_is_nothing_to_build(empty):
    status, code, message = rag("reindex", "--json").error
    assert (status, code) == (2, "configuration_error")
    assert message.startswith("nothing is ingested yet")
