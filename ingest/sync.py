"""`rag ingest`: making a collection hold what sources list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ingest.arrivals import refuse_taken, unchanged_documents
from ingest.context_estimate import announce_items
from ingest.discover import Discovery, Unlisted
from ingest.items import Item, printable
from ingest.manifest import Manifest
from ingest.pipeline import Ingestion
from ingest.prepare import Preparation
from ingest.report import Failure, Report
from ingest.run import MANIFEST_FILE, Observer, logged_run, open_manifest, preparation_of
from ingest.settle import settle
from ingest.state import RunState
from ingest.streams import stream_records
from rag.bootstrap import collection_dir, live_generation
from rag.errors import DocumentError, UsageError
from rag.settings import Settings

_MOST_VANISHED = 0.2
"""The share of a source's items that `--prune` deletes without being told twice."""


@dataclass(frozen=True, slots=True)
class Pruning:
    """Whether items that are no longer listed are deleted, and whether also when they are many."""

    wanted: bool = False
    force: bool = False


@dataclass
class SyncPlan:
    """What a run would do; ids of items in order."""

    add: list[str] = field(default_factory=list)
    update: list[str] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    unchanged: int = 0
    failed: list[Failure] = field(default_factory=list)


class PruningRefused(UsageError):  # noqa: N818 - a refusal, after a run that went well
    """A stream was ingested, and what vanished from it was not deleted.

    Attributes:
        report: Of the run, which is complete but for that.
    """

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report


async def ingest_files(
    settings: Settings, found: Discovery, pruning: Pruning, command: str, observer: Observer
) -> Report:
    """Add and update files; with pruning also delete what vanished from their sources.

    Raises:
        UsageError: Pruning would delete too much, or contexts would cost too much. Nothing was changed.
        ConfigurationError, StoreError, ProviderError: Nothing, or not all, could be written.
    """
    async with logged_run(settings, command, observer) as (ingestion, manifest):
        vanished = await _settled_vanished(ingestion, settings, manifest, found, pruning)
        await announce_items(settings, ingestion, found.files, observer.notify)
        report = await ingestion.run(found.files, total=len(found.files))
        report.failed.extend(found.failures)
        await _prune(ingestion, vanished)
    return report


async def ingest_stream(
    settings: Settings, lines: BinaryIO, source: str, pruning: Pruning, command: str, observer: Observer
) -> Report:
    """Add and update the records of a JSONL stream; with pruning also delete what it does not hold.

    Raises:
        PruningRefused: Pruning would delete too much, or a line could not be read. The run is over, and what was
            added stays.
        ConfigurationError, StoreError, ProviderError, OSError: Not all could be read or written.
    """
    async with logged_run(settings, command, observer) as (ingestion, manifest):
        if settings.chunking.context == "llm":
            observer.notify(
                "what contexts will cost is not known before standard input ends; contextual.max_tokens holds all the "
                "same"
            )
        bad: list[Failure] = []
        fields = ingestion.preparation.fields
        async with aclosing(stream_records(lines, source, fields, bad, ingestion.state.stopped)) as records:
            report = await ingestion.run(records)
        report.failed.extend(bad)
        if pruning.wanted and not report.interrupted:
            try:
                vanished = _vanished_from_stream(ingestion, settings, manifest, source, bad, pruning)
            except UsageError as error:
                await ingestion.finish()
                raise PruningRefused(str(error), report) from error
            await _prune(ingestion, {source: vanished})
    return report


async def plan_files(settings: Settings, found: Discovery, pruning: Pruning) -> SyncPlan:
    """What `ingest_files` would do; nothing is parsed, embedded or written."""
    preparation = preparation_of(settings)
    generation = await live_generation(settings) or ""
    with _manifest_to_plan(settings) as manifest:
        state = _LookingState(settings.data.tenant, manifest, None, lambda _: None, live=generation)
        _note_listed(manifest, found)
        planned = _planned(state, preparation, found.files)
        planned.failed += found.failures
        for gone in _vanished(generation, settings, manifest, found, pruning).values():
            planned.delete += gone
    return planned


@dataclass
class _LookingState(RunState):
    """Of a run that only looks, and opens no collection.

    Attributes:
        live: The generation that it looks at.
    """

    live: str = ""

    @property
    def generation(self) -> str:
        """See `RunState`."""
        return self.live


@contextmanager
def _manifest_to_plan(settings: Settings) -> Iterator[Manifest]:
    """The manifest as it is; where there is none, an empty one that is nowhere."""
    if (collection_dir(settings) / MANIFEST_FILE).is_file():
        with open_manifest(settings, write=False) as manifest:
            yield manifest
        return
    manifest = Manifest(Path(":memory:"))
    try:
        yield manifest
    finally:
        manifest.close()


def _planned(state: RunState, preparation: Preparation, files: Sequence[Item]) -> SyncPlan:
    planned = SyncPlan()
    for item in files:
        try:
            refuse_taken(state, item)
            bytes_hash = preparation.hash_of(item.read(), item.name)
        except DocumentError as error:
            planned.failed.append(Failure(item.location, str(error)))
            continue
        unchanged = unchanged_documents(state, item, bytes_hash)
        if unchanged is not None:
            planned.unchanged += unchanged
        elif state.manifest.documents_of_item(state.generation, state.tenant, item.source, item.item_id):
            planned.update.append(item.item_id)
        else:
            planned.add.append(item.item_id)
    return planned


def _vanished_from_stream(
    ingestion: Ingestion,
    settings: Settings,
    manifest: Manifest,
    source: str,
    bad: Sequence[Failure],
    pruning: Pruning,
) -> list[str]:
    if bad:
        raise UsageError(
            f"nothing is pruned: {len(bad)} lines could not be read, so what vanished is not known "
            f"({bad[0].path}: {bad[0].reason})"
        )
    generation = ingestion.state.generation
    vanished = manifest.vanished(generation, settings.data.tenant, source)
    _refuse_too_many(generation, settings, manifest, source, vanished, pruning)
    return vanished


def _vanished(
    generation: str, settings: Settings, manifest: Manifest, found: Discovery, pruning: Pruning
) -> dict[str, list[str]]:
    """By source, the items that are not listed; empty where that is not asked for."""
    if not pruning.wanted:
        return {}
    vanished = {}
    for source in found.sources:
        gone = manifest.vanished(generation, settings.data.tenant, source)
        gone = [
            item_id
            for item_id in gone
            if not _is_under(item_id, source, found.unlisted)
            and not _is_elsewhere(manifest, settings.data.tenant, source, item_id, found.roots)
        ]
        _refuse_too_many(generation, settings, manifest, source, gone, pruning)
        vanished[source] = gone
    return vanished


async def _settled_vanished(
    ingestion: Ingestion, settings: Settings, manifest: Manifest, found: Discovery, pruning: Pruning
) -> dict[str, list[str]]:
    """As `_vanished`, also of what the store holds and the manifest has lost."""
    collection = ingestion.state.collection
    # Noted first, since the listing tells which file a document was in.
    _note_listed(manifest, found)
    if pruning.wanted and collection is not None:
        for source in found.sources:
            await settle(collection.store, manifest, settings.data.tenant, source)
    return _vanished(ingestion.state.generation, settings, manifest, found, pruning)


def _note_listed(manifest: Manifest, found: Discovery) -> None:
    for file in found.files:
        manifest.note_listed(file.source, file.item_id, file.location)


def _is_under(item_id: str, source: str, unlisted: Sequence[Unlisted]) -> bool:
    return any(folder.source == source and item_id.startswith(folder.prefix) for folder in unlisted)


def _is_elsewhere(manifest: Manifest, tenant: str, source: str, item_id: str, roots: Sequence[Path]) -> bool:
    """Whether it was read from, and still is, where this run did not look: in another folder of the same name."""
    item = manifest.item(tenant, source, item_id)
    if item is None or any(Path(item.location).is_relative_to(printable(root)) for root in roots):
        return False
    try:
        return Path(item.location).exists()
    except OSError:
        return True  # as far as anybody can tell


def _refuse_too_many(
    generation: str, settings: Settings, manifest: Manifest, source: str, vanished: Sequence[str], pruning: Pruning
) -> None:
    known = manifest.known_items(generation, settings.data.tenant, source)
    if pruning.force or not vanished:
        return
    if len(vanished) == known or len(vanished) > _MOST_VANISHED * known:
        raise UsageError(
            f"--prune would delete {len(vanished)} of the {known} items of source {source!r} "
            f"(the first: {vanished[0]}). If that is what you want, add --force; of files, --dry-run --prune --force "
            "lists them."
        )


async def _prune(ingestion: Ingestion, vanished: dict[str, list[str]]) -> None:
    for source, item_ids in vanished.items():
        if ingestion.report.interrupted:
            return
        if item_ids:
            await ingestion.remove(source, item_ids)
        state = ingestion.state
        state.manifest.forget_vanished_failures(state.generation, state.tenant, source)
