"""What stands inside a line of a JATS article: marked-up words, names, formulas, and references."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ingest.load.assembly import words
from ingest.load.xml_tree import local_name

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_UNSEEN = frozenset(
    "annotation annotation-xml contrib-id graphic index-term inline-graphic institution-id media object-id".split()
)
_APART = frozenset("break contrib fn label list-item p subtitle title trans-title".split())
_CITATIONS = frozenset("citation element-citation mixed-citation nlm-citation".split())
_OF_ALTERNATIVES = ("tex-math", "math", "table", "code", "preformat", "mixed-citation", "element-citation")
# A formula may be a whole LaTeX document, whose preamble says nothing.
_LATEX_BODY = re.compile(r"\\begin\{document\}(.*?)\\end\{document\}", re.DOTALL)


def inline(element: Element) -> str:
    """The text of `element`, not yet folded; one of several alternatives, and nothing for pictures and identifiers."""
    return "".join(_pieces(element))


def preferred(alternatives: Element) -> Element | None:
    """The one of `alternatives` that says most as text; None for pictures alone."""
    by_name = {local_name(child): child for child in reversed(list(alternatives))}
    return next((by_name[name] for name in _OF_ALTERNATIVES if name in by_name), None)


def person(element: Element) -> str:
    """A contributor's name as it is spoken, or the name of a group."""
    parts = {local_name(part): words(inline(part)) for part in element.iter()}
    name = " ".join(filter(None, (parts.get("given-names"), parts.get("surname"), parts.get("suffix"))))
    return name or parts.get("collab") or parts.get("string-name") or ""


def citations(reference: Element) -> list[str]:
    """The works that a `ref` names, each on one line; one that is given as fields alone is put into an order."""
    found = [element for element in reference.iter() if local_name(element) in _CITATIONS]
    return [text for element in found if (text := _fields(element) if _is_fields(element) else words(inline(element)))]


def _pieces(element: Element) -> Iterator[str]:
    name = local_name(element)
    if name == "tex-math":
        source = "".join(element.itertext())
        yield match[1] if (match := _LATEX_BODY.search(source)) else source
        return
    if name == "alternatives":
        chosen = preferred(element)
        yield "" if chosen is None else inline(chosen)
        return
    if name == "name" and not _says_itself(element):
        yield " ".join("".join(part.itertext()) for part in element)
        return
    yield " " if name in _APART else ""
    yield element.text or ""
    for child in element:
        if local_name(child) not in _UNSEEN:
            yield from _pieces(child)
        yield child.tail or ""
    yield " " if name in _APART else ""


def _is_fields(element: Element) -> bool:
    return local_name(element) != "mixed-citation" and not _says_itself(element)


def _says_itself(element: Element) -> bool:
    """Has text of its own between its children."""
    return any((text or "").strip() for text in (element.text, *(child.tail for child in element)))


def _fields(element: Element) -> str:
    """Names. Title. Source volume:first–last (year). Identifiers."""

    def field(*names: str) -> str:
        found = (child for child in element if local_name(child) in names)
        return next((text for child in found if (text := words(inline(child)))), "")

    people = [
        words(inline(part)) for part in element.iter() if local_name(part) in ("name", "string-name", "collab", "etal")
    ]
    pages = "–".join(filter(None, (field("fpage", "elocation-id"), field("lpage"))))
    place = ":".join(filter(None, (field("volume"), pages)))
    year = field("year")
    where = " ".join(filter(None, (field("source"), place, f"({year})" if year else "")))
    title = field("article-title", "data-title", "chapter-title", "part-title")
    identifiers = [
        f"{(child.get('pub-id-type') or 'id').upper()}: {words(inline(child))}"
        for child in element
        if local_name(child) == "pub-id"
    ]
    sentences = (", ".join(people), title, where, field("publisher-name"), ", ".join(identifiers), field("ext-link"))
    return ". ".join(sentence.rstrip(".") for sentence in sentences if sentence)
