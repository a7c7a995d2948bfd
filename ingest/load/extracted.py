"""What a parser hands on: the text of one file with its structure."""

from __future__ import annotations

from dataclasses import dataclass, field

from rag.types import Heading, Scalar


@dataclass(frozen=True, slots=True)
class Extracted:
    r"""The text of one file; every offset is a code point index into `text`.

    Attributes:
        text: Line ends are `\n`; there are no control characters but `\n` and `\t`.
        title: What the file itself calls its content; None where it does not say.
        headings: In order of `start`, no two at one place.
        page_starts: Offset at which page i + 1 begins, rising; empty where the format has no pages.
        metadata: What the file says of itself, without the title.
        media_type: As registered with IANA.
    """

    text: str
    title: str | None
    headings: tuple[Heading, ...] = ()
    page_starts: tuple[int, ...] = ()
    metadata: dict[str, Scalar | list[str]] = field(default_factory=dict)
    media_type: str = "text/plain"
