"""How much of each file format's text is recovered, beside another converter on the same files.

    python -m benchmarks.formats FOLDER [--formats html docx] [--against markitdown] [--against-python PATH] [--json]

FOLDER holds `<format>/sources/*` with the expected Markdown in `<format>/groundtruth/<source name>.md`. Sources without
an expected text are converted and timed, not scored. Pictures beside a source and `X.pdf` beside a source `X`, which is
a rendering of it, are passed over. The text of a file is what `ingest.load.detect.extract` gives, then the text of its
children.

Recovery of a file is LCS / E: the length of the longest common subsequence of characters of the expected and the
obtained text over the length of the expected one. So text counts only in the expected order, and a file that is refused
recovers 0. Surplus is not punished by it; precision, LCS / length of the obtained text, is printed beside. A format's
recovery is given as the mean over its scored files and pooled: the sum of LCS over the sum of E.

Before they are compared, both texts lose their Markdown markup: comments and image placeholders, the targets of links,
table pipes and rules, code fences, marks of headings, lists and quotes at the beginning of a line, HTML entities (read
as the characters they stand for) and every character of ``* _ ` ~ # | \\``, which covers emphasis and escapes.
Typographic dashes, quotes and dots become the plain ones, and white space is folded to one blank.

The LCS is quadratic in time (64 characters at a step). Beyond 400,000 characters it is computed block by block: as many
equally long blocks of both texts, in order, so that a text which is moved far is not recovered.

The other converter is no dependency of this project: install it where you like, such as a virtual environment of its
own, and name that environment's Python with --against-python. It converts all files in one process; neither side's
imports are counted in the seconds.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ingest.load.detect import extract
from ingest.load.extracted import Extracted
from rag.errors import DocumentError

BLOCK_CHARACTERS = 400_000
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".svg"})
LOW_RECOVERY = 0.90

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LINK = re.compile(r"!?\[((?:[^\[\]\\]|\\.|\[[^\[\]]*\])*)\]\((?:[^()\\\n]|\\.|\([^()\n]*\))*\)")
_AUTOLINK = re.compile(r"<((?:https?|mailto|ftp):[^<>\s]*)>")
_RULE_OR_FENCE = re.compile(r"^[ \t]*(?:[-=*_|: \t]{3,}|(?:`{3,}|~{3,})\w*)[ \t]*$", re.MULTILINE)
_LINE_MARK = re.compile(r"^[ \t]*(?:>[ \t]*)*(?:(?:[-*+•▪◦‣·]|\d{1,3}[.)]|#{1,6})[ \t]+)?", re.MULTILINE)
_TYPOGRAPHY = dict(zip("‐‑‒–—―−‘’‚“”„…", "-------'''\"\"\".", strict=True))
_MARKUP = str.maketrans({"|": " ", **_TYPOGRAPHY, **dict.fromkeys("*_`~#\\", "")})

_ANSWER = "ANSWER "
_MISSING = 9
_MARKITDOWN = f"""
import json, sys, time
try:
    from markitdown import MarkItDown
except ImportError:
    sys.exit({_MISSING})
converter = MarkItDown()
paths = json.load(sys.stdin)
for number, path in enumerate(paths[:1] + paths):
    started = time.perf_counter()
    try:
        answer = dict(text=converter.convert(path).text_content, reason="")
    except Exception as error:
        answer = dict(text=None, reason=(type(error).__name__ + ": " + str(error)).splitlines()[0])
    answer["seconds"] = time.perf_counter() - started
    if number:  # the first one is converted twice, for it imports the library
        print({_ANSWER!r} + json.dumps(answer), flush=True)
"""


@dataclass(frozen=True)
class Source:
    """A file to convert, and the Markdown that is expected of it, where there is one."""

    path: Path
    expected: str | None


@dataclass(frozen=True)
class Conversion:
    """What a converter made of a file; `text` is None where it refused it for `reason`."""

    text: str | None
    reason: str
    seconds: float


def main() -> None:
    """Print a row per format, then what was refused and what was recovered below 0.90."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--formats", nargs="+", help="names of subfolders; all by default")
    parser.add_argument("--against", choices=["markitdown"])
    parser.add_argument("--against-python", default=sys.executable, help="the Python that has the other converter")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    folders = sorted(path for path in arguments.folder.iterdir() if path.is_dir())
    formats = {
        folder.name: found
        for folder in folders
        if (not arguments.formats or folder.name in arguments.formats) and (found := _sources(folder))
    }
    report: dict[str, dict[str, Any]] = {}
    for name, sources in formats.items():
        report[name] = {"ours": _summary(sources, _convert_ours(sources))}
        if arguments.against:
            report[name][arguments.against] = _summary(sources, _convert_theirs(sources, arguments.against_python))
        if not arguments.json:
            for converter, summary in report[name].items():
                print(_row(name, converter, summary), flush=True)
    if arguments.json:
        print(json.dumps(report, indent=1, ensure_ascii=False))
    else:
        _print_notes(report)


def _sources(folder: Path) -> list[Source]:
    truths = folder / "groundtruth"
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and truths not in path.parents and path.suffix.lower() not in PICTURES
        if path.name != "README.md"
    ]
    names = {path.name for path in files}
    sources = []
    for path in files:
        if path.suffix == ".pdf" and path.stem in names:
            continue
        truth = next((t for t in (truths / f"{path.name}.md", truths / f"{path.stem}.md") if t.is_file()), None)
        sources.append(Source(path, truth.read_text(encoding="utf-8") if truth else None))
    return sources


def _convert_ours(sources: Sequence[Source]) -> Iterator[Conversion]:
    _ours(sources[0].path)  # imports the parser's library
    for source in sources:
        started = time.perf_counter()
        text, reason = _ours(source.path)
        yield Conversion(text, reason, time.perf_counter() - started)


def _ours(path: Path) -> tuple[str | None, str]:
    try:
        return "\n\n".join(_texts(extract(path.read_bytes(), path.name))), ""
    except DocumentError as error:
        return None, str(error)


def _texts(extracted: Extracted) -> Iterator[str]:
    yield extracted.text
    for child in extracted.children:
        try:
            content = extract(child.content, child.name) if isinstance(child.content, bytes) else child.content
        except DocumentError:
            continue  # a picture among the attachments; the file itself is read
        yield from _texts(content)


def _convert_theirs(sources: Sequence[Source], python: str) -> list[Conversion]:
    process = subprocess.run(
        [python, "-c", _MARKITDOWN],
        input=json.dumps([str(source.path) for source in sources]),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if process.returncode == _MISSING:
        sys.exit(f"{python} has no markitdown; install 'markitdown[all]' and name its Python with --against-python")
    if process.returncode:
        sys.exit(f"markitdown failed as a whole: {process.stderr.strip()[-500:]}")
    lines = process.stdout.splitlines()
    return [Conversion(**json.loads(line.removeprefix(_ANSWER))) for line in lines if line.startswith(_ANSWER)]


def _summary(sources: Sequence[Source], conversions: Iterable[Conversion]) -> dict[str, Any]:
    results = list(zip(sources, conversions, strict=True))
    scores = {}
    common = expected_length = obtained_length = 0
    for source, conversion in results:
        if source.expected is None:
            continue
        expected, obtained = plain(source.expected), plain(conversion.text or "")
        length = common_length(expected, obtained)
        scores[source.path.name] = length / len(expected)
        common += length
        expected_length += len(expected)
        obtained_length += len(obtained)
    return {
        "files": len(results),
        "converted": sum(conversion.text is not None for _, conversion in results),
        "scored": len(scores),
        "mean": sum(scores.values()) / len(scores) if scores else None,
        "pooled": common / expected_length if scores else None,
        "precision": common / obtained_length if obtained_length else None,
        "seconds_per_file": sum(conversion.seconds for _, conversion in results) / len(results),
        "refused": {s.path.name: c.reason for s, c in results if c.text is None},
        "low": {name: round(score, 3) for name, score in scores.items() if score < LOW_RECOVERY},
    }


def plain(text: str) -> str:
    """Text without Markdown markup, white space folded; the same for both sides of a comparison."""
    text = _COMMENT.sub(" ", text)
    text = _LINK.sub(r"\1", _LINK.sub(r"\1", text))  # twice: a link may hold an image
    text = _AUTOLINK.sub(r"\1", text)
    text = _LINE_MARK.sub("", _RULE_OR_FENCE.sub("", text))
    return " ".join(html.unescape(text).translate(_MARKUP).split())


def common_length(expected: str, obtained: str) -> int:
    """Length of the longest common subsequence, block by block where a text is very long."""
    from rapidfuzz.distance import LCSseq

    blocks = 1 + max(len(expected), len(obtained)) // BLOCK_CHARACTERS
    return sum(
        LCSseq.similarity(one, other)
        for one, other in zip(_blocks(expected, blocks), _blocks(obtained, blocks), strict=True)
    )


def _blocks(text: str, count: int) -> list[str]:
    bounds = [len(text) * number // count for number in range(count + 1)]
    return [text[start:end] for start, end in pairwise(bounds)]


def _row(name: str, converter: str, summary: dict[str, Any]) -> str:
    def share(value: float | None) -> str:
        return "    -" if value is None else f"{value:.3f}"

    return (
        f"{name:<13}{converter:<11} {summary['converted']:>3} of {summary['files']:>3}  mean {share(summary['mean'])}  "
        f"pooled {share(summary['pooled'])}  precision {share(summary['precision'])}  "
        f"{summary['seconds_per_file']:.3f} s/file"
    )


def _print_notes(report: dict[str, dict[str, Any]]) -> None:
    for name, summaries in report.items():
        for converter, summary in summaries.items():
            for reason, files in _by_reason(summary["refused"]).items():
                print(f"{name}: {converter} refused {', '.join(files)}: {reason}")
    for name, summaries in report.items():
        ours = summaries["ours"]
        for file, score in sorted(ours["low"].items(), key=lambda item: item[1]):
            if file not in ours["refused"]:
                print(f"{name}: {file} recovered {score:.3f}")


def _by_reason(refused: dict[str, str]) -> dict[str, list[str]]:
    files: dict[str, list[str]] = {}
    for file, reason in refused.items():
        files.setdefault(reason, []).append(file)
    return files


if __name__ == "__main__":
    main()
