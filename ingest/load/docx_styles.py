"""What the styles of a Word file say of a paragraph: that it is a heading, and which list it belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
VALUE = f"{WORD}val"

_HEADING_NAME = re.compile(r"heading ([1-9])", re.IGNORECASE)
_BODY_LEVEL = 9


class Styles:
    """The paragraph styles, each with what it inherits.

    Args:
        root: `w:styles`; None where the file has none.
    """

    def __init__(self, root: Element | None) -> None:
        found = () if root is None else root.iter(f"{WORD}style")
        self._styles = {style.get(f"{WORD}styleId", ""): style for style in found}

    def is_title(self, style: str) -> bool:
        """Whether it is the style that titles have, or made from it."""
        return any(self._name(each) == "title" for each in self._chain(style))

    def is_code(self, style: str) -> bool:
        """Whether each of its paragraphs is a line of a program."""
        return any("code" in name or "preformatted" in name for name in map(self._name, self._chain(style)))

    def heading_level(self, paragraph_properties: Element | None, style: str) -> int | None:
        """1 to 9 for a heading, 1 for a title, None for text."""
        for properties in (paragraph_properties, *self._properties(style)):
            level = value_of(properties, "outlineLvl")
            if level.isdecimal():
                return int(level) + 1 if int(level) < _BODY_LEVEL else None
        names = [_HEADING_NAME.fullmatch(self._name(each)) for each in self._chain(style)]
        named = next((match for match in names if match), None)
        if named is not None:
            return int(named[1])
        return 1 if self.is_title(style) else None

    def list_of(self, paragraph_properties: Element | None, style: str) -> tuple[str, str]:
        """Number id and level of the list a paragraph belongs to; empty where neither it nor its style says."""
        number = level = ""
        for properties in (paragraph_properties, *self._properties(style)):
            listed = None if properties is None else properties.find(f"{WORD}numPr")
            number = number or value_of(listed, "numId")
            level = level or value_of(listed, "ilvl")
        return number, level

    def _chain(self, style: str) -> Iterator[Element]:
        seen: set[str] = set()
        while style in self._styles and style not in seen:
            seen.add(style)
            yield self._styles[style]
            style = value_of(self._styles[style], "basedOn")

    def _properties(self, style: str) -> Iterator[Element | None]:
        return (each.find(f"{WORD}pPr") for each in self._chain(style))

    def _name(self, style: Element) -> str:
        return value_of(style, "name").strip().lower()


def value_of(element: Element | None, child: str) -> str:
    """The value of a property; empty where it is not set."""
    found = None if element is None else element.find(f"{WORD}{child}")
    return "" if found is None else found.get(VALUE, "")
