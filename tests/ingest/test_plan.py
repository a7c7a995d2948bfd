import random
from collections.abc import Mapping

import pytest

from ingest.plan import CONTENT_HASH_LENGTH, Group, Plan, content_hash_of, plan

WINE, BEER, MALT = ("f" * CONTENT_HASH_LENGTH, "b" * CONTENT_HASH_LENGTH, "a" * CONTENT_HASH_LENGTH)


def stored(*groups: Group) -> list[tuple[str, str, str]]:
    return [(document_id, group.content_hash, group.version) for group in groups for document_id in group.document_ids]


def test_a_new_document_appears_and_nothing_retires():
    assert plan({"a": WINE}, []) == Plan((Group(WINE, ("a",)),), frozenset())


def test_another_content_replaces_the_one_before():
    old = Group(WINE, ("a",))
    assert plan({"a": BEER}, stored(old)) == Plan((Group(BEER, ("a",)),), frozenset({old.version}))


def test_the_content_a_document_has_already_changes_nothing():
    assert plan({"a": WINE}, stored(Group(WINE, ("a", "b")))) == Plan((), frozenset())


def test_a_document_joins_those_of_its_content():
    old = Group(WINE, ("a",))
    assert plan({"b": WINE}, stored(old)) == Plan((Group(WINE, ("a", "b")),), frozenset({old.version}))


def test_of_two_that_share_a_content_one_goes_and_the_other_stays():
    old = Group(WINE, ("a", "b"))
    assert plan({"a": None}, stored(old)) == Plan((Group(WINE, ("b",)),), frozenset({old.version}))
    assert plan({"a": None, "b": None}, stored(old)) == Plan((), frozenset({old.version}))


def test_groups_appear_in_order_of_content_with_documents_in_order_of_id():
    appearing = plan({"z": WINE, "c": BEER, "a": WINE, "b": MALT}, []).appearing
    assert appearing == (Group(MALT, ("b",)), Group(BEER, ("c",)), Group(WINE, ("a", "z")))


def test_two_documents_that_swap_contents_leave_the_versions_of_neither():
    first, second = Group(WINE, ("a",)), Group(BEER, ("b",))
    swapped = plan({"a": BEER, "b": WINE}, stored(first, second))
    assert swapped.appearing == (Group(BEER, ("a",)), Group(WINE, ("b",)))
    assert swapped.retiring == {first.version, second.version}


def test_what_the_store_lost_appears_again_and_is_not_retired():
    lost = [("a", WINE, ""), ("b", WINE, "")]
    assert plan({"a": WINE}, lost) == Plan((Group(WINE, ("a", "b")),), frozenset())


def test_deleting_what_is_not_there_is_no_change():
    assert plan({"a": None}, []) == Plan((), frozenset())


def test_a_version_names_content_and_documents():
    versions = {
        Group(content, documents).version
        for content in (WINE, BEER)
        for documents in (("a",), ("b",), ("a", "b"), ("ab",), ("a\0",))
    }
    assert len(versions) == 10
    assert {content_hash_of(version) for version in versions} == {WINE, BEER}


@pytest.mark.parametrize("seed", range(20))
def test_after_any_changes_every_document_has_one_version_which_is_its_content_alone(seed: int):
    rng = random.Random(seed)
    wanted: dict[str, str] = {}
    records: dict[str, tuple[str, str]] = {}
    visible: set[str] = set()
    for _ in range(60):
        changes = {
            rng.choice("abcdefgh"): rng.choice([None, WINE, BEER, MALT, *"xyz"]) for _ in range(rng.randint(1, 5))
        }
        wanted = {**wanted, **{document: content for document, content in changes.items() if content}}
        wanted = {document: content for document, content in wanted.items() if changes.get(document, "") is not None}

        planned = plan(changes, _concerned(changes, records))

        appearing = {group.version for group in planned.appearing}
        kept = {version for _, version in records.values()} - planned.retiring
        assert planned.retiring <= visible, "only what is there retires"
        assert appearing.isdisjoint(visible), "what is there does not appear again"
        assert appearing.isdisjoint(planned.retiring)
        visible = visible - planned.retiring | appearing
        records = _applied(planned, changes, records)

        assert {document: content for document, (content, _) in records.items()} == wanted
        assert {version for _, version in records.values()} == visible == kept | appearing
        contents: dict[str, set[str]] = {}
        for content, version in records.values():
            contents.setdefault(version, set()).add(content)
        assert all(len(shared) == 1 for shared in contents.values())
        assert len(contents) == len(set(wanted.values())), "one content is stored once"


def _concerned(changes: Mapping[str, str | None], records: Mapping[str, tuple[str, str]]) -> list[tuple[str, str, str]]:
    """What `plan` asks for: the documents that change, and all of the contents that they had or get."""
    contents = {records[document][0] for document in changes if document in records}
    contents |= {content for content in changes.values() if content}
    return [
        (document, content, version)
        for document, (content, version) in records.items()
        if document in changes or content in contents
    ]


def _applied(
    planned: Plan, changes: Mapping[str, str | None], records: Mapping[str, tuple[str, str]]
) -> dict[str, tuple[str, str]]:
    after = {document: record for document, record in records.items() if changes.get(document, "") is not None}
    for group in planned.appearing:
        after |= dict.fromkeys(group.document_ids, (group.content_hash, group.version))
    return after
