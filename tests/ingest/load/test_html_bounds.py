import pytest

from ingest.load.html_bounds import bounded


@pytest.mark.parametrize(
    "source",
    [
        "<p>x" * 3000,
        "<ul>" + "<li>x" * 3000,
        "<table>" + "<tr><td>x<td>y" * 3000,
        "<br>" * 3000,
        "<div>x</div>" * 3000,
        "<svg>" + "<path d='M0'/>" * 3000 + "</svg>",
        "<script>" + "'<div>' + " * 3000 + "</script>",
        "<!--" + "<div>" * 3000 + "-->",
        "<div" * 3000,
        '<p title="' + "word " * 3000 + '">',
    ],
)
def test_what_does_not_nest_is_left_alone(source):
    assert bounded(source) == source


def test_nesting_ends_at_a_thousand_elements():
    assert bounded("<div><b>" * 2000 + "x" + "</b></div>" * 2000).count("<div>") == 500
    assert bounded("<b></p>" * 2000).count("<b>") == 1000


def test_elements_may_nest_again_once_others_are_closed():
    source = "<div>" * 1500 + "</div>" * 1500 + "<section>" * 10
    assert bounded(source).endswith("<section>" * 10)
