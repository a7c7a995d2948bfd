"""The collections on a Qdrant server behind one name, which is an alias of the live one."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from rag.adapters.qdrant_layout import PROFILE
from rag.adapters.qdrant_server import QdrantServerStore, errors_translated
from rag.errors import RagError, StoreError
from rag.retrieval.profile import RetrievalProfile, profile_from_text, profile_to_text
from rag.retrieval.store import CollectionSpec

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

_GENERATION = re.compile("[0-9a-f]{32}")
"""A name may hold two dashes itself: what follows those of another one is no generation of this one."""


class QdrantServerGenerations:
    """`Generations` on a server.

    Args:
        connect: Makes a client: one is used here, and every store that is opened owns another.
    """

    def __init__(self, connect: Callable[[], AsyncQdrantClient], name: str) -> None:
        self._connect = connect
        self._client = connect()
        self._name = name

    async def live(self) -> str | None:
        """See `Generations`."""
        async with errors_translated():
            aliases = (await self._client.get_aliases()).aliases
            owner = next((alias.collection_name for alias in aliases if alias.alias_name == self._name), None)
            is_free = owner is None and not await self._client.collection_exists(self._name)
        if is_free:
            return None
        generation = self._generation(owner or self._name)
        if generation is None:
            raise StoreError(
                f"the server has a collection {self._name!r} that was not made by this service, or by another "
                "release of it. Choose another store.collection."
            )
        return generation

    async def all(self) -> Sequence[str]:
        """See `Generations`."""
        async with errors_translated():
            collections = (await self._client.get_collections()).collections
        found = (self._generation(collection.name) for collection in collections)
        return sorted(generation for generation in found if generation is not None)

    async def create(self, spec: CollectionSpec) -> QdrantServerStore:
        """See `Generations`."""
        return await self._with_client(QdrantServerStore.create, spec.id, spec)

    async def spec(self, generation: str) -> CollectionSpec:
        """See `Generations`."""
        return await QdrantServerStore.read_spec(self._client, self._prefix + generation)

    async def profile(self, generation: str) -> RetrievalProfile | None:
        """See `Generations`."""
        async with errors_translated():
            described = await self._client.get_collection(self._prefix + generation)
        written = (described.config.metadata or {}).get(PROFILE)
        return profile_from_text(written, collection=self._name) if written else None

    async def keep_profile(self, generation: str, profile: RetrievalProfile) -> None:
        """See `Generations`."""
        # As text, since metadata is merged key by key and a key that is null is lost.
        metadata = {PROFILE: profile_to_text(profile)}
        async with errors_translated():
            await self._client.update_collection(self._prefix + generation, metadata=metadata)

    async def open(self, generation: str) -> QdrantServerStore:
        """See `Generations`."""
        return await self._with_client(QdrantServerStore.open, generation)

    async def make_live(self, generation: str) -> None:
        """See `Generations`."""
        from qdrant_client import models

        create = models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=self._prefix + generation, alias_name=self._name)
        )
        # One request with both is one step; an alias that exists cannot be created over.
        delete = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=self._name))
        operations: list[models.AliasOperations] = [create] if await self.live() is None else [delete, create]
        async with errors_translated():
            await self._client.update_collection_aliases(operations)

    async def drop(self, generation: str) -> None:
        """See `Generations`."""
        if generation == await self.live():
            raise StoreError(f"the collection {generation} is live and is not dropped")
        collection = self._prefix + generation
        if self._generation(collection) is None:
            raise StoreError(f"{collection!r} is no collection of {self._name!r} and is not dropped")
        async with errors_translated():
            aliases = (await self._client.get_aliases()).aliases
            served_as = [alias.alias_name for alias in aliases if alias.collection_name == collection]
            if served_as:
                raise StoreError(
                    f"the collection {collection!r} is served under the alias {served_as[0]!r} and is not dropped; "
                    "remove that alias from the server first"
                )
            await self._client.delete_collection(collection)

    async def close(self) -> None:
        """See `Generations`."""
        await self._client.close()

    async def _with_client(
        self, make: Callable[..., Awaitable[QdrantServerStore]], generation: str, *arguments: CollectionSpec
    ) -> QdrantServerStore:
        client = self._connect()
        try:
            return await make(client, self._prefix + generation, *arguments)
        except RagError:
            await client.close()
            raise

    def _generation(self, collection: str) -> str | None:
        """The generation that a collection on the server is; None for what belongs to another name."""
        generation = collection.removeprefix(self._prefix)
        return generation if generation != collection and _GENERATION.fullmatch(generation) else None

    @property
    def _prefix(self) -> str:
        return f"{self._name}--"
