r"""RTF: the body with headings, list markers, tables and footnotes.

Rich Text Format Specification 1.9.1. Text is bytes in the code page of the font, or `\u` with a substitute behind it
for older readers. Destinations that hold no text of the document are skipped, and so are unknown ones marked `\*`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ingest.load.assembly import Assembly, table_lines, words
from ingest.load.extracted import Extracted
from ingest.load.properties import meaningful_title, metadata
from ingest.load.rtf_words import CHARACTERS, CODE_PAGES, OPENED, PARAGRAPH_ENDS, READ, SKIPPED, SYMBOLS, TOKEN
from rag.errors import DocumentError

_MAX_DEPTH = 1000
_BODY_LEVEL = 9
_HEADING_STYLE = re.compile(r"heading ([1-9])", re.IGNORECASE)
_LINE_ENDS = b"\r\n\0"
_PROPERTIES = ("title", "author", "subject", "keywords")


def load(data: bytes) -> Extracted:
    """The text of an RTF file; footnotes stand at the end, and `[^1]` where they belong.

    Raises:
        DocumentError: The file is no RTF, or nested beyond reason.
    """
    if not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{\\rtf"):
        raise DocumentError("corrupt RTF: it does not begin as one")
    reader = _Reader()
    reader.read(data)
    properties = {name: [words(reader.taken(name))] for name in _PROPERTIES}
    title = meaningful_title(properties.pop("title")[0]) or meaningful_title(reader.title) or reader.out.first_heading
    return reader.out.extracted(title=title, metadata=metadata(properties), media_type="application/rtf")


@dataclass(frozen=True, slots=True)
class _State:
    """What a group inherits, and what is restored when it ends."""

    destination: str = "body"
    codec: str = "cp1252"
    substitutes: int = 1  # characters behind each u
    hidden: bool = False
    style: int = 0
    level: int = _BODY_LEVEL
    in_table: bool = False


class _Reader:
    def __init__(self) -> None:
        self.out = Assembly()
        self.title: str | None = None
        self._state = _State()
        self._around: list[_State] = []
        self._bytes = bytearray()  # text that is not decoded yet
        self._pieces: dict[str, list[str]] = {name: [] for name in ("body", *READ.values()) if name != "fonts"}
        self._notes: list[str] = []
        self._row: dict[int, str] = {}
        self._rows: list[dict[int, str]] = []
        self._default_codec = "cp1252"
        self._codecs: dict[int, str] = {}  # by font
        self._default_font = self._font = 0
        self._levels: dict[int, int] = {}  # outline level by paragraph style
        self._titles: set[int] = set()  # paragraph styles of titles
        self._to_skip = 0  # substitutes still to come
        self._starred = False

    def read(self, data: bytes) -> None:
        """Writes the whole file."""
        position = 0
        while match := TOKEN.match(data, position):
            position = match.end()
            word, parameter, byte, symbol, brace, text = match.groups()
            if word is not None:
                number = None if parameter is None else int(parameter)
                if word == b"bin":
                    position += max(0, number or 0)
                else:
                    self._word(word.decode("ascii"), number)
                self._starred = False
            elif byte is not None:
                self._add_bytes(bytes([int(byte, 16)]))
            elif symbol is not None:
                self._symbol(symbol)
            elif brace is not None:
                self._brace(brace)
            else:
                self._add_bytes(text.translate(None, _LINE_ENDS))
        self._flush()
        self._state = replace(self._state, destination="body", in_table=False)
        self._end_paragraph()
        self._end_table()
        for place, note in enumerate(self._notes, start=1):
            self.out.note(place, note)

    def taken(self, destination: str) -> str:
        """What was collected there since it was taken last; halves of a character that came singly are joined."""
        pieces = self._pieces[destination]
        text = "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        pieces.clear()
        return text

    def _word(self, word: str, number: int | None) -> None:
        if word == "u":
            self._to_skip = 0
            self._add(chr((number or 0) % 0x10000))
            self._to_skip = self._state.substitutes
        elif word in CHARACTERS:
            self._add(CHARACTERS[word])
        elif word in READ:
            self._enter(READ[word])
        elif word in SKIPPED or not (self._ends(word) or self._sets(word, number) or self._is_read(word)):
            self._enter("skipped")

    def _is_read(self, word: str) -> bool:
        """Whether the rest of the group is text although `word` is unknown: not where a star says to skip it."""
        return not self._starred or word in OPENED

    def _ends(self, word: str) -> bool:
        """Whether `word` ends a paragraph, a cell or a row, which then is written."""
        if word in PARAGRAPH_ENDS:
            self._flush()
            self._end_paragraph()
        elif word == "cell":
            self._flush()
            self._end_cell()
        elif word == "row":
            self._end_row()
        elif word in ("nestcell", "nestrow"):
            self._add(" ")
        else:
            return False
        return True

    def _sets(self, word: str, number: int | None) -> bool:
        """Whether `word` sets what holds from here to the end of the group."""
        if word not in _SETTING:
            return False
        self._flush()
        state, value = self._state, number or 0
        if word == "f":
            self._font = value
            state = replace(state, codec=self._codecs.get(value, self._default_codec))
        elif word == "fcharset":
            self._codecs[self._font] = CODE_PAGES.get(value, self._default_codec)
        elif word == "ansicpg":
            self._default_codec = _codec(value)
            state = replace(state, codec=self._default_codec)
        elif word == "deff":
            self._default_font = value
        elif word == "plain":
            state = replace(state, hidden=False, codec=self._codecs.get(self._default_font, self._default_codec))
        elif word == "pard":
            state = replace(state, style=0, level=_BODY_LEVEL, in_table=False)
        else:
            state = self._with(word, number)
        self._state = state
        return True

    def _with(self, word: str, number: int | None) -> _State:
        if word == "uc":
            return replace(self._state, substitutes=max(0, number or 0))
        if word == "s":
            return replace(self._state, style=number or 0)
        if word == "outlinelevel":
            return replace(self._state, level=_BODY_LEVEL if number is None else number)
        if word == "intbl":
            return replace(self._state, in_table=True)
        return replace(self._state, hidden=number != 0)  # v and deleted

    def _enter(self, destination: str) -> None:
        """From here to the end of the group text goes to `destination`."""
        self._flush()
        now = self._state.destination
        if now == "skipped" or (destination == "marker" and now != "body"):
            destination = "skipped"
        elif destination == "footnote" and now == "body":
            self._add(f"[^{len(self._notes) + 1}]")
        self._state = replace(self._state, destination=destination)

    def _brace(self, brace: bytes) -> None:
        self._flush()
        self._to_skip = 0
        self._starred = False
        if brace == b"{":
            if len(self._around) >= _MAX_DEPTH:
                raise DocumentError(f"corrupt RTF: groups are nested over {_MAX_DEPTH} deep")
            self._around.append(self._state)
            return
        ended = self._state
        self._state = self._around.pop() if self._around else _State()
        if ended.destination == "style":
            self._end_style(ended)
        elif ended.destination == "footnote" and self._state.destination != "footnote":
            self._notes.append(words(self.taken("footnote")))

    def _symbol(self, symbol: bytes) -> None:
        if symbol == b"*":
            self._starred = True
        elif symbol in b"\r\n":
            self._flush()
            self._end_paragraph()
        elif symbol in SYMBOLS:
            self._add(SYMBOLS[symbol])

    def _add(self, text: str) -> None:
        self._flush()
        if self._to_skip:
            self._to_skip -= 1
        elif self._target is not None:
            self._target.append(text)

    def _add_bytes(self, data: bytes) -> None:
        skipped = min(self._to_skip, len(data))
        self._to_skip -= skipped
        if self._target is not None:
            self._bytes += data[skipped:]

    def _flush(self) -> None:
        if self._bytes and self._target is not None:
            self._target.append(self._bytes.decode(self._state.codec, errors="replace"))
        self._bytes.clear()

    @property
    def _target(self) -> list[str] | None:
        return None if self._state.hidden else self._pieces.get(self._state.destination)

    def _end_style(self, style: _State) -> None:
        name = words(self.taken("style")).rstrip(";").strip()
        heading = _HEADING_STYLE.fullmatch(name)
        if style.level < _BODY_LEVEL:
            self._levels[style.style] = style.level
        elif heading is not None:
            self._levels[style.style] = int(heading[1]) - 1
        elif name.lower() == "title":
            self._titles.add(style.style)

    def _end_paragraph(self) -> None:
        if self._state.destination != "body" or self._state.in_table:
            if self._target is not None:
                self._target.append("\n")
            return
        self._end_table()
        text, marker = self.taken("body").strip(), words(self.taken("marker"))
        if not text:
            return
        is_title = self._state.style in self._titles
        level = 0 if is_title else min(self._state.level, self._levels.get(self._state.style, _BODY_LEVEL))
        if is_title and self.title is None:
            self.title = words(text)
        if level < _BODY_LEVEL:
            self.out.heading(level + 1, f"{marker} {text}")
        elif marker:
            self.out.block(f"{marker if any(map(str.isalnum, marker)) else '-'} {text}", "item")
        else:
            self.out.block(text, "text")

    def _end_cell(self) -> None:
        if self._state.destination == "body":
            self._row[len(self._row)] = f"{self.taken('marker')} {self.taken('body')}"

    def _end_row(self) -> None:
        if self._row:
            self._rows.append(self._row)
            self._row = {}

    def _end_table(self) -> None:
        self._end_row()
        if self._rows:
            self.out.apart()
            for line in table_lines(self._rows):
                self.out.block(line, "row")
            self._rows = []


_SETTING = frozenset("f fcharset ansicpg deff plain pard uc s outlinelevel intbl v deleted".split())


def _codec(code_page: int) -> str:
    try:
        b"".decode(f"cp{code_page}")
    except LookupError:
        return "cp1252"
    return f"cp{code_page}"
