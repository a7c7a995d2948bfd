"""Which code made something that is kept."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType

import rag


def code_hash(*packages: ModuleType) -> str:
    """SHA-256, in hexadecimal, of all modules of the packages, of `rag` if none are given."""
    digest = hashlib.sha256()
    for package in packages or (rag,):
        for folder in map(Path, package.__path__):
            for file in sorted(folder.rglob("*.py")):
                digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
