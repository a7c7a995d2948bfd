"""Markdown: kept as its source, which is what people cite, with front matter and comments taken out.

Headings follow CommonMark 0.31, sections 4.2 and 4.3, as far as they stand outside quotes.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from ingest.load.decoding import decode
from ingest.load.extracted import Extracted
from ingest.load.front_matter import split_front_matter
from rag.types import Heading

# Anything longer is a paragraph that happens to begin with # or to stand above a rule.
_MAX_HEADING_CHARACTERS = 300
_MAX_HEADING_SOURCE_CHARACTERS = 1000
# The end of a code span is looked for within this distance, so that a line of back quotes costs no more than another.
_MAX_CODE_SPAN_CHARACTERS = 1000

_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})(.*)")
_COMMENT_OR_CODE = re.compile(r"<!--|`+")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*")
_RULE = re.compile(r" {0,3}(?:(?:\*[ \t]*){3,}|(?:_[ \t]*){3,}|(?:-[ \t]*){3,})")
# What cannot be underlined: lists, quotes and HTML, which also end a paragraph; tables and indented code, which do not.
_LIST_QUOTE_OR_HTML = re.compile(r" {0,3}(?:[-+*][ \t]|\d{1,9}[.)][ \t]|>|</?[A-Za-z!?])")
_TABLE_OR_CODE = re.compile(r" {0,3}\|| {4}|\t")

_ATTRIBUTES = re.compile(r"[ \t]*\{[#.:][^{}]*\}$")
_LITERAL = re.compile(r"\\([!-/:-@\[-`{-~])|(`+)(.+?)(?<!`)\2(?!`)")
_LINK = re.compile(r"!?\[([^\[\]]*)\](?:\((?:[^()]|\([^()]*\))*\)|\[[^\[\]]*\])")
_FOOTNOTE = re.compile(r"\[\^[^\[\]]+\]")
_AUTOLINK = re.compile(r"<([A-Za-z][A-Za-z0-9+.-]+:[^<>\s]*)>")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_EMPHASIS = re.compile(r"(\*{1,3}|~~)(?=\S)(.+?)(?<=\S)\1|(?<!\w)(_{1,3})(?=\S)(.+?)(?<=\S)\3(?!\w)")


def load(data: bytes) -> Extracted:
    """Markdown with its headings; the title is the front matter's, else the first level-1 heading's.

    A heading starts where its line does, the `#` included.

    Raises:
        DocumentError: The file is empty or binary, or its encoding cannot be detected.
    """
    metadata, body = split_front_matter(decode(data))
    text = _without_comments(body)
    headings = tuple(_headings(text))
    title = metadata.pop("title", None)
    if title is None:
        title = next((heading.text for heading in headings if heading.level == 1), None)
    return Extracted(
        text=text,
        title=None if title is None else str(title),
        headings=headings,
        metadata=metadata,
        media_type="text/markdown",
    )


def _opened_fence(line: str) -> str | None:
    """The run of characters that opens a fenced code block; indented as deep as it likes, for lists nest."""
    match = _FENCE.match(line)
    if match is None or (match[1][0] == "`" and "`" in match[2]):
        return None
    return match[1]


def _closes(line: str, fence: str) -> bool:
    stripped = line.strip(" \t")
    return len(stripped) >= len(fence) and stripped.strip(fence[0]) == ""


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _without_comments(text: str) -> str:
    """Without HTML comments outside code; one that is never closed is text."""
    kept: list[str] = []
    copied = position = 0
    fence: str | None = None
    last_close = text.rfind("-->")
    while position < last_close:
        end = _line_end(text, position)
        line = text[position:end]
        if fence is not None:
            fence = None if _closes(line, fence) else fence
        elif (fence := _opened_fence(line)) is None:
            while (comment := _comment(text, position, end)) is not None and comment < last_close:
                kept.append(text[copied:comment])
                copied = position = text.find("-->", comment) + 3
                end = end if position <= end else _line_end(text, position)
        position = end + 1
    kept.append(text[copied:])
    return "".join(kept)


def _comment(text: str, start: int, end: int) -> int | None:
    """Where the next comment of a line opens, code spans passed over."""
    while match := _COMMENT_OR_CODE.search(text, start, end):
        found = match.group()
        start = match.end()
        if found == "<!--":
            return match.start()
        close = text.find(found, start, min(end, start + _MAX_CODE_SPAN_CHARACTERS))
        if close >= 0:
            start = close + len(found)
    return None


def _lines_outside_code(text: str) -> Iterator[tuple[int, str]]:
    """Every line with its offset; the lines of a fenced code block as empty ones."""
    position = 0
    fence: str | None = None
    while position < len(text):
        end = _line_end(text, position)
        line = text[position:end]
        if fence is not None:
            fence = None if _closes(line, fence) else fence
            line = ""
        elif fence := _opened_fence(line):
            line = ""
        yield position, line
        position = end + 1


def _headings(text: str) -> Iterator[Heading]:
    paragraph: int | None = None
    underlinable = False
    for start, line in _lines_outside_code(text):
        level, source = _atx(line)
        if level:
            paragraph = None
            yield from _heading(start, level, source)
        elif not line.strip():
            paragraph = None
        elif paragraph is not None and underlinable and (underline := _UNDERLINE.fullmatch(line)):
            yield from _heading(paragraph, 1 if underline[1][0] == "=" else 2, text[paragraph:start])
            paragraph = None
        elif _RULE.fullmatch(line):
            paragraph = None
        elif _LIST_QUOTE_OR_HTML.match(line):
            paragraph, underlinable = start, False
        elif paragraph is None:
            paragraph, underlinable = start, _TABLE_OR_CODE.match(line) is None


def _atx(line: str) -> tuple[int, str]:
    """Level and source of a `#` heading; level 0 where the line is none."""
    unindented = line.lstrip(" ")
    content = unindented.lstrip("#")
    level = len(unindented) - len(content)
    if len(line) - len(unindented) > 3 or not 1 <= level <= 6 or content[:1] not in ("", " ", "\t"):
        return 0, ""
    content = content.strip(" \t")
    before_closing = content.rstrip("#")
    return level, before_closing if before_closing[-1:] in ("", " ", "\t") else content


def _heading(start: int, level: int, source: str) -> Iterator[Heading]:
    if len(source) <= _MAX_HEADING_SOURCE_CHARACTERS:
        plain = _plain(source)
        if 0 < len(plain) <= _MAX_HEADING_CHARACTERS:
            yield Heading(start=start, level=level, text=plain)


def _plain(source: str) -> str:
    """A heading as it is read: no links, emphasis, tags, entities, escapes."""
    literals: list[str] = []

    def put_aside(match: re.Match[str]) -> str:
        literals.append(match[1] or match[3].strip())
        return f"\0{len(literals) - 1}\0"  # clean text has no NUL of its own

    plain = _LITERAL.sub(put_aside, _ATTRIBUTES.sub("", source.strip()))
    plain = _FOOTNOTE.sub("", plain)
    plain = _LINK.sub(r"\1", _LINK.sub(r"\1", plain))  # twice: a link may hold an image
    plain = _TAG.sub("", _AUTOLINK.sub(r"\1", plain))
    for _ in range(3):
        plain = _EMPHASIS.sub(lambda match: match[2] or match[4], plain)
    plain = re.sub("\0(\\d+)\0", lambda match: literals[int(match[1])], html.unescape(plain))
    return " ".join(plain.split())
