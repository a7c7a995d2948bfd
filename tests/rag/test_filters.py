import json

import pytest

from rag.errors import FilterError, UsageError
from rag.filters import Comparison, Compound, parse_filter, parse_short_filters, payload_key

DOCS = {"type": "eq", "key": "source", "value": "docs"}


@pytest.mark.parametrize("operator", ["eq", "ne"])
@pytest.mark.parametrize("value", ["docs", "", 7, -7, True, False, 2**63 - 1])
def test_equality_takes_strings_integers_and_booleans(operator, value):
    parsed = parse_filter({"type": operator, "key": "x", "value": value})
    assert parsed == Comparison(operator, "x", value)
    assert type(parsed.value) is type(value)


@pytest.mark.parametrize("operator", ["gt", "gte", "lt", "lte"])
@pytest.mark.parametrize("value", [1, 1.5, -3])
def test_an_order_takes_numbers(operator, value):
    assert parse_filter({"type": operator, "key": "year", "value": value}) == Comparison(operator, "year", value)


@pytest.mark.parametrize("operator", ["in", "nin"])
@pytest.mark.parametrize("value", [["a"], ["a", "b"], [1, 2, 3]])
def test_membership_takes_a_list_of_one_kind(operator, value):
    parsed = parse_filter({"type": operator, "key": "tag", "value": value})
    assert parsed == Comparison(operator, "tag", tuple(value))


def test_compounds_nest_as_json_does():
    data = json.loads(
        '{"type": "and", "filters": [{"type": "eq", "key": "source", "value": "docs"},'
        ' {"type": "or", "filters": [{"type": "gte", "key": "year", "value": 2020},'
        ' {"type": "nin", "key": "tag", "value": ["old", "draft"]}]}]}'
    )
    assert parse_filter(data) == Compound(
        "and",
        (
            Comparison("eq", "source", "docs"),
            Compound("or", (Comparison("gte", "year", 2020), Comparison("nin", "tag", ("old", "draft")))),
        ),
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "must be an object with a type, not NoneType"),
        ("source=docs", "must be an object with a type, not str"),
        ([DOCS], "must be an object with a type, not list"),
        ({}, "unknown filter type None; use one of eq, ne, gt, gte, lt, lte, in, nin, and, or"),
        ({"type": "EQ", "key": "a", "value": 1}, "unknown filter type 'EQ'"),
        ({"type": ["eq"], "key": "a", "value": 1}, "unknown filter type"),
        ({"type": "eq", "value": 1}, 'needs a "key"'),
        ({"type": "eq", "key": "", "value": 1}, 'needs a "key"'),
        ({"type": "eq", "key": 3, "value": 1}, 'needs a "key"'),
        ({"type": "eq", "key": 'a"b', "value": 1}, "must not hold a quotation mark"),
        ({"type": "eq", "key": "a"}, 'the filter on "a" of type "eq" needs a string, integer or boolean, not None'),
        ({"type": "eq", "key": "a", "value": 1.5}, "needs a string, integer or boolean, not 1.5"),
        ({"type": "ne", "key": "a", "value": ["x"]}, "needs a string, integer or boolean"),
        ({"type": "eq", "key": "a", "value": 2**63}, "does not fit in 64 bits"),
        ({"type": "in", "key": "a", "value": [1, -(2**63) - 1]}, "does not fit in 64 bits"),
        ({"type": "gt", "key": "a", "value": "2020"}, "needs a number, not '2020'"),
        ({"type": "lte", "key": "a", "value": True}, "needs a number, not True"),
        ({"type": "in", "key": "a", "value": "abc"}, "needs a non-empty list"),
        ({"type": "nin", "key": "a", "value": []}, "needs a non-empty list"),
        ({"type": "in", "key": "a", "value": [1, "b"]}, "only strings or only integers"),
        ({"type": "in", "key": "a", "value": [True]}, "only strings or only integers"),
        ({"type": "in", "key": "a", "value": [1.5]}, "only strings or only integers"),
        ({"type": "and"}, 'type "and" needs a non-empty list "filters"'),
        ({"type": "or", "filters": []}, 'type "or" needs a non-empty list "filters"'),
        ({"type": "or", "filters": "docs"}, 'type "or" needs a non-empty list "filters"'),
        ({"type": "and", "filters": [DOCS, {"type": "near"}]}, "unknown filter type 'near'"),
    ],
)
def test_what_cannot_be_read_is_named(data, message):
    with pytest.raises(FilterError) as caught:
        parse_filter(data)
    assert message in str(caught.value)
    assert isinstance(caught.value, UsageError)


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("key=docs", "docs"),
        (" key = two words ", "two words"),
        ("key=a=b", "a=b"),
        ("key=", ""),
        ("key=true", True),
        ("key=false", False),
        ("key=True", "True"),
        ("key=42", 42),
        ("key=-1", -1),
        ("key=007", 7),
        ("key=1_000", "1_000"),
        ("key=1.5", "1.5"),
        ("key=9780306406157000000", "9780306406157000000"),
    ],
)
def test_a_short_filter_is_one_equality(pair, value):
    parsed = parse_short_filters([pair])
    assert parsed == Comparison("eq", "key", value)
    assert type(parsed.value) is type(value)


def test_short_filters_hold_together():
    assert parse_short_filters([]) is None
    assert parse_short_filters(["source=docs", "year=2024"]) == Compound(
        "and", (Comparison("eq", "source", "docs"), Comparison("eq", "year", 2024))
    )


@pytest.mark.parametrize("pair", ["docs", "=docs", "  =docs", "", 'a"b=c'])
def test_a_pair_without_a_key_is_refused(pair):
    with pytest.raises(FilterError, match="cannot"):
        parse_short_filters(["source=docs", pair])


def test_fields_of_a_passage_stand_at_the_top_and_all_else_in_its_metadata():
    assert [payload_key(key) for key in ("source", "document_id", "version", "title", "page")] == [
        "source",
        "document_id",
        "version",
        "title",
        "page",
    ]
    assert payload_key("tenant") == 'metadata."tenant"'  # no filter reaches across tenants
    assert payload_key("a.b c") == 'metadata."a.b c"'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, 2**63])
def test_an_order_takes_no_number_a_store_cannot_hold(value):
    with pytest.raises(FilterError, match=r"finite|64 bits"):
        parse_filter({"type": "gt", "key": "year", "value": value})
