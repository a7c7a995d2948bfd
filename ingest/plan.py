"""What must change in a collection so that documents have the content they should have. Pure functions.

Documents of one source with the same content share one set of passages: a *group*, stored under a version that names
the content and the documents. A stored version never changes; when a document joins or leaves a group, the group is
written anew under another version, its vectors copied, and the former version retired. So every change of a
collection is the same: some versions appear, some disappear, in one step.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CONTENT_HASH_LENGTH = 32
"""Hexadecimal digits, 128 bits."""

_GROUP_HASH_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Group:
    """The documents that share one content, in order of id."""

    content_hash: str
    document_ids: tuple[str, ...]

    @property
    def version(self) -> str:
        """Names content and documents; two groups never share one."""
        documents = hashlib.sha256("\0".join(self.document_ids).encode()).hexdigest()
        return self.content_hash + documents[:_GROUP_HASH_LENGTH]


def content_hash_of(version: str) -> str:
    """The content that a version holds."""
    return version[:CONTENT_HASH_LENGTH]


@dataclass(frozen=True, slots=True)
class Plan:
    """A change of a collection.

    Attributes:
        appearing: Groups to be written, in order of content.
        retiring: Versions that go when they are there.
    """

    appearing: tuple[Group, ...]
    retiring: frozenset[str]


def plan(changes: Mapping[str, str | None], stored: Iterable[tuple[str, str, str]]) -> Plan:
    """The groups that appear and the versions that retire.

    Args:
        changes: Document id -> its content hash from now on; None for one that is deleted.
        stored: (document id, content hash, version) of the documents that change, and of all that have or had a
            content that one of them has or gets. The version is empty where it is stored no longer.
    """
    members: dict[str, set[str]] = defaultdict(set)
    versions: dict[str, set[str]] = defaultdict(set)
    for document_id, content_hash, version in stored:
        if version:
            versions[content_hash].add(version)
        if document_id not in changes:
            members[content_hash].add(document_id)
    for document_id, new_content in changes.items():
        if new_content is not None:
            members[new_content].add(document_id)
    groups = [Group(content, tuple(sorted(documents))) for content, documents in sorted(members.items())]
    kept = {group.version for group in groups}
    before: set[str] = set().union(*versions.values())
    return Plan(
        appearing=tuple(group for group in groups if group.version not in before),
        retiring=frozenset(before - kept),
    )
