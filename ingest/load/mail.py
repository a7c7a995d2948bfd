"""Mail as it travels (RFC 5322, MIME): the body is the text, headers are metadata, attachments are children."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ingest.load import html
from ingest.load.decoding import clean, decode
from ingest.load.extracted import Child, Extracted
from rag.errors import DocumentError
from rag.types import Scalar

if TYPE_CHECKING:
    from email.message import EmailMessage, Message

_ENCRYPTED = frozenset({"multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime"})
SIGNATURES = frozenset({"application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature"})
"""Media types of attachments that say nothing but who wrote the mail."""


def load(data: bytes) -> Extracted:
    """A mail: text/plain, else text/html, quoted replies included; the title is the subject.

    Metadata: `from`, `date` (ISO 8601, as the sender's clock had it) and `message_id` as strings, `to` and `cc` as
    lists. Children are the attachments, a mail within the mail among them as `.eml`; images and signatures are none.

    Raises:
        DocumentError: The file is empty, has no mail headers, or the mail is encrypted.
    """
    from email import policy
    from email.parser import BytesParser

    if not data:
        raise DocumentError("the file is empty")
    message = BytesParser(policy=policy.default).parsebytes(data)
    if not message.keys():
        raise DocumentError("no mail: it does not begin with headers such as From and Subject")
    if _smime_hides(message):
        raise DocumentError("the mail is encrypted; decrypt it in a mail program and save it anew")
    part = _body_part(message)
    body = Extracted(text="", title=None) if part is None else _read(part)
    children, warnings = _attachments(other for other in _leaves(message) if other is not part)
    return replace(
        body,
        text=_with_further_text(body.text, message, part),
        title=_header(message, "subject") or None,
        metadata=_metadata(message),
        media_type="message/rfc822",
        children=tuple(children),
        warnings=tuple(warnings),
    )


def unique_name(name: str, taken: set[str]) -> str:
    """A file name for a child, without its folder, told from those in `taken` by a number; it is added to them."""
    path = PurePosixPath(clean(name).replace("\\", "/").replace("\n", " ").strip())
    unique, number = path.name or "attachment", 1
    while unique in taken:
        number += 1
        unique = f"{path.stem} ({number}){path.suffix}"
    taken.add(unique)
    return unique


def _smime_hides(message: Message) -> bool:
    kind = message.get_content_type()
    return kind in _ENCRYPTED and message.get_param("smime-type") != "signed-data"


def _header(message: Message, name: str) -> str:
    """The header's text on one line, decoded; empty where there is none."""
    try:
        value = str(message.get(name, ""))
    except (AttributeError, IndexError, LookupError, TypeError, ValueError):
        # The library's parsers of structured headers stumble over some that are malformed.
        value = next((str(raw) for key, raw in message.raw_items() if key.lower() == name), "")
    return " ".join(clean(value).split())


def _metadata(message: Message) -> dict[str, Scalar | list[str]]:
    addresses = {name: _addresses(_header(message, name)) for name in ("from", "to", "cc")}
    found: dict[str, Scalar | list[str]] = {
        "from": ", ".join(addresses["from"]),
        "to": addresses["to"],
        "cc": addresses["cc"],
        "date": _date(_header(message, "date")),
        "message_id": _header(message, "message-id").strip("<>"),
    }
    return {key: value for key, value in found.items() if value}


def _addresses(header: str) -> list[str]:
    from email.utils import getaddresses

    parsed = [f"{name} <{address}>" if name else address for name, address in getaddresses([header]) if address]
    return parsed or ([header] if header else [])


def _date(header: str) -> str:
    """In ISO 8601; empty where the header cannot be read."""
    from email.utils import parsedate_to_datetime

    try:
        date: datetime = parsedate_to_datetime(header)
    except (TypeError, ValueError, IndexError):
        return ""
    return date.isoformat()


def _body_part(message: EmailMessage) -> Message | None:
    """The plain body, else the one with markup, if there are words in it."""
    bodies = (message.get_body(preferencelist=(kind,)) for kind in ("plain", "html"))
    return next((body for body in bodies if body is not None and _read(body).text.strip()), None)


def _with_further_text(text: str, message: Message, body: Message | None) -> str:
    """The text with what stands in parts after it, as the footer of a mailing list does."""
    # Beside a plain body one with markup says the same again.
    passed_over = "text/html" if body is not None and body.get_content_type() == "text/plain" else ""
    further = [
        _read(part).text.strip("\n")
        for part in _leaves(message)
        if part is not body and _is_inline_text(part) and part.get_content_type() != passed_over
    ]
    joined = "\n\n".join(filter(None, [text.rstrip(), *further]))
    return f"{joined}\n" if joined else ""


def _leaves(message: Message) -> Iterator[Message]:
    """Parts that hold something themselves; a mail within the mail is one of them."""
    if message.get_content_maintype() == "multipart" and isinstance(parts := message.get_payload(), list):
        for part in parts:
            if not isinstance(part, str):
                yield from _leaves(part)
    else:
        yield message


def _is_inline_text(part: Message) -> bool:
    kind = part.get_content_type()
    return (
        kind in ("text/plain", "text/html", "text/enriched", "message/delivery-status")
        and part.get_content_disposition() != "attachment"
        and not part.get_filename()
    )


def _payload(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _read(part: Message) -> Extracted:
    """Text and headings of a part that is text; neither where it is empty."""
    if part.get_content_type() == "message/delivery-status":
        return Extracted(text=clean("\n".join(str(block) for block in part.walk() if block is not part)), title=None)
    data, charset = _payload(part), part.get_content_charset()
    if not data.strip():
        return Extracted(text="", title=None)
    if part.get_content_type() != "text/html":
        return Extracted(text=decode(data, charset), title=None)
    page = html.load(decode(data, charset).encode() if charset else data)
    return Extracted(text=page.text, title=None, headings=page.headings)


def _attachments(parts: Iterable[Message]) -> tuple[list[Child], list[str]]:
    children: list[Child] = []
    warnings: list[str] = []
    taken: set[str] = set()
    for part in parts:
        kind = part.get_content_type()
        if _is_inline_text(part) or part.get_content_maintype() == "image" or kind in SIGNATURES:
            continue
        data = _mail_within(part) if kind == "message/rfc822" else _payload(part)
        name = unique_name(_attachment_name(part, len(children) + 1), taken)
        if data:
            children.append(Child(name, data))
        else:
            warnings.append(f"the attachment {name} is empty")
    return children, warnings


def _mail_within(part: Message) -> bytes:
    from email import policy

    nested = part.get_payload()
    if isinstance(nested, list) and nested and not isinstance(nested[0], str):
        # The older policy writes headers back as they were read, which the newer one refuses to do with some.
        return nested[0].as_bytes(policy=policy.compat32)
    return _payload(part)


def _attachment_name(part: Message, number: int) -> str:
    name = part.get_filename() or ""
    kind = part.get_content_type()
    if kind == "message/rfc822":
        return name if name.lower().endswith(".eml") else f"{name or f'message-{number}'}.eml"
    return name or f"attachment-{number}{mimetypes.guess_extension(kind) or ''}"
