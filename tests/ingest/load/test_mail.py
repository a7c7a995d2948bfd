from email.message import EmailMessage

import pytest

from ingest.load.extracted import Child
from ingest.load.mail import load
from rag.errors import DocumentError


def written(**headers):
    message = EmailMessage()
    message["From"] = "Ann Author <ann@example.org>"
    message["Subject"] = "Quarterly  results"
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return message


def test_headers_are_metadata_the_subject_is_the_title_and_the_quoted_reply_is_kept():
    message = written(
        To="Bob <bob@example.org>, Jürgen Groß <juergen@example.org>",
        Cc="list@example.org",
        Date="Mon, 02 Jun 2025 10:30:00 +0200",
        Message_ID="<abc@example.org>",
    )
    message.set_content("Yes.\n\n> Shall we meet in Zürich?\n")
    extracted = load(message.as_bytes())
    assert extracted.text == "Yes.\n\n> Shall we meet in Zürich?\n"
    assert extracted.title == "Quarterly results"
    assert extracted.metadata == {
        "from": "Ann Author <ann@example.org>",
        "to": ["Bob <bob@example.org>", "Jürgen Groß <juergen@example.org>"],
        "cc": ["list@example.org"],
        "date": "2025-06-02T10:30:00+02:00",
        "message_id": "abc@example.org",
    }
    assert extracted.media_type == "message/rfc822"


def test_a_body_with_markup_counts_where_there_is_no_plain_one():
    message = written()
    message.set_content("<h1>Offer</h1><p>caf\u00e9</p>", subtype="html", charset="iso-8859-1")
    extracted = load(message.as_bytes())
    assert "café" in extracted.text
    assert [heading.text for heading in extracted.headings] == ["Offer"]
    assert extracted.title == "Quarterly results"


@pytest.mark.parametrize(("plain", "expected"), [("plain words", "plain words"), (" \n", "rich words")])
def test_of_two_forms_of_the_body_the_plain_one_counts_unless_it_is_empty(plain, expected):
    message = written()
    message.set_content(plain)
    message.add_alternative("<p>rich words</p>", subtype="html")
    assert load(message.as_bytes()).text.strip() == expected


def test_attachments_are_children_but_pictures_and_signatures_are_not():
    message = written()
    message.set_content("See below.")
    message.add_attachment(b"%PDF-1.7", maintype="application", subtype="pdf", filename="a/report.pdf")
    message.add_attachment(b"%PDF-1.6", maintype="application", subtype="pdf", filename="report.pdf")
    message.add_attachment("name,age\n", filename="ages.csv")
    message.add_attachment(b"blob", maintype="application", subtype="zip")
    message.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="logo.png")
    message.add_attachment(b"sig", maintype="application", subtype="pgp-signature", filename="signature.asc")
    extracted = load(message.as_bytes())
    assert extracted.text == "See below.\n"
    assert extracted.children == (
        Child("report.pdf", b"%PDF-1.7"),
        Child("report (2).pdf", b"%PDF-1.6"),
        Child("ages.csv", b"name,age\n"),
        Child("attachment-4.zip", b"blob"),
    )


def test_a_mail_within_the_mail_is_a_child_that_can_be_read_as_one():
    inner = written(To="bob@example.org")
    inner.set_content("The original.")
    outer = written()
    outer.set_content("Forwarded.")
    outer.add_attachment(inner)
    (child,) = load(outer.as_bytes()).children
    assert child.name == "message-1.eml"
    assert load(child.content).text == "The original.\n"
    assert load(outer.as_bytes()).text == "Forwarded.\n"


def test_a_footer_in_a_part_of_its_own_belongs_to_the_text():
    source = (
        b"From: a@example.org\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n"
        b"--x\n\nHello.\n--x\nContent-Type: text/plain\n\nTo unsubscribe, write.\n"
        b"--x\nContent-Type: text/html; name=page.html\n\n<p>attached page\n--x--\n"
    )
    extracted = load(source)
    assert extracted.text == "Hello.\n\nTo unsubscribe, write.\n"
    assert [child.name for child in extracted.children] == ["page.html"]


def test_malformed_headers_are_read_as_far_as_they_can():
    source = (
        b"From: =?utf-8?q?J=C3=BCrgen?= <@@>\nTo: undisclosed-recipients:;\nDate: yesterday\nMessage-ID: <[1\n\nText."
    )
    extracted = load(source)
    assert extracted.text == "Text.\n"
    assert "date" not in extracted.metadata
    assert "Jürgen" in str(extracted.metadata["from"])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\n\nnothing but text", "no mail"),
        (b"From: a@b\nContent-Type: multipart/encrypted; boundary=x\n\n--x\n\nblob\n--x--", "encrypted"),
        (b"From: a@b\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data\n\nblob", "encrypted"),
    ],
)
def test_what_is_no_mail_or_locked_is_reported(data, reason):
    with pytest.raises(DocumentError, match=reason):
        load(data)
