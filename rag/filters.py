"""Metadata filters: one small tree, two ways to write it.

The JSON shape is the one OpenAI's vector stores use (`{"type": "eq", "key": "source", "value": "docs"}`,
compounds `{"type": "and", "filters": [...]}`); the short form on a command line is `key=value`.
Adapters translate the tree into their store's own filter, and apply it inside every leg.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

from rag.errors import FilterError
from rag.types import Scalar

Operator = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
OPERATORS: tuple[str, ...] = get_args(Operator)
PASSAGE_FIELDS = ("source", "document_id", "version", "title", "page")
"""Keys that name a field of the passage itself; any other key names an entry of its metadata."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Comparison:
    """`key` compared with `value`; a list value for `in` and `nin` only."""

    operator: Operator
    key: str
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Compound:
    """All (`and`) or any (`or`) of `filters`."""

    operator: Literal["and", "or"]
    filters: tuple[Filter, ...]


Filter: TypeAlias = Comparison | Compound


def parse_filter(data: object) -> Filter:
    """The filter that a JSON object describes.

    Raises:
        FilterError: Naming the part that cannot be read and what may stand there.
    """
    if not isinstance(data, Mapping):
        raise FilterError(f"a filter must be an object with a type, not {type(data).__name__}")
    kind = data.get("type")
    if kind in ("and", "or"):
        parts = data.get("filters")
        if not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
            raise FilterError(f'a filter of type "{kind}" needs a non-empty list "filters"')
        return Compound(cast('Literal["and", "or"]', kind), tuple(parse_filter(part) for part in parts))
    if kind not in OPERATORS:
        raise FilterError(f"unknown filter type {kind!r}; use one of {', '.join(OPERATORS)}, and, or")
    key, value = data.get("key"), data.get("value")
    if not isinstance(key, str) or not key:
        raise FilterError(f'a filter of type "{kind}" needs a "key"')
    return _comparison(cast("Operator", kind), _key(key), value)


def _key(key: str) -> str:
    if '"' in key:
        raise FilterError(f"cannot filter on the key {key!r}; a key must not hold a quotation mark")
    return key


def _comparison(operator: Operator, key: str, value: object) -> Comparison:
    if operator in ("in", "nin"):
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise FilterError(f'the filter on "{key}" of type "{operator}" needs a non-empty list as value')
        if not all(isinstance(item, str) for item in value) and not all(type(item) is int for item in value):
            raise FilterError(f'the list in the filter on "{key}" must hold only strings or only integers')
        return Comparison(operator, key, tuple(_storable(item) for item in value))
    if operator in ("gt", "gte", "lt", "lte"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise FilterError(f'the filter on "{key}" of type "{operator}" needs a number, not {value!r}')
        if isinstance(value, int):
            return Comparison(operator, key, _storable(value))
        if not math.isfinite(value):
            raise FilterError(f'the filter on "{key}" of type "{operator}" needs a finite number, not {value!r}')
        return Comparison(operator, key, value)
    if isinstance(value, float) or not isinstance(value, str | int):
        raise FilterError(
            f'the filter on "{key}" of type "{operator}" needs a string, integer or boolean, not {value!r}'
        )
    return Comparison(operator, key, _storable(value))


def _storable(value: str | int) -> str | int:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise FilterError(f"the integer {value} in a filter does not fit in 64 bits")
    return value


def parse_short_filters(pairs: Sequence[str]) -> Filter | None:
    """The filter that `key=value` pairs describe together; None for no pair.

    Values `true`, `false` and integers of up to 18 digits are read as such; everything else is a string.

    Raises:
        FilterError: For a pair without `=` or key.
    """
    comparisons = []
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key.strip():
            raise FilterError(f"cannot read the filter {pair!r}; write key=value, for example source=docs")
        comparisons.append(Comparison("eq", _key(key.strip()), _read_scalar(value.strip())))
    if not comparisons:
        return None
    return comparisons[0] if len(comparisons) == 1 else Compound("and", tuple(comparisons))


def _read_scalar(text: str) -> str | int:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if _INTEGER.fullmatch(text) else text


def payload_key(key: str) -> str:
    """Where a filter's key stands in a stored payload; quoted, since a user's key may hold dots or spaces."""
    return key if key in PASSAGE_FIELDS else f'metadata."{key}"'
