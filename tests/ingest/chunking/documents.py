"""Generated documents, and what holds for the passages of each, whatever the strategy."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import regex

from ingest.chunking.token_index import TokenIndex
from rag.types import Document, Heading

PIECES = [
    *[
        "Word",
        "two words",
        " ",
        " ",
        " ",
        ". ",
        "? ",
        "\n",
        "\n\n",
        "# ",
        "- ",
        "| ",
        "```\n",
        "\f",
        "_",
        "don't",
        "3.14",
    ],
    *["中文。", "漢字仮名", "\u3000", "ภาษาไทยน้ำ", "ភាសាខ្មែរ", "한국어 문장", "\u1112\u1161\u11ab", "हिन्दी क्षि"],
    *["e\u0301", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd", "\U0001f1e9\U0001f1ea"],
    *["\ud83d\ude00", "x" * 90, "\r\n"],
]


def documents(count: int, *, seed: int, with_rows: bool = False) -> Iterator[tuple[Document, random.Random]]:
    """Documents of up to 80 pieces with headings at random places, and the generator for sizes."""
    generator = random.Random(seed)
    for _ in range(count):
        text = "".join(generator.choices(PIECES, k=generator.randint(0, 80)))
        places = range(len(text) + 1)
        rows: tuple[tuple[int, int], ...] = ()
        if with_rows:
            places = [match.end() for match in regex.finditer(r"^|\n", text[:-1])]
            rows = tuple((start, number) for number, start in enumerate(sorted(set(generator.choices(places, k=6))), 2))
        offsets = sorted(generator.choices(places, k=2))
        headings = tuple(Heading(start, 1, "Word") for start in offsets if start < len(text))
        yield Document("d", "v", "s", "t", text, headings=headings, row_starts=rows), generator


def table(rows: Sequence[str], *, before: str = "") -> Document:
    """A document of one sheet: a header row that is a heading, then the rows, a line each."""
    header = "Name. | Amount."
    starts, text = [], before + header + "\n"
    for row in rows:
        starts.append(len(text))
        text += row + "\n"
    headings = (Heading(len(before), 1, header),)
    return Document(
        "d", "v", "s", "t", text, headings=headings, row_starts=tuple(zip(starts, range(2, len(rows) + 2), strict=True))
    )


def check(document: Document, spans: Sequence[tuple[int, int]], *, max_tokens: int, overlap_tokens: int = 0) -> None:
    """In order, within bounds, none too long, no overlap but the allowed one, and every character but white space."""
    text, tokens = document.text, TokenIndex(document.text)
    previous, place = -1, 0
    for start, end in spans:
        assert previous < start < end <= len(text)
        assert place < end
        assert not text[place:start].strip()
        assert text[start:end] == text[start:end].strip()
        assert tokens.count(start, end) <= max_tokens
        assert place <= start or tokens.count(start, place) <= overlap_tokens
        previous, place = start, end
    assert not text[place:].strip()


def check_graphemes(document: Document, spans: Sequence[tuple[int, int]]) -> None:
    """No bound lies inside a grapheme cluster, by another implementation of the Unicode rules.

    Only for sizes that the longest cluster fits into, two joined ones included: a count of tokens has no bound between
    a Thai vowel and a Latin letter.
    """
    text = document.text
    bounds = {offset for span in spans for offset in span}
    headings = {heading.start for heading in document.headings} | {start for start, _ in document.row_starts}
    for match in regex.finditer(r"\X", text):
        start, end = match.span()
        inside = {offset for offset in bounds - headings if start < offset < end}
        # What follows white space or stands before it is divided by trimming, not by a cut.
        inside = {offset for offset in inside if not (text[offset - 1].isspace() or text[offset].isspace())}
        assert not inside, (text[start:end], match.span())


def check_rows(document: Document, spans: Sequence[tuple[int, int]], *, max_tokens: int) -> None:
    """No bound lies inside a row that fits, unless it is a heading of more than one line."""
    text, tokens = document.text, TokenIndex(document.text)
    bounds = sorted({len(text), *(start for start, _ in document.row_starts), *(h.start for h in document.headings)})
    for start in {start for start, _ in document.row_starts} - {heading.start for heading in document.headings}:
        end = next(bound for bound in bounds if bound > start or bound == len(text))
        start = end - len(text[start:end].lstrip())
        content = start + len(text[start:end].rstrip())
        inside = [offset for span in spans for offset in span if start < offset < content]
        assert not inside or tokens.count(start, content) > max_tokens
