"""What people noted beside the cells of a sheet or on a slide, and who they are.

ECMA-376 part 1, sections 18.7 and 19.4, and the threads that Office writes since 2019: [MS-XLSX] 2.4.220,
[MS-PPTX] 2.6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from xml.etree.ElementTree import Element

from ingest.load.assembly import spoken, words
from ingest.load.ooxml import DRAWING, Package
from ingest.load.ooxml_graphics import plain
from ingest.load.xml_tree import local_name

_PEOPLE = ("person", "commentAuthors", "authors")
_COMMENTS = frozenset({"cm", "reply"})
_THREAD = "[Threaded comment]"


def people(package: Package) -> dict[str, str]:
    """Names of those who commented, by the id that comments give."""
    found: dict[str, str] = {}
    for kind in _PEOPLE:
        for target in package.targets(package.main, kind):
            for person in package.tree(target):
                found[person.get("id", "")] = words(person.get("displayName") or person.get("name") or "")
    return found


def cell_notes(package: Package, sheet: str, names: Mapping[str, str]) -> Iterator[str]:
    """The notes and threads of a sheet as `B4 (Ann): text`."""
    for target in package.targets(sheet, "comments"):
        root = package.tree(target)
        authors = dict(enumerate(words(each.text or "") for each in root.iter() if local_name(each) == "author"))
        for note in root.iter():
            # A thread is written as a note, too, for older programs.
            if note.get("ref") and not (said := _said(note)).startswith(_THREAD):
                yield spoken(_author(note, authors), said, note.get("ref", ""))
    for target in package.targets(sheet, "threadedComment"):
        for each in package.tree(target).iter():
            if each.get("ref"):
                yield spoken(names.get(each.get("personId", ""), ""), _said(each), each.get("ref", ""))


def slide_comments(package: Package, slide: str, names: Mapping[str, str]) -> Iterator[str]:
    """The comments on a slide as `Ann: text`, each before the replies to it."""
    for target in package.targets(slide, "comments"):
        for each in package.tree(target).iter():
            if local_name(each) in _COMMENTS:
                yield spoken(names.get(each.get("authorId", ""), ""), _said(each))


def _author(note: Element, authors: Mapping[int, str]) -> str:
    written = note.get("authorId", "")
    return authors.get(int(written), "") if written.isdecimal() else ""


def _said(comment: Element) -> str:
    for child in comment:
        if local_name(child) == "text":
            return words("".join(_runs(child)))
        if local_name(child) == "txBody":
            return " ".join(filter(None, map(plain, child.iter(f"{DRAWING}p"))))
    return ""


def _runs(text: Element) -> Iterator[str]:
    """Plain text, or runs without the readings above East Asian characters."""
    yield text.text or ""
    for run in text:
        if local_name(run) == "t":
            yield run.text or ""
        elif local_name(run) == "r":
            yield from (each.text or "" for each in run if local_name(each) == "t")
