"""The package that Word, PowerPoint and Excel files are: parts in a zip archive, tied by relationships.

ECMA-376 part 2. The strict variant differs in its namespaces only; they are read as the transitional ones.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from ingest.load.archive import Archive, open_archive
from ingest.load.properties import readable
from ingest.load.xml_tree import parse
from rag.errors import DocumentError

RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
DRAWING = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
CHART = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
COMPATIBILITY = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"

_STRICT = re.compile(rb"http://purl\.oclc\.org/ooxml/(\w+)/")
_TRANSITIONAL = rb"http://schemas.openxmlformats.org/\1/2006/"


@dataclass(frozen=True, slots=True)
class Relationship:
    """What one part is to another.

    Attributes:
        kind: The last word of its type: `slide`, `styles`, `notesSlide`.
        target: The other part's name.
    """

    kind: str
    target: str


@dataclass(frozen=True, slots=True)
class Package:
    """An open package.

    Attributes:
        main: Name of the part that holds the document, presentation or workbook.
    """

    archive: Archive
    main: str

    def tree(self, part: str) -> Element:
        """The root element of a part.

        Raises:
            DocumentError: The part is missing, too large or not well-formed.
        """
        return parse(_STRICT.sub(_TRANSITIONAL, self.archive.read(part)), part)

    def related(self, part: str, kind: str) -> Element | None:
        """The first part that is this kind of thing to `part`; None where there is none, or it is missing."""
        return next((self.tree(target) for target in self.targets(part, kind)), None)

    def targets(self, part: str, kind: str) -> list[str]:
        """Names of the parts that are this kind of thing to `part` and are there, none twice."""
        found = (each.target for each in self.relationships(part).values() if each.kind == kind)
        return [target for target in dict.fromkeys(found) if target in self.archive]

    def relationships(self, part: str) -> Mapping[str, Relationship]:
        """By id; without those that lead out of the package."""
        return _relationships(self.archive, part)

    def properties(self) -> Element | None:
        """The core properties; None where there are none, or they are broken."""
        return readable(lambda: self.related("", "core-properties"))


def open_package(data: bytes) -> Package:
    """The package `data`.

    Raises:
        DocumentError: As `open_archive`; or it holds no document.
    """
    archive = open_archive(data)
    mains = [each.target for each in _relationships(archive, "").values() if each.kind == "officeDocument"]
    if not mains:
        raise DocumentError("corrupt: the package does not say which part is the document")
    return Package(archive, mains[0])


def _relationships(archive: Archive, part: str) -> Mapping[str, Relationship]:
    folder, name = posixpath.split(part)
    listing = posixpath.join(folder, "_rels", f"{name}.rels")
    if listing not in archive:
        return {}
    return {
        element.get("Id", ""): Relationship(
            kind=element.get("Type", "").rpartition("/")[2],
            # A target that begins with a slash is absolute, which is how join takes it.
            target=posixpath.normpath(posixpath.join(folder, element.get("Target", "").replace("\\", "/"))).lstrip("/"),
        )
        for element in parse(archive.read(listing), listing)
        if element.get("TargetMode") != "External"
    }
