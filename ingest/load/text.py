"""Plain text: nothing but its characters."""

from __future__ import annotations

from ingest.load.decoding import decode
from ingest.load.extracted import Extracted


def load(data: bytes) -> Extracted:
    """Plain text in any encoding that can be detected.

    Raises:
        DocumentError: The file is empty or binary, or its encoding cannot be detected.
    """
    return Extracted(text=decode(data), title=None, media_type="text/plain")
