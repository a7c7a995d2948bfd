"""The lines of a PDF page in reading order, as text; and headings by how they are printed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from statistics import median

from ingest.load.pdf_outline import Bookmark
from ingest.load.pdf_page import Cell, Line

CELL_SEPARATOR = " | "

# Two columns that are written line by line across the page: so many lines, so long, with so much of the width filled.
_MIN_COLUMN_LINES = 5
_MIN_COLUMN_CHARACTERS = 22
_MIN_COLUMN_FILL = 0.8
# In sizes of the font: what stands lower belongs to no column above it.
_COLUMN_GAP = 3.5
# The time taken grows with the square of the lines; a page of more, such as a map, has no reading order.
_MAX_ARRANGED_LINES = 1_000
# Places that a person would call the same, in points.
_ALIGNED = 3.0

_MIN_TABLE_ROWS = 3
_MARKER = re.compile(r"\W{1,2}|\(?\w{1,4}[.)]|\d[\d.]{0,6}[.)]?")

_LARGER = 1.15
_MAX_HEADING_LINES = 3
_MAX_HEADING_CHARACTERS = 200
_MAX_HEADING_LEVEL = 6
# A running title stands on at least so many pages.
_RUNNING_PAGES = 3
# Where more of the text than this is printed as headings are, print says nothing: a poster, a set of slides.
_MAX_HEADING_SHARE = 0.25
_SENTENCE_END = re.compile(r"[.!?:;。！？][\"'”’)\]]*$")


def arranged(lines: Sequence[Line]) -> list[Line]:
    """Lines in reading order: as the content names them, but for columns written across and tables written last."""
    if len(lines) > _MAX_ARRANGED_LINES:
        return list(lines)
    return _filled_in(_columns_apart(lines))


def _columns_apart(lines: Sequence[Line]) -> list[Line]:
    result: list[Line] = []
    start = 0
    while start < len(lines):
        stop = start
        if len(lines[start].cells) == 2:
            gutter = (lines[start].cells[0].right, lines[start].cells[1].left)
            while stop < len(lines) and (stop == start or _is_near(lines[stop - 1], lines[stop])):
                narrowed = _narrowed(gutter, lines[stop])
                if narrowed is None:
                    break
                gutter = narrowed
                stop += 1
        run = lines[start:stop]
        if _is_two_columns(run):
            for side in (0, 1):
                result += [replace(line, cells=(cell,)) for line in run for cell in _of_side(line, gutter, side)]
            start = stop
        else:
            result.append(lines[start])
            start += 1
    return result


def _is_near(above: Line, line: Line) -> bool:
    return above.base - line.base < _COLUMN_GAP * max(above.size, line.size)


def _narrowed(gutter: tuple[float, float], line: Line) -> tuple[float, float] | None:
    """What a line leaves of the blank strip between two columns; None where it crosses it."""
    left, right = gutter
    for cell in line.cells:
        if cell.right <= right - 1 and cell.left < left:
            left = max(left, cell.right)
        elif cell.left >= left + 1 and cell.right > right:
            right = min(right, cell.left)
        else:
            return None
    return (left, right) if left < right and len(line.cells) <= 2 else None


def _of_side(line: Line, gutter: tuple[float, float], side: int) -> Iterator[Cell]:
    for cell in line.cells:
        if (cell.left >= gutter[1] - 1) == bool(side):
            yield cell


def _is_two_columns(run: Sequence[Line]) -> bool:
    """Text rather than a table: on both sides long lines that nearly all fill their column."""
    across = [line for line in run if len(line.cells) == 2]
    if len(across) < _MIN_COLUMN_LINES or len({line.base for line in across}) < len(across):
        return False
    for side in (0, 1):
        cells = [line.cells[side] for line in across]
        widths = [cell.right - cell.left for cell in cells]
        if median(len(cell.text) for cell in cells) < _MIN_COLUMN_CHARACTERS:
            return False
        if median(widths) < _MIN_COLUMN_FILL * max(widths):
            return False
    return True


def _filled_in(lines: Sequence[Line]) -> list[Line]:
    """Every block that was written after the text around it, in the gap that this text leaves for it."""
    blocks: list[list[Line]] = []
    for line in lines:
        if blocks and line.base <= blocks[-1][-1].base:
            blocks[-1].append(line)
        else:
            blocks.append([line])
    result: list[Line] = []
    for block in blocks:
        place = _gap_for(block, result)
        result[place:place] = block
    return result


def _gap_for(block: Sequence[Line], before: Sequence[Line]) -> int:
    top, bottom = block[0].base, block[-1].base
    for place, (above, below) in enumerate(pairwise(before), start=1):
        if above.base > top and bottom > below.base and _overlap(block, above) and _overlap(block, below):
            return place
    return len(before)


def _overlap(block: Sequence[Line], line: Line) -> bool:
    left, right = min(one.cells[0].left for one in block), max(one.cells[-1].right for one in block)
    return line.cells[0].left < right and left < line.cells[-1].right


def page_text(lines: Sequence[Line]) -> str:
    """One line per line, a blank line where the page shows one or the print changes, table rows with bars."""
    rows = _rows(lines)
    usual = _usual_leading(lines)
    parts: list[str] = []
    for index, line in enumerate(lines):
        if index:
            is_table = rows[index - 1] and rows[index]
            parts.append("\n\n" if not is_table and _begins_block(lines[index - 1], line, usual) else "\n")
        text = CELL_SEPARATOR.join(cell.text for cell in line.cells) if rows[index] else line.text
        parts.append(text + "-" if line.broken else text)
    return "".join(parts)


def _rows(lines: Sequence[Line]) -> list[bool]:
    """Which lines are rows of a table: of three cells, or of two in a row of lines that all have the second there."""
    rows = [len(line.cells) >= 3 and not _MARKER.fullmatch(line.text) for line in lines]
    start = 0
    for _, group in groupby(lines, _second_cell):
        size = len(list(group))
        if size >= _MIN_TABLE_ROWS and _second_cell(lines[start]) is not None:
            rows[start : start + size] = [True] * size
        start += size
    return rows


def _second_cell(line: Line) -> int | None:
    if len(line.cells) != 2 or _MARKER.fullmatch(line.cells[0].text):
        return None
    return round(line.cells[1].left / _ALIGNED)


def _usual_leading(lines: Sequence[Line]) -> float:
    gaps = [above.base - below.base for above, below in pairwise(lines)]
    usual = [gap for gap, line in zip(gaps, lines, strict=False) if 0.5 * line.size < gap < 3 * line.size]
    return median(usual) if usual else 0.0


def _begins_block(above: Line, line: Line, usual: float) -> bool:
    if above.broken:
        return False
    if _is_other_print(above, line) and min(len(above.text), len(line.text)) > 2:
        return True
    goes_on = line.text[0].islower() and not _SENTENCE_END.search(above.text)
    gap = above.base - line.base
    return gap > 1.4 * usual and gap > 1.3 * max(above.size, line.size) and not goes_on


def _is_other_print(above: Line, line: Line) -> bool:
    larger, smaller = max(above.size, line.size), min(above.size, line.size)
    return larger > 1.1 * smaller or above.bold != line.bold


def printed_headings(pages: Sequence[Sequence[Line]]) -> list[Bookmark]:
    """Lines printed larger than the text, or bold where the text is not; levels by size, the largest is 1."""
    every = [line for page in pages for line in page]
    weights: Counter[tuple[float, bool]] = Counter()
    for line in every:
        weights[line.size, line.bold] += len(line.text)
    if not weights:
        return []
    body_size, body_bold = weights.most_common(1)[0][0]
    running = _running(pages)
    found: list[tuple[tuple[float, bool], str, int]] = []
    for number, page in enumerate(pages):
        rows = _rows(page)
        start = 0
        for style, group in groupby(zip(page, rows, strict=True), lambda pair: (pair[0].size, pair[0].bold, pair[1])):
            lines = [line for line, _ in group]
            size, bold, is_row = style
            after = start + len(lines)
            stands_out = size >= _LARGER * body_size or (
                bold and not body_bold and size >= 0.95 * body_size and after < len(page) and not rows[after]
            )
            start = after
            text = " ".join(line.text for line in lines)
            is_alone = not is_row and len(lines) <= _MAX_HEADING_LINES and _folded(lines[0].text) not in running
            if stands_out and is_alone and _is_title(text):
                found.append(((size, bold), text, number))
    if sum(len(text) for _, text, _ in found) > _MAX_HEADING_SHARE * sum(weights.values()):
        return []
    styles = sorted({style for style, _, _ in found}, reverse=True)
    # Of very many styles the largest, those of a cover, count as one.
    surplus = max(0, len(styles) - _MAX_HEADING_LEVEL)
    return [Bookmark(max(1, styles.index(style) + 1 - surplus), text, number) for style, text, number in found]


def _is_title(text: str) -> bool:
    letters = sum(map(str.isalpha, text))
    is_sentence = text.endswith((",", ";")) or (text.endswith(".") and len(text.split()) > 8)
    return letters >= 2 and 2 * letters >= len(text) and len(text) <= _MAX_HEADING_CHARACTERS and not is_sentence


def _running(pages: Sequence[Sequence[Line]]) -> frozenset[str]:
    """First and last lines that many pages share, without their numbers."""
    counts: Counter[str] = Counter()
    for page in pages:
        counts.update({_folded(line.text) for line in (*page[:2], *page[-2:])})
    return frozenset(text for text, count in counts.items() if count >= _RUNNING_PAGES)


def _folded(text: str) -> str:
    return re.sub(r"[\W\d_]+", " ", text.casefold()).strip()
