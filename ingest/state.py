"""What the tasks of one run share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ingest.change import Batch, OpenCollection
from ingest.items import Item
from ingest.manifest import ItemRecord, Manifest
from ingest.report import Failure, Progress, Report


@dataclass
class RunState:
    """One run. Its tasks take turns on one event loop, so nothing here is locked.

    Attributes:
        collection: None until the first passages are embedded, where there was none.
        leftover: By source that was settled: hidden versions that an earlier run left.
        in_flight: By source, hashes of contents that are being embedded or written.
        counts_documents: Progress counts documents, which come without items.
        stopped: Set when the run is to finish what is being written and end.
    """

    tenant: str
    manifest: Manifest
    collection: OpenCollection | None
    on_progress: Callable[[Progress], None]
    total: int | None = None
    done: int = 0
    counts_documents: bool = False
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    report: Report = field(default_factory=Report)
    leftover: dict[str, frozenset[str]] = field(default_factory=dict)
    in_flight: set[tuple[str, str]] = field(default_factory=set)

    @property
    def stopping(self) -> bool:
        """Whether the run is to finish what is being written and end."""
        return self.stopped.is_set()

    @property
    def generation(self) -> str:
        """Of the collection that is written; empty before there is one."""
        return self.collection.spec.id if self.collection else ""

    def tell(self) -> None:
        """Report progress."""
        self.on_progress(Progress(self.done, self.total, self.report.passages, len(self.report.failed)))

    def item_done(self) -> None:
        """Count an item."""
        self.done += 1
        self.tell()

    def batch_done(self, batch: Batch) -> None:
        """Count what a batch held."""
        self.done += len(batch.documents if self.counts_documents else batch.items)
        self.tell()

    def item_failed(self, item: Item, reason: str) -> None:
        """Name an item that could not be ingested; what it was before stays searchable."""
        known = self.manifest.item(self.tenant, item.source, item.item_id)
        record = known or ItemRecord(self.tenant, item.source, item.item_id, item.location, bytes_hash="", documents=0)
        self.manifest.record_items([replace(record, location=item.location, error=reason)])
        self.item_refused(item, reason)

    def item_refused(self, item: Item, reason: str) -> None:
        """Name an item that has no id of its own, so that nothing can be recorded of it."""
        self.report.failed.append(Failure(item.location, reason))
        self.item_done()
