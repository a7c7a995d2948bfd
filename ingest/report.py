"""What a run of ingestion says of itself, while it runs and at its end."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that could not be ingested, or not wholly, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        documents: Items dealt with.
        total: Of how many; None where a stream has not ended yet.
        passages: Written so far.
        failed: Items that could not be ingested.
    """

    documents: int
    total: int | None
    passages: int
    failed: int = 0


@dataclass
class Report:
    """What a run did. Counts are of documents unless they say otherwise.

    Attributes:
        failed: What could not be ingested; a version ingested before stays searchable.
        warnings: What was ingested without some part of it.
        passages: Written.
        embedded: Passages of these that the encoder saw; the others were copied, or found from an earlier run.
        interrupted: The run was asked to stop; another one continues it.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    failed: list[Failure] = field(default_factory=list)
    warnings: list[Failure] = field(default_factory=list)
    passages: int = 0
    embedded: int = 0
    seconds: float = 0.0
    encoder_seconds: float = 0.0
    interrupted: bool = False
