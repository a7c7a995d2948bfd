"""The bullets and numbers that PowerPoint puts before paragraphs, which are often only the layout's or the master's.

ECMA-376 part 1, sections 19.3.1 and 21.1.2.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from xml.etree.ElementTree import Element

from ingest.load.numerals import letters, roman
from ingest.load.ooxml import DRAWING

PRESENTATION = "{http://schemas.openxmlformats.org/presentationml/2006/main}"

_BODY = frozenset({"", "body", "obj"})
_LEVELS = 9


class Bullets:
    """The markers of one slide's shapes.

    Args:
        above: The slide's layout, then its master, as far as there are any.
    """

    def __init__(self, above: Sequence[Element]) -> None:
        self._above = above

    def markers(self, shape: Element, paragraphs: Sequence[Element]) -> Iterator[str]:
        """What stands before each of a shape's paragraphs, with a blank; empty where nothing does."""
        inherited = self._inherited(shape)
        counts: dict[int, int] = {}
        for paragraph in paragraphs:
            properties = paragraph.find(f"{DRAWING}pPr")
            level = _level(properties)
            bullet = _first(map(_bullet, (properties, *(_of_level(style, level) for style in inherited))))
            # An empty paragraph shows no number and takes none.
            if next(paragraph.iter(f"{DRAWING}t"), None) is None:
                yield ""
                continue
            for below in [each for each in counts if each > level]:
                del counts[below]
            if bullet is None or bullet.tag != f"{DRAWING}buAutoNum":
                counts.pop(level, None)
                yield "" if bullet is None or bullet.tag == f"{DRAWING}buNone" else "- "
                continue
            start = bullet.get("startAt", "1")
            counts[level] = counts[level] + 1 if level in counts else int(start) if start.isdecimal() else 1
            yield _numbered(counts[level], bullet.get("type", ""))

    def _inherited(self, shape: Element) -> list[Element]:
        """The list styles that hold for a shape, the nearest first."""
        styles = [shape.find(f"{PRESENTATION}txBody/{DRAWING}lstStyle")]
        placeholder = placeholder_of(shape)
        if placeholder is not None and placeholder.get("type", "") in _BODY:
            for sheet in self._above:
                styles += [
                    other.find(f"{PRESENTATION}txBody/{DRAWING}lstStyle")
                    for other in sheet.iter(f"{PRESENTATION}sp")
                    if _matches(placeholder, placeholder_of(other))
                ]
            styles += [sheet.find(f"{PRESENTATION}txStyles/{PRESENTATION}bodyStyle") for sheet in self._above]
        return [style for style in styles if style is not None]


def placeholder_of(shape: Element) -> Element | None:
    """Which of the layout's places a shape fills; None where it is one of its own."""
    return next(shape.iter(f"{PRESENTATION}ph"), None)


def _matches(placeholder: Element, other: Element | None) -> bool:
    if other is None:
        return False
    if placeholder.get("idx") is not None and placeholder.get("idx") == other.get("idx"):
        return True
    return other.get("type") == "body" and other.get("idx") in (None, "1") and placeholder.get("idx") in (None, "1")


def _level(properties: Element | None) -> int:
    level = "" if properties is None else properties.get("lvl", "")
    return min(int(level), _LEVELS - 1) if level.isdecimal() else 0


def _of_level(style: Element, level: int) -> Element | None:
    return style.find(f"{DRAWING}lvl{level + 1}pPr")


def _bullet(properties: Element | None) -> Element | None:
    kinds = ("buNone", "buAutoNum", "buChar", "buBlip")
    return None if properties is None else _first(properties.find(f"{DRAWING}{kind}") for kind in kinds)


def _first(found: Iterable[Element | None]) -> Element | None:
    return next((each for each in found if each is not None), None)


def _numbered(number: int, kind: str) -> str:
    written = str(number)
    if kind.startswith("alpha"):
        written = letters(number)
    elif kind.startswith("roman"):
        written = roman(number)
    if "Uc" in kind:
        written = written.upper()
    if kind.endswith("ParenBoth"):
        return f"({written}) "
    return f"{written}) " if kind.endswith("ParenR") else f"{written}. "
