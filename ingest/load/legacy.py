"""The OLE containers that Office wrote before 2007, and in which it still locks documents with a password."""

from __future__ import annotations

from ingest.load.extracted import Extracted
from rag.errors import DocumentError

MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def load_word(data: bytes) -> Extracted:  # noqa: ARG001 - a parser like any other
    """Nothing: the format is not read.

    Raises:
        DocumentError: Always, with the remedy.
    """
    raise DocumentError("unsupported format: Word 97-2003 (.doc); save it as .docx")


def load_powerpoint(data: bytes) -> Extracted:  # noqa: ARG001 - as above
    """Nothing: the format is not read.

    Raises:
        DocumentError: Always, with the remedy.
    """
    raise DocumentError("unsupported format: PowerPoint 97-2003 (.ppt); save it as .pptx")


def stream_names(data: bytes) -> frozenset[str]:
    """Names of the streams and storages at the top of an OLE container; empty where it is none, or broken."""
    import olefile

    if not data.startswith(MAGIC):
        return frozenset()
    try:
        with olefile.OleFileIO(data) as container:
            return frozenset(path[0] for path in container.listdir(streams=True, storages=True))
    except Exception:  # broken containers cause any, and then the parser says what is wrong
        return frozenset()
