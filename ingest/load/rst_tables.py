"""Tables of reStructuredText as rows: cells joined with a bar, lines of one cell with a blank."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_GRID_RULE = re.compile(r"[-=+| ]*[-=]{2,}[-=+| ]*")
_SIMPLE_RULE = re.compile(r"[=-]{2,}(?:[ \t]+[=-]+)*")
_RUN = re.compile("=+")
_LIST_ROW = re.compile(r"[*+-][ ]+(?=[*+-](?: |$))")
_LIST_CELL = re.compile(r"[ ]*[*+-](?: +|$)")


def grid_table(lines: Sequence[str]) -> list[str]:
    """Rows of a table that is drawn with +, - and |; cells that span columns stand in the first of them."""
    positions = [place for place, character in enumerate(lines[0]) if character == "+"]
    rows: list[list[str]] = []
    is_open = False
    for line in lines:
        if _GRID_RULE.fullmatch(line):
            is_open = False
            continue
        ends = [place for place in positions[1:] if line[place : place + 1] in ("|", "+")]
        cells = [line[start + 1 : end].strip() for start, end in zip([positions[0], *ends], ends, strict=False)]
        if is_open and len(rows[-1]) == len(cells):
            rows[-1] = [f"{above} {cell}".strip() for above, cell in zip(rows[-1], cells, strict=True)]
        else:
            rows.append(cells)
        is_open = True
    return _written(rows)


def simple_table(lines: Sequence[str]) -> list[str]:
    """Rows of a table whose columns are ruled with =; a row goes on where its first column is empty."""
    starts = [match.start() for match in _RUN.finditer(lines[0])]
    rows: list[list[str]] = []
    for line in lines:
        if not line or _SIMPLE_RULE.fullmatch(line):
            continue
        # Where text crosses from one column to the next, the cell spans both.
        own = [start for start in starts if start == 0 or not line[start - 1 : start].strip()]
        cells = [line[start:end].strip() for start, end in zip(own, [*own[1:], None], strict=True)]
        if rows and not cells[0] and len(cells) == len(rows[-1]):
            rows[-1] = [f"{above} {cell}".strip() for above, cell in zip(rows[-1], cells, strict=True)]
        else:
            rows.append(cells)
    return _written(rows)


def list_table(lines: Sequence[str]) -> list[str]:
    """Rows of a table that is written as a list of lists."""
    rows: list[list[str]] = []
    for line in lines:
        row = _LIST_ROW.match(line)
        cell = _LIST_CELL.match(line, row.end() if row else 0)
        if row and cell:
            rows.append([line[cell.end() :].strip()])
        elif cell and rows:
            rows[-1].append(line[cell.end() :].strip())
        elif rows:
            rows[-1][-1] = f"{rows[-1][-1]} {line.strip()}".strip()
    return _written(rows)


def _written(rows: Iterable[Sequence[str]]) -> list[str]:
    return [" | ".join(row).rstrip(" |") for row in rows if any(row)]
