"""JATS, the XML of journal articles: title, abstracts, sections, tables and references as text.

Tags are those of NISO JATS (Z39.96), whether for archiving, publishing or authoring.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ingest.load.assembly import Assembly, words
from ingest.load.extracted import Extracted
from ingest.load.jats_inline import citations, inline, person, preferred
from ingest.load.properties import metadata
from ingest.load.table_spans import SpannedRows, span
from ingest.load.xml_tree import local_name, parse
from rag.errors import DocumentError
from rag.types import Scalar

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_DEEPEST_LEVEL = 6
# Either no words for a reader, or written by the element around them.
_SILENT = frozenset("caption graphic label media object-id permissions processing-meta sec-meta subtitle title".split())
_CAPTIONED = frozenset({"table-wrap", "fig", "supplementary-material", "boxed-text"})
_BLOCKS = _CAPTIONED | frozenset(
    "chem-struct-wrap code def-list disp-formula disp-formula-group disp-quote fig-group list preformat statement "
    "table-wrap-group verse-group".split()
)
_UNTITLED = {"abstract": "Abstract", "ack": "Acknowledgements", "ref-list": "References"}


def load(data: bytes) -> Extracted:
    """An article: title, authors, abstracts, body, back matter, and the letters published with it.

    Raises:
        DocumentError: Other XML, XML that is not well-formed or declares entities, or elements nested hundreds deep.
    """
    root = parse(data, "the file")
    # Repositories deliver articles inside envelopes, and not every element of this name is a journal's article.
    article = next((element for element in root.iter() if local_name(element) == "article"), root)
    front = _child(article, "front")
    if front is None:
        raise DocumentError(
            f"unsupported XML with the root element {local_name(root)}; of XML, JATS articles and XHTML pages are read"
        )
    assembly = Assembly()
    try:
        _write_article(assembly, article, front, level=1)
    except RecursionError as error:
        raise DocumentError("its elements are nested deeper than any article's; convert it by hand") from error
    return assembly.extracted(
        title=_text(_meta(front), "title-group/article-title") or None,
        metadata=_metadata(article, front),
        media_type="application/jats+xml",
    )


def _write_article(assembly: Assembly, article: Element, front: Element, *, level: int) -> None:
    meta = _meta(front)
    assembly.heading(level, _text(meta, "title-group/article-title"))
    assembly.paragraph(", ".join(_authors(meta)))
    assembly.paragraph("; ".join(_affiliations(meta)))
    for abstract in (*_all(meta, "abstract"), *_all(meta, "trans-abstract")):
        _write_section(assembly, abstract, level + 1)
    keywords = _keywords(meta)
    assembly.paragraph(f"Keywords: {', '.join(keywords)}" if keywords else "")
    for part in article:
        name = local_name(part)
        if name in ("body", "back", "floats-group"):
            _write_blocks(assembly, part, level + 1)
        elif name in ("sub-article", "response"):
            inner = _child(part, "front-stub")
            _write_article(assembly, part, part if inner is None else inner, level=level + 1)


def _write_section(assembly: Assembly, section: Element, level: int) -> None:
    title = _text(section, "title") or _UNTITLED.get(local_name(section), "")
    heading = f"{_text(section, 'label')} {title}".strip()
    assembly.heading(min(level, _DEEPEST_LEVEL), heading)
    _write_blocks(assembly, section, level + 1 if heading else level)


def _write_blocks(assembly: Assembly, parent: Element, level: int) -> None:
    for element in parent:
        _write_block(assembly, element, level)


def _write_block(assembly: Assembly, element: Element, level: int) -> None:
    name = local_name(element)
    if name in _SILENT:
        return
    if name == "p":
        _write_paragraph(assembly, element, level)
    elif name in ("list", "def-list"):
        assembly.paragraph("\n".join(_items(element)))
    elif name == "ref":
        for citation in citations(element) or [words(inline(element))]:
            assembly.line(f"- {citation}")
    elif name == "table":
        assembly.paragraph("\n".join(_rows(element)))
    elif name in _CAPTIONED:
        captions = [_text(element, part) for part in ("label", "caption")]
        assembly.paragraph(" ".join(filter(None, captions)))
        _write_blocks(assembly, element, level)
    elif name in ("preformat", "code"):
        assembly.paragraph(inline(element))
    elif name == "alternatives":
        if (chosen := preferred(element)) is not None:
            _write_block(assembly, chosen, level)
    elif name in ("fn", "disp-formula") or not len(element) or (element.text or "").strip():
        assembly.paragraph(words(inline(element)))
    else:
        _write_section(assembly, element, level)


def _write_paragraph(assembly: Assembly, paragraph: Element, level: int) -> None:
    """A paragraph; lists, tables and displayed formulas inside it are blocks of their own."""
    pieces = [paragraph.text or ""]
    for child in paragraph:
        if local_name(child) in _BLOCKS:
            assembly.paragraph(words("".join(pieces)))
            pieces = []
            _write_block(assembly, child, level)
        else:
            pieces.append(inline(child))
        pieces.append(child.tail or "")
    assembly.paragraph(words("".join(pieces)))


def _items(listing: Element) -> Iterator[str]:
    numbered = listing.get("list-type") == "order"
    number = 0
    if title := _text(listing, "title"):
        yield title
    for item in listing:
        name = local_name(item)
        if name == "def-item":
            yield ": ".join(filter(None, (_text(item, "term"), _text(item, "def"))))
        elif name == "list-item":
            number += 1
            label = _text(item, "label") or (f"{number}." if numbered else "-")
            inner = [child for child in item if local_name(child) in ("list", "def-list")]
            own = [inline(child) for child in item if child not in inner and local_name(child) != "label"]
            yield f"{label} {words(' '.join(own))}"
            for nested in inner:
                yield from _items(nested)


def _rows(table: Element) -> Iterator[str]:
    spanned = SpannedRows()
    for element in table.iter():
        name = local_name(element)
        if name in ("thead", "tbody", "tfoot"):
            spanned.end_group()
        elif name == "tr":
            row = [
                (words(inline(cell)), span(cell.get("rowspan")), span(cell.get("colspan")))
                for cell in element
                if local_name(cell) in ("td", "th")
            ]
            if line := " | ".join(spanned.row(row)).strip():
                yield line


def _metadata(article: Element, front: Element) -> dict[str, Scalar | list[str]]:
    meta = _meta(front)
    doi = next((words(inline(found)) for found in _all(meta, "article-id") if found.get("pub-id-type") == "doi"), "")
    language = next((value for name, value in article.attrib.items() if name.endswith("}lang")), "")
    found = metadata(
        {
            "author": _authors(meta),
            "journal": [_text(front, "journal-meta/journal-title-group/journal-title")],
            "doi": [doi],
            "keywords": _keywords(meta),
            "language": [language],
        }
    )
    year = _text(meta, "pub-date/year")
    return {**found, "year": int(year)} if re.fullmatch("[0-9]{4}", year) else found


def _contributors(meta: Element) -> list[Element]:
    """The elements of the authors; editors and reviewers have the same ones."""
    contributors = [found for group in _all(meta, "contrib-group") for found in _all(group, "contrib")]
    return [found for found in contributors if found.get("contrib-type", "author") == "author"]


def _authors(meta: Element) -> list[str]:
    return [name for found in _contributors(meta) if (name := person(found))]


def _affiliations(meta: Element) -> list[str]:
    contributors = _contributors(meta)
    groups = [group for group in _all(meta, "contrib-group") if any(found in contributors for found in group)]
    owners = (meta, *groups, *contributors)
    return list(dict.fromkeys(filter(None, (_affiliation(found) for owner in owners for found in _all(owner, "aff")))))


def _affiliation(element: Element) -> str:
    parts = [words(inline(part)) for part in element if local_name(part) != "label"]
    written = [element.text, *(part.tail for part in element)]
    if any((text or "").strip(" \t\r\n,;") for text in written):
        return words("".join([element.text or "", *(f"{inline(part)}{part.tail or ''}" for part in element)]))
    return ", ".join(filter(None, parts))


def _keywords(meta: Element) -> list[str]:
    return [text for group in _all(meta, "kwd-group") for found in _all(group, "kwd") if (text := words(inline(found)))]


def _meta(front: Element) -> Element:
    """The `article-meta`; a `front-stub` has its elements itself."""
    meta = _child(front, "article-meta")
    return front if meta is None else meta


def _text(element: Element, path: str) -> str:
    found: Element | None = element
    for name in path.split("/"):
        found = None if found is None else _child(found, name)
    return "" if found is None else words(inline(found))


def _child(element: Element, name: str) -> Element | None:
    return next(iter(_all(element, name)), None)


def _all(element: Element, name: str) -> list[Element]:
    return [child for child in element if local_name(child) == name]
