"""Numbers as lists and sheets write them."""

from __future__ import annotations

import math

_NUMBER_CHARACTERS = frozenset("0123456789+-.eE")
_EXACT_BELOW = 1e15
_ROMAN = (
    (1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"),
    (50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"),
)  # fmt: skip
_MAX_ROMAN = 3999
_LETTERS = 26


def letters(number: int) -> str:
    """1 is a, 26 z, 27 aa, 28 bb, as word processors count."""
    return (
        chr(ord("a") + (number - 1) % _LETTERS) * ((number - 1) // _LETTERS + 1) if 0 < number < 1000 else str(number)
    )


def roman(number: int) -> str:
    """In lower case; beyond 3,999, and below 1, in digits."""
    if not 0 < number <= _MAX_ROMAN:
        return str(number)
    written = ""
    for value, sign in _ROMAN:
        written += sign * (number // value)
        number %= value
    return written


def number(stored: str) -> str:
    """A number as a sheet shows it where no format asks for less: 15 significant digits; anything else as it is."""
    try:
        value = float(stored)
    except ValueError:
        return stored
    if not math.isfinite(value) or not set(stored) <= _NUMBER_CHARACTERS:
        return stored
    return str(int(value)) if value.is_integer() and abs(value) < _EXACT_BELOW else f"{value:.15g}"
