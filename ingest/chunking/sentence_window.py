"""Sentence windows: passages of a few whole sentences, the default strategy."""

from __future__ import annotations

from collections.abc import Sequence

from ingest.chunking.rows import Rows, section_units
from ingest.chunking.sections import sections
from ingest.chunking.token_index import TokenIndex
from rag.types import Document


def chunk(document: Document, *, sentences: int, max_tokens: int) -> list[tuple[int, int]]:
    """Groups of up to `sentences` sentences and `max_tokens` tokens: offsets into `document.text`, in order.

    Groups do not overlap and together cover every character that is not white space. None crosses a heading,
    which belongs to the group of the text after it. A row of a table counts as a sentence. What is longer than
    `max_tokens` is cut into pieces of about the same size; a piece counts as a sentence. The last two groups of a
    section share their sentences evenly where the last would have less than a third of `sentences`.

    Args:
        document: Its headings in order of `start`.
        sentences: At least 1.
        max_tokens: At least 1; counted as `TokenIndex` does.
    """
    text = document.text
    tokens = TokenIndex(text)
    rows = Rows(document, tokens, max_tokens)
    groups: list[tuple[int, int]] = []
    for section in sections(document):
        units = section_units(text, section, rows, tokens, max_tokens)
        counts = _balance(units, _fill(units, tokens, sentences, max_tokens), tokens, sentences, max_tokens)
        first = 0
        for count in counts:
            groups.append((units[first][0], units[first + count - 1][1]))
            first += count
    return groups


def _fill(units: Sequence[tuple[int, int]], tokens: TokenIndex, sentences: int, max_tokens: int) -> list[int]:
    """How many units each group has when every group but the last takes all that fit."""
    counts: list[int] = []
    first = 0
    for index, (_, end) in enumerate(units):
        fits = index - first < sentences and tokens.count(units[first][0], end) <= max_tokens
        if counts and fits:
            counts[-1] += 1
        else:
            counts.append(1)
            first = index
    return counts


def _balance(
    units: Sequence[tuple[int, int]], counts: list[int], tokens: TokenIndex, sentences: int, max_tokens: int
) -> list[int]:
    if len(counts) < 2 or 3 * counts[-1] >= sentences:
        return counts
    shared = counts[-2] + counts[-1]
    first = len(units) - shared

    def fits(head: int) -> bool:
        middle = first + head
        return (
            head <= sentences
            and tokens.count(units[first][0], units[middle - 1][1]) <= max_tokens
            and tokens.count(units[middle][0], units[-1][1]) <= max_tokens
        )

    # The even division first; of two that are as good, the one with the longer head.
    heads = sorted(range(shared // 2, counts[-2] + 1), key=lambda head: (abs(2 * head - shared), -head))
    head = next((head for head in heads if head and fits(head)), counts[-2])
    return [*counts[:-2], head, shared - head]
