"""reStructuredText: what a reader of the page would read, as text; no directive or role is too strange for it.

Sphinx and its extensions add directives and roles without end, so that all but the few that hold no text are read as
what they are given. Nothing is run or included, and no other file is opened.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

from ingest.load.decoding import decode
from ingest.load.extracted import Extracted
from ingest.load.rst_inline import Inline
from ingest.load.rst_tables import grid_table, list_table, simple_table
from rag.types import Heading, Scalar

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1*")
_MIN_ADORNMENT = 4
_EXPLICIT = re.compile(r"\.\.(?: +|$)")
_DIRECTIVE = re.compile(r"([A-Za-z][\w.+:-]*?) ?::(?: +(.*))?$")
_FOOTNOTE = re.compile(r"\[([^\]]+)\] +")
_FIELD = re.compile(r":((?![: ])(?:\\.|[^\\:`])*(?<! )):(?: +|$)")
_MARKER = re.compile(r" *(?:[-*+•‣⁃]|\(?(?:\d+|#|[A-Za-z]|[ivxlcdmIVXLCDM]+)[.)]) +")
_BULLET = re.compile(r"[-*+•‣⁃] ")
_GRID_BORDER = re.compile(r"\+(?:[-=]+\+)+$")
_SIMPLE_BORDER = re.compile(r"=+(?: +=+)+$")
_ANONYMOUS_TARGET = re.compile(r" *__ \S+")
_MAX_NESTING = 50

_WITHOUT_TEXT = frozenset(
    "contents currentmodule default-domain default-role highlight include index literalinclude meta raw role sectnum "
    "section-numbering tabularcolumns target-notes testcleanup testsetup".split()
)
_VERBATIM = frozenset(
    "code code-block command-output console csv-table doctest graphviz ipython ipython3 jupyter-execute math mermaid "
    "parsed-literal productionlist prompt sourcecode testcode testoutput uml".split()
)
_WITHOUT_ARGUMENT = frozenset(
    "class code code-block container cssclass figure grid grid-item grid-item-card ifconfig image ipython ipython3 "
    "only plot prompt rst-class sourcecode tab-set testcode testoutput video youtube".split()
)
_VERSIONS = {
    "versionadded": "Added in version",
    "versionchanged": "Changed in version",
    "versionremoved": "Removed in version",
    "deprecated": "Deprecated since version",
}
_LABELS = {
    "seealso": "See also",
    **{
        name: name.capitalize()
        for name in ("attention", "caution", "danger", "error", "hint", "important", "note", "tip", "todo", "warning")
    },
}
_SPOKEN_OPTIONS = ("alt", "caption", "header", "title")


def load(data: bytes) -> Extracted:
    """The text of a reStructuredText file, with its headings; the title is the first one.

    Levels are given to adornments in the order in which they occur, as the language has it. Directives are reduced
    to their arguments and content, roles to their text, tables to rows with bars; code stands as it is. Comments,
    targets, substitution definitions and raw content are left out. Fields at the top are metadata.

    Raises:
        DocumentError: The file is empty or binary, or its encoding cannot be detected.
    """
    source = decode(data).expandtabs(8)
    lines = [line.rstrip() for line in source.split("\n")]
    reader = _Reader(Inline.of(source))
    metadata, first = _document_fields(lines)
    reader.read(lines[first:], depth=0)
    text, headings = reader.result()
    return Extracted(
        text=text,
        title=headings[0].text if headings else None,
        headings=headings,
        metadata=metadata,
        media_type="text/x-rst",
    )


def _document_fields(lines: Sequence[str]) -> tuple[dict[str, Scalar | list[str]], int]:
    """The fields that stand before any text, and how many lines they take."""
    metadata: dict[str, Scalar | list[str]] = {}
    index = 0
    while index < len(lines) and not lines[index]:
        index += 1
    while index < len(lines) and (field := _FIELD.match(lines[index])):
        end = _block_end(lines, index + 1, 0)
        value = " ".join(" ".join([lines[index][field.end() :], *lines[index + 1 : end]]).split())
        if value:
            metadata[field[1].strip().lower()] = value
        index = end
    return metadata, index


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _block_end(lines: Sequence[str], index: int, indent: int) -> int:
    """Where the lines end that are empty or indented deeper; empty ones at the end are not counted."""
    end = index
    while index < len(lines) and (not lines[index] or _indent(lines[index]) > indent):
        index += 1
        end = index if lines[index - 1] else end
    return end


def _dedented(lines: Sequence[str]) -> list[str]:
    margin = min((_indent(line) for line in lines if line), default=0)
    return [line[margin:] for line in lines]


def _adorns(line: str, title: str) -> bool:
    """An adornment that is shorter than its title is one nevertheless, unless it is very short."""
    is_adornment = _ADORNMENT.fullmatch(line) is not None
    return is_adornment and bool(title) and len(line) >= min(_MIN_ADORNMENT, len(title))


def _options(content: Sequence[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """The options of a directive, the lines of its argument that stand before them, and its body."""
    index = 0
    while index < len(content) and content[index] and not _FIELD.match(content[index]):
        index += 1
    argument = list(content[:index])
    options: dict[str, str] = {}
    while index < len(content) and (field := _FIELD.match(content[index])):
        end = _block_end(content, index + 1, 0)
        if "" in content[index:end]:
            end = content.index("", index, end)
        options[field[1]] = " ".join([content[index][field.end() :], *map(str.strip, content[index + 1 : end])])
        index = end
    return options, argument, list(content[index:])


class _Reader:
    """Reads lines block by block; what is nested is read at its own margin."""

    def __init__(self, inline: Inline) -> None:
        self._inline = inline
        self._blocks: list[tuple[str, int]] = []  # text, and its level if it is a heading, else 0
        self._styles: list[tuple[str, bool]] = []

    def result(self) -> tuple[str, tuple[Heading, ...]]:
        """The text, and its headings."""
        headings: list[Heading] = []
        offset = 0
        for text, level in self._blocks:
            if level:
                headings.append(Heading(start=offset, level=level, text=text))
            offset += len(text) + 2
        return "\n\n".join(text for text, _ in self._blocks) + "\n", tuple(headings)

    def read(self, lines: Sequence[str], depth: int) -> None:
        """Add the blocks of lines without white space at their ends; headings only at depth 0."""
        index = 0
        while index < len(lines):
            index = self._block(lines, index, depth) if lines[index] else index + 1

    def _block(self, lines: Sequence[str], index: int, depth: int) -> int:
        """One block that begins here; returns where the next may."""
        body = lines[index].lstrip(" ")
        indent = len(lines[index]) - len(body)
        if _EXPLICIT.match(body):
            end = _block_end(lines, index + 1, indent)
            self._explicit(body[2:].strip(), lines[index + 1 : end], depth)
            return end
        if depth == 0 and indent == 0 and (end := self._heading(lines, index)):
            return end
        if (_GRID_BORDER.match(body) or _SIMPLE_BORDER.match(body)) and (end := self._table(lines, index)):
            return end
        if _ADORNMENT.fullmatch(body) and len(body) >= _MIN_ADORNMENT:
            return index + 1
        return self._paragraph(lines, index)

    def _heading(self, lines: Sequence[str], index: int) -> int:
        """Where it ends; 0 where there is none."""
        line, second, third = [*lines[index : index + 3], "", ""][:3]
        if _adorns(line, second.strip()) and _adorns(third, second.strip()) and line[0] == third[0]:
            title, style, end = second, (line[0], True), index + 3
        elif _adorns(second, line) and not _ADORNMENT.fullmatch(line) and not _BULLET.match(line):
            title, style, end = line, (second[0], False), index + 2
        else:
            return 0
        if style not in self._styles:
            self._styles.append(style)
        text = " ".join(self._inline.text(title).split())
        if text:
            self._blocks.append((text, self._styles.index(style) + 1))
        return end

    def _explicit(self, first: str, content: Sequence[str], depth: int) -> None:
        directive = _DIRECTIVE.match(first)
        footnote = _FOOTNOTE.match(first)
        if directive is not None:
            # A directive of a domain, as py:function, is read as any other.
            self._directive(directive[1].lower().rsplit(":", 1)[-1], directive[2] or "", _dedented(content), depth)
        elif footnote is not None:
            self._add_inline("\n".join([f"[{footnote[1]}] {first[footnote.end() :]}", *_dedented(content)]))
        # Anything else is a comment, a target or a substitution definition.

    def _directive(self, name: str, argument: str, content: Sequence[str], depth: int) -> None:
        if name in _WITHOUT_TEXT:
            return
        options, leading, body = _options(content)
        if leading and argument and name not in _VERBATIM:
            argument = "\n".join([argument, *leading])
        else:
            body = leading + body
        if name in _WITHOUT_ARGUMENT:
            argument = ""
        if name in _VERSIONS:
            argument = f"{_VERSIONS[name]} {argument}"
        elif name in _LABELS:
            argument = f"{_LABELS[name]}: {argument}"
        for text in (argument, *(options.get(option, "") for option in _SPOKEN_OPTIONS)):
            self._add_inline(text)
        if name in _VERBATIM or depth >= _MAX_NESTING:
            self._add("\n".join(body))
        elif name in ("list-table", "flat-table"):
            self._add_inline("\n".join(list_table(body)))
        elif name == "toctree":
            self._add_inline("\n".join(entry[: entry.rfind("<")] for entry in body if entry.endswith(">")))
        else:
            self.read(body, depth + 1)

    def _table(self, lines: Sequence[str], index: int) -> int:
        """Where it ends; 0 where it never does, or is none."""
        end = index
        if lines[index].lstrip(" ").startswith("+"):
            while end < len(lines) and lines[end].lstrip(" ")[:1] in ("+", "|"):
                end += 1
            rows = grid_table(_dedented(lines[index:end]))
        else:
            margin = _indent(lines[index])
            borders = islice(
                (place for place in range(index, len(lines)) if _SIMPLE_BORDER.match(lines[place].lstrip(" "))), 1, 3
            )
            # The second border is the last of a table without a header.
            last = next((place for place in borders if not any(lines[place + 1 : place + 2])), None)
            if last is None:
                return 0
            end = last + 1
            rows = simple_table([line[margin:] for line in lines[index:end]])
        self._add_inline("\n".join(rows))
        return end

    def _paragraph(self, lines: Sequence[str], index: int) -> int:
        end = index + 1
        while end < len(lines) and lines[end] and not _EXPLICIT.match(lines[end].lstrip(" ")):
            end += 1
        block = lines[index:end]
        if block[0].lstrip(" ").startswith(">>> "):
            self._add("\n".join(block))
            return end
        text = "\n".join(filter(None, map(_unmarked, block)))
        if not text.endswith("::"):
            self._add_inline(text)
            return end
        # Code follows; of the two colons a reader sees one, unless they stand alone.
        self._add_inline(text[:-2].rstrip() if text[:-2][-1:] in ("", " ", "\n") else text[:-1])
        marker = _MARKER.match(block[-1])
        code_end = _block_end(lines, end, marker.end() - 1 if marker else _indent(block[-1]))
        self._add("\n".join(lines[end:code_end]))
        return max(end, code_end)

    def _add_inline(self, text: str) -> None:
        self._add(self._inline.text(text))

    def _add(self, text: str) -> None:
        text = text.strip("\n").rstrip()
        if text:
            self._blocks.append((text, 0))


def _unmarked(line: str) -> str:
    """A line of a paragraph as it is read: without the colon before a field and the bar of a line block."""
    body = line.lstrip(" ")
    margin = line[: len(line) - len(body)]
    if (_ADORNMENT.fullmatch(body) and len(body) >= _MIN_ADORNMENT) or _ANONYMOUS_TARGET.fullmatch(line):
        return ""
    if (field := _FIELD.match(body)) is not None:
        return f"{margin}{field[1]}: {body[field.end() :]}"
    return margin + body[1:].lstrip() if body.startswith("| ") or body == "|" else line
