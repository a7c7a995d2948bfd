"""The seams to a passage store: one for the query path, one for the write path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol
from uuid import UUID, uuid5

from rag.errors import CollectionMismatchError
from rag.filters import Filter
from rag.types import Passage, Ranking, SparseVector, Vectors

_NAMESPACE = UUID("5f1c2a54-6d0a-4a5e-9a43-0a4c7a0a3f10")


def passage_id(tenant: str, document_id: str, version: str, ordinal: int) -> str:
    """The id of a passage, a UUID: the same content in the same place always has the same one."""
    return str(uuid5(_NAMESPACE, "\0".join((tenant, document_id, version, str(ordinal)))))


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What a collection was built with; it is stored with the collection and checked at every opening.

    Attributes:
        id: Random, so that a collection made anew under the same name is told from the old one.
        embedding: Identity of the embedding model.
        lexical: Identity of the lexical encoder, without the average length.
        chunker: Name and sizes of the chunking strategy.
        average_length: Mean number of terms per passage that the BM25 weights are normalised with.
    """

    id: str
    embedding: str
    dimension: int
    lexical: str
    chunker: str
    average_length: float


def check_same_spec(stored: CollectionSpec, configured: CollectionSpec, *, collection: str) -> None:
    """Refuse a collection that was built with other settings, naming both sides of each difference.

    The average length is the collection's own measurement and is not compared.

    Raises:
        CollectionMismatchError: With every difference.
    """
    old, new = asdict(stored), asdict(configured)
    differences = [
        f"{name}: built with {old[name]!r}, configured is {new[name]!r}"
        for name in ("embedding", "dimension", "lexical", "chunker")
        if old[name] != new[name]
    ]
    if differences:
        raise CollectionMismatchError(
            f"the collection {collection!r} was built with other settings ({'; '.join(differences)}). "
            "Restore the settings, or choose another store.collection and ingest again."
        )


@dataclass(frozen=True, slots=True)
class Query:
    """What both legs are asked in one request.

    Attributes:
        dense: Shape (d,); None leaves the dense leg out.
        lexical: None leaves the lexical leg out.
        retrieve_k: How many candidates each leg returns at most.
    """

    tenant: str
    dense: Vectors | None
    lexical: SparseVector | None
    retrieve_k: int
    filter: Filter | None = None


@dataclass(frozen=True, slots=True)
class IndexedPassage:
    """A passage with its vectors, ready to be written."""

    passage: Passage
    dense: Vectors
    lexical: SparseVector


class PassageReader(Protocol):
    """The read side. All methods see only what belongs to the tenant they are given."""

    async def search(self, query: Query) -> Mapping[str, Ranking]:
        """The rankings of the legs asked for, `dense` and `bm25`, from one batched request.

        Scores are cosine similarities and BM25 sums. A tie is broken by passage id.

        Raises:
            StoreError: The store cannot be reached or failed.
        """
        ...

    async def fetch(self, tenant: str, passage_ids: Sequence[str]) -> Mapping[str, Passage]:
        """The passages by id, in one batched read; an id that is not stored is left out."""
        ...

    async def close(self) -> None:
        """Release files, locks and connections."""
        ...


class PassageWriter(Protocol):
    """The write side. When a method returns, what it did survives a crash of this process."""

    async def upsert(self, passages: Sequence[IndexedPassage]) -> None:
        """Write passages, replacing those with the same ids."""
        ...

    async def delete(self, tenant: str, filter: Filter) -> None:  # noqa: A002 - the field's word
        """Delete what matches."""
        ...

    async def count(self, tenant: str, filter: Filter | None = None) -> int:  # noqa: A002
        """Exactly how many passages match."""
        ...

    async def optimize(self) -> None:
        """Build what searches need to be fast; to be called when a run of writes is over."""
        ...


class PassageStore(PassageReader, PassageWriter, Protocol):
    """Both sides: what an adapter implements."""
