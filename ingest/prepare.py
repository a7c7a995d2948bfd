"""One item as ingestion takes it: read, parsed with what it contains, and divided into passages.

It runs in a process of its own, so what goes in and out pickles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from ingest.chunking.strategies import Span, chunk_document, needs_embedder
from ingest.content import pack, to_document
from ingest.items import Item
from ingest.load import json_records
from ingest.load.detect import check_text, extract
from ingest.load.extracted import Extracted
from ingest.load.formats import PARSERS, Parser
from ingest.plan import Group
from rag.errors import DocumentError
from rag.settings import Chunking

PIPELINE_VERSION = "2"
"""Part of every hash of bytes: raised when loading changes, so that unchanged files are read anew."""

_MAX_DEPTH = 4
"""Of mails that are attached to mails."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """How items are prepared.

    Attributes:
        fields: Which fields of JSON records say what.
    """

    chunking: Chunking
    fields: json_records.FieldMapping

    def hash_of(self, data: bytes, name: str) -> str:
        """Of bytes and of everything else that decides what they are parsed to, never of times."""
        suffix = name.rpartition(".")[2].lower()
        prefix = f"{PIPELINE_VERSION}\0{suffix}\0{self.fields}\0"
        return hashlib.sha256(prefix.encode("utf-8", "surrogatepass") + data).hexdigest()

    def parsers(self) -> dict[str, Parser]:
        """By suffix, with the fields of records as configured."""
        return {
            **PARSERS,
            ".json": partial(json_records.load, mapping=self.fields),
            ".jsonl": partial(json_records.load_lines, mapping=self.fields),
            ".ndjson": partial(json_records.load_lines, mapping=self.fields),
        }


@dataclass(frozen=True, slots=True)
class PreparedContent:
    """A document of an item, in the order of the item.

    Attributes:
        document_id: The item's id, with `#name` for a document inside.
        packed: The content as it is kept, see `ingest.content.pack`.
        spans: Of its passages; None where dividing it needs an embedder.
    """

    document_id: str
    content_hash: str
    content: Extracted
    packed: bytes
    spans: list[Span] | None


@dataclass(frozen=True, slots=True)
class PreparedItem:
    """What an item came to.

    Attributes:
        bytes_hash: Of what was read, see `Preparation.hash_of`.
        warnings: What could not be read although the rest was.
    """

    bytes_hash: str
    contents: tuple[PreparedContent, ...]
    warnings: tuple[str, ...]


def prepare_item(item: Item, preparation: Preparation) -> PreparedItem:
    """Read, parse and divide an item.

    Raises:
        DocumentError: Nothing in it can be read.
    """
    data = item.read()
    warnings: list[str] = []
    parts = _parts(item.item_id, item.parsed() or data, item.name, preparation.parsers(), warnings, depth=0)
    contents = {
        document_id: prepare_content(document_id, content, preparation.chunking) for document_id, content in parts
    }
    if not contents:
        raise DocumentError(f"nothing in it can be read: {'; '.join(warnings) or 'it is empty'}")
    return PreparedItem(preparation.hash_of(data, item.name), tuple(contents.values()), tuple(warnings))


def prepare_content(document_id: str, content: Extracted, chunking: Chunking) -> PreparedContent:
    """Divide one content."""
    content_hash, packed = pack(content)
    spans = None
    if not needs_embedder(chunking):
        document = to_document(content, Group(content_hash, (document_id,)), source="")
        spans = chunk_document(document, chunking)
    return PreparedContent(document_id, content_hash, content, packed, spans)


def _parts(
    document_id: str, data: bytes | Extracted, name: str, parsers: dict[str, Parser], warnings: list[str], *, depth: int
) -> Iterator[tuple[str, Extracted]]:
    """A content and the contents inside it, each with its document's id."""
    if isinstance(data, Extracted):
        content = data
        check_text(content)
    else:
        content = extract(data, name, parsers)
    warnings += content.warnings
    if content.text.strip():
        yield document_id, content
    for child in content.children:
        child_id = f"{document_id}#{child.name}"
        if depth == _MAX_DEPTH:
            warnings.append(f"{child.name!r} inside it: more than {_MAX_DEPTH} files inside one another")
            continue
        try:
            child_id.encode()
            yield from _parts(child_id, child.content, child.name, parsers, warnings, depth=depth + 1)
        except (DocumentError, UnicodeEncodeError) as error:
            warnings.append(f"{child.name!r} inside it: {error}")
