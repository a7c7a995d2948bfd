"""The numbers and bullets that Word puts before paragraphs; the text of the file does not contain them.

ECMA-376 part 1, section 17.9. Lists with the same abstract definition go on counting from each other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from ingest.load.docx_styles import VALUE, WORD, value_of
from ingest.load.numerals import letters, roman

_PLACE = re.compile(r"%([1-9])")
_MAX_LEVEL = 8


@dataclass(frozen=True, slots=True)
class _Level:
    format: str
    text: str
    start: int
    style: str


class Numbering:
    """Counts the items of all lists; to be asked once per item, in the order of the document.

    Args:
        root: `w:numbering`; None where the file has none.
    """

    def __init__(self, root: Element | None) -> None:
        self._lists: dict[str, str] = {}
        self._levels: dict[str, dict[int, _Level]] = {}
        self._restarts: dict[tuple[str, int], int] = {}
        self._counts: dict[str, dict[int, int]] = {}
        if root is not None:
            self._read(root)

    def marker(self, number: str, level: str, style: str) -> str:
        """What stands before the next item of a list, with a blank: `- `, `1. `, `2.1 `; empty where nothing does.

        Args:
            number: Id of the list.
            level: As written; where it is not, the level that is tied to `style` counts.
            style: Of the paragraph.
        """
        abstract = self._lists.get(number)
        if abstract is None:
            return ""
        levels = self._levels.get(abstract, {})
        tied = next((depth for depth, each in levels.items() if style and each.style == style), 0)
        depth = min(int(level), _MAX_LEVEL) if level.isdecimal() else tied
        definition = levels.get(depth)
        if definition is None or definition.format == "none":
            return ""
        if definition.format == "bullet":
            return "- "
        self._count(number, abstract, depth, levels)
        counts = self._counts[abstract]

        def written(place: re.Match[str]) -> str:
            at = int(place[1]) - 1
            form = levels[at].format if at in levels else "decimal"
            return _formatted(counts.get(at, 1), form)

        text = _PLACE.sub(written, definition.text).strip()
        return f"{text} " if text else ""

    def _count(self, number: str, abstract: str, depth: int, levels: dict[int, _Level]) -> None:
        counts = self._counts.setdefault(abstract, {})
        for above in range(depth):
            counts.setdefault(above, levels[above].start if above in levels else 1)
        restart = self._restarts.pop((number, depth), None)
        if restart is not None:
            counts[depth] = restart
        else:
            counts[depth] = counts[depth] + 1 if depth in counts else levels[depth].start
        for below in [each for each in counts if each > depth]:
            del counts[below]

    def _read(self, root: Element) -> None:
        linked: dict[str, str] = {}  # style of lists -> the abstract definition it is made of
        links: dict[str, str] = {}
        for abstract in root.iter(f"{WORD}abstractNum"):
            name = abstract.get(f"{WORD}abstractNumId", "")
            self._levels[name] = dict(map(_level, abstract.iter(f"{WORD}lvl")))
            if style := value_of(abstract, "styleLink"):
                linked[style] = name
            if style := value_of(abstract, "numStyleLink"):
                links[name] = style
        for each in root.iter(f"{WORD}num"):
            number, abstract_name = each.get(f"{WORD}numId", ""), value_of(each, "abstractNumId")
            abstract_name = linked.get(links.get(abstract_name, ""), abstract_name)
            self._lists[number] = abstract_name
            for override in each.iter(f"{WORD}lvlOverride"):
                depth, start = override.get(f"{WORD}ilvl", ""), value_of(override, "startOverride")
                if depth.isdecimal() and start.isdecimal():
                    self._restarts[number, int(depth)] = int(start)


def _level(element: Element) -> tuple[int, _Level]:
    depth, start = element.get(f"{WORD}ilvl", ""), value_of(element, "start")
    text = element.find(f"{WORD}lvlText")
    return int(depth) if depth.isdecimal() else 0, _Level(
        format=value_of(element, "numFmt") or "decimal",
        text="" if text is None else text.get(VALUE, ""),
        start=int(start) if start.isdecimal() else 1,
        style=value_of(element, "pStyle"),
    )


def _formatted(number: int, form: str) -> str:
    written = {"lowerLetter": letters, "upperLetter": letters, "lowerRoman": roman, "upperRoman": roman}.get(form)
    text = written(number) if written is not None else f"{number:0{2 if form == 'decimalZero' else 1}d}"
    return text.upper() if form.startswith("upper") else text
