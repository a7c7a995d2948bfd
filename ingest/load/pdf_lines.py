"""The lines of a PDF page to paragraphs.

A PDF knows lines, not paragraphs. Two lines become one where the first fills the width of the page's text and nothing
says that the second begins something new; all other line ends stay, since they part headings, items and table rows.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet

from ingest.load.decoding import clean

_LIGATURES = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st", "\u00a0": " "}
)
_SOFT_HYPHEN = "\u00ad"
_WORD = re.compile(r"[^\W\d_]+(?:[-\u2010][^\W\d_]+)*")
_BROKEN_WORD = re.compile(r"(?:[^\W_]+[-\u2010])*[^\W_]+[-\u2010]$")
_SUSPENDED = frozenset({"and", "or", "to", "und", "oder", "bis", "et", "ou", "y", "o"})
_FIRST_WORD = re.compile(r"[^\W_]+")
_ITEM = re.compile(r"[•◦▪▫●○■□‣⁃∙·➢➤✓*–—-]\s|\(?(?:\d{1,3}|[a-z]|[ivx]{1,5})[.)]\s", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?:;。！？][\"'”’)\]]*$")
# Scripts that put no blanks between words.
_UNSPACED = re.compile("[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef]")

_MIN_WIDTH_CHARACTERS = 30
# Of the lines by length, from here on they count as those that fill the width.
_FULL_LINES_FROM = 0.8
_FULL = 0.75
_FULL_AFTER_A_SENTENCE = 0.92


def words_of(text: str) -> AbstractSet[str]:
    """Every word of `text` in lower case, compounds with their hyphens: the evidence for `paragraphs`."""
    return frozenset(match.group().lower().replace("\u2010", "-") for match in _WORD.finditer(text))


def paragraphs(page: str, words: AbstractSet[str]) -> str:
    """The text of one page with ligatures spelt out, broken words mended and the lines of a paragraph joined.

    Args:
        page: As extracted, with one line per line of the page.
        words: Of the whole document: a word broken at a line end keeps its hyphen if it is written so elsewhere.
    """
    lines = [line.strip() for line in clean(page).translate(_LIGATURES).split("\n")]
    lengths = sorted(len(line) for line in lines if line)
    if not lengths:
        return ""
    width = lengths[int(len(lengths) * _FULL_LINES_FROM)]
    parts: list[str] = []
    above = ""
    for line in lines:
        if line and above:
            hyphen = _hyphen(above, line, words)
            if hyphen is None:
                parts.append(_separator(above, line, width))
            else:
                parts[-1] = parts[-1][:-1] + hyphen
        elif line and parts:
            parts.append("\n\n")
        if line:
            parts.append(line)
        above = line
    return "".join(parts).replace(_SOFT_HYPHEN, "")


def _hyphen(above: str, line: str, words: AbstractSet[str]) -> str | None:
    """What becomes of the hyphen at the end of `above`; None where no word is broken there."""
    if above.endswith(_SOFT_HYPHEN):
        return ""
    broken = _BROKEN_WORD.search(above[-80:])
    rest = _FIRST_WORD.match(line)
    if broken is None or rest is None:
        return None
    if rest.group() in _SUSPENDED:  # "pre- and post-war"
        return None
    before, after = broken.group()[:-1].replace("\u2010", "-"), rest.group()
    if not before[-1].isalpha() or not after[0].islower():
        return "-"
    if (before + after).lower() in words:
        return ""
    # "state-of-the-" is a compound already, and a compound found elsewhere is one here.
    return "-" if "-" in before or f"{before}-{after}".lower() in words else ""


def _separator(above: str, line: str, width: int) -> str:
    ends_sentence = _SENTENCE_END.search(above[-10:]) is not None
    filled = len(above) >= (_FULL_AFTER_A_SENTENCE if ends_sentence else _FULL) * width
    if ends_sentence and 2 * len(line) < width and not line[0].islower():
        return "\n"  # rather a heading than a last line
    if width < _MIN_WIDTH_CHARACTERS or not filled or _ITEM.match(line) or _is_row(above) or _is_row(line):
        return "\n"
    return "" if _UNSPACED.match(above[-1]) and _UNSPACED.match(line) else " "


def _is_row(line: str) -> bool:
    """A row of a table rather than a line of a paragraph: half of its words have digits, or dots lead to a page."""
    words = line.split()
    if "|" in words:
        return True
    return 2 * sum(any(map(str.isdigit, word)) for word in words) >= len(words) or ". . ." in line or "....." in line
