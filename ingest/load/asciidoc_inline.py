"""Inline markup of AsciiDoc, reduced to its text."""

from __future__ import annotations

import re
from collections.abc import Mapping

# An end is looked for within this distance, so that marks that are never closed cost no more than others.
_SPAN = r"(?:(?!\n[ \t]*\n)[\s\S]){1,1000}?"
# Between marks of one character another such stands only within a word, so that many which open cost no more than one.
_WITHIN = r"(?:(?!\n[ \t]*\n)[^{0}]|(?<=\w){0}(?=\w)){{1,1000}}?"
_PASS = re.compile(rf"\+\+\+({_SPAN})\+\+\+|pass:[a-z,]*\[({_SPAN})\]|(?<![\w+`])`\+({_SPAN})\+`(?![\w`])")
_MONOSPACE = re.compile(rf"``({_SPAN})``|(?<![\w`])`(?!\s)({_WITHIN.format('`')})(?<!\s)`(?![\w`])")
_REFERENCE = re.compile(r"\{([\w][\w-]*)\}")
_ANCHOR = re.compile(r"\[\[[^\[\]]*\]\]|\[#[\w-]+\](?=\S)|anchor:[^\s\[\]]+\[[^\[\]]*\]|\(\(\(([^()]*)\)\)\)")
_CROSS_REFERENCE = re.compile(r"<<([^<>,\n]+)(?:,\s*([^<>]+))?>>")
_MENU = re.compile(r"\bmenu:([^\[\]\n]+)\[([^\[\]]*)\]")
_FOOTNOTE = re.compile(r"\bfootnote:[\w-]*\[([^\[\]]*)\]")
_IMAGE = re.compile(r"\b(?:image|icon):[^\s:\[\]][^\s\[\]]*\[([^\[\]]*)\]")
_MACRO = re.compile(r"\b(?:kbd|btn|stem|latexmath|asciimath|indexterm2|abbr):\[([^\[\]]*)\]")
_LINK = re.compile(r"(?:\b(?:link|xref|mailto):(?!\s)|(?=\b(?:https?|ftp|irc)://))([^\s\[\]]+)\[([^\[\]]*)\]")
_ROLE = re.compile(r"\[[.%#]?[\w.#% -]+\](?=[#*_`])")
_MARKS = tuple(
    (mark, re.compile(pattern))
    for mark in ("*", "_", "#")
    for pattern in (
        rf"{re.escape(mark * 2)}({_SPAN}){re.escape(mark * 2)}",
        rf"(?<![\w{re.escape(mark)}\\]){re.escape(mark)}(?![\s{re.escape(mark)}])"
        rf"({_WITHIN.format(re.escape(mark))})(?<![\s\\]){re.escape(mark)}(?![\w{re.escape(mark)}])",
    )
)
_RAISED = re.compile(r"\^([^\s^]{1,100})\^|~([^\s~]{1,100})~")
_LINE_BREAK = re.compile(r" \+$", re.MULTILINE)
_ESCAPE = re.compile(r"\\(?=[*_`#^~{<\[\\]|https?:)")
_PUT_ASIDE = re.compile("\0(\\d+)\0")
_MAX_REFERENCES = 5
_MAX_VALUES_CHARACTERS = 10_000


def inline_text(source: str, attributes: Mapping[str, str]) -> str:
    """Without macros, links, anchors, emphasis and escapes; monospaced text stays as it is.

    Args:
        source: Of one block.
        attributes: Of the document; a reference to another is text.
    """
    aside: list[str] = []

    def put_aside(match: re.Match[str]) -> str:
        aside.append(next((group for group in match.groups() if group is not None), ""))
        return f"\0{len(aside) - 1}\0"  # clean text has no NUL of its own

    text = _filled_in(source, attributes)
    text = _MONOSPACE.sub(put_aside, _PASS.sub(put_aside, text))
    text = _ANCHOR.sub("", text)
    text = _CROSS_REFERENCE.sub(lambda match: match[2] or match[1], text)
    if "[" in text:  # as in every macro
        text = _MENU.sub(lambda match: " > ".join(filter(None, [match[1], match[2]])), text)
        text = _FOOTNOTE.sub(r" (\1)", text)
        text = _IMAGE.sub(lambda match: match[1].split(",", 1)[0], text)
        text = _MACRO.sub(r"\1", text)
        text = _LINK.sub(_label, text)
        text = _ROLE.sub("", text)
    for mark, pattern in _MARKS:
        text = pattern.sub(r"\1", text) if mark in text else text
    text = _RAISED.sub(lambda match: match[1] or match[2], text)
    text = _ESCAPE.sub("", _LINE_BREAK.sub("", text))
    while aside and _PUT_ASIDE.search(text):
        text = _PUT_ASIDE.sub(lambda match: aside[int(match[1])], text)
    return text


def _filled_in(text: str, attributes: Mapping[str, str]) -> str:
    """With the values of attributes, which may refer to others; as it is where it would grow out of bounds."""
    for _ in range(_MAX_REFERENCES):
        values = [attributes[name] for name in _REFERENCE.findall(text) if name in attributes]
        if not values or sum(map(len, values)) > _MAX_VALUES_CHARACTERS:
            break
        text = _REFERENCE.sub(lambda match: attributes.get(match[1], match[0]), text)
    return text


def _label(match: re.Match[str]) -> str:
    """What a reader sees of a link; its address where it has no text."""
    label = match[2].split(",role=", 1)[0].split(",window=", 1)[0].strip().removesuffix("^").strip('"')
    return label or match[1]
