"""The write path over an in-memory store."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ingest.chunking import sentence_window
from ingest.discover import discover
from ingest.manifest import Manifest
from ingest.pipeline import Ingestion, Progress, Report
from rag.adapters.qdrant_bm25 import QdrantBm25
from rag.errors import ModelRuntimeError, RagError, StoreError
from rag.filters import Filter
from rag.retrieval.store import CollectionSpec, IndexedPassage
from rag.types import Document, Vectors
from tests.fake_store import HashEmbedder, InMemoryStore

TENANT = "default"
THREE_SENTENCES = "The moon causes the tides. The sun helps a little. Wind does not."


class FragileStore(InMemoryStore):
    """Fails when as many writes have succeeded as `survives`."""

    def __init__(self) -> None:
        super().__init__()
        self.survives: int | None = None
        self.upserts = 0
        self.optimized = 0

    async def upsert(self, passages: Sequence[IndexedPassage]) -> None:
        self._write()
        await super().upsert(passages)
        self.upserts += 1

    async def delete(self, tenant: str, filter: Filter) -> None:  # noqa: A002
        self._write()
        await super().delete(tenant, filter)

    async def optimize(self) -> None:
        self.optimized += 1

    def _write(self) -> None:
        if self.survives == 0:
            raise StoreError("the disk is full")
        if self.survives is not None:
            self.survives -= 1


class FragileEmbedder(HashEmbedder):
    """Fails while `broken`; remembers what it was given."""

    broken = False

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    async def embed_passages(self, texts: Sequence[str]) -> Vectors:
        if self.broken:
            raise ModelRuntimeError("the model failed")
        self.texts += texts
        return await super().embed_passages(texts)


@dataclass
class Collection:
    store: FragileStore = field(default_factory=FragileStore)
    spec: CollectionSpec = field(default_factory=lambda: CollectionSpec("c0ffee", "hash", 64, "bm25", "sentences=2", 8))
    lexical: QdrantBm25 = field(
        default_factory=lambda: QdrantBm25(language="english", k1=1.2, b=0.75, average_length=8)
    )


class Bench:
    """A folder of documents and everything that one collection of them keeps between runs."""

    def __init__(self, folder: Path, manifest: Path) -> None:
        self.docs = folder
        self.docs.mkdir(parents=True)
        self.manifest_file = manifest
        self.collection = Collection()
        self.embedder = FragileEmbedder()
        self.created: list[Sequence[str]] = []
        self.progress: list[Progress] = []
        self.is_new = True

    def write(self, **files: str | bytes) -> None:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            (self.docs / name.replace("_", ".")).write_bytes(data)

    async def ingest(
        self, *paths: Path, source: str | None = None, chunk_identity: str = "sentences=2", sentences: int = 2
    ) -> Report:
        return await self._run(
            lambda ingestion: ingestion.run(discover(paths or [self.docs], source).files), chunk_identity, sentences
        )

    async def ingest_documents(self, *documents: Document) -> Report:
        return await self._run(lambda ingestion: ingestion.run_documents(documents), "sentences=2", 2)

    async def _run(self, use: Any, chunk_identity: str, sentences: int) -> Report:
        manifest = Manifest(self.manifest_file)
        ingestion = Ingestion(
            tenant=TENANT,
            embedder=self.embedder,
            chunk=partial(sentence_window.chunk, sentences=sentences, max_tokens=100),
            chunk_identity=chunk_identity,
            manifest=manifest,
            collection=None if self.is_new else self.collection,
            create=self._create,
            on_progress=self.progress.append,
        )
        try:
            report: Report = await use(ingestion)
            return report
        finally:
            manifest.close()

    async def _create(self, sample: Sequence[str]) -> Collection:
        self.created.append(sample)
        self.is_new = False
        return self.collection

    @property
    def store(self) -> FragileStore:
        return self.collection.store

    @property
    def texts(self) -> dict[str, list[str]]:
        """The stored passages by document, in their order."""
        passages = sorted((point.passage for point in self.store.points.values()), key=lambda p: p.ordinal)
        found: dict[str, list[str]] = {}
        for passage in passages:
            found.setdefault(passage.document_id, []).append(passage.text)
        return dict(sorted(found.items()))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "docs", tmp_path / "manifest.sqlite")


def counts(report: Report) -> tuple[int, int, int, int]:
    return report.added, report.updated, report.unchanged, len(report.failed)


async def test_a_run_counts_what_is_added_updated_and_unchanged(bench: Bench):
    bench.write(a_md=THREE_SENTENCES, b_txt="Wine ferments.", c_md="Backups are kept.")
    first = await bench.ingest()
    assert counts(first) == (3, 0, 0, 0)
    assert first.passages == 4 == len(bench.store.points)
    assert first.seconds >= first.encoder_seconds > 0

    bench.write(b_txt="Wine ferments in steel.", d_md="A new one.")
    second = await bench.ingest()
    assert counts(second) == (1, 1, 2, 0)
    assert second.passages == 2

    third = await bench.ingest()
    assert counts(third) == (0, 0, 4, 0)
    assert (third.passages, third.encoder_seconds) == (0, 0)


async def test_the_collection_is_made_once_from_what_is_indexed(bench: Bench):
    bench.write(a_md="# Tides\n\nThe moon causes them.")
    await bench.ingest()
    bench.write(b_md="More.")
    await bench.ingest()
    assert bench.created == [["Tides\n# Tides\n\nThe moon causes them."]]


async def test_an_updated_file_leaves_no_passage_of_its_old_version(bench: Bench):
    bench.write(a_md=THREE_SENTENCES + " It never did. Nor will it.", b_md="Wine ferments.")
    await bench.ingest()
    bench.write(a_md="Only this is left.")
    await bench.ingest()
    assert bench.texts == {"docs/a.md": ["Only this is left."], "docs/b.md": ["Wine ferments."]}


async def test_a_file_that_turns_back_to_an_older_version_is_that_version_again(bench: Bench):
    for text in ("First.", "Second.", "First."):
        bench.write(a_md=text)
        await bench.ingest()
    assert bench.texts == {"docs/a.md": ["First."]}


async def test_another_way_of_chunking_is_another_version(bench: Bench):
    bench.write(a_md=THREE_SENTENCES)
    await bench.ingest()
    report = await bench.ingest(chunk_identity="sentences=1", sentences=1)
    assert counts(report) == (0, 1, 0, 0)
    assert [text.strip() for text in bench.texts["docs/a.md"]] == [
        "The moon causes the tides.",
        "The sun helps a little.",
        "Wind does not.",
    ]


async def test_passages_say_exactly_where_they_stand(bench: Bench):
    text = "# Tides\n\nDer Mond – ein Trabant – bewirkt sie. 🌊 Ja.\n\n## Sun\n\nIt helps. A little. Only so.\n"
    bench.write(a_md=b"\xef\xbb\xbf---\ntitle: On tides\ntags: [sea, moon]\n---\n" + text.encode())
    await bench.ingest()

    passages = sorted((point.passage for point in bench.store.points.values()), key=lambda p: p.ordinal)
    assert "".join(passage.text for passage in passages) in text
    whole = text[text.index(passages[0].text) :]
    for passage in passages:
        start = passage.start - passages[0].start
        assert whole[start : start + len(passage.text)] == passage.text
        assert passage.end - passage.start == len(passage.text)
        assert (passage.title, passage.source, passage.document_id) == ("On tides", "docs", "docs/a.md")
        assert passage.metadata == {"tags": ["sea", "moon"], "media_type": "text/markdown"}
    assert [passage.headings[-1] for passage in passages] == ["Tides", "Sun", "Sun"]
    assert len({passage.version for passage in passages}) == 1


async def test_files_that_cannot_be_read_are_named_and_stop_nothing(bench: Bench):
    bench.write(binary_md=bytes(range(256)) * 20, empty_md="", good_md="Wine ferments.", locked_pdf=_locked_pdf())
    (bench.docs / "gone.md").symlink_to(bench.docs / "nowhere.md")

    report = await bench.ingest()

    assert counts(report) == (1, 0, 0, 4)
    reasons = {Path(failure.path).name: failure.reason for failure in report.failed}
    assert Path(report.failed[0].path).is_absolute()
    assert "binary" in reasons["binary.md"]
    assert reasons["empty.md"] == "the file is empty"
    assert reasons["gone.md"] == "cannot be read: No such file or directory"
    assert reasons["locked.pdf"] == "password-protected PDF: remove the password first"
    assert list(bench.texts) == ["docs/good.md"]

    bench.write(empty_md="No longer.")
    assert counts(await bench.ingest()) == (1, 0, 1, 3)


async def test_a_file_that_has_become_unreadable_keeps_its_last_version(bench: Bench):
    bench.write(a_md="Wine ferments.")
    await bench.ingest()
    bench.write(a_md="")
    assert counts(await bench.ingest()) == (0, 0, 0, 1)
    assert bench.texts == {"docs/a.md": ["Wine ferments."]}


async def test_a_file_that_is_too_large_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ingest.pipeline.MAX_FILE_BYTES", 10)
    bench.write(a_md=THREE_SENTENCES, b_md="Short.")
    report = await bench.ingest()
    assert [failure.reason for failure in report.failed] == ["too large: 65 bytes, at most 10 are read"]
    assert list(bench.texts) == ["docs/b.md"]


async def test_nothing_is_created_when_no_file_can_be_read(bench: Bench):
    bench.write(a_md="")
    assert counts(await bench.ingest()) == (0, 0, 0, 1)
    assert bench.created == []


@pytest.mark.parametrize("at_once", [True, False], ids=["in one run", "in two runs"])
async def test_the_same_path_in_another_folder_is_refused_with_the_remedy(bench: Bench, tmp_path: Path, at_once: bool):
    bench.write(a_md="Wine ferments.")
    other = tmp_path / "elsewhere" / "docs"
    other.mkdir(parents=True)
    (other / "a.md").write_text("Something else.", encoding="utf-8")

    if not at_once:
        await bench.ingest()
    report = await bench.ingest(*([bench.docs, other] if at_once else [other]))

    assert [failure.path for failure in report.failed] == [str(other / "a.md")]
    assert report.failed[0].reason == (
        f"its document id 'docs/a.md' belongs to {bench.docs / 'a.md'}; pass --source NAME to tell them apart"
    )
    assert bench.texts == {"docs/a.md": ["Wine ferments."]}

    assert counts(await bench.ingest(other, source="other")) == (1, 0, 0, 0)
    assert bench.texts == {"docs/a.md": ["Wine ferments."], "other/a.md": ["Something else."]}


async def test_a_folder_that_was_moved_keeps_its_documents(bench: Bench, tmp_path: Path):
    bench.write(a_md="Wine ferments.")
    await bench.ingest()
    (tmp_path / "new").mkdir()
    moved = bench.docs.rename(tmp_path / "new" / "docs")
    assert counts(await bench.ingest(moved)) == (0, 0, 1, 0)


async def test_progress_counts_what_is_done_after_every_batch(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ingest.pipeline._SAMPLE_PASSAGES", 2)
    monkeypatch.setattr("ingest.pipeline._BATCH_PASSAGES", 2)
    bench.write(a_md="One. Two. Three.", b_md="", c_md="Four.", d_md="Five.", e_md="Six.")
    await bench.ingest()
    assert bench.progress == [
        Progress(0, 5, 0),
        Progress(0, 5, 2),
        Progress(2, 5, 4),
        Progress(4, 5, 5),
        Progress(5, 5, 5),
    ]

    bench.progress.clear()
    await bench.ingest()
    assert bench.progress == [Progress(0, 5, 0), Progress(5, 5, 0)]


async def test_every_run_ends_by_optimising_the_store_since_an_earlier_one_may_not_have_come_to_it(bench: Bench):
    bench.write(a_md="Wine ferments.")
    await bench.ingest()
    assert bench.store.optimized == 1
    await bench.ingest()
    assert bench.store.optimized == 2


async def test_a_failing_embedder_leaves_nothing_recorded(bench: Bench):
    bench.write(a_md=THREE_SENTENCES)
    bench.embedder.broken = True
    with pytest.raises(ModelRuntimeError):
        await bench.ingest()
    assert bench.texts == {}

    bench.embedder.broken = False
    assert counts(await bench.ingest()) == (1, 0, 0, 0)
    assert len(bench.store.points) == 2


async def test_a_failing_store_leaves_nothing_recorded(bench: Bench):
    bench.write(a_md=THREE_SENTENCES)
    bench.store.survives = 0
    with pytest.raises(StoreError):
        await bench.ingest()

    bench.store.survives = None
    assert counts(await bench.ingest()) == (1, 0, 0, 0)
    assert len(bench.store.points) == 2


@pytest.fixture
def in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.pipeline._SAMPLE_PASSAGES", 4)
    monkeypatch.setattr("ingest.pipeline._BATCH_PASSAGES", 2)


OLD = {"a_md": "One. Two. Three. Four. Five.", "b_md": "Six. Seven.", "c_md": THREE_SENTENCES * 3}
NEW = {"a_md": "One. Two.", "b_md": "Six. Seven. Eight. Nine.", "c_md": THREE_SENTENCES * 3, "d_md": "Ten. Eleven."}
LATER = {**NEW, "a_md": "Later.", "d_md": "Ten."}


@pytest.mark.usefixtures("in_small_steps")
@pytest.mark.parametrize("changed_meanwhile", [False, True], ids=["same files", "files changed meanwhile"])
@pytest.mark.parametrize("starting_with", [{}, OLD], ids=["empty", "older versions"])
async def test_a_run_that_dies_at_any_write_is_completed_by_the_next(
    tmp_path: Path, starting_with: dict[str, str], changed_meanwhile: bool
):
    final = LATER if changed_meanwhile else NEW
    undisturbed = Bench(tmp_path / "undisturbed" / "docs", tmp_path / "undisturbed.sqlite")
    undisturbed.write(**final)
    await undisturbed.ingest()

    died, deaths = True, 0
    while died:
        bench = Bench(tmp_path / f"{deaths}" / "docs", tmp_path / f"{deaths}.sqlite")
        if starting_with:
            bench.write(**starting_with)
            await bench.ingest()
        bench.write(**NEW)
        bench.store.survives = deaths
        died = await _dies(bench)
        bench.store.survives = None

        bench.write(**final)
        await bench.ingest()

        assert bench.texts == undisturbed.texts, f"died at write {deaths}"
        assert bench.store.points.keys() == undisturbed.store.points.keys()
        assert counts(await bench.ingest()) == (0, 0, 4, 0)
        deaths += died
    assert deaths >= 4


async def _dies(bench: Bench) -> bool:
    try:
        await bench.ingest()
    except StoreError:
        return True
    return False


@pytest.mark.usefixtures("in_small_steps")
async def test_what_was_finished_before_a_run_died_is_not_embedded_again(bench: Bench):
    bench.write(a_md=THREE_SENTENCES * 3, b_md=THREE_SENTENCES * 3)
    bench.store.survives = 3
    with pytest.raises(RagError):
        await bench.ingest()
    bench.store.survives = None
    bench.embedder.texts.clear()

    assert counts(await bench.ingest()) == (1, 0, 1, 0)
    assert {text.partition("\n")[0] for text in bench.embedder.texts} == {"b"}


async def test_documents_that_are_text_already_replace_their_older_versions(bench: Bench):
    def document(name: str, version: str) -> Document:
        return Document(id=name, version=version, source="set", title=name.title(), text=f"{name} {version}.")

    assert counts(await bench.ingest_documents(document("tides", "v1"), document("wine", "v1"))) == (2, 0, 0, 0)
    assert (await bench.ingest_documents(document("tides", "v1"), document("wine", "v2"))).updated > 0
    assert bench.texts == {"tides": ["tides v1."], "wine": ["wine v2."]}


async def test_the_report_is_what_the_command_prints(bench: Bench):
    bench.write(a_md="Wine ferments.")
    report = await bench.ingest()
    assert json.loads(json.dumps(vars(report))).keys() == {
        "added",
        "updated",
        "unchanged",
        "deleted",
        "failed",
        "passages",
        "seconds",
        "encoder_seconds",
    }


def _locked_pdf() -> bytes:
    from io import BytesIO

    from reportlab.pdfgen.canvas import Canvas

    file = BytesIO()
    canvas = Canvas(file, encrypt="secret")
    canvas.drawString(100, 700, "Locked words.")
    canvas.save()
    return file.getvalue()


async def test_a_file_put_back_after_a_killed_update_is_written_again(bench):
    bench.write(a_md="# One\n\nThe first text.")
    await bench.ingest()
    whole = bench.texts
    bench.write(a_md="# One\n\nThe second text.")
    manifest = Manifest(bench.manifest_file)
    known = manifest.find(TENANT, "docs/a.md")
    manifest.close()
    await bench.ingest()
    # As if the second run had been killed after it deleted the first version and before it recorded the second.
    manifest = Manifest(bench.manifest_file)
    manifest.record([known])
    manifest.begin([known])
    manifest.close()
    bench.write(a_md="# One\n\nThe first text.")
    report = await bench.ingest()
    assert (report.unchanged, report.updated) == (0, 1)
    assert bench.texts == whole


async def test_a_collection_that_another_manifest_filled_keeps_no_old_version(bench):
    bench.write(a_md="The first text.")
    await bench.ingest()
    bench.manifest_file.unlink()
    manifest = Manifest(bench.manifest_file)
    manifest.begin_collection("c0ffee", adopted=True)
    manifest.close()
    bench.write(a_md="The second text.")
    await bench.ingest()
    assert bench.texts == {"docs/a.md": ["The second text."]}


async def test_a_name_that_is_not_utf8_fails_alone(bench):
    bench.write(a_md="Text.")
    (bench.docs / b"caf\xe9.md".decode("utf-8", "surrogateescape")).write_text("Text.", encoding="utf-8")
    report = await bench.ingest()
    assert report.added == 1
    (failure,) = report.failed
    assert failure.reason == "its name is not valid UTF-8; rename it"
    failure.path.encode()


async def test_a_model_that_fails_leaves_no_collection_behind(bench):
    bench.write(a_md="Text.")
    bench.embedder.broken = True
    with pytest.raises(ModelRuntimeError):
        await bench.ingest()
    assert bench.is_new
