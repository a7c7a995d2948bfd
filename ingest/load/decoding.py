"""Bytes to text: which encoding, and which characters are no text at all.

Order of trust: a byte order mark; strict UTF-8, which other encodings hardly ever pass by accident; the pattern of
NUL bytes, for UTF-16 and UTF-32 without a mark; what the file declares; statistical detection.
"""

from __future__ import annotations

import codecs
import re

from rag.errors import DocumentError

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
# The labels browsers read as their superset (WHATWG Encoding Standard, section 4.2).
_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
# What people save texts in; among all of Python's codecs some EBCDIC page fits anything.
_CANDIDATES = (
    "cp1252 cp1250 cp1251 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 cp874 koi8_r koi8_u gb18030 big5 cp932 euc_jp "
    "cp949 cp437 cp850 cp852 cp866 mac_roman iso8859_2 iso8859_5 iso8859_7 iso8859_8 iso8859_15"
).split()
_SAME_CHAOS = 0.02
_RUN = re.compile(b"[\x80-\xff]+|[\x00-\x7f]+")
_SAMPLE_BYTES = 1 << 16
_NEIGHBOURHOOD_BYTES = 100
_MAX_ODD_SHARE = 0.01
_MIN_PUNCTUATED_CHARACTERS = 200
_MIN_PUNCTUATION = 0.005

# Half-width kana, single jamo, box drawing, and ideographs between the letters of a Latin word.
_UNLIKELY = re.compile("[\uff61-\uff9f\u3131-\u318e\u2500-\u25ff]|[A-Za-z][\u3040-\ud7a3]|[\u3040-\ud7a3][A-Za-z]")
_LINE_ENDS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
# Controls, byte order marks, and lone surrogates, which no store can write as UTF-8.
_NOT_TEXT = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")
_PUNCTUATION = re.compile("[\\s.,;:!?、。，．：；！？]")
_ODD = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f\ufffe\uffff\ue000-\uf8ff\U000f0000-\U0010ffff]")


def clean(text: str) -> str:
    r"""Line ends become `\n`; byte order marks and control characters but `\n` and `\t` go; nothing else changes."""
    return _NOT_TEXT.sub("", _LINE_ENDS.sub("\n", text))


def decode(data: bytes, declared: str | None = None) -> str:
    """The text of `data`, clean.

    Args:
        data: A whole file.
        declared: The encoding the file itself names, trusted after UTF-8 and before detection.

    Raises:
        DocumentError: The file is empty or binary, or its encoding cannot be detected.
    """
    if not data:
        raise DocumentError("the file is empty")
    return clean(_decode(data, declared))


def _decode(data: bytes, declared: str | None) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            text = _strictly(data[len(mark) :], encoding)
            if text is not None and _plausible(text):
                return text
    codec = _codec(declared)
    # Seven-bit encodings with escapes pass for UTF-8, so here alone the declaration comes first.
    if codec is not None and codec.startswith("iso2022") and (text := _strictly(data, codec)) is not None:
        return text
    text = _strictly(data, "utf-8")
    if text is not None and _plausible(text):
        return text
    # Eight-bit text has no NULs; UTF-16 without a mark passes for UTF-8 at most with a NUL at every other place.
    wide = _wide(data) if b"\0" in data else None
    if wide is not None:
        return wide
    if text is not None or b"\0" in data:
        raise DocumentError("binary file, not text")
    if codec is not None and (text := _strictly(data, codec)) is not None and _plausible(text):
        return text
    return _detected(data)


def _strictly(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return None


def _plausible(text: str) -> bool:
    """A stray NUL or escape happens in text files; every hundredth character does not."""
    return len(_ODD.findall(text)) <= _MAX_ODD_SHARE * len(text)


def _punctuated(text: str) -> bool:
    """Noise decodes as one East Asian encoding or another, but blanks and full stops are rare in it."""
    return len(text) < _MIN_PUNCTUATED_CHARACTERS or len(_PUNCTUATION.findall(text)) >= _MIN_PUNCTUATION * len(text)


def _wide(data: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark, where a reading has nothing odd in it.

    Of two byte orders the right one has the blanks and line ends (the other makes U+2000 and U+0A00 of them) and,
    where there are none, letters of few scripts (the other scatters them).
    """
    readings = []
    for encoding in _WIDE:
        text = _strictly(data, encoding)
        if text is not None and "\0" not in text and _plausible(text):
            if encoding.startswith("utf-32"):
                return text
            blanks = text.count(" ") + text.count("\n")
            readings.append((-blanks, len({ord(character) >> 8 for character in text[:_SAMPLE_BYTES]}), text))
    return min(readings)[2] if readings else None


def _codec(declared: str | None) -> str | None:
    if not declared:
        return None
    try:
        name = codecs.lookup(declared.strip()).name
    except (LookupError, ValueError):
        return None
    # The declaration was read as ASCII, so it is not one of a wide encoding whatever it says.
    return None if name.startswith(("utf-16", "utf-32")) else _SUPERSETS.get(name, name)


def _detected(data: bytes) -> str:
    """The likeliest reading; of equally likely ones the one that looks most like running text.

    That is, before the detector's own order: fewest characters that stand in no running text, most blanks and
    punctuation, letters in the proportions of a language, and the commonest Western code page.
    """
    from charset_normalizer import from_bytes

    matches = list(from_bytes(_sample(data), cp_isolation=_CANDIDATES))
    lowest = min((match.chaos for match in matches), default=0.0)
    ranked = []
    for order, match in enumerate(matches):
        if match.chaos <= lowest + _SAME_CHAOS:
            western = "cp1252" in (match.encoding, *match.could_be_from_charset)
            reading = str(match)
            unlikely, punctuation = len(_UNLIKELY.findall(reading)), len(_PUNCTUATION.findall(reading))
            encoding = "cp1252" if western else match.encoding
            ranked.append((unlikely, -punctuation, -match.coherence, not western, order, encoding))
    for *_, encoding in sorted(ranked):
        text = _strictly(data, encoding)
        if text is not None and _plausible(text) and _punctuated(text):
            return text
    raise DocumentError("the encoding cannot be detected; save the file as UTF-8")


def _sample(data: bytes) -> bytes:
    """What says something about the encoding, about 64 KiB: the bytes beyond ASCII, and the ASCII next to them."""
    sample = bytearray()
    for match in _RUN.finditer(data):
        run = match.group()
        if run[0] < 0x80 and len(run) > 2 * _NEIGHBOURHOOD_BYTES:
            run = run[:_NEIGHBOURHOOD_BYTES] + b"\n" + run[-_NEIGHBOURHOOD_BYTES:]
        sample += run[:_SAMPLE_BYTES]
        if len(sample) > _SAMPLE_BYTES:
            break
    return bytes(sample)
