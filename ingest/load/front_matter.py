"""The `---` block at the top of a Markdown file, as far as its values are flat."""

from __future__ import annotations

import json
import re

from rag.types import Scalar

_BLOCK = re.compile(r"\A\n*---[ \t]*\n")
_KEY = re.compile(r"([A-Za-z_][\w .-]*?)[ \t]*:(?:[ \t]+(.*))?")
_ITEM = re.compile(r"[ \t]*-[ \t]+(.*)")
_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,17})")
_DECIMAL = re.compile(r"-?\d{1,15}\.\d{1,15}")
_QUOTED_OR_PLAIN = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'[^']*'|[^,]*)\s*(?:,|$)""")


def split_front_matter(text: str) -> tuple[dict[str, Scalar | list[str]], str]:
    """The flat values of the front matter, and the text after it.

    Scalars and lists of scalars are kept; nested values, block scalars and anchors are not. A number is one only
    where it reads back as it was written, so that `version: 1.10` stays "1.10". A `---` block that is not made of
    keys is a rule of the text, and stays there.
    """
    opening = _BLOCK.match(text)
    if opening is None:
        return {}, text
    lines: list[str] = []
    position = opening.end()
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        line = text[position:end].rstrip()
        position = end + 1
        if line in ("---", "..."):
            values = _values(lines)
            return ({}, text) if values is None else (values, text[position:].lstrip("\n"))
        lines.append(line)
    return {}, text


def _values(lines: list[str]) -> dict[str, Scalar | list[str]] | None:
    """None where a line is not of a block of keys."""
    values: dict[str, Scalar | list[str]] = {}
    key: str | None = None
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        item = _ITEM.fullmatch(line)
        pair = _KEY.fullmatch(line)
        if pair is not None:
            key = pair[1]
            value = _value(pair[2] or "")
            if value is not None:
                values[key] = value
        elif item is not None and key is not None:
            entries = values.setdefault(key, [])
            entry = _value(item[1])
            # An entry with a key of its own is a nested value.
            if isinstance(entries, list) and entry is not None and not _KEY.fullmatch(item[1]):
                entries.append(str(entry))
        elif not line.startswith((" ", "\t")) or key is None:
            return None
    return {name: value for name, value in values.items() if value != []}


def _value(written: str) -> Scalar | list[str] | None:
    written = written.strip()
    if written[:1] in ('"', "'"):
        quoted = _QUOTED_OR_PLAIN.match(written)
        return _unquoted(quoted[1] if quoted else written)
    written = written.split(" #", 1)[0].rstrip()
    if written.startswith("[") and written.endswith("]"):
        entries = (_unquoted(match[1].strip()) for match in _QUOTED_OR_PLAIN.finditer(written[1:-1]))
        return [entry for entry in entries if entry]
    if written[:1] in ("", "|", ">", "{", "&", "*", "!") or written in ("~", "null"):
        return None
    if written in ("true", "false"):
        return written == "true"
    if _INTEGER.fullmatch(written):
        return int(written)
    if _DECIMAL.fullmatch(written) and str(float(written)) == written:
        return float(written)
    return written


def _unquoted(written: str) -> str:
    if len(written) >= 2 and written[0] == written[-1] == '"':
        try:
            return str(json.loads(written, strict=False))
        except ValueError:
            return written[1:-1]
    if len(written) >= 2 and written[0] == written[-1] == "'":
        return written[1:-1].replace("''", "'")
    return written
