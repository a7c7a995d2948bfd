"""Fixed windows of tokens: the baseline that other strategies have to beat."""

from __future__ import annotations

import unicodedata

from ingest.chunking.overlap import refuse_whole_overlap
from ingest.chunking.rows import Rows
from ingest.chunking.token_index import TokenIndex
from rag.types import Document


def chunk(document: Document, *, max_tokens: int, overlap_tokens: int) -> list[tuple[int, int]]:
    """Windows of about `max_tokens` tokens as offsets into `document.text`, in order of start and of end.

    Headings, paragraphs and sentences are ignored. A window ends after as many tokens as fit, or before the word
    or row of a table that would not fit whole; a character of Chinese or Japanese is a word. Only what is longer than
    a window by itself is cut, and then not inside what readers see as one character. A window begins with up to
    `overlap_tokens` tokens of the one before it, in whole words and rows.

    Args:
        max_tokens: At least 1, the overlap included; counted as `TokenIndex` does.
        overlap_tokens: 0 or more.

    Raises:
        ConfigurationError: The overlap is not smaller than the window.
    """
    refuse_whole_overlap(max_tokens=max_tokens, overlap_tokens=overlap_tokens)
    tokens = TokenIndex(document.text)
    bounds = _Bounds(document, tokens, max_tokens)
    spans: list[tuple[int, int]] = []
    start = end = 0
    while end < len(tokens):
        limit = start + max_tokens
        if limit >= len(tokens):
            stop: int | None = len(tokens)
        else:
            stop = bounds.last_between_words(end, limit)
            if stop is None and start < end:
                start = end  # without the overlap there may be room for the word or row
                continue
        end = bounds.last_between_characters(end, limit) if stop is None else stop
        spans.append(bounds.span(start, end))
        start = bounds.first_between_words(max(end - overlap_tokens, start + 1), end)
    return spans


class _Bounds:
    """Where windows may begin and end; a place is the index of the token after it."""

    def __init__(self, document: Document, tokens: TokenIndex, max_tokens: int) -> None:
        self._text = document.text
        self._tokens = tokens
        self._rows = Rows(document, tokens, max_tokens)

    def last_between_words(self, after: int, limit: int) -> int | None:
        return next((index for index in range(limit, after, -1) if self._is_between_words(index)), None)

    def last_between_characters(self, after: int, limit: int) -> int:
        return next((index for index in range(limit, after, -1) if self._tokens.divides_nothing(index)), limit)

    def first_between_words(self, first: int, end: int) -> int:
        return next((index for index in range(first, end) if self._is_between_words(index)), end)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Offsets, without white space at either end."""
        first = self._tokens.start_of(start)
        last = self._tokens.start_of(end)
        return first, first + len(self._text[first:last].rstrip())

    def _is_between_words(self, index: int) -> bool:
        offset = self._tokens.start_of(index)
        before, after = self._text[offset - 1], self._text[offset]
        is_bound = before.isspace() or _is_word_itself(before) or _is_word_itself(after)
        return is_bound and self._tokens.divides_nothing(index) and not self._rows.is_inside(offset)


def _is_word_itself(character: str) -> bool:
    """Wide characters but those of Korean, which has spaces between its words."""
    return unicodedata.east_asian_width(character) in "WF" and not ("가" <= character <= "힣")
