"""What is kept of a document's content: the extracted text with its structure, as bytes with a hash of their own.

A collection can be built anew from it, without the originals and their parsers.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import PurePosixPath

from ingest.load.extracted import Extracted
from ingest.plan import CONTENT_HASH_LENGTH, Group
from rag.types import Document, Heading


def pack(content: Extracted) -> tuple[str, bytes]:
    """The content hash, and the bytes to keep. Children and warnings belong to the file and are left out."""
    fields = {
        "text": content.text,
        "title": content.title,
        "headings": [(heading.start, heading.level, heading.text) for heading in content.headings],
        "page_starts": content.page_starts,
        "row_starts": content.row_starts,
        "metadata": content.metadata,
        "media_type": content.media_type,
    }
    data = json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(data).hexdigest()[:CONTENT_HASH_LENGTH], zlib.compress(data, level=1)


def unpack(data: bytes) -> Extracted:
    """What `pack` was given."""
    fields = json.loads(zlib.decompress(data))
    return Extracted(
        text=fields["text"],
        title=fields["title"],
        headings=tuple(Heading(*heading) for heading in fields["headings"]),
        page_starts=tuple(fields["page_starts"]),
        row_starts=tuple((offset, row) for offset, row in fields["row_starts"]),
        metadata=fields["metadata"],
        media_type=fields["media_type"],
    )


def title_without_one(document_id: str) -> str:
    """What a document is called whose content has no title: its file's name."""
    return PurePosixPath(document_id.rpartition("#")[2]).stem


def to_document(content: Extracted, group: Group, source: str) -> Document:
    """The document that stands for a group; its first document names it."""
    document_id, *also_in = group.document_ids
    return Document(
        id=document_id,
        version=group.version,
        source=source,
        title=title_without_one(document_id) if content.title is None else content.title,
        text=content.text,
        headings=content.headings,
        page_starts=content.page_starts,
        metadata={**content.metadata, "media_type": content.media_type},
        row_starts=content.row_starts,
        also_in=tuple(also_in),
    )
