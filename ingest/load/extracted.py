"""What a parser hands on: the text of one file with its structure."""

from __future__ import annotations

from dataclasses import dataclass, field

from rag.types import Heading, Scalar


@dataclass(frozen=True, slots=True)
class Child:
    """A document inside a file: an attachment of a mail, a record of a JSONL file.

    Attributes:
        name: Unique within its file; an attachment's has the suffix that says how to read it.
        content: Bytes are still to be parsed.
    """

    name: str
    content: bytes | Extracted


@dataclass(frozen=True, slots=True)
class Extracted:
    r"""The text of one file; every offset is a code point index into `text`.

    Attributes:
        text: Line ends are `\n`; there are no control characters but `\n` and `\t`. Empty only with children.
        title: What the file itself calls its content; None where it does not say.
        headings: In order of `start`, no two at one place. The header row of a table is a heading, so that
            every passage of a long table is indexed with it.
        page_starts: Offset at which page i + 1 begins, rising; a slide and a sheet count as pages. Empty where the
            format has none.
        row_starts: (offset, row number as the user's program counts it) of every row of a sheet or data file, rising
            by offset.
        metadata: What the file says of itself, without the title.
        media_type: As registered with IANA.
        children: Documents of their own that the file contains.
        warnings: What could not be read although the rest was, in words: "pages 3 to 5 have no text layer".
    """

    text: str
    title: str | None
    headings: tuple[Heading, ...] = ()
    page_starts: tuple[int, ...] = ()
    metadata: dict[str, Scalar | list[str]] = field(default_factory=dict)
    media_type: str = "text/plain"
    row_starts: tuple[tuple[int, int], ...] = ()
    children: tuple[Child, ...] = ()
    warnings: tuple[str, ...] = ()
