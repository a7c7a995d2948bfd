import json

import pytest

from ingest.load.extracted import Child, Extracted
from ingest.load.json_records import FieldMapping, load, load_lines, record_from_line
from rag.errors import DocumentError


def lines(*values):
    return "".join(f"{json.dumps(value)}\n" for value in values).encode()


def record(text, title=None, **metadata):
    return Extracted(text=text, title=title, metadata=metadata, media_type="application/json")


def test_each_line_is_a_document_with_its_usual_fields_found():
    extracted = load_lines(
        lines(
            {"_id": "d1", "title": "One", "text": "First\n\ntext", "year": 2024, "tags": ["a", "b"], "open": True},
            {"ID": 7, "Body": "Second", "metadata": {"url": "u"}, "author": {"name": "Ann"}, "vector": [0.1, 0.2]},
        )
    )
    assert extracted.text == ""
    assert extracted.children == (
        Child("d1", record("First\n\ntext", "One", year=2024, tags=["a", "b"], open=True)),
        Child("7", record("Second", url="u", **{"author.name": "Ann"})),
    )


def test_an_array_of_objects_is_records_and_one_without_a_text_field_is_lines():
    extracted = load(b'[{"name": "Ann", "age": 31, "home": {"city": "Rome", "zip": null}, "likes": ["tea", "rum"]}]')
    (child,) = extracted.children
    assert child == Child(
        "1",
        record(
            "name: Ann\nage: 31\nhome.city: Rome\nlikes: tea, rum\n",
            "Ann",
            age=31,
            likes=["tea", "rum"],
            **{"home.city": "Rome"},
        ),
    )


def test_any_other_json_is_one_document_of_paths_and_values():
    extracted = load(b'{"title": "Setup", "steps": [{"do": "x", "n": 1.5}, {"do": "y"}], "ok": false, "v": NaN}')
    assert extracted.text == "title: Setup\nsteps[0].do: x\nsteps[0].n: 1.5\nsteps[1].do: y\nok: false\n"
    assert extracted.title == "Setup"
    assert extracted.children == ()


def test_a_long_list_of_numbers_is_a_vector_and_no_text():
    assert load(json.dumps({"a": [0.5] * 384, "b": [1, 2]}).encode()).text == "b: 1, 2\n"


def test_a_bad_line_is_a_warning_with_its_number():
    extracted = load_lines(b'{"text": "one"}\n\n{"text": broken}\n["two"]\n{"id": 3}\n{"text": "four"}\n')
    assert [child.name for child in extracted.children] == ["1", "6"]
    assert extracted.warnings == (
        "line 3: no JSON (Expecting value)",
        "line 4: not an object of keys and values",
        "line 5: no text in the record",
    )


def test_of_many_bad_lines_only_some_are_named_and_all_counted():
    warnings = load_lines(b'{"text": "one"}\n' + b"bad\n" * 1000).warnings
    assert len(warnings) == 21
    assert warnings[-1] == "and 980 more such records"


@pytest.mark.parametrize("data", [b"bad\nworse\n", b'{"id": 1}\n', b"[1]\n2\n", b"{\n"])
def test_a_file_of_nothing_but_bad_lines_fails(data):
    with pytest.raises(DocumentError, match="no record can be read: line 1: "):
        load_lines(data)


@pytest.mark.parametrize("data", [b'{"a": 1', b"no", b"[" * 100_000, b'[\n{"a": 1},\n{"b": 2}\n'])
def test_a_broken_json_file_fails(data):
    with pytest.raises(DocumentError, match="no JSON: "):
        load(data)


def test_the_content_decides_between_json_and_jsonl():
    several = lines({"text": "one"}, {"text": "two"})
    assert [child.name for child in load(several).children] == ["1", "2"]
    pretty = json.dumps([{"text": "one"}, {"text": "two"}], indent=2).encode()
    assert load_lines(pretty) == load(pretty)


def test_an_id_that_comes_twice_is_told_apart_and_reported():
    extracted = load_lines(lines({"id": "a", "text": "one"}, {"id": "a", "text": "two"}))
    assert [child.name for child in extracted.children] == ["a", "a (line 2)"]
    assert extracted.warnings == ("line 2: the id 'a' is that of an earlier record too",)


def test_half_a_character_is_left_out_of_text_and_metadata():
    (child,) = load_lines(b'{"text": "a\\ud800b", "k\\udc00": "c\\ud800\\u0000d"}').children
    assert child.content == record("ab", k="cd")


def test_an_integer_beyond_64_bits_is_kept_as_written():
    (child,) = load_lines(b'{"text": "t", "n": 123456789012345678901234567890}').children
    assert child.content.metadata == {"n": "123456789012345678901234567890"}


def test_another_mapping_names_other_fields():
    mapping = FieldMapping(id=("isbn",), title=("book",), text=("blurb", "text"))
    child = record_from_line('{"isbn": "978", "book": "B", "blurb": " ", "text": "T", "id": 5}\n', 12, mapping)
    assert child == Child("978", record("T", "B", blurb=" ", id=5))


def test_a_record_without_an_id_is_named_by_its_line():
    assert record_from_line('{"text": "T"}', 12).name == "12"
    with pytest.raises(DocumentError, match="line 12: no JSON"):
        record_from_line("oops", 12)
