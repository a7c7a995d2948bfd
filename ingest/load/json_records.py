"""JSON: records become documents of their own, anything else one document of lines that say where a value stands."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ingest.load.decoding import clean, decode
from ingest.load.extracted import Child, Extracted
from rag.errors import DocumentError
from rag.types import Scalar

_MEDIA_TYPE = "application/json"
_LINES_MEDIA_TYPE = "application/jsonl"
_MAX_WARNINGS = 20
# A longer list of numbers is a vector, which says nothing in words.
_MAX_NUMBERS = 64
# In a record that is indexed as lines a longer string is text, which no filter asks for.
_MAX_FILTERABLE_CHARACTERS = 200
_MAX_INTEGER = 1 << 63
_LIFTED = ("metadata", "meta")


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """Which fields of a record say what; of several names the first that is there and not empty counts.

    Names are compared without regard to case. Every other field is metadata.
    """

    id: tuple[str, ...] = ("id", "_id", "uid", "uuid", "doc_id", "document_id")
    title: tuple[str, ...] = ("title", "name", "subject", "headline")
    text: tuple[str, ...] = ("text", "content", "contents", "body", "page_content", "passage", "markdown")


def load(data: bytes, mapping: FieldMapping = FieldMapping()) -> Extracted:
    """A JSON file: an array of objects as one child for each, any other value as lines `path.to.key: value`.

    A file of several objects, one to a line, is read as `load_lines` does, whatever its name.

    Raises:
        DocumentError: The file is empty, binary or no JSON.
    """
    source = decode(data)
    try:
        value = _parsed(source)
    except ValueError as error:
        if _begins_with_a_record(source):
            return _from_lines(source, mapping)
        raise DocumentError(f"no JSON: {error}; mend the file or export it again") from error
    return _from_value(value, mapping)


def load_lines(data: bytes, mapping: FieldMapping = FieldMapping()) -> Extracted:
    """A JSONL file: every line that holds an object is a child; a line that does not is a warning with its number.

    A file that is one JSON value after all is read as `load` does.

    Raises:
        DocumentError: The file is empty or binary, or no line of it can be read.
    """
    source = decode(data)
    if not _begins_with_a_record(source):
        try:
            return _from_value(_parsed(source), mapping)
        except ValueError:
            pass  # bad lines are reported by their numbers
    return _from_lines(source, mapping)


def _begins_with_a_record(source: str) -> bool:
    try:
        return isinstance(_parsed(source.lstrip().split("\n", 1)[0]), dict)
    except ValueError:
        return False


def _from_value(value: object, mapping: FieldMapping) -> Extracted:
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        numbered = ((number, "record", item) for number, item in enumerate(value, start=1))
        return _collected(numbered, mapping, _MEDIA_TYPE, [])
    title_key = _first_key(value, mapping.title) if isinstance(value, dict) else None
    title = _written(value[title_key]) if isinstance(value, dict) and title_key is not None else None
    return Extracted(text=_as_lines(value), title=title, media_type=_MEDIA_TYPE)


def record_from_line(line: str, number: int, mapping: FieldMapping = FieldMapping()) -> Child:
    """The document that one line of JSONL holds.

    Args:
        line: Without or with its line end.
        number: Counted from 1; named in errors, and the child's name where the record has no id.

    Raises:
        DocumentError: The line is no JSON object, or has no text.
    """
    return _record(_parsed_line(line, number), f"line {number}", str(number), mapping)


def _from_lines(source: str, mapping: FieldMapping) -> Extracted:
    bad: list[str] = []
    lines = ((number, line) for number, line in enumerate(source.split("\n"), start=1) if line.strip())

    def objects() -> Iterator[tuple[int, str, Mapping[str, object]]]:
        for number, line in lines:
            try:
                yield number, "line", _parsed_line(line, number)
            except DocumentError as error:
                bad.append(str(error))

    return _collected(objects(), mapping, _LINES_MEDIA_TYPE, bad)


def _collected(
    numbered: Iterable[tuple[int, str, Mapping[str, object]]], mapping: FieldMapping, media_type: str, bad: list[str]
) -> Extracted:
    """All records as children; `bad` is what was wrong with those that came to nothing, and grows meanwhile."""
    children: dict[str, Child] = {}
    for number, unit, record in numbered:
        place = f"{unit} {number}"
        try:
            child = _record(record, place, str(number), mapping)
        except DocumentError as error:
            bad.append(str(error))
            continue
        if child.name in children:
            bad.append(f"{place}: the id {child.name!r} is that of an earlier record too")
            child = Child(f"{child.name} ({place})", child.content)
        children[child.name] = child
    if not children:
        raise DocumentError(f"no record can be read: {bad[0]}" if bad else "no text in the file")
    if len(bad) > _MAX_WARNINGS:
        bad = [*bad[:_MAX_WARNINGS], f"and {len(bad) - _MAX_WARNINGS:,} more such records"]
    return Extracted(text="", title=None, media_type=media_type, children=tuple(children.values()), warnings=tuple(bad))


def _parsed(source: str) -> object:
    """The value.

    Raises:
        ValueError: It is no JSON.
    """
    try:
        return json.loads(source, strict=False, parse_constant=lambda _: None)
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error


def _parsed_line(line: str, number: int) -> Mapping[str, object]:
    try:
        value = _parsed(line)
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise DocumentError(f"line {number}: no JSON ({reason})") from error
    if not isinstance(value, dict):
        raise DocumentError(f"line {number}: not an object of keys and values")
    return value


def _record(record: Mapping[str, object], place: str, name: str, mapping: FieldMapping) -> Child:
    id_key = _first_key(record, mapping.id)
    title_key = _first_key(record, mapping.title)
    text_key = _first_key(record, mapping.text)
    rest = {key: value for key, value in record.items() if key not in (id_key, title_key, text_key)}
    if text_key is not None:
        text = _text_of(record[text_key])
    else:
        text = _as_lines({key: value for key, value in record.items() if key != id_key})
    if not text.strip():
        raise DocumentError(f"{place}: no text in the record")
    metadata = _metadata(rest, None if text_key is not None else _MAX_FILTERABLE_CHARACTERS)
    title = None if title_key is None else _written(record[title_key])
    content = Extracted(text=text, title=title, metadata=metadata, media_type=_MEDIA_TYPE)
    return Child(name if id_key is None else _written(record[id_key]), content)


def _first_key(record: Mapping[str, object], names: tuple[str, ...]) -> str | None:
    """The key of the first of the names under which there is a string, a number or strings."""
    keys = {key.casefold(): key for key in reversed(list(record))}
    for name in names:
        key = keys.get(name.casefold())
        value = None if key is None else record[key]
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            value = "".join(value)
        if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
            return key
    return None


def _text_of(value: object) -> str:
    if isinstance(value, list):
        return "\n\n".join(clean(str(item)).strip() for item in value)
    return clean(value) if isinstance(value, str) else _written(value)


def _metadata(record: Mapping[str, object], max_characters: int | None) -> dict[str, Scalar | list[str]]:
    """What a filter can ask for: scalars and lists of strings, the keys of nested objects joined with a dot."""
    metadata: dict[str, Scalar | list[str]] = {}
    for path, value in _leaves(record):
        key = path.split(".", 1)[1] if path.startswith(tuple(f"{name}." for name in _LIFTED)) else path
        key = clean(key)
        if isinstance(value, list):
            if value and all(isinstance(item, str) for item in value):
                metadata[key] = [clean(item) for item in value]
        elif isinstance(value, str):
            if max_characters is None or len(value) <= max_characters:
                metadata[key] = clean(value)
        elif isinstance(value, bool | float):
            metadata[key] = value
        elif isinstance(value, int):
            metadata[key] = value if abs(value) < _MAX_INTEGER else str(value)
    return metadata


def _as_lines(value: object) -> str:
    lines: list[str] = []
    for path, leaf in _leaves(value):
        if isinstance(leaf, list):
            is_vector = len(leaf) > _MAX_NUMBERS and all(isinstance(item, int | float) for item in leaf)
            written = "" if is_vector else ", ".join(filter(None, map(_written, leaf)))
        else:
            written = clean(leaf).strip() if isinstance(leaf, str) else _written(leaf)
        if written:
            lines.append(f"{clean(path)}: {written}\n" if path else f"{written}\n")
    return "".join(lines)


def _leaves(value: object) -> Iterator[tuple[str, object]]:
    """Paths and scalars, and lists of nothing but scalars, in the order of the file."""
    waiting: list[tuple[str, object]] = [("", value)]
    while waiting:
        path, current = waiting.pop()
        if isinstance(current, dict):
            prefix = f"{path}." if path else ""
            waiting.extend((f"{prefix}{key}", item) for key, item in reversed(current.items()))
        elif isinstance(current, list) and any(isinstance(item, dict | list) for item in current):
            waiting.extend((f"{path}[{index}]", current[index]) for index in range(len(current) - 1, -1, -1))
        elif current is not None and not (isinstance(current, float) and not math.isfinite(current)):
            yield path, current


def _written(value: object) -> str:
    """A scalar as JSON writes it, a string as it is read, on one line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(_written(item) for item in value)
    return " ".join(clean(str(value)).split())
