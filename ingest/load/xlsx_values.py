"""What a stored value of an Excel cell means under its number format.

ECMA-376 part 1, sections 18.8.30 (number formats) and 18.17.4 (dates as numbers of days).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal
from xml.etree.ElementTree import Element

from ingest.load.numerals import number
from ingest.load.xml_tree import local_name

DateKind = Literal["", "date", "time"]

_BUILT_IN: dict[int, DateKind] = {
    **dict.fromkeys((14, 15, 16, 17, 22, *range(27, 32), 36, *range(50, 59)), "date"),
    **dict.fromkeys((18, 19, 20, 21, 32, 33, 34, 35, 45, 46, 47), "time"),
}
# Quoted text, escaped and padding characters, and what stands in brackets but elapsed time.
_NOT_CODE = re.compile(r'"[^"]*"|\\.|[_*].|\[(?!h+\]|m+\]|s+\])[^\]]*\]', re.IGNORECASE)
_EPOCH = datetime(1899, 12, 30)  # noqa: DTZ001 - sheets know no time zones
_EPOCH_1904 = datetime(1904, 1, 1)  # noqa: DTZ001 - as above
_DAY_SECONDS = 86_400
# Excel takes 1900 for a leap year, so that days before 1 March 1900 are one short.
_FIRST_RIGHT_DAY = 61


def date_kinds(styles: Element | None) -> list[DateKind]:
    """By cell style: whether its numbers are dates, times of day, or neither (empty)."""
    codes: dict[int, str] = {}
    kinds: list[DateKind] = []
    for element in () if styles is None else styles.iter():
        name = local_name(element)
        if name == "numFmt":
            codes[_integer(element.get("numFmtId"))] = element.get("formatCode", "")
        elif name == "cellXfs":
            formats = [_integer(each.get("numFmtId")) for each in element]
            kinds = [_kind(codes[each]) if each in codes else _BUILT_IN.get(each, "") for each in formats]
    return kinds


def as_date(stored: str, kind: DateKind, *, from_1904: bool) -> str | None:
    """A stored number as ISO 8601 date, date and time, or time; None where it is no date Excel would show."""
    try:
        seconds = round(float(stored) * _DAY_SECONDS)
    except (ValueError, OverflowError):
        return None
    if seconds < 0:
        return None
    if kind == "time" or seconds < _DAY_SECONDS:
        minutes, second = divmod(seconds, 60)
        return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}"
    if not from_1904 and seconds < _FIRST_RIGHT_DAY * _DAY_SECONDS:
        seconds += _DAY_SECONDS
    try:
        moment = (_EPOCH_1904 if from_1904 else _EPOCH) + timedelta(seconds=seconds)
    except OverflowError:
        return None
    return moment.date().isoformat() if seconds % _DAY_SECONDS == 0 else moment.isoformat(sep=" ")


def shown(stored: str, kind: str, shared: Sequence[str]) -> tuple[str, Literal["text", "number", "boolean"]]:
    """A stored value as text, and what it is.

    Args:
        stored: The content of `v`.
        kind: The cell's `t`.
        shared: The shared strings.
    """
    if kind == "s":
        index = _integer(stored)
        return (shared[index] if 0 <= index < len(shared) else ""), "text"
    if kind == "b":
        return ("FALSE" if stored == "0" else "TRUE"), "boolean"
    if kind in ("", "n"):
        return number(stored), "number"
    return stored, "text"


def _kind(code: str) -> DateKind:
    letters = set(_NOT_CODE.sub("", code.split(";")[0]).lower())
    if letters & {"y", "d"} or ("m" in letters and not letters & {"h", "s"}):
        return "date"
    return "time" if letters & {"h", "s"} else ""


def _integer(written: str | None) -> int:
    return int(written) if written is not None and written.isdecimal() else -1
