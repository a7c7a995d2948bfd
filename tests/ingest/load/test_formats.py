"""Published files of each format against what another converter made of them."""

import html
import re
from collections import Counter
from pathlib import Path

import pytest

from ingest.load.detect import extract
from rag.errors import DocumentError

FORMATS = Path(__file__).parents[3].parent / "shared/data/formats/docling"

pytestmark = pytest.mark.skipif(not FORMATS.is_dir(), reason=f"no published files at {FORMATS}")


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


def test_every_locked_pdf_is_reported_as_password_protected():
    paths = sources("pdf_password", ".pdf")
    assert paths
    for path in paths:
        with pytest.raises(DocumentError, match="password-protected"):
            extract(path.read_bytes(), path.name)
