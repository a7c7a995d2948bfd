import json

import pytest

from ingest import run as running
from tests.ingest.commands import rag, refused, settled_in
from tests.ingest.workplace import Workplace

RECORDS = [{"id": number, "text": f"Record {number} is about copper."} for number in (1, 2)]


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Workplace:
    return settled_in(tmp_path, monkeypatch)


@pytest.fixture
def workplace(empty, monkeypatch) -> Workplace:
    """Two documents with the same content, one with headings, one of records, one that cannot be read."""
    empty.write("tides.md", "---\nyear: 2024\n---\n# Tides\n\nThe moon causes the tides.\n\n## Sun\n\nThe sun helps.\n")
    empty.write("wine.txt", "Wine ferments in steel tanks.")
    empty.write("old/wine.txt", "Wine ferments in steel tanks.")
    empty.write("records.jsonl", "\n".join(json.dumps(record) for record in RECORDS))
    (empty.docs / "broken.md").write_bytes(b"\0\1\2")
    assert rag("ingest", "docs", "--json").status == 1
    # From here on nothing may need the model.
    monkeypatch.setattr(running, "build_embedder", refused("the model was loaded"))
    return empty


def ids() -> list[str]:
    return [document["document_id"] for document in rag("documents", "list", "--json").json["documents"]]


ALL = ["docs/old/wine.txt", "docs/records.jsonl#1", "docs/records.jsonl#2", "docs/tides.md", "docs/wine.txt"]


def test_documents_are_listed_in_order_of_id(workplace):
    said = rag("documents", "list", "--json")
    assert (said.status, said.err) == (0, "")
    assert said.json.keys() == {"documents", "more"}
    documents = {document["document_id"]: document for document in said.json["documents"]}
    assert list(documents) == ALL
    assert documents["docs/records.jsonl#2"]["item_id"] == "docs/records.jsonl"
    wine = documents["docs/wine.txt"]
    assert wine.keys() == {"document_id", "source", "item_id", "version", "passages", "also_in"}
    assert (wine["source"], wine["passages"], wine["also_in"]) == ("docs", 1, ["docs/old/wine.txt"])
    assert wine["version"] == documents["docs/old/wine.txt"]["version"]
    assert "docs/wine.txt  1 passage, same as docs/old/wine.txt\n" in rag("documents", "list").out


def test_a_list_is_cut_at_its_limit_and_says_so(workplace):
    said = rag("documents", "list", "--limit", "2", "--json").json
    assert ([document["document_id"] for document in said["documents"]], said["more"]) == (ALL[:2], True)
    assert rag("documents", "list", "--limit", "5", "--json").json["more"] is False
    assert "--limit" in rag("documents", "list", "--limit", "2").err


def test_the_documents_of_one_source_are_listed(empty):
    file = empty.write("wine.txt", "Wine ferments in steel tanks.")
    rag("ingest", "docs")
    rag("ingest", str(file), "--source", "cellar")
    assert ids() == ["cellar/wine.txt", "docs/wine.txt"]
    said = rag("documents", "list", "--source", "cellar", "--json").json
    assert [(document["document_id"], document["also_in"]) for document in said["documents"]] == [
        ("cellar/wine.txt", [])
    ]
    status, code, message = rag("documents", "list", "--source", "celar", "--json").error
    assert (status, code) == (2, "invalid_request")
    assert message == "there is no source 'celar'; there are: cellar, docs"


def test_what_could_not_be_read_is_listed_with_the_reason(workplace):
    said = rag("documents", "list", "--failed", "--json").json
    assert said["more"] is False
    (failed,) = said["failed"]
    assert failed.keys() == {"item_id", "source", "location", "reason", "documents"}
    assert (failed["item_id"], failed["source"], failed["documents"]) == ("docs/broken.md", "docs", 0)
    assert failed["location"] == str(workplace.docs / "broken.md")
    assert "binary" in failed["reason"]
    assert rag("documents", "list", "--failed").out == f"{failed['location']}: {failed['reason']}\n"
    assert rag("documents", "list", "--failed", "--source", "other", "--json").json["failed"] == []


def test_a_document_is_shown_with_what_was_extracted(workplace):
    said = rag("documents", "show", "docs/tides.md", "--json").json
    assert (said["id"], said["source"], said["item_id"]) == ("docs/tides.md", "docs", "docs/tides.md")
    assert said["location"] == str(workplace.docs / "tides.md")
    assert (said["title"], said["media_type"]) == ("Tides", "text/markdown")
    assert said["metadata"]["year"] == 2024
    assert [(heading["level"], heading["text"]) for heading in said["headings"]] == [(1, "Tides"), (2, "Sun")]
    assert (said["error"], said["also_in"], said["documents"]) == (None, [], ["docs/tides.md"])
    assert said["passages"] == 2
    assert "text" not in said
    text = rag("documents", "show", "docs/tides.md", "--text", "--json").json["text"]
    assert "The moon causes the tides." in text
    assert (len(text), "year:" in text) == (said["characters"], False)


def test_a_document_is_shown_to_people(workplace):
    out = rag("documents", "show", "docs/tides.md", "--text").out
    assert "title       Tides\n" in out
    assert "metadata    year = 2024\n" in out
    assert "heading       Sun\n" in out
    assert out.rstrip().endswith("The sun helps.")
    assert "moon" not in rag("documents", "show", "docs/tides.md").out


def test_a_file_of_several_documents_is_shown_with_their_ids(workplace):
    said = rag("documents", "show", "docs/records.jsonl", "--json").json
    assert (said["documents"], said["version"]) == (["docs/records.jsonl#1", "docs/records.jsonl#2"], None)
    out = rag("documents", "show", "docs/records.jsonl").out
    assert out.count("document    docs/records.jsonl#") == 2
    assert rag("documents", "show", "docs/records.jsonl#1", "--json").json["item_id"] == "docs/records.jsonl"


def test_a_file_that_was_never_read_is_shown_with_the_reason(workplace):
    said = rag("documents", "show", "docs/broken.md", "--json").json
    assert (said["documents"], said["title"]) == ([], None)
    assert "binary" in said["error"]


def test_an_id_that_is_not_there_is_refused_with_those_near_it(workplace):
    for command in (["show", "tides.md"], ["delete", "tides.md", "--yes"]):
        status, code, message = rag("documents", *command, "--json").error
        assert (status, code) == (2, "invalid_request")
        assert message == "there is no document 'tides.md'; near it: docs/tides.md"
    assert rag("documents", "show", "docs/tide.md", "--json").error[2].count("docs/tides.md") == 1
    assert "`rag documents list` shows" in rag("documents", "show", "0", "--json").error[2]


def test_a_document_is_deleted_without_the_model(workplace):
    said = rag("documents", "delete", "docs/tides.md", "--yes", "--json")
    assert said.status == 0
    assert (said.json["deleted"], said.json["added"], said.json["failed"]) == (1, 0, [])
    assert ids() == [name for name in ALL if name != "docs/tides.md"]
    assert (workplace.docs / "tides.md").is_file()


def test_several_are_deleted_at_once_or_none(workplace):
    assert rag("documents", "delete", "docs/tides.md", "docs/absent.md", "--yes", "--json").status == 2
    assert ids() == ALL
    said = rag("documents", "delete", "docs/tides.md", "docs/wine.txt", "docs/tides.md", "--yes", "--json").json
    assert said["deleted"] == 2
    assert ids() == ["docs/old/wine.txt", "docs/records.jsonl#1", "docs/records.jsonl#2"]


def test_a_file_is_deleted_with_all_documents_inside_it(workplace):
    assert rag("documents", "delete", "docs/records.jsonl", "--yes", "--json").json["deleted"] == 2
    assert ids() == ["docs/old/wine.txt", "docs/tides.md", "docs/wine.txt"]
    assert rag("documents", "show", "docs/records.jsonl", "--json").status == 2


def test_a_file_that_was_never_read_is_forgotten(workplace):
    assert rag("documents", "delete", "docs/broken.md", "--yes", "--json").json["deleted"] == 0
    assert rag("documents", "list", "--failed", "--json").json["failed"] == []


def test_without_a_terminal_nothing_is_deleted_unless_that_is_said(workplace):
    status, code, message = rag("documents", "delete", "docs/tides.md", "--json").error
    assert (status, code) == (2, "invalid_request")
    assert "add --yes" in message
    assert ids() == ALL


def test_a_person_is_asked_and_may_say_no(workplace):
    said = rag("documents", "delete", "docs/records.jsonl", typed="n\n")
    assert said.status == 1
    assert "docs/records.jsonl#1\ndocs/records.jsonl#2\n" in said.err
    assert "Delete 2 documents?" in said.err
    assert ids() == ALL
    said = rag("documents", "delete", "docs/records.jsonl", "--json", typed="y\n")
    assert (said.status, said.json["deleted"]) == (0, 2)


def test_what_is_asked_about_names_no_more_than_a_screen_holds(empty):
    lines = [json.dumps({"id": number, "text": f"Record {number}."}) for number in range(15)]
    empty.write("many.jsonl", "\n".join(lines))
    rag("ingest", "docs")
    said = rag("documents", "delete", "docs/many.jsonl", typed="y\n")
    assert "... and 5 more\n" in said.err
    assert "Delete 15 documents?" in said.err


@pytest.mark.parametrize(
    "command", [["documents", "list"], ["documents", "show", "a"], ["documents", "delete", "a", "--yes"]]
)
def test_where_nothing_was_ingested_the_remedy_is_named_and_nothing_is_made(empty, command):
    status, code, message = rag(*command, "--json").error
    assert (status, code) == (2, "configuration_error")
    assert message.startswith("nothing is ingested yet")
    assert not empty.settings.data.dir.exists()


def test_the_help_says_that_a_deleted_file_comes_back():
    said = rag("documents", "delete", "--help")
    assert "ingested again by the next" in " ".join(said.out.replace("│", " ").split())
