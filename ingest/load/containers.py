"""Which parser reads a container, by what is in it: zip archives since 2007, OLE files before."""

from __future__ import annotations

from collections.abc import Callable

from ingest.load import docx, epub, legacy, odf, outlook, pptx, xls, xlsx
from ingest.load.archive import Archive, open_archive
from ingest.load.extracted import Extracted
from rag.errors import DocumentError

_ZIP = b"PK\x03\x04"
_CONTENT_TYPES = "[Content_Types].xml"
_MAX_MIMETYPE_BYTES = 200
_PACKAGES = {"word": docx.load, "ppt": pptx.load, "xl": xlsx.load}
_STREAMS = {
    "WordDocument": legacy.load_word,
    "PowerPoint Document": legacy.load_powerpoint,
    "Workbook": xls.load,
    "Book": xls.load,
    "__properties_version1.0": outlook.load,
}


def parser_of(data: bytes) -> Callable[[bytes], Extracted] | None:
    """What reads the document that the container `data` is; None where it is no container, or broken.

    Raises:
        DocumentError: It is locked with a password, or an archive that holds something else.
    """
    if data.startswith(_ZIP):
        try:
            archive = open_archive(data)
        except DocumentError:
            return None  # the parser that the name asks for says why
        return _of_archive(archive)
    names = legacy.stream_names(data)
    if "EncryptedPackage" in names:
        raise DocumentError("password-protected document: remove the password first")
    return next((parser for stream, parser in _STREAMS.items() if stream in names), None)


def _of_archive(archive: Archive) -> Callable[[bytes], Extracted]:
    kind = ""
    if "mimetype" in archive:
        kind = archive.read("mimetype", _MAX_MIMETYPE_BYTES).decode("ascii", "replace").strip()
    if kind.startswith("application/epub+zip") or "META-INF/container.xml" in archive:
        return epub.load
    if kind.startswith("application/vnd.oasis.opendocument.") and "content.xml" in archive:
        return odf.load
    if _CONTENT_TYPES in archive:
        folders = {name.partition("/")[0].lower() for name in archive.names}
        for folder, parser in _PACKAGES.items():
            if folder in folders:
                return parser
    raise DocumentError("unsupported archive: it is no Word, PowerPoint, Excel, OpenDocument or EPUB file")
