"""What the styles of an OpenDocument file say: which paragraphs are titles, and how lists are marked.

OpenDocument 1.3 part 3, sections 16 and 19.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from ingest.load.numerals import letters, roman

TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
STYLE = "{urn:oasis:names:tc:opendocument:xmlns:style:1.0}"
OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"


class Styles:
    """The styles of a document.

    Args:
        content: Root of content.xml.
        styles: Root of styles.xml; None where the file has none.
    """

    def __init__(self, content: Element, styles: Element | None) -> None:
        self._paragraphs: dict[str, Element] = {}
        self._lists: dict[str, dict[int, Element]] = {}
        # The automatic styles of styles.xml are those of headers and footers, with names of their own.
        common = None if styles is None else styles.find(f"{OFFICE}styles")
        for group in (common, content.find(f"{OFFICE}automatic-styles")):
            for style in () if group is None else group:
                self._add(style)

    def is_title(self, name: str) -> bool:
        """Whether a paragraph style is that of titles, or made from it."""
        parents = (style.get(f"{STYLE}parent-style-name") for style in self._chain(name))
        return name == "Title" or "Title" in parents

    def is_code(self, name: str) -> bool:
        """Whether each paragraph of the style is a line of a program."""
        names = (style.get(f"{STYLE}name", "") for style in self._chain(name))
        return any("Preformatted" in each or "Code" in each for each in names)

    def is_numbered(self, name: str) -> bool:
        """Whether paragraphs of the style show the marker of the list they are in."""
        for style in self._chain(name):
            properties = style.find(f"{STYLE}paragraph-properties")
            numbered = None if properties is None else properties.get(f"{TEXT}enable-numbering")
            if numbered is not None:
                return numbered != "false"
        return True

    def list_of(self, name: str) -> str:
        """The list style that a paragraph style brings along; empty where it does not."""
        return next(filter(None, (style.get(f"{STYLE}list-style-name", "") for style in self._chain(name))), "")

    def marker(self, list_style: str, level: int, numbers: list[int]) -> str:
        """What stands before an item, with a blank: `- `, `1. `, `2.1 `; empty where nothing does.

        Args:
            list_style: Name of the list style; of an unknown one bullets are assumed.
            level: From 1.
            numbers: Of the item and those around it, the outermost first.
        """
        if list_style not in self._lists:
            return "- "
        definition = self._lists[list_style].get(level)
        if definition is None:
            return ""
        if definition.tag == f"{TEXT}list-level-style-bullet":
            return "- " if definition.get(f"{TEXT}bullet-char", "").strip() else ""
        if definition.tag != f"{TEXT}list-level-style-number":
            return "- "  # a picture
        form = definition.get(f"{STYLE}num-format", "")
        if not form:
            return ""
        shown = _integer(definition.get(f"{TEXT}display-levels"), 1)
        written = ".".join(_formatted(number, form) for number in numbers[-shown:])
        return (
            f"{definition.get(f'{STYLE}num-prefix', '')}{written}{definition.get(f'{STYLE}num-suffix', '')}".strip()
            + " "
        )

    def first_number(self, list_style: str, level: int) -> int:
        """The number a list begins with."""
        definition = self._lists.get(list_style, {}).get(level)
        return 1 if definition is None else _integer(definition.get(f"{TEXT}start-value"), 1)

    def _add(self, style: Element) -> None:
        name = style.get(f"{STYLE}name", "")
        if style.tag == f"{TEXT}list-style":
            self._lists[name] = {_integer(level.get(f"{TEXT}level"), 1): level for level in style}
        elif style.tag == f"{STYLE}style" and style.get(f"{STYLE}family") == "paragraph":
            self._paragraphs[name] = style

    def _chain(self, name: str) -> Iterator[Element]:
        seen: set[str] = set()
        while name in self._paragraphs and name not in seen:
            seen.add(name)
            yield self._paragraphs[name]
            name = self._paragraphs[name].get(f"{STYLE}parent-style-name", "")


def _formatted(number: int, form: str) -> str:
    written = {"a": letters, "A": letters, "i": roman, "I": roman}.get(form)
    text = written(number) if written is not None else str(number)
    return text.upper() if form.isupper() else text


def _integer(written: str | None, default: int) -> int:
    return int(written) if written is not None and written.isdecimal() else default
