from dataclasses import replace
from uuid import UUID

import pytest

from rag.errors import CollectionMismatchError, ConfigurationError
from rag.retrieval.store import CollectionSpec, check_same_spec, passage_id

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
    assert "ingest again" in message
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
