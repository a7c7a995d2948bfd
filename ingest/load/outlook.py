"""Mail as Outlook saves it (.msg): properties in an OLE compound file, as [MS-OXMSG] and [MS-OXPROPS] describe."""

from __future__ import annotations

import mimetypes
import struct
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import TYPE_CHECKING

from ingest.load import html
from ingest.load.decoding import clean, decode
from ingest.load.extracted import Child, Extracted
from ingest.load.mail import SIGNATURES, unique_name
from rag.errors import DocumentError
from rag.types import Scalar

if TYPE_CHECKING:
    from olefile import OleFileIO

_OLE_MARK = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)
_MAX_NESTING = 20

# Property identifiers.
_SUBJECT, _BODY, _RTF, _HTML = 0x0037, 0x1000, 0x1009, 0x1013
_SENDER_NAME, _SENDER_ADDRESS, _SENDER_SMTP = 0x0C1A, 0x0C1F, 0x5D01
_MESSAGE_ID, _SUBMIT_TIME, _DELIVERY_TIME = 0x1035, 0x0039, 0x0E06
_RECIPIENT_KIND, _NAME, _ADDRESS, _SMTP = 0x0C15, 0x3001, 0x3003, 0x39FE
_DATA, _LONG_FILE_NAME, _FILE_NAME, _MIME, _HIDDEN = 0x3701, 0x3707, 0x3704, 0x370E, 0x7FFE
_CODE_PAGE, _INTERNET_CODE_PAGE = 0x3FFD, 0x3FDE
_UNICODE, _EIGHT_BIT, _BINARY, _OBJECT = 0x001F, 0x001E, 0x0102, 0x000D
_UTF8_CODE_PAGE = 65001


def load(data: bytes) -> Extracted:
    """A mail saved by Outlook, with the fields that `mail.load` gives to one that was saved as `.eml`.

    A mail within the mail is a child that is read already.

    Raises:
        DocumentError: The file is empty or damaged, or no mail of Outlook.
    """
    import olefile

    if not data:
        raise DocumentError("the file is empty")
    if not data.startswith(_OLE_MARK):
        raise DocumentError("no Outlook mail, whatever its name says; if it is text, rename it to .txt")
    try:
        with olefile.OleFileIO(BytesIO(data)) as file:
            if not file.exists("__properties_version1.0"):
                raise DocumentError("an Office file, but no Outlook mail; give it the suffix of its program")
            return _message(_Storage(file, ()), depth=0)
    except (OSError, struct.error, IndexError, TypeError) as error:
        raise DocumentError(f"damaged Outlook mail ({error}); save it anew, as .eml if need be") from error


class _Storage:
    """A folder of the compound file with the properties of one message, recipient or attachment."""

    def __init__(self, file: OleFileIO, path: tuple[str, ...]) -> None:
        self._file = file
        self._path = path
        self._fixed = self._fixed_properties()
        code_page = self.integer(_CODE_PAGE) or self.integer(_INTERNET_CODE_PAGE)
        self.encoding = None if code_page is None else _codec(code_page)

    def binary(self, identifier: int, kind: int = _BINARY) -> bytes:
        """Empty where the property is not there."""
        path = [*self._path, f"__substg1.0_{identifier:04X}{kind:04X}"]
        if not self._file.exists(list(path)) or self._file.get_type(path) != 2:
            return b""
        data: bytes = self._file.openstream(path).read()
        return data

    def string(self, *identifiers: int) -> str:
        """The first of the properties that is there and not empty; empty where none is."""
        for identifier in identifiers:
            text = self.binary(identifier, _UNICODE).decode("utf-16-le", errors="replace").strip("\0")
            eight_bit = b"" if text else self.binary(identifier, _EIGHT_BIT).strip(b"\0")
            if eight_bit:
                text = decode(eight_bit, self.encoding)
            if text.strip():
                return clean(text)
        return ""

    def integer(self, identifier: int) -> int | None:
        value = self._fixed.get(identifier)
        return None if value is None else int.from_bytes(value[:4], "little", signed=True)

    def time(self, *identifiers: int) -> datetime | None:
        """The first that is there, in UTC."""
        for identifier in identifiers:
            ticks = int.from_bytes(self._fixed.get(identifier, b""), "little")
            if ticks:
                return _EPOCH + timedelta(microseconds=ticks // 10)
        return None

    def folders(self, prefix: str) -> list[_Storage]:
        """Those directly below whose names begin so, in the order of their numbers."""
        depth = len(self._path)
        names = {
            path[depth]
            for path in self._file.listdir(streams=False, storages=True)
            if len(path) == depth + 1 and tuple(path[:depth]) == self._path and path[depth].startswith(prefix)
        }
        return [_Storage(self._file, (*self._path, name)) for name in sorted(names)]

    def _fixed_properties(self) -> dict[int, bytes]:
        path = [*self._path, "__properties_version1.0"]
        if not self._file.exists(list(path)):
            return {}
        stream = self._file.openstream(path).read()
        # Entries of 16 bytes after a header, which is 32 bytes in a message, 24 in one within it, else 8.
        is_inner = bool(self._path) and not self._path[-1].startswith("__substg")
        start = 8 if is_inner else 24 if self._path else 32
        return {
            int.from_bytes(stream[at + 2 : at + 4], "little"): stream[at + 8 : at + 16]
            for at in range(start, len(stream) - 15, 16)
        }


def _message(message: _Storage, depth: int) -> Extracted:
    warnings: list[str] = []
    body = Extracted(text=message.string(_BODY), title=None)
    if not body.text.strip():
        body = _marked_up(message)
    if not body.text.strip() and message.binary(_RTF):
        warnings.append("the body is there as RTF only and was not read; save the mail as .eml")
    children = _children(message, depth, warnings)
    return Extracted(
        text=body.text,
        title=" ".join(message.string(_SUBJECT).split()) or None,
        headings=body.headings,
        metadata=_metadata(message),
        media_type="application/vnd.ms-outlook",
        children=tuple(children),
        warnings=tuple(warnings),
    )


def _marked_up(message: _Storage) -> Extracted:
    data = message.binary(_HTML).strip(b"\0 \r\n") or message.string(_HTML).encode()
    if not data:
        return Extracted(text="", title=None)
    code_page = message.integer(_INTERNET_CODE_PAGE)
    page = html.load(data if code_page is None else decode(data, _codec(code_page)).encode())
    return Extracted(text=page.text, title=None, headings=page.headings)


def _codec(code_page: int) -> str:
    return "utf-8" if code_page == _UTF8_CODE_PAGE else f"cp{code_page}"


def _metadata(message: _Storage) -> dict[str, Scalar | list[str]]:
    recipients: dict[int | None, list[str]] = {}
    for recipient in message.folders("__recip_version1.0_"):
        address = _address(recipient.string(_NAME), recipient.string(_SMTP, _ADDRESS))
        recipients.setdefault(recipient.integer(_RECIPIENT_KIND), []).append(address)
    date = message.time(_SUBMIT_TIME, _DELIVERY_TIME)
    found: dict[str, Scalar | list[str]] = {
        "from": _address(message.string(_SENDER_NAME), message.string(_SENDER_SMTP, _SENDER_ADDRESS)),
        "to": list(filter(None, recipients.get(1, []))),
        "cc": list(filter(None, recipients.get(2, []))),
        "date": "" if date is None else date.isoformat(),
        "message_id": message.string(_MESSAGE_ID).strip("<> \n"),
    }
    return {key: value for key, value in found.items() if value}


def _address(name: str, address: str) -> str:
    name, address = " ".join(name.split()), address.strip()
    # Within one company addresses are paths of a directory, which nobody searches for.
    if "@" not in address:
        return name
    return address if name in ("", address) else f"{name} <{address}>"


def _children(message: _Storage, depth: int, warnings: list[str]) -> list[Child]:
    children: list[Child] = []
    taken: set[str] = set()
    for attachment in message.folders("__attach_version1.0_"):
        number = len(children) + 1
        file_name = attachment.string(_LONG_FILE_NAME, _FILE_NAME)
        kind = attachment.string(_MIME) or mimetypes.guess_type(file_name)[0] or ""
        if kind.startswith("image/") or kind in SIGNATURES or attachment.integer(_HIDDEN) == 1:
            continue
        within = attachment.folders(f"__substg1.0_{_DATA:04X}{_OBJECT:04X}")
        if within and depth < _MAX_NESTING and within[0].string(_SUBJECT, _BODY, _SENDER_NAME):
            nested = _message(within[0], depth + 1)
            children.append(Child(unique_name(f"{nested.title or f'message-{number}'}.msg", taken), nested))
            continue
        name = unique_name(file_name or f"attachment-{number}", taken)
        data = attachment.binary(_DATA)
        if data:
            children.append(Child(name, data))
        else:
            warnings.append(f"the attachment {name} is empty, or an object of another program")
    return children
