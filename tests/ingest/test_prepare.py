import pickle
from email.message import EmailMessage
from pathlib import Path

import pytest

from ingest.content import unpack
from ingest.items import FileItem, RecordItem
from ingest.load.extracted import Child, Extracted
from ingest.load.json_records import FieldMapping
from ingest.prepare import Preparation, PreparedItem, prepare_content, prepare_item
from rag.errors import DocumentError
from rag.settings import Chunking

PREPARATION = Preparation(Chunking(sentences=1, max_tokens=100), FieldMapping())


def prepared(folder: Path, name: str, data: str | bytes, preparation: Preparation = PREPARATION) -> PreparedItem:
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return prepare_item(FileItem(folder / name, "docs", f"docs/{name}"), preparation)


def texts(item: PreparedItem) -> dict[str, str]:
    return {content.document_id: content.content.text for content in item.contents}


def mail(subject: str, body: str, **attachments: bytes | EmailMessage) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = subject
    message.set_content(body)
    for name, data in attachments.items():
        filename = name.replace("_", ".")
        if isinstance(data, EmailMessage):
            message.add_attachment(data, filename=filename)
        else:
            message.add_attachment(data, maintype="application", subtype="octet-stream", filename=filename)
    return message


def test_a_file_is_one_document_divided_and_packed(tmp_path: Path):
    item = prepared(tmp_path, "a.md", "# Tides\n\nThe moon. The sun.\n")
    (content,) = item.contents
    assert content.document_id == "docs/a.md"
    assert [content.content.text[start:end].strip() for start, end in content.spans] == [
        "# Tides\n\nThe moon.",
        "The sun.",
    ]
    assert unpack(content.packed) == content.content
    assert item.warnings == ()


def test_what_is_prepared_is_the_same_in_another_process(tmp_path: Path):
    item = prepared(tmp_path, "a.md", "Text.")
    assert pickle.loads(pickle.dumps(item)) == item
    assert pickle.loads(pickle.dumps(PREPARATION)) == PREPARATION


def test_the_records_of_a_file_are_documents_of_their_own(tmp_path: Path):
    lines = '{"id": "x", "text": "One."}\n{"text": "Two.", "title": "T", "year": 1904}\n'
    item = prepared(tmp_path, "a.jsonl", lines)
    assert texts(item) == {"docs/a.jsonl#x": "One.", "docs/a.jsonl#2": "Two."}
    assert item.contents[1].content.title == "T"
    assert item.contents[1].content.metadata == {"year": 1904}


def test_fields_are_those_that_are_configured(tmp_path: Path):
    preparation = Preparation(PREPARATION.chunking, FieldMapping(id=("sku",), title=("label",), text=("words",)))
    item = prepared(tmp_path, "a.jsonl", '{"sku": 7, "label": "L", "words": "One.", "text": "Two."}\n', preparation)
    assert texts(item) == {"docs/a.jsonl#7": "One."}
    assert item.contents[0].content.title == "L"


def test_an_attachment_is_a_document_under_its_mail(tmp_path: Path):
    inner = mail("Inner", "Inner words.", deep_txt=b"Deep words.")
    outer = mail("Outer", "Outer words.", notes_txt=b"Notes words.", inner_eml=inner.as_bytes())
    found = texts(prepared(tmp_path, "m.eml", outer.as_bytes()))
    assert list(found) == [
        "docs/m.eml",
        "docs/m.eml#notes.txt",
        "docs/m.eml#inner.eml",
        "docs/m.eml#inner.eml#deep.txt",
    ]
    assert "Outer words." in found["docs/m.eml"]
    assert found["docs/m.eml#inner.eml#deep.txt"] == "Deep words."


def test_an_attachment_that_cannot_be_read_is_a_warning_and_the_mail_is_kept(tmp_path: Path):
    outer = mail("Outer", "Outer words.", locked_pdf=b"%PDF-1.7 broken", notes_txt=b"Notes words.")
    item = prepared(tmp_path, "m.eml", outer.as_bytes())
    assert list(texts(item)) == ["docs/m.eml", "docs/m.eml#notes.txt"]
    (warning,) = item.warnings
    assert warning.startswith("'locked.pdf' inside it: ")


def test_a_line_that_is_no_record_is_a_warning_with_its_number(tmp_path: Path):
    item = prepared(tmp_path, "a.jsonl", '{"text": "One."}\n[broken\n')
    assert list(texts(item)) == ["docs/a.jsonl#1"]
    assert "line 2" in item.warnings[0]


def nested(depth: int) -> Extracted:
    children = (Child("c.txt", nested(depth - 1)),) if depth else ()
    return Extracted(text=f"{depth} below.", title=None, children=children)


def record(content: Extracted) -> RecordItem:
    return RecordItem(b"{}", content, "feed", "feed/1", "standard input, line 1")


def test_files_inside_files_are_followed_to_a_depth_and_the_rest_is_a_warning():
    item = prepare_item(record(nested(4)), PREPARATION)
    assert list(texts(item))[-1] == "feed/1#c.txt#c.txt#c.txt#c.txt"
    assert item.warnings == ()
    deeper = prepare_item(record(nested(6)), PREPARATION)
    assert len(deeper.contents) == 5
    assert deeper.warnings == ("'c.txt' inside it: more than 4 files inside one another",)


def test_a_name_inside_that_is_not_utf8_is_a_warning():
    content = Extracted(text="Words.", title=None, children=(Child("caf\udce9.txt", b"More."),))
    item = prepare_item(record(content), PREPARATION)
    assert list(texts(item)) == ["feed/1"]
    assert "inside it" in item.warnings[0]


def test_an_item_in_which_nothing_can_be_read_is_refused_with_every_reason(tmp_path: Path):
    content = Extracted(text=" \n", title=None, children=(Child("a.pdf", b"%PDF broken"), Child("b.txt", b"")))
    with pytest.raises(DocumentError) as caught:
        prepare_item(record(content), PREPARATION)
    assert str(caught.value).startswith("nothing in it can be read: 'a.pdf' inside it: ")
    assert "'b.txt' inside it: " in str(caught.value)
    with pytest.raises(DocumentError, match=r"^nothing in it can be read: it is empty$"):
        prepare_item(record(Extracted(text="", title=None)), PREPARATION)


def test_a_file_that_went_away_is_refused(tmp_path: Path):
    with pytest.raises(DocumentError, match="cannot be read: No such file"):
        prepare_item(FileItem(tmp_path / "a.md", "docs", "docs/a.md"), PREPARATION)


def test_the_hash_of_bytes_is_also_of_how_they_are_read():
    other = Preparation(PREPARATION.chunking, FieldMapping(text=("words",)))
    hashes = {
        PREPARATION.hash_of(b"Text.", "a.md"),
        PREPARATION.hash_of(b"Text!", "a.md"),
        PREPARATION.hash_of(b"Text.", "a.txt"),
        other.hash_of(b"Text.", "a.md"),
    }
    assert len(hashes) == 4
    assert PREPARATION.hash_of(b"Text.", "a.md") == PREPARATION.hash_of(b"Text.", "other.MD")
    chunked = Preparation(Chunking(sentences=9), FieldMapping())
    assert chunked.hash_of(b"Text.", "a.md") == PREPARATION.hash_of(b"Text.", "a.md"), "chunking is the collection's"


def test_the_bytes_hash_is_of_what_was_read(tmp_path: Path):
    assert prepared(tmp_path, "a.md", "Text.").bytes_hash == PREPARATION.hash_of(b"Text.", "a.md")


def test_dividing_is_left_to_the_embedder_where_it_needs_one():
    content = Extracted(text="One. Two.", title=None)
    assert prepare_content("a", content, Chunking(strategy="semantic")).spans is None
    assert prepare_content("a", content, Chunking(strategy="fixed")).spans == [(0, 9)]


def test_where_a_document_is_does_not_change_its_content_hash(tmp_path: Path):
    (one,), (other,) = (prepared(tmp_path, name, "Text.").contents for name in ("a.md", "b.md"))
    assert one.content_hash == other.content_hash
    assert one.document_id != other.document_id
