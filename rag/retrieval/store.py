"""The seams to a passage store: one for the query path, one for the write path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol, TypeVar
from uuid import UUID, uuid5

from rag.errors import CollectionMismatchError, StoreError
from rag.filters import Filter
from rag.retrieval.profile import RetrievalProfile
from rag.types import Passage, Ranking, SparseVector, Vectors

T = TypeVar("T")

_NAMESPACE = UUID("5f1c2a54-6d0a-4a5e-9a43-0a4c7a0a3f10")
_MAX_SEARCHES = 100
"""Changes come some times a second, searches take milliseconds: more than two in a row are rare."""


def passage_id(tenant: str, document_id: str, version: str, ordinal: int) -> str:
    """The id of a passage, a UUID: the same content in the same place always has the same one."""
    return str(uuid5(_NAMESPACE, "\0".join((tenant, document_id, version, str(ordinal)))))


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What a collection was built with; it is stored with the collection and checked at every opening.

    Attributes:
        id: 32 random hexadecimal digits, so that a collection made anew under the same name is told from the old one.
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
            "Run `rag reindex` to build it anew with the present settings, or restore the former ones."
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

    @property
    def legs(self) -> tuple[str, ...]:
        """The legs asked for."""
        return tuple(leg for leg, asked in (("dense", self.dense), ("bm25", self.lexical)) if asked is not None)


@dataclass(frozen=True, slots=True)
class IndexedPassage:
    """A passage with its vectors, ready to be written."""

    passage: Passage
    dense: Vectors
    lexical: SparseVector


@dataclass(frozen=True, slots=True)
class Hidden:
    """The versions of one source's documents that searches do not see.

    Attributes:
        epoch: Rises by one at every change, so that two readings tell whether anything happened between them.
    """

    epoch: int = 0
    versions: frozenset[str] = frozenset()


class PassageReader(Protocol):
    """The read side. All methods see only what belongs to the tenant they are given."""

    async def search(self, query: Query) -> Mapping[str, Ranking]:
        """The rankings of the legs asked for, `dense` and `bm25`, from one batched request.

        Scores are cosine similarities and BM25 sums. A tie is broken by passage id. All rankings show the collection
        as it was at one moment: of every document the version that was visible then, and no other.

        Raises:
            StoreError: The store cannot be reached or failed.
        """
        ...

    async def score(self, query: Query, passage_ids: Mapping[str, Sequence[str]]) -> Mapping[str, Ranking]:
        """The rankings of `search` over some passages alone, wherever they would stand in it, in one batched request.

        A passage without any of the query's terms is not in `bm25`; one that is gone, or another tenant's, in none.
        The query's filter is not applied again.

        Args:
            passage_ids: By leg, of those that the query asks for; a leg without ids is left out.
        """
        ...

    async def fetch(self, tenant: str, passage_ids: Sequence[str]) -> Mapping[str, Passage]:
        """The passages by id, hidden ones too, in one batched read; an id that is not stored is left out."""
        ...

    async def retrieve(self, tenant: str, passage_ids: Sequence[str]) -> Sequence[IndexedPassage]:
        """The passages with their vectors, hidden ones too, in the order of the ids; what is not stored is left out."""
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
        """Exactly how many passages match, hidden ones too."""
        ...

    async def hide(self, tenant: str, source: str, versions: Collection[str]) -> int:
        """From now on searches see every version of the source's documents but these: in one step, durably.

        What was written before survives a loss of power when this returns.

        Returns:
            The source's new epoch.
        """
        ...

    async def hidden(self, tenant: str, source: str) -> Hidden:
        """What the last `hide` of this source left."""
        ...

    async def versions(self, tenant: str, source: str) -> Mapping[str, int]:
        """Every version that is stored of the source's documents, hidden or not, with its number of passages."""
        ...

    async def first_passage(self, tenant: str, version: str) -> Passage | None:
        """The passage of ordinal 0, if it is stored."""
        ...

    async def optimize(self) -> None:
        """Build what searches need to be fast; to be called when a run of writes is over."""
        ...


class PassageStore(PassageReader, PassageWriter, Protocol):
    """Both sides: what an adapter implements."""

    @property
    def spec(self) -> CollectionSpec:
        """What the collection was built with."""
        ...


class Generations(Protocol):
    """The collections behind one configured name. One of them is live; another may be in the making, or be kept.

    A generation is called by its `CollectionSpec.id`.
    """

    async def live(self) -> str | None:
        """The one that searches are served from; None before anything was ingested."""
        ...

    async def all(self) -> Sequence[str]:
        """Every one that was created and not dropped, in order of id."""
        ...

    async def create(self, spec: CollectionSpec) -> PassageStore:
        """Make an empty one. It is not live."""
        ...

    async def spec(self, generation: str) -> CollectionSpec:
        """What one was built with, also while it is in use."""
        ...

    async def profile(self, generation: str) -> RetrievalProfile | None:
        """What was tuned for one, also while it is in use; None where nothing was."""
        ...

    async def keep_profile(self, generation: str, profile: RetrievalProfile) -> None:
        """Store what was tuned for one with it, in place of what was before, also while it is in use."""
        ...

    async def open(self, generation: str) -> PassageStore:
        """Open one.

        Raises:
            StoreBusyError: Another process has it open, and the store allows one.
            StoreError: It is not there, damaged, or not one of this service.
        """
        ...

    async def make_live(self, generation: str) -> None:
        """Serve from this one from now on, in one step; who has the former one open goes on with it."""
        ...

    async def drop(self, generation: str) -> None:
        """Delete one that is not live; where a kill ended that, what is left of it.

        An embedded one that is in use is refused. A server does not know who uses a collection: there, whoever still
        has it open fails from then on.

        Raises:
            StoreBusyError: Another process has it open, and the store allows one.
            StoreError: It is live, or served under another name.
        """
        ...

    async def close(self) -> None:
        """Release connections; stores that were opened are closed by themselves."""
        ...


async def search_at_one_moment(
    search: Callable[[frozenset[str]], Awaitable[T]],
    read_hidden: Callable[[], Awaitable[Mapping[str, Hidden]]],
    known: Mapping[str, Hidden],
) -> tuple[T, Mapping[str, Hidden]]:
    """Search until nothing was hidden or shown meanwhile, so that the result is that of one moment.

    Args:
        search: Given the versions to leave out.
        read_hidden: What is hidden now, by source.
        known: What was hidden when it was last read; stale is fine, a first search is then in vain.

    Returns:
        The result, and what is hidden.
    """
    for _ in range(_MAX_SEARCHES):
        found = await search(frozenset().union(*(hidden.versions for hidden in known.values())))
        now = await read_hidden()
        if now == known:
            return found, now
        known = now
    raise StoreError(f"the collection changed during each of {_MAX_SEARCHES} searches; try again")
