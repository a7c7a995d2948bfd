"""The embedded collections behind one name: a folder each, and a file that names the live one."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from rag.adapters.durable_files import delete_durably, write_durably
from rag.adapters.qdrant_edge import QdrantEdgeStore
from rag.errors import StoreError
from rag.retrieval.profile import RetrievalProfile, profile_from_text, profile_to_text
from rag.retrieval.store import CollectionSpec

_LIVE_FILE = "live"
_PROFILE_FILE = "profile.json"
_GENERATION = re.compile("[0-9a-f]{32}")


class QdrantEdgeGenerations:
    """`Generations` in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def live(self) -> str | None:
        """See `Generations`."""
        try:
            return (self._folder / _LIVE_FILE).read_text("utf-8").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"{self._folder / _LIVE_FILE} cannot be read: {error}") from error

    async def all(self) -> Sequence[str]:
        """See `Generations`."""
        if not self._folder.is_dir():
            return []
        return sorted(folder.name for folder in self._folder.iterdir() if QdrantEdgeStore.exists(folder))

    async def create(self, spec: CollectionSpec) -> QdrantEdgeStore:
        """See `Generations`."""
        await self._remove_leftovers()
        return await asyncio.to_thread(QdrantEdgeStore.create, self._folder / spec.id, spec)

    async def spec(self, generation: str) -> CollectionSpec:
        """See `Generations`."""
        return QdrantEdgeStore.read_spec(self._folder / generation)

    async def profile(self, generation: str) -> RetrievalProfile | None:
        """See `Generations`."""
        file = self._folder / generation / _PROFILE_FILE
        try:
            written = file.read_text("utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"{file} cannot be read ({error}); run `rag eval tune` again, or delete it") from error
        return profile_from_text(written, collection=generation)

    async def keep_profile(self, generation: str, profile: RetrievalProfile) -> None:
        """See `Generations`."""
        file = self._folder / generation / _PROFILE_FILE
        try:
            write_durably(file, profile_to_text(profile))
        except OSError as error:
            raise StoreError(f"{file} cannot be written: {error}") from error

    async def open(self, generation: str) -> QdrantEdgeStore:
        """See `Generations`."""
        return await asyncio.to_thread(QdrantEdgeStore.open, self._folder / generation)

    async def make_live(self, generation: str) -> None:
        """See `Generations`."""
        try:
            write_durably(self._folder / _LIVE_FILE, generation)
        except OSError as error:
            raise StoreError(f"{self._folder / _LIVE_FILE} cannot be written: {error}") from error

    async def drop(self, generation: str) -> None:
        """See `Generations`."""
        if generation == await self.live():
            raise StoreError(f"the collection {generation} is live and is not dropped")
        if QdrantEdgeStore.exists(self._folder / generation):
            # Whoever has it open holds its lock.
            await (await self.open(generation)).close()
            # From here on it is no generation, however far the deletion of its folder comes.
            try:
                delete_durably(QdrantEdgeStore.description(self._folder / generation))
            except OSError as error:
                raise StoreError(f"{self._folder / generation} cannot be deleted: {error}") from error
        await self._remove_leftovers()

    async def _remove_leftovers(self) -> None:
        """Delete the folders without a description, which a kill in the midst of `create` or `drop` left.

        None is being made now, since there is one writer.
        """
        if not self._folder.is_dir():
            return
        live = await self.live()
        for folder in sorted(self._folder.iterdir()):
            is_ours = folder.is_dir() and _GENERATION.fullmatch(folder.name)
            if not is_ours or folder.name == live or QdrantEdgeStore.exists(folder):
                continue
            try:
                await asyncio.to_thread(shutil.rmtree, folder)
            except OSError as error:
                raise StoreError(f"{folder} cannot be deleted: {error}") from error

    async def close(self) -> None:
        """See `Generations`."""
