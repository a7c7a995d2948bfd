"""The words in what is drawn in a Word or PowerPoint file: charts, diagrams and formulas."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from ingest.load.assembly import table_lines, words
from ingest.load.numerals import number
from ingest.load.ooxml import CHART, DRAWING, RELATION, Package
from ingest.load.xml_tree import local_name

_DIAGRAM = "{http://schemas.openxmlformats.org/drawingml/2006/diagram}"
_NUMBERS = frozenset({"val", "xVal", "yVal"})
_OPERANDS = frozenset({"e", "num", "den", "sub", "sup", "deg", "lim", "fName"})
_LARGE_OPERATORS = {"∑": r"\sum", "∏": r"\prod", "∫": r"\int"}


class Graphics:
    """The charts and diagrams of one part, each read once however often it is shown.

    Args:
        package: Where a graphic is a part of its own.
        part: Which refers to them.
    """

    def __init__(self, package: Package, part: str) -> None:
        self._package = package
        self._relationships = package.relationships(part)
        self._read: set[str] = set()

    def lines(self, reference: Element) -> list[str]:
        """The title and data of a chart, as a row per category, or the texts of a diagram.

        Args:
            reference: `c:chart` or `dgm:relIds`; anything else has no lines.
        """
        wanted = {f"{CHART}chart": "id", f"{_DIAGRAM}relIds": "dm"}.get(reference.tag)
        related = self._relationships.get(reference.get(f"{RELATION}{wanted}", "")) if wanted else None
        if related is None or related.target in self._read or related.target not in self._package.archive:
            return []
        self._read.add(related.target)
        root = self._package.tree(related.target)
        if reference.tag == f"{CHART}chart":
            return _chart_lines(root)
        paragraphs = (plain(paragraph) for paragraph in root.iter(f"{DRAWING}p"))
        return [line for line in paragraphs if line]


def _chart_lines(root: Element) -> list[str]:
    title = root.find(f"{CHART}chart/{CHART}title")
    lines = [" ".join(map(plain, () if title is None else title.iter(f"{DRAWING}p")))]
    names: dict[int, str] = {}
    rows: dict[int, dict[int, str]] = {}
    for column, series in enumerate(root.iter(f"{CHART}ser"), start=1):
        names[column] = " ".join(_points(series, "tx").values())
        categories = _points(series, "cat") or _points(series, "xVal")
        for index, value in (_points(series, "val") or _points(series, "yVal")).items():
            row = rows.setdefault(index, {})
            row[column] = value
            row.setdefault(0, categories.get(index, ""))
    lines += table_lines([names, *(rows[index] for index in sorted(rows))])
    return [line for line in lines if line]


def _points(series: Element, role: str) -> dict[int, str]:
    """What was cached of a series' names, categories or values, by position."""
    found: dict[int, str] = {}
    container = series.find(f"{CHART}{role}")
    for position, point in enumerate(() if container is None else container.iter(f"{CHART}pt")):
        index = point.get("idx", "")
        value = words(point.findtext(f"{CHART}v", ""))
        found[int(index) if index.isdecimal() else position] = number(value) if role in _NUMBERS else value
    return found


def plain(paragraph: Element) -> str:
    """The words of an `a:p` on one line."""
    return words("".join(run.text or "" for run in paragraph.iter(f"{DRAWING}t")))


def formula(math: Element) -> str:
    r"""An Office formula as LaTeX would write it, as far as structure matters: `\frac{a}{b}`, `x_{1}^{2}`.

    Args:
        math: `m:oMath` or anything inside one.
    """
    name = local_name(math)
    if name == "t":
        return math.text or ""
    operands = {local_name(child): formula(child) for child in math if local_name(child) in _OPERANDS}
    if operands:
        structured = _structured(name, math, operands)
        if structured is not None:
            return structured
    separator = {"m": r" \\ ", "mr": " & ", "eqArr": r" \\ "}.get(name, "")
    return separator.join(filter(None, map(formula, math)))


def _structured(name: str, math: Element, operands: dict[str, str]) -> str | None:
    base = operands.get("e", "")
    scripts = "".join(
        f"{mark}{{{operands[side]}}}" for side, mark in (("sub", "_"), ("sup", "^")) if operands.get(side)
    )
    if name == "f":
        return f"\\frac{{{operands.get('num', '')}}}{{{operands.get('den', '')}}}"
    if name in ("sSup", "sSub", "sSubSup"):
        return base + scripts
    if name == "sPre":
        return f"{{}}{scripts}{base}"
    if name == "rad":
        degree = f"[{operands['deg']}]" if operands.get("deg") else ""
        return f"\\sqrt{degree}{{{base}}}"
    if name == "nary":
        sign = _property(math, "chr", "∫")
        return f"{_LARGE_OPERATORS.get(sign, sign)}{scripts} {base}"
    if name == "d":
        inner = _property(math, "sepChr", "|").join(formula(child) for child in math if local_name(child) == "e")
        return f"{_property(math, 'begChr', '(')}{inner}{_property(math, 'endChr', ')')}"
    if name == "func":
        return f"{operands.get('fName', '')} {base}"
    if name in ("limLow", "limUpp"):
        return f"{base}{'_' if name == 'limLow' else '^'}{{{operands.get('lim', '')}}}"
    return None


def _property(math: Element, name: str, default: str) -> str:
    for child in math:
        if local_name(child) == f"{local_name(math)}Pr":
            for element in child:
                if local_name(element) == name:
                    return next((value for key, value in element.items() if key.endswith("val")), default)
    return default
