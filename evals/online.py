"""Checks of what production answered: what can be told without knowing the right answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evals.answer_measures import Estimate, mean_estimate
from evals.judge import JudgedAnswer
from evals.query_log import LoggedCitation, LoggedRequest


@dataclass(frozen=True, slots=True)
class OnlineChecks:
    """Figures of a group of logged requests.

    Attributes:
        abstained: Share of the requests.
        degraded: Share that could not be served as configured.
        verified: Share of the citations that the service calls verified; None without citations.
        verified_but_not_exact: Called verified, and not what the source that was shown has there: always 0, or there
            is a bug.
        uncited: Share of the answers, abstentions left out, that cite nothing verified.
        unused_sources: Mean share of the sources shown that an answer does not cite: tokens paid for nothing.
    """

    requests: int
    abstained: Estimate | None
    degraded: Estimate | None
    citations: int
    verified: float | None
    verified_but_not_exact: int
    uncited: Estimate | None
    unused_sources: Estimate | None


def check_requests(requests: Sequence[LoggedRequest]) -> OnlineChecks:
    """The figures of all these requests."""
    answered = [request for request in requests if not request.abstained]
    citations = [citation for request in requests for citation in request.citations]
    verified = sum(citation.verified for citation in citations)
    return OnlineChecks(
        requests=len(requests),
        abstained=mean_estimate([float(request.abstained) for request in requests]),
        degraded=mean_estimate([float(bool(request.degraded)) for request in requests]),
        citations=len(citations),
        verified=verified / len(citations) if citations else None,
        verified_but_not_exact=sum(
            citation.verified and not _is_exact(citation, request)
            for request in requests
            for citation in request.citations
        ),
        uncited=mean_estimate(
            [float(not any(citation.verified for citation in request.citations)) for request in answered]
        ),
        unused_sources=mean_estimate([_unused(request) for request in answered if request.sources]),
    )


def by_configuration(requests: Sequence[LoggedRequest]) -> Mapping[str, OnlineChecks]:
    """The figures of each model and configuration apart, in the order they first answered."""
    groups: dict[str, list[LoggedRequest]] = {}
    for request in requests:
        groups.setdefault(f"{request.model} {request.configuration}", []).append(request)
    return {name: check_requests(group) for name, group in groups.items()}


def judged_requests(requests: Sequence[LoggedRequest]) -> list[JudgedAnswer]:
    """What a judge is shown; abstentions are counted without one, and no reference is known."""
    return [
        JudgedAnswer(
            request.request_id, request.question, request.answer, tuple(source.shown for source in request.sources)
        )
        for request in requests
        if not request.abstained
    ]


def _is_exact(citation: LoggedCitation, request: LoggedRequest) -> bool:
    if citation.start is None or citation.end is None or not citation.quote:
        return False
    return any(
        source.number == citation.marker
        and source.document_id == citation.document_id
        and source.start <= citation.start
        and source.text[citation.start - source.start : citation.end - source.start] == citation.quote
        for source in request.sources
    )


def _unused(request: LoggedRequest) -> float:
    cited = {citation.marker for citation in request.citations}
    return sum(source.number not in cited for source in request.sources) / len(request.sources)
