from dataclasses import replace
from uuid import UUID

import pytest

from rag.errors import CollectionMismatchError, ConfigurationError, StoreError
from rag.retrieval.store import CollectionSpec, Hidden, check_same_spec, passage_id, search_at_one_moment

SPEC = CollectionSpec(
    id="c0ffee",
    embedding="minilm-sha256",
    dimension=384,
    lexical="bm25:english",
    chunker="sentences=6",
    average_length=80.5,
)


def test_a_passage_id_is_a_uuid_that_never_changes():
    # Stored collections hold these: another value here orphans every passage ever written.
    assert passage_id("default", "guide.md", "v1", 0) == "e9b0daff-be9f-55ff-b6fb-d071d10b4f72"
    assert UUID(passage_id("default", "guide.md", "v1", 0)).version == 5


def test_every_part_of_the_place_makes_another_id():
    places = [
        ("a", "d", "v", 0),
        ("b", "d", "v", 0),
        ("a", "e", "v", 0),
        ("a", "d", "w", 0),
        ("a", "d", "v", 1),
        ("a", "dv", "", 0),
        ("ad", "", "v", 0),
        ("a", "d", "v1", 1),
        ("a", "d", "v", 11),
    ]
    assert len({passage_id(*place) for place in places}) == len(places)


def test_equal_specs_agree_and_the_measured_length_is_not_compared():
    check_same_spec(SPEC, replace(SPEC, average_length=20), collection="passages")


@pytest.mark.parametrize(
    ("field", "value"),
    [("embedding", "bge-small"), ("dimension", 768), ("lexical", "bm25:german"), ("chunker", "recursive")],
)
def test_a_difference_names_both_sides_and_the_remedy(field, value):
    with pytest.raises(CollectionMismatchError) as caught:
        check_same_spec(SPEC, replace(SPEC, **{field: value}), collection="passages")
    message = str(caught.value)
    assert f"{field}: built with {getattr(SPEC, field)!r}, configured is {value!r}" in message
    assert "'passages'" in message
    assert "Run `rag reindex`" in message
    assert isinstance(caught.value, ConfigurationError)


def test_every_difference_is_named_and_nothing_else():
    other = replace(SPEC, dimension=768, chunker="recursive")
    with pytest.raises(CollectionMismatchError) as caught:
        check_same_spec(SPEC, other, collection="passages")
    message = str(caught.value)
    assert "dimension: built with 384, configured is 768" in message
    assert "chunker: built with 'sentences=6', configured is 'recursive'" in message
    assert "embedding" not in message
    assert "lexical" not in message


class ScriptedCollection:
    """A collection whose hidden versions are, one reading after another, those of a script; the last one lasts."""

    def __init__(self, *script: Hidden) -> None:
        self.script = list(script)
        self.searched: list[frozenset[str]] = []

    async def search(self, hidden: frozenset[str]) -> str:
        self.searched.append(hidden)
        return f"without {sorted(hidden)}"

    async def read_hidden(self) -> dict[str, Hidden]:
        return {"manual": self.script.pop(0) if len(self.script) > 1 else self.script[0]}


OLD_HIDDEN, NEW_HIDDEN = Hidden(4, frozenset({"old"})), Hidden(5, frozenset({"new"}))


async def test_one_search_is_enough_where_nothing_changed_meanwhile():
    collection = ScriptedCollection(OLD_HIDDEN)
    known = await collection.read_hidden()
    found, now = await search_at_one_moment(collection.search, collection.read_hidden, known)
    assert (found, now) == ("without ['old']", {"manual": OLD_HIDDEN})
    assert collection.searched == [{"old"}]


async def test_a_search_is_repeated_until_nothing_changed_meanwhile():
    collection = ScriptedCollection(OLD_HIDDEN, NEW_HIDDEN, NEW_HIDDEN)
    found, now = await search_at_one_moment(collection.search, collection.read_hidden, {})
    assert (found, now) == ("without ['new']", {"manual": NEW_HIDDEN})
    assert collection.searched == [frozenset(), {"old"}, {"new"}]


async def test_a_change_back_to_the_same_versions_is_a_change():
    again = replace(OLD_HIDDEN, epoch=6)
    collection = ScriptedCollection(again, again)
    found, now = await search_at_one_moment(collection.search, collection.read_hidden, {"manual": OLD_HIDDEN})
    assert (found, now) == ("without ['old']", {"manual": again})
    assert len(collection.searched) == 2


async def test_what_every_source_hides_is_left_out_together():
    collection = ScriptedCollection(OLD_HIDDEN)
    known = {"manual": OLD_HIDDEN, "wiki": NEW_HIDDEN}

    async def unchanged() -> dict[str, Hidden]:
        return known

    await search_at_one_moment(collection.search, unchanged, known)
    assert collection.searched == [{"old", "new"}]


async def test_a_collection_that_never_rests_is_given_up_with_a_clear_message():
    changes = [Hidden(epoch) for epoch in range(1000)]
    collection = ScriptedCollection(*changes)
    with pytest.raises(StoreError, match=r"the collection changed during each of 100 searches; try again"):
        await search_at_one_moment(collection.search, collection.read_hidden, {})
