"""The vocabulary of RTF, as far as text is concerned (Rich Text Format Specification 1.9.1)."""

from __future__ import annotations

import re

TOKEN = re.compile(
    rb"\\([A-Za-z]{1,32})(-?[0-9]{1,10})? ?"  # a control word with its parameter
    rb"|\\'([0-9A-Fa-f]{2})"  # a byte
    rb"|\\([^A-Za-z])"  # a control symbol
    rb"|([{}])"
    rb"|([^\\{}]+)",
    re.DOTALL,
)

CHARACTERS = {
    "emdash": "\u2014",
    "endash": "\u2013",
    "lquote": "\u2018",
    "rquote": "\u2019",
    "ldblquote": "\u201c",
    "rdblquote": "\u201d",
    "bullet": "\u2022",
    "emspace": " ",
    "enspace": " ",
    "qmspace": " ",
    "tab": "\t",
    "line": "\n",
    "lbr": "\n",
    "softline": "\n",
}

SYMBOLS = {b"~": " ", b"_": "-", b"{": "{", b"}": "}", b"\\": "\\", b"\t": "\t"}

SKIPPED = frozenset(
    (
        "colortbl pict object objdata header headerl headerr headerf footer footerl footerr footerf fldinst xe tc "
        "tcn rxe annotation atnid atnauthor atntime atnicn atnref atnparent bkmkstart bkmkend datafield formfield "
        "listtable listoverridetable revtbl rsidtbl generator filetbl pgptbl themedata colorschememapping "
        "datastore latentstyles xmlnstbl mmathPr nonshppict shprslt sn sv sp pn pnseclvl template private ftnsep "
        "ftnsepc aftnsep aftnsepc passwordhash nonesttables operator company manager category comment doccomm "
        "hlinkbase userprops creatim revtim printim buptim"
    ).split()
)
"""Destinations whose text is none of the document."""

OPENED = frozenset({"shpinst", "shptxt"})
"""Destinations that are read although a reader that does not know them is told to skip them."""

READ = {
    "fonttbl": "fonts",
    "stylesheet": "style",
    "footnote": "footnote",
    "listtext": "marker",
    "pntext": "marker",
    "title": "title",
    "author": "author",
    "subject": "subject",
    "keywords": "keywords",
}
"""Destinations with a meaning of their own, and what is collected from them."""

PARAGRAPH_ENDS = frozenset({"par", "sect", "page", "column"})

CODE_PAGES = {
    0: "cp1252", 77: "mac_roman", 128: "cp932", 129: "cp949", 130: "johab", 134: "gb18030", 136: "cp950",
    161: "cp1253", 162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251",
    222: "cp874", 238: "cp1250", 254: "cp437", 255: "cp850",
}  # fmt: skip
"""By a font's `fcharset`."""
