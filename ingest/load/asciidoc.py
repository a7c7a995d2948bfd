"""AsciiDoc: what a reader of the page would read, as text. Nothing is included, run or fetched."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ingest.load.asciidoc_inline import inline_text
from ingest.load.asciidoc_tables import Table
from ingest.load.decoding import decode
from ingest.load.extracted import Extracted
from rag.types import Heading, Scalar

_TITLE = re.compile(r"(={1,6}|#{1,6})[ \t]+(\S.*?)(?:[ \t]+\1)?")
_UNDERLINES = "=-~^+"
_ATTRIBUTE = re.compile(r":(!?[\w][\w-]*!?):(?:[ \t]+(.*))?")
# Not more words than a name has: many a text begins right under its title.
_AUTHOR = re.compile(r"([^\W\d_][\w.'’-]*(?: [\w.'’-]+){0,3})(?<!\.)(?:[ \t]+<([^<>]+)>)?(?:;.*)?")
_REVISION = re.compile(r"v?(\d[\w.]*)?,?[ \t]*(\d{4}-\d\d-\d\d)?(?::.*)?")
_BLOCK_ATTRIBUTES = re.compile(r"\[(?:\[.*\]|[^\[\]]*|[^\[\]]*\"[^\"]*\"[^\[\]]*)\]")
_CALLOUT_OF_CODE = re.compile(r"[ \t]*(?://|#|--|;;)?[ \t]*<(?:!--)?(?:\d+|\.)(?:--)?>(?=[ \t]*$)", re.MULTILINE)
_BLOCK_TITLE = re.compile(r"\.(?![. \t])(.+)")
_FENCE = re.compile(r"(-{4,}|\.{4,}|={4,}|\*{4,}|_{4,}|\+{4,}|/{4,}|--|`{3}\w*)")
_TABLE_FENCE = re.compile(r"[|,:!]={3,}")
_DIRECTIVE = re.compile(r"(?:include|ifdef|ifndef|ifeval|endif|toc|audio|video)::.*\[.*\]|<{3,}|'{3,}|-{3}|\*{3}|\+")
_IMAGE = re.compile(r"image::[^\[\]\s][^\[\]]*\[(.*)\]")
_ADMONITIONS = frozenset({"NOTE", "TIP", "IMPORTANT", "WARNING", "CAUTION"})
_ITEM = re.compile(r"[ \t]*(\*{1,6}|-|\.{1,6}|\d+\.|[A-Za-z]\.)[ \t]+(?=\S)")
_DEFINITION = re.compile(r"(\S.*?)(?::{2,4}|;;)(?:[ \t]+(.*))?")
_VERBATIM = ("-", ".", "`")
_DROPPED = ("+", "/")


def load(data: bytes) -> Extracted:
    """The text of an AsciiDoc file, with its headings; the title is the document's.

    The title of the document is of level 1, sections begin with level 2. Macros and links are reduced to their text,
    attributes of the document are filled in, tables are rows with bars, code stands as it is. Comments, conditions
    and raw content are left out; what both branches of a condition say is kept.

    Raises:
        DocumentError: The file is empty or binary, or its encoding cannot be detected.
    """
    lines = [line.rstrip() for line in decode(data).split("\n")]
    reader = _Reader(_attributes(lines))
    reader.read(lines)
    headings = tuple(reader.headings)
    metadata: dict[str, Scalar | list[str]] = {
        key: reader.header[key] for key in ("author", "date", "version") if key in reader.header
    }
    return Extracted(
        text="\n\n".join(reader.blocks) + "\n",
        title=headings[0].text if headings and headings[0].level == 1 else None,
        headings=headings,
        metadata=metadata,
        media_type="text/asciidoc",
    )


def _attributes(lines: Sequence[str]) -> dict[str, str]:
    """The attributes that the document gives itself, wherever it does."""
    found = (_ATTRIBUTE.fullmatch(line) for line in lines)
    return {match[1]: match[2] or "" for match in found if match and "!" not in match[1]}


class _Reader:
    """Reads lines block by block; `blocks` are divided by an empty line."""

    def __init__(self, attributes: Mapping[str, str]) -> None:
        self._attributes = attributes
        self.blocks: list[str] = []
        self.headings: list[Heading] = []
        self.header: dict[str, str] = {
            key: attributes[name]
            for key, name in (("author", "author"), ("date", "revdate"), ("version", "revnumber"))
            if attributes.get(name)
        }
        self._length = 0
        self._is_verbatim = False  # as the block attributes above say
        self._columns = 0

    def read(self, lines: Sequence[str]) -> None:
        index = 0
        while index < len(lines):
            index = self._block(lines, index) if lines[index] else index + 1

    def _block(self, lines: Sequence[str], index: int) -> int:
        """One block that begins here; returns where the next may."""
        line = lines[index]
        if (end := self._heading(lines, index)) or (end := self._fenced(lines, index)):
            return end
        if _ATTRIBUTE.fullmatch(line) or _DIRECTIVE.fullmatch(line) or line.startswith("//"):
            return index + 1
        if _BLOCK_ATTRIBUTES.fullmatch(line):
            self._note_attributes(line)
            return index + 1
        if (image := _IMAGE.fullmatch(line)) is not None:
            self._add(_alternative_text(image[1]))
        elif (title := _BLOCK_TITLE.fullmatch(line)) is not None and not _FENCE.fullmatch(line):
            self._add(self._inline(title[1]))
        else:
            return self._paragraph(lines, index)
        return index + 1

    def _heading(self, lines: Sequence[str], index: int) -> int:
        """Where it ends; 0 where there is none."""
        line = lines[index]
        under = lines[index + 1] if index + 1 < len(lines) else ""
        title = _TITLE.fullmatch(line)
        if title is not None:
            level, source, end = len(title[1]), title[2], index + 1
        elif _is_underlined(line, under):
            level, source, end = _UNDERLINES.index(under[0]) + 1, line, index + 2
        else:
            return 0
        text = " ".join(self._inline(source).split())
        is_first = not self.blocks
        if text:
            self._add(text)
            self.headings.append(Heading(start=self._length - len(text) - 2, level=level, text=text))
        return self._byline(lines, end) if is_first and level == 1 else end

    def _byline(self, lines: Sequence[str], index: int) -> int:
        """The lines of author and revision right under the title."""
        for key, pattern in (("author", _AUTHOR), ("date", _REVISION)):
            line = lines[index] if index < len(lines) else ""
            match = pattern.fullmatch(line)
            if not line or _ATTRIBUTE.fullmatch(line) or match is None or not any(match.groups()):
                break
            if key == "author":
                self.header["author"] = f"{match[1]} <{match[2]}>" if match[2] else match[1]
            else:
                self.header.update({name: match[n] for n, name in ((1, "version"), (2, "date")) if match[n]})
            index += 1
        return index

    def _note_attributes(self, line: str) -> None:
        """What `[source,python]` or `[cols="1,2"]` says of the block that follows."""
        words = line[1:-1].split(",")
        style = re.split(r"[#.%]", words[0].strip(), maxsplit=1)[0]
        self._is_verbatim = style in ("source", "listing", "literal", "stem", "latexmath", "asciimath")
        self._columns = Table.columns_of(line) or self._columns
        if style in _ADMONITIONS:
            self._add(f"{style.capitalize()}:")
        elif style in ("quote", "verse") and len(words) > 1:
            self._add(self._inline(", ".join(word.strip() for word in words[1:])))

    def _fenced(self, lines: Sequence[str], index: int) -> int:
        """Where a delimited block ends; 0 where none begins."""
        fence = lines[index]
        is_table = _TABLE_FENCE.fullmatch(fence) is not None
        if not is_table and not _FENCE.fullmatch(fence):
            return 0
        closing = "```" if fence.startswith("```") else fence
        end = next((place for place in range(index + 1, len(lines)) if lines[place] == closing), None)
        if end is None:
            return index + 1
        content = lines[index + 1 : end]
        if is_table:
            rows = Table(fence[0], self._columns).rows(line for line in content if not line.startswith("//"))
            self._columns = 0
            self._add("\n".join(self._inline(row) for row in rows))
        elif (fence[0] in _VERBATIM and fence != "--") or self._is_verbatim:
            self._is_verbatim = False
            self._add(_CALLOUT_OF_CODE.sub("", "\n".join(content)))
        elif fence[0] not in _DROPPED:
            self.read(content)
        return end + 1

    def _paragraph(self, lines: Sequence[str], index: int) -> int:
        end = index + 1
        while end < len(lines) and lines[end] and not self._interrupts(lines[end]):
            end += 1
        block = lines[index:end]
        if self._is_verbatim or (block[0].startswith((" ", "\t")) and not _ITEM.match(block[0])):
            self._is_verbatim = False
            self._add("\n".join(block))
        else:
            self._add(self._inline("\n".join(map(_item, block))))
        return end

    def _interrupts(self, line: str) -> bool:
        patterns = (_FENCE, _TABLE_FENCE, _DIRECTIVE, _IMAGE, _BLOCK_ATTRIBUTES, _ATTRIBUTE)
        return line.startswith("//") or any(pattern.fullmatch(line) for pattern in patterns)

    def _inline(self, source: str) -> str:
        return inline_text(source, self._attributes)

    def _add(self, text: str) -> None:
        text = text.strip("\n").rstrip()
        if text.strip():
            self.blocks.append(text)
            self._length += len(text) + 2


def _is_underlined(line: str, under: str) -> bool:
    """A title of the older kind, whose line below is as long as itself, give or take one."""
    return (
        len(under) > 2
        and under[0] in _UNDERLINES
        and under.strip(under[0]) == ""
        and abs(len(line) - len(under)) <= 1
        and line[0].isalnum()
        and not _ITEM.match(line)
    )


def _item(line: str) -> str:
    """A line of a paragraph with the marks of lists as they are read: `** item` is an item in an item."""
    item = _ITEM.match(line)
    if item is not None:
        mark = item[1]
        depth = len(mark) - 1 if mark[0] in "*." else 0
        margin = " " * (len(item[0]) - len(item[0].lstrip()))
        bullet = mark if mark[0].isalnum() else "-"
        return f"{margin}{'  ' * depth}{bullet} {line[item.end() :]}"
    definition = _DEFINITION.fullmatch(line)
    if definition is not None and "://" not in definition[1]:
        return f"{definition[1]}: {definition[2] or ''}".rstrip()
    return line


def _alternative_text(attributes: str) -> str:
    first = attributes.split(",", 1)[0].strip().strip('"')
    return "" if "=" in first else first
