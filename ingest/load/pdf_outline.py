"""Bookmarks as headings, where their words are found on the page they point to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ingest.load.decoding import clean
from rag.types import Heading

_MAX_HEADINGS = 10_000
_MAX_HEADING_CHARACTERS = 300
_MAX_PAGE_CHARACTERS = 100_000
_MAX_OCCURRENCES = 20
_NUMBERING = re.compile(
    r"\W*(?:(?i:chapter|section|part|appendix|annex)\s+)?(?:(?:\d[\d.]*|[IVXLC]{1,6}|[A-Z])(?!\w))?\W*"
)


class Bookmark(NamedTuple):
    """A heading that is still to be found: its level (1 = top), its words, and its page, counted from 0."""

    level: int
    title: str
    page: int


@dataclass(frozen=True, slots=True)
class _Folded:
    """Letters and digits of a page in one case, each with its place in the document's text.

    Bookmarks and pages differ in blanks, line ends, hyphens and punctuation, never in these.
    """

    characters: str
    places: Sequence[int]


def headings(bookmarks: Iterable[Bookmark], text: str, page_starts: Sequence[int]) -> tuple[Heading, ...]:
    """The bookmarks found on their page, in order of place; those whose words are not there are left out.

    A bookmark is looked for at the beginning of a line, after the bookmark before it; in the middle of a line only if
    it has three words or more, for a single word stands in sentences too.
    """
    found: dict[int, Heading] = {}
    folded: dict[int, _Folded] = {}
    cursors: dict[int, int] = {}
    for count, (level, title, page) in enumerate(bookmarks):
        if count == _MAX_HEADINGS:
            break
        title = " ".join(clean(title).split())
        if not 0 < len(title) <= _MAX_HEADING_CHARACTERS or not 0 <= page < len(page_starts):
            continue
        if page not in folded:
            end = page_starts[page + 1] if page + 1 < len(page_starts) else len(text)
            folded[page] = _fold(text, page_starts[page], min(end, page_starts[page] + _MAX_PAGE_CHARACTERS))
        place = _place(title, text, folded[page], cursors.get(page, 0))
        if place is not None:
            start, cursors[page] = place
            found.setdefault(start, Heading(start=start, level=level, text=title))
    return tuple(found[start] for start in sorted(found))


def _fold(text: str, start: int, end: int) -> _Folded:
    characters: list[str] = []
    places: list[int] = []
    for place in range(start, end):
        for character in text[place].casefold():
            if character.isalnum():
                characters.append(character)
                places.append(place)
    return _Folded("".join(characters), places)


def _place(title: str, text: str, page: _Folded, cursor: int) -> tuple[int, int] | None:
    """Offset of the best occurrence, and the cursor after it."""
    wanted = _fold(title, 0, len(title)).characters
    best_rank, best = 0 if len(title.split()) >= 3 else 1, None
    for origin in (cursor, 0) if cursor else (0,):
        position = origin
        for _ in range(_MAX_OCCURRENCES):
            position = page.characters.find(wanted, position) if wanted else -1
            if position < 0:
                break
            after = position + len(wanted)
            rank, start = _rank(text, page.places[position], page.places[after - 1] + 1)
            if (best is None and rank >= best_rank) or rank > best_rank:
                best_rank, best = rank, (start, after)
            position += 1
        if best is not None:
            break
    return best


def _rank(text: str, start: int, end: int) -> tuple[int, int]:
    """2 for a line of its own, 1 for the beginning of a line, 0 for the middle; and where the heading starts."""
    line_start = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", end)
    rest = text[end : line_end if line_end >= 0 else len(text)]
    if start - line_start > 30 or not _NUMBERING.fullmatch(text, line_start, start):
        return 0, start
    return (2 if not rest.strip(" .:") else 1), line_start
