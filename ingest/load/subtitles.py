"""Subtitles, WebVTT and SubRip: what is said, in paragraphs, without its times."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ingest.load.decoding import decode
from ingest.load.extracted import Extracted
from rag.errors import DocumentError
from rag.types import Scalar

_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{1,3})"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_WEBVTT = re.compile(r"WEBVTT(?:[ \t]+(.*))?$")
_HEADER = re.compile(r"(Kind|Language):[ \t]*(\S+)", re.IGNORECASE)
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?[ \t]+([^>]+)>")
# Also the times inside a cue of automatic captions, and positions as SubStation writes them.
_MARKUP = re.compile(r"</?[A-Za-z][^<>]*>|</>|<[\d:.]+>|\{\\[^{}]*\}")
_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’)\]]*$")
# A pause as long as this begins a paragraph, and so does a sentence after as many characters.
_PAUSE_S = 4.0
_PARAGRAPH_CHARACTERS = 600
# Captions that roll up repeat what is on the screen still; between speakers who echo each other there is a gap.
_ROLLING_GAP_S = 0.1


@dataclass(frozen=True, slots=True)
class _Cue:
    """Times in seconds; lines as (speaker or "", words)."""

    start: float
    end: float
    lines: tuple[tuple[str, str], ...]


def load(data: bytes) -> Extracted:
    """The cues of a WebVTT or SubRip file as running text: `Name: text` where a voice is named.

    A paragraph ends where another speaks, before a pause of four seconds, and with the sentence after 600 characters.
    Captions that roll up, each repeating the line before, say everything once. Metadata: `start_s` of the first cue,
    `duration_s` up to the end of the last, and `language` where the file names it.

    Raises:
        DocumentError: The file is empty or binary, its encoding cannot be detected, or there is no cue in it.
    """
    blocks = [block.split("\n") for block in re.split(r"\n{2,}", decode(data).strip("\n")) if block]
    first = blocks[0] if blocks else [""]
    webvtt = _WEBVTT.match(first[0])
    cues = sorted(_cues(blocks, continues=webvtt is None), key=lambda cue: cue.start)
    if not cues:
        raise DocumentError("no subtitles: there is no line like 00:01.000 --> 00:02.000 with words under it")
    start, end = cues[0].start, max(cue.end for cue in cues)
    metadata: dict[str, Scalar | list[str]] = {"start_s": start, "duration_s": round(end - start, 3)}
    for line in first if webvtt else []:
        if (header := _HEADER.match(line)) and header[1].lower() == "language":
            metadata["language"] = header[2]
    title = (webvtt[1] or "").lstrip("-–— \t").strip() if webvtt else ""
    return Extracted(
        text="".join(f"{paragraph}\n\n" for paragraph in _paragraphs(cues)).rstrip("\n") + "\n",
        title=title or None,
        metadata=metadata,
        media_type="text/vtt" if webvtt else "application/x-subrip",
    )


def _cues(blocks: list[list[str]], *, continues: bool) -> Iterator[_Cue]:
    """The cues with words, in the order of the file.

    Args:
        blocks: Lines between empty lines.
        continues: A block without times goes on with the cue before, as it may in SubRip; in WebVTT it is a note.
    """
    current: tuple[float, float, list[str]] | None = None
    for block in blocks:
        timing = None
        for index, line in enumerate(block):
            match = _TIMING.fullmatch(line)
            if match is not None:
                # The line above the first is the cue's name; further cues may follow without an empty line.
                if current is not None:
                    yield from _cue(*current)
                timing = match
                current = (_seconds(match, 1), _seconds(match, 5), [])
            elif current is not None and (timing is not None or continues) and not _is_name(block, index):
                current[2].append(line)
    if current is not None:
        yield from _cue(*current)


def _is_name(block: list[str], index: int) -> bool:
    """A line right above the times of a cue: its number."""
    return index + 1 < len(block) and _TIMING.fullmatch(block[index + 1]) is not None


def _seconds(match: re.Match[str], group: int) -> float:
    hours, minutes, seconds, fraction = (match[group + place] or "0" for place in range(4))
    return round(int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(fraction.ljust(3, "0")) / 1000, 3)


def _cue(start: float, end: float, source: list[str]) -> Iterator[_Cue]:
    lines: list[tuple[str, str]] = []
    speaker = ""
    for line in _BREAK.sub("\n", "\n".join(source)).split("\n"):
        # Split at voices: words, name, words, name, words ...
        parts = _VOICE.split(line)
        for index, part in enumerate(parts):
            if index % 2:
                speaker = _words(part)
            elif words := _words(part):
                lines.append((speaker, words))
            if index % 2 == 0 and "</v>" in part:
                speaker = ""
    if lines:
        yield _Cue(start, end, tuple(lines))


def _words(source: str) -> str:
    return " ".join(html.unescape(_MARKUP.sub("", source)).split())


def _said_once(cues: list[_Cue]) -> Iterator[_Cue]:
    """The cues without the lines that still stand there from the cue before, and without what grew in them."""
    shown: tuple[tuple[str, str], ...] = ()
    end = -1.0
    for cue in cues:
        lines = cue.lines
        if cue.start - end <= _ROLLING_GAP_S:
            repeated = max((n for n in range(len(lines) + 1) if n == 0 or shown[-n:] == lines[:n]), default=0)
            lines = lines[repeated:]
            grown = bool(lines and shown) and repeated == 0 and _grew(shown[-1], lines[0])
            if grown:
                lines = ((lines[0][0], lines[0][1][len(shown[-1][1]) :].strip()), *lines[1:])
        shown, end = cue.lines, cue.end
        if lines:
            yield _Cue(cue.start, cue.end, lines)


def _grew(before: tuple[str, str], now: tuple[str, str]) -> bool:
    return before[0] == now[0] and now[1].startswith(f"{before[1]} ")


def _paragraphs(cues: list[_Cue]) -> Iterator[str]:
    paragraph: list[str] = []
    speaker = ""
    length = 0
    end = 0.0
    for cue in _said_once(cues):
        for name, words in cue.lines:
            is_long = length >= _PARAGRAPH_CHARACTERS and _SENTENCE_END.search(paragraph[-1]) is not None
            if paragraph and (name != speaker or cue.start - end >= _PAUSE_S or is_long):
                yield " ".join(paragraph)
                paragraph, length = [], 0
            if name and not paragraph:
                paragraph.append(f"{name}:")
            speaker = name
            paragraph.append(words)
            length += len(words) + 1
            end = max(cue.end, cue.start)
    if paragraph:
        yield " ".join(paragraph)
