"""An HTML tree to text that keeps its blocks: paragraphs, headings, lists, tables, preformatted text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ingest.load.decoding import clean
from ingest.load.table_spans import SpannedRows, span
from rag.types import Heading

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

_MAX_HEADING_CHARACTERS = 300
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_LISTS = frozenset({"ul", "ol", "menu", "dir", "dl"})
_CELLS = frozenset({"td", "th"})
_ROW_GROUPS = frozenset({"thead", "tbody", "tfoot"})
_PREFORMATTED = frozenset({"pre", "listing", "xmp", "plaintext"})
_LINES = frozenset({"tr", "li", "dt", "dd", "option", "legend"})
_BLOCKS = frozenset(
    "address article aside blockquote body caption center details dialog div fieldset figcaption figure footer form "
    "header hgroup hr main nav optgroup p search section summary table".split()
)
# A row that holds one of these is layout, or a listing with line numbers: its cells are blocks, not columns.
_NOT_IN_A_ROW = _HEADINGS | _PREFORMATTED | {"table"}
_WHITE_SPACE = re.compile(r"[ \t\n\f\r]+")
_SOFT_HYPHEN = "\u00ad"


def render(root: LexborNode, dropped: frozenset[str], hidden: frozenset[int]) -> tuple[str, tuple[Heading, ...]]:
    """The text under `root`, and its headings, each starting where its words do.

    Blocks are parted by a blank line, list items and table rows by a line end; an item begins with `- ` or its number,
    the cells of a row are parted by ` | `, and one that spans rows or columns is repeated in each.

    Args:
        root: Where to start.
        dropped: Tags that are left out with all they hold.
        hidden: `mem_id` of the nodes to leave out.
    """
    layout_rows = _layout_rows(root, dropped, hidden)
    writer = _Writer()
    for node, entering in _walk(root, dropped, hidden):
        tag = node.tag or ""
        if tag == "-text":
            if entering:
                writer.write(node.text_content or "")
        elif entering:
            _enter(writer, node, tag, layout=node.mem_id in layout_rows)
        else:
            _leave(writer, node, tag)
    return "".join(writer.parts), tuple(writer.headings)


def _walk(root: LexborNode, dropped: frozenset[str], hidden: frozenset[int]) -> Iterator[tuple[LexborNode, bool]]:
    """Every node on the way in (True) and on the way out (False), without recursion, for trees are deep."""
    ancestors: list[LexborNode] = []
    node: LexborNode | None = root
    while node is not None:
        if node.tag not in dropped and node.mem_id not in hidden:
            yield node, True
            if (child := node.first_child) is not None:
                ancestors.append(node)
                node = child
                continue
            yield node, False
        following = node.next if ancestors else None  # what follows the root is none of its own
        while following is None and ancestors:
            ancestor = ancestors.pop()
            yield ancestor, False
            following = ancestor.next if ancestors else None
        node = following


def _layout_rows(root: LexborNode, dropped: frozenset[str], hidden: frozenset[int]) -> set[int]:
    rows: list[int] = []
    layout: set[int] = set()
    for node, entering in _walk(root, dropped, hidden):
        if node.tag == "tr":
            if entering:
                rows.append(node.mem_id)
            else:
                rows.pop()
        elif entering and rows and node.tag in _NOT_IN_A_ROW:
            layout.add(rows[-1])
    return layout


@dataclass(slots=True)
class _Capture:
    """The text of an element that is written as one piece when it ends."""

    owner: int
    preformatted: bool = False
    pieces: list[str] = field(default_factory=list)

    def text(self) -> str:
        text = clean("".join(self.pieces)).replace(_SOFT_HYPHEN, "")
        return text.strip("\n") if self.preformatted else " ".join(_WHITE_SPACE.split(text)).strip()


class _Writer:
    """Pieces of text with the breaks between them; a break is written only when text follows."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.headings: list[Heading] = []
        self.capture: _Capture | None = None
        self.row: list[tuple[str, int, int]] | None = None  # text, row span and column span of each cell
        self.row_owner = 0
        self.tables: list[SpannedRows] = []  # the open ones
        self.lists: list[int | None] = []  # the next number of each open list, None where it has none
        self._length = 0
        self._breaks = 0
        self._space = False
        self._marker = ""

    def write(self, source: str) -> None:
        if self.capture is not None:
            self.capture.pieces.append(source)
            return
        text = _WHITE_SPACE.sub(" ", clean(source).replace(_SOFT_HYPHEN, ""))
        words = text.strip(" ")
        self._space = self._space or text.startswith(" ")
        if words:
            self.emit(words)
            self._space = text.endswith(" ")

    def emit(self, text: str) -> int:
        """Writes `text` as it is after the breaks that are due; returns where it starts."""
        before = ("\n" * self._breaks or " " * self._space) if self._length else ""
        before += self._marker
        self._breaks, self._space, self._marker = 0, False, ""
        self.parts += (before, text)
        start = self._length + len(before)
        self._length = start + len(text)
        return start

    def block(self, lines: int) -> None:
        """What follows stands `lines` line ends or more from what was; in a capture, a blank or one line end."""
        if lines == 0:
            return
        if self.capture is not None:
            self.capture.pieces.append("\n" if self.capture.preformatted else " ")
        else:
            self._breaks = max(self._breaks, lines)

    def line_break(self) -> None:
        if self.capture is None:
            self._breaks = min(2, self._breaks + 1)
        else:
            self.capture.pieces.append("\n")

    def mark(self, marker: str) -> None:
        """What stands before the next text; without text in between, the last marker holds."""
        if self.capture is None:
            self._marker = marker

    @property
    def gap(self) -> int:
        """Line ends between blocks: a blank line, but not inside a list."""
        return 1 if self.lists else 2


def _enter(writer: _Writer, node: LexborNode, tag: str, *, layout: bool) -> None:
    if tag == "br":
        writer.line_break()
    elif tag == "img":
        writer.write(f" {node.attributes.get('alt') or ''} ")
    elif tag in _LISTS:
        writer.block(writer.gap)
        writer.lists.append(_first_number(node) if tag == "ol" else None)
    elif tag in _HEADINGS or tag in _PREFORMATTED:
        writer.block(writer.gap)
        if writer.capture is None:
            writer.capture = _Capture(node.mem_id, preformatted=tag in _PREFORMATTED)
    elif tag == "tr" and writer.capture is None and not layout:
        writer.block(1)
        writer.row, writer.row_owner = [], node.mem_id
    elif tag in _CELLS and writer.capture is None and writer.row is not None:
        writer.capture = _Capture(node.mem_id)
    else:
        writer.block(_lines(writer, tag))
        if tag == "li":
            _mark_item(writer, node)
        elif tag == "table":
            writer.tables.append(SpannedRows())


def _leave(writer: _Writer, node: LexborNode, tag: str) -> None:
    if writer.capture is not None and writer.capture.owner == node.mem_id:
        _finish(writer, node, tag)
    elif tag == "tr" and writer.row is not None and writer.row_owner == node.mem_id:
        row, writer.row = writer.row, None
        if seen := (writer.tables[-1] if writer.tables else SpannedRows()).row(row):
            writer.emit(" | ".join(seen).strip())
        writer.block(1)
    elif tag in _LISTS:
        writer.lists.pop()
        writer.block(writer.gap)
    elif tag != "br":
        writer.block(_lines(writer, tag))
        if tag == "li":
            writer.mark("")
        elif tag == "table":
            writer.tables.pop()
        elif tag in _ROW_GROUPS and writer.tables:
            writer.tables[-1].end_group()


def _finish(writer: _Writer, node: LexborNode, tag: str) -> None:
    capture, writer.capture = writer.capture, None
    text = capture.text() if capture is not None else ""
    if tag in _CELLS and writer.row is not None:
        writer.row.append((text, span(node.attributes.get("rowspan")), span(node.attributes.get("colspan"))))
        return
    if text.strip():
        start = writer.emit(text)
        if tag in _HEADINGS and len(text) <= _MAX_HEADING_CHARACTERS:
            writer.headings.append(Heading(start=start, level=int(tag[1]), text=text))
    writer.block(writer.gap)


def _lines(writer: _Writer, tag: str) -> int:
    if tag in _LINES:
        return 1
    return writer.gap if tag in _BLOCKS or tag in _CELLS else 0


def _first_number(node: LexborNode) -> int:
    start = node.attributes.get("start") or ""
    return int(start) if re.fullmatch(r"-?\d{1,9}", start) else 1


def _mark_item(writer: _Writer, node: LexborNode) -> None:
    number = writer.lists[-1] if writer.lists else None
    if number is None:
        writer.mark("- ")
        return
    value = node.attributes.get("value") or ""
    number = int(value) if re.fullmatch(r"-?\d{1,9}", value) else number
    writer.mark(f"{number}. ")
    writer.lists[-1] = number + 1
