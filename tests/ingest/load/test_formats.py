"""A file of every kind, and published files of each format against what another converter made of them."""

import html
import re
from collections import Counter
from pathlib import Path

import pytest

from ingest import items
from ingest.load import archive, pdf, sheets, xml_tree
from ingest.load.code import LANGUAGES
from ingest.load.detect import extract
from ingest.load.extracted import Extracted
from ingest.load.formats import PARSERS
from rag.errors import DocumentError
from rag.settings import Ingest
from tests.ingest.load.samples import REFUSED, sample

DOCUMENTATION = Path(__file__).parents[3] / "docs/formats.md"
FORMATS = Path(__file__).parents[3].parent / "shared/data/formats/docling"

published = pytest.mark.skipif(not FORMATS.is_dir(), reason=f"no published files at {FORMATS}")


def whole(extracted: Extracted) -> str:
    children = (child.content for child in extracted.children)
    return "\n".join([extracted.text, *(whole(child) for child in children if isinstance(child, Extracted))])


@pytest.mark.parametrize("suffix", sorted(PARSERS))
def test_a_file_of_every_kind_is_read_by_its_parser(suffix):
    data = sample(suffix)
    if suffix in REFUSED:
        with pytest.raises(DocumentError, match=re.escape(REFUSED[suffix])):
            extract(data, f"hay{suffix.upper()}")
        return
    extracted = extract(data, f"hay{suffix.upper()}")
    assert "needle" in whole(extracted)
    assert extracted == PARSERS[suffix](data)
    assert re.fullmatch(r"[a-z]+/[a-z0-9.+-]+", extracted.media_type)


def test_the_documentation_names_every_suffix_and_the_limits_as_they_are():
    documentation = DOCUMENTATION.read_text(encoding="utf-8")
    named = set(re.findall(r"`(\.[a-z0-9]+)`", documentation))
    assert set(PARSERS) - set(LANGUAGES) <= named
    limits = Ingest()
    for limit in (
        f"| {items.MAX_FILE_BYTES // 10**6} MB |",
        f"{archive.MAX_MEMBERS:,} members, {archive.MAX_EXPANDED_BYTES // 2**30} GiB when expanded, "
        f"{archive.MAX_MEMBER_BYTES // 2**20} MiB for a part",
        f"{archive.MAX_RATIO} times its packed size",
        f"more than {archive.RATIO_COUNTS_FROM_BYTES // 10**6} MB",
        f"{sheets.MAX_CELLS:,} cells with content, {sheets.MAX_CHARACTERS:,} characters",
        f"{xml_tree.MAX_ELEMENTS:,} elements",
        f"{pdf.MAX_PAGES:,} pages",
        f"| {limits.timeout_s:g} s;",
        f"| {limits.memory_bytes // 2**30} GiB, held",
    ):
        assert limit in documentation, limit


def sources(folder: str, suffix: str) -> list[Path]:
    found = sorted((FORMATS / folder).rglob(f"*{suffix}"))
    return [path for path in found if path.parent.name != "groundtruth"]


def words(text: str) -> Counter[str]:
    text = re.sub(r"<!--.*?-->", " ", text, flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)", " ", text)
    return Counter(re.findall(r"\w+", html.unescape(text).replace("\\_", "_").lower()))


def recall(expected: str, text: str) -> float:
    """The share of the expected words, counted as often as they occur, that the text has."""
    wanted = words(expected)
    return (wanted & words(text)).total() / wanted.total()


@published
@pytest.mark.parametrize(("folder", "suffix"), [("md", ".md"), ("html", ".html"), ("pdf", ".pdf")])
def test_every_file_has_text_and_exact_offsets(folder, suffix):
    paths = sources(folder, suffix)
    assert len(paths) >= 10
    for path in paths:
        extracted = extract(path.read_bytes(), path.name)
        assert extracted.text.strip(), path.name
        starts = [heading.start for heading in extracted.headings]
        assert starts == sorted(set(starts)), path.name
        assert list(extracted.page_starts) == sorted(set(extracted.page_starts)), path.name
        for heading in extracted.headings:
            beginning = extracted.text[heading.start : heading.start + 200]
            assert not words(heading.text) - words(beginning), (path.name, heading)


@published
@pytest.mark.parametrize(("folder", "suffix"), [("md", ".md"), ("html", ".html"), ("pdf", ".pdf")])
def test_the_words_of_the_expected_text_are_recovered(folder, suffix):
    recalls = {}
    for path in sources(folder, suffix):
        truths = [path.parents[1] / "groundtruth" / f"{name}.md" for name in (path.name, path.stem)]
        truth = next((truth for truth in truths if truth.is_file()), None)
        if truth is not None:
            recalls[path.name] = recall(truth.read_text(encoding="utf-8"), extract(path.read_bytes(), path.name).text)
    assert len(recalls) >= 10
    mean = sum(recalls.values()) / len(recalls)
    worst = min(recalls, key=lambda name: recalls[name])
    print(f"{folder}: mean recall {mean:.3f} over {len(recalls)}, worst {worst} {recalls[worst]:.3f}")
    assert mean >= 0.95, recalls
    assert recalls[worst] >= 0.7, recalls


@published
def test_every_locked_pdf_is_reported_as_password_protected():
    paths = sources("pdf_password", ".pdf")
    assert paths
    for path in paths:
        with pytest.raises(DocumentError, match="password-protected"):
            extract(path.read_bytes(), path.name)
