"""EPUB: the chapters in reading order, each read as the web page it is.

EPUB 3.3 (and 2.0.1): META-INF/container.xml names the package document, whose spine lists the chapters.
"""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from ingest.load.archive import Archive, open_archive
from ingest.load.assembly import Assembly
from ingest.load.decoding import decode
from ingest.load.extracted import Extracted
from ingest.load.html_blocks import render
from ingest.load.html_bounds import bounded
from ingest.load.properties import metadata_of, title_of
from ingest.load.xml_tree import local_name, parse
from rag.errors import DocumentError
from rag.types import Heading

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = frozenset({"application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document"})
_DROPPED = frozenset("head script style template noscript svg iframe object canvas audio video nav".split())
# Fonts are scrambled with these so that they are not copied; the text is open.
_FONT_SCRAMBLING = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
# A tag that closes itself is open to an HTML parser: of a title or a script it would swallow the page.
_TAG = re.compile(r"<([A-Za-z][\w:.-]*+)([^<>]*+)>")
_VOID = frozenset("area base br col embed hr img input link meta param source track wbr".split())


def load(data: bytes) -> Extracted:
    """The text of a book; tables of contents that it lists among its chapters are left out.

    Raises:
        DocumentError: The file is corrupt, protected by DRM, or would expand beyond the limits of an archive.
    """
    archive = open_archive(data)
    _refuse_protected(archive)
    package, root = _package(archive)
    out = Assembly()
    for chapter in _chapters(root, posixpath.dirname(package)):
        if chapter in archive:
            out.append(*_page(archive.read(chapter)))
    metadata = next((element for element in root if local_name(element) == "metadata"), None)
    return out.extracted(
        title=title_of(metadata) or out.first_heading,
        metadata=metadata_of(metadata),
        media_type="application/epub+zip",
    )


def _package(archive: Archive) -> tuple[str, Element]:
    """The package document and its name."""
    for element in parse(archive.read(_CONTAINER), _CONTAINER).iter():
        if local_name(element) == "rootfile" and (name := element.get("full-path", "")):
            return name, parse(archive.read(name), name)
    raise DocumentError("corrupt: the book does not name its package document")


def _chapters(package: Element, folder: str) -> list[str]:
    """Names of the pages in the order of the spine, none twice, without the table of contents."""
    items = {item.get("id"): item for item in package.iter() if local_name(item) == "item"}
    references = (each.get("idref") for each in package.iter() if local_name(each) == "itemref")
    spine = [items[reference] for reference in dict.fromkeys(references) if reference in items]
    return list(
        dict.fromkeys(
            posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))
            for item in spine
            if item.get("media-type", "") in _PAGES and "nav" not in item.get("properties", "").split()
        )
    )


def _page(data: bytes) -> tuple[str, tuple[Heading, ...]]:
    from selectolax.lexbor import LexborHTMLParser

    if not data.strip():
        return "", ()
    source = _TAG.sub(_closed, decode(data))
    tree = LexborHTMLParser(bounded(source))
    hidden = frozenset(node.mem_id for node in tree.css('[hidden]:not([hidden="until-found"])'))
    return ("", ()) if tree.body is None else render(tree.body, _DROPPED, hidden)


def _closed(tag: re.Match[str]) -> str:
    if not tag[2].endswith("/") or tag[1].lower() in _VOID:
        return tag[0]
    return f"<{tag[1]}{tag[2][:-1]}></{tag[1]}>"


def _refuse_protected(archive: Archive) -> None:
    if _ENCRYPTION not in archive:
        return
    for element in parse(archive.read(_ENCRYPTION), _ENCRYPTION).iter():
        if local_name(element) == "EncryptionMethod" and element.get("Algorithm") not in _FONT_SCRAMBLING:
            raise DocumentError("protected by DRM: only a copy without it can be read")
