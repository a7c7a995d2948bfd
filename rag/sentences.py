"""Where sentences begin and end, by rules.

Two steps. Lines are gathered into blocks, since a blank line, a heading, a list item, a table row or a
line of fenced code ends a sentence whatever its punctuation; then each block of prose is cut after the
marks that end a sentence. Every regular expression is bounded or possessive, so the time is linear in the
text whatever it holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_SPACED = ".!?…؟۔։"
"""End a sentence only where white space follows."""

_UNSPACED = "。！？｡।॥။።"
"""End a sentence wherever they stand."""

_MARKS = _SPACED + _UNSPACED + "．"
_CLOSERS = r"\"'”’»›)\]}」』）】》〉*_`"
_OPENERS = r"\"'“‘„«‹(\[{「『（【《〈*_`¿¡"

# The first class stands alone in front so that `re` can skip to the next mark; the lookbehind after it
# keeps a long run of marks from being tried again at each of its characters.
_END = re.compile(
    rf"([{_MARKS}](?<![{_MARKS}][{_MARKS}])[{_MARKS}]*+)"
    rf"(?:(?<=[{_UNSPACED}])[{_CLOSERS}]*+"
    rf"|(?<=．)(?!\d)[{_CLOSERS}]*+"
    rf"|(?<=[!?])(?=[぀-ヿ㐀-鿿])"
    rf"|[{_CLOSERS}]*+(?:[ \u00a0\u202f]»)?+(?:\[[\d,;–\- ]{{1,20}}\])*+(?=\s))"
)
_FOLLOWING = re.compile(rf"\s*+([{_OPENERS}]*+)([^\W_]{{0,24}})")

_LINE = re.compile(
    r"(?P<space>\s*+)(?:"
    r"(?P<heading>\#{1,6}[ \t])"
    r"|(?P<row>\|)"
    r"|(?P<fence>`{3,}+|~{3,}+)"
    r"|(?P<rule>(?:-{3,}+|={3,}+|\*{3,}+|_{3,}+)\s*+\Z)"
    r"|(?P<item>(?:[-*+•‣◦▪·–]|(?P<number>\d{1,3}(?:\.\d{1,3}){0,4}+)[.)]|[a-z]\)|\([a-zA-Z0-9]{1,3}\))\s)"
    r"|(?P<plain>\S)"
    r")?"
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ABBREVIATIONS = _words(
    "Dr Mr Mrs Ms Mx Messrs Prof Mme Mlle Gen Col Capt Cmdr Lt Sgt Maj Adm Rev Hon Sen Rep Gov Pres Hr Fr "
    "Sr Sra Srta Fig Figs Eq Eqs Eqn Ref Refs Tab Suppl vs cf approx resp viz fig figs eq eqs e.g i.e E.g "
    "I.e eg ie ca bzw vgl z.B d.h u.a o.ä sog ggf inkl p.ej bijv d.w.z np tzw т.е т.к см"
)
"""Never end a sentence."""

_NUMBERED = _words("no nos nr vol vols p pp art arts sec secs ch chap ref para abs sect ver pt")
"""Do not end a sentence where a number follows."""

_OFTEN_INSIDE = _words(
    "al etc inc ltd co corp llc plc jr st ave dept univ est min max avg jan feb mar apr jun jul aug sep "
    "sept oct nov dec mt ft usw dist bros assn sp spp var subsp ed eds"
)
"""End a sentence only where a word follows that usually begins one."""

_STARTERS = _words(
    "The This That These Those There They Their We Our You Your He His She Her It Its In On At As After "
    "Although An And Another Any All Because Before But By Both Despite During Each For From Further "
    "Furthermore Given Hence How However If Later Many Moreover Most My Nevertheless No Not Now Of One "
    "Only Other Since So Some Such Then Therefore Thus To Two Under Unlike Until What When Where Whereas "
    "Whether Which While Who Why With Within Without Yet Der Die Das Ein Eine Es Er Sie Wir Le La Les Un "
    "Une Il Elle Nous El Los Las Una"
)

_GERMAN_MONTHS = _words(
    "Januar Februar März April Mai Juni Juli August September Oktober November Dezember Jahrhundert"
)
"""After `3.` they show that the number is an ordinal."""


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Offsets of the sentences of `text`, in order, without overlap, without white space at either end.

    Together they cover every character that is not white space. Headings, table rows and lines of fenced code
    are one sentence each; the marker of a list item belongs to its first sentence. A single line break inside
    a paragraph ends nothing.
    """
    spans: list[tuple[int, int]] = []
    for block in _blocks(text):
        start = block.start
        for mark in _END.finditer(text, block.prose_from, block.end):
            resume = _next_start(text, mark, start)
            if resume is not None and resume < block.end:
                spans.append((start, mark.end()))
                start = resume
        spans.append((start, block.end))
    return spans


class _Line(NamedTuple):
    """A line without its surrounding white space.

    Attributes:
        kind: `blank`, `plain`, `item`, `rule`, or `alone`, which no other line continues.
        prose_from: Where its sentences may begin to end.
        is_later_number: An item numbered other than 1.
        ends_page: A form feed or paragraph separator follows.
    """

    kind: str
    start: int
    end: int
    prose_from: int
    is_later_number: bool
    ends_page: bool


@dataclass(slots=True)
class _Block:
    """A span of lines that no sentence leaves; before `prose_from` marks end nothing. Grows line by line."""

    start: int
    end: int
    prose_from: int
    is_item: bool


def _lines(text: str) -> Iterator[_Line]:
    offset = 0
    fence = ""
    for line in text.splitlines(keepends=True):
        start, offset = offset, offset + len(line)
        match = _LINE.match(line)
        kind = match.lastgroup if match else None
        ends_page = line[-1] in "\f\u2029"
        if match is None or kind == "space":
            yield _Line("blank", start, start, start, is_later_number=False, ends_page=ends_page)
            continue
        first, end = start + match.end("space"), start + len(line.rstrip())
        prose_from, is_later_number = end, False
        if fence:
            fence = "" if _closes(line, fence) else fence
            kind = "alone"
        elif kind == "item":
            prose_from = min(start + match.end(), end)
            is_later_number = match["number"] not in (None, "1")
        elif kind == "plain":
            prose_from = first
        elif kind != "rule":
            fence = match["fence"] or ""
            kind = "alone"
        yield _Line(kind, first, end, prose_from, is_later_number, ends_page)


def _closes(line: str, fence: str) -> bool:
    stripped = line.strip()
    return len(stripped) >= len(fence) and stripped == fence[0] * len(stripped)


def _blocks(text: str) -> Iterator[_Block]:
    block: _Block | None = None
    for line in _lines(text):
        if block and _joins(line, block):
            block.end = line.end
        else:
            if block:
                yield block
            is_blank, is_item = line.kind == "blank", line.kind == "item"
            block = None if is_blank else _Block(line.start, line.end, line.prose_from, is_item)
        # A rule is the underline of a heading or stands alone; nothing goes on after either.
        if block and (line.kind in ("alone", "rule") or line.ends_page):
            yield block
            block = None
    if block:
        yield block


def _joins(line: _Line, block: _Block) -> bool:
    if line.kind == "item":
        # As in CommonMark, a paragraph is interrupted by a numbered list only where that starts at 1: any
        # other number at the start of a line is more likely the end of a wrapped sentence.
        return line.is_later_number and not block.is_item
    return line.kind in ("plain", "rule")


def _next_start(text: str, mark: re.Match[str], start: int) -> int | None:
    """Where the sentence after `mark` begins; None where `mark` does not end the one begun at `start`."""
    following = _FOLLOWING.match(text, mark.end())
    if following is None:
        return None
    resume, word = following.start(1), following[2]
    marks = mark[1]
    if resume == mark.end() or marks[-1] in _UNSPACED:
        return resume
    # A word such as p53 or mRNA may begin a sentence although its first letter is small.
    continues = word.islower() and word.isalpha()
    if marks == ".":
        ends = not continues and _full_stop_ends(text, mark.start(), start, word)
    elif marks[-1] in "!?؟":
        is_quoted = mark[0] != marks  # "Why?" he asked.
        ends = not (continues and is_quoted)
    else:
        ends = not continues
    return resume if ends else None


def _full_stop_ends(text: str, dot: int, start: int, following: str) -> bool:
    """Whether the full stop at `dot` is more than the end of an abbreviation, an initial or an ordinal."""
    head = text[max(start, dot - 24) : dot]
    if not head or head[-1].isspace():
        return True
    before = head.split()[-1].lstrip("\"'“‘„«‹([{*_`/-–")
    if before in _ABBREVIATIONS:
        return False
    if before.isdigit():
        return following not in _GERMAN_MONTHS
    lowered = before.lower()
    if lowered in _NUMBERED and following[:1].isdigit():
        return False
    is_initial = len(before) == 1 and before.isupper()
    parts = before.split(".")
    is_dotted = len(parts) > 1 and all(part.isalpha() and len(part) <= 2 for part in parts)
    if is_initial or is_dotted or lowered in _OFTEN_INSIDE:
        return following in _STARTERS
    return True
