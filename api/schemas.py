"""The bodies of requests and responses.

Requests are validated by these models. Responses are rendered by `api.rendering`; their models describe them
in the OpenAPI document, and tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rag.filters import parse_filter
from rag.request import MAX_QUERY_CHARACTERS, SearchRequest
from rag.retrieval.fusion import FusionMethod
from rag.retrieval.rerank import RerankMode

_MAX_FILTER_DEPTH = 16


def _is_filter(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what would break the readers of a filter; what it means is read by `rag.filters`."""
    level: list[object] = [value]
    for _ in range(_MAX_FILTER_DEPTH):
        for part in level:
            # JSON can write half of a surrogate pair, which is no character and which no store takes.
            if isinstance(part, str) and any("\ud800" <= character <= "\udfff" for character in part):
                raise ValueError("holds half of a surrogate pair; send valid Unicode")
        level = [inner for part in level for inner in _inner(part)]
        if not level:
            return value
    raise ValueError(f"is nested more than {_MAX_FILTER_DEPTH} levels deep")


def _inner(part: object) -> Sequence[object]:
    if isinstance(part, Mapping):
        return [*part.keys(), *part.values()]
    return part if isinstance(part, list) else ()


Text = Annotated[str, Field(min_length=1, max_length=MAX_QUERY_CHARACTERS)]
JsonFilter = Annotated[dict[str, Any], AfterValidator(_is_filter)]

_FILTER_EXAMPLE = {
    "type": "and",
    "filters": [
        {"type": "eq", "key": "source", "value": "handbook"},
        {"type": "gte", "key": "year", "value": 2024},
    ],
}


class _Body(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)


class _Retrieval(_Body):
    """What both requests may say about retrieval; what is left out is as configured."""

    k: int | None = Field(None, ge=1, le=1000, description="how many candidates")
    retrieve_k: int | None = Field(None, ge=1, le=10_000, description="how many each leg retrieves, at least k")
    filter: JsonFilter | None = Field(
        None,
        description="comparisons (eq, ne, gt, gte, lt, lte, in, nin) of metadata or of source, document_id, "
        "version, title, page; joined by and, or",
        examples=[_FILTER_EXAMPLE],
    )
    fusion: FusionMethod | None = Field(None, description="how the two legs become one ranking")
    weight_dense: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="weight of the dense leg; the lexical leg has the rest",
    )
    rerank: RerankMode | None = Field(None, description="auto reranks where that was measured to help")
    explain: bool = Field(default=False, description="add every stage's ranking")

    def to_request(self, query: str, tenant: str) -> SearchRequest:
        """The request to the pipeline.

        Raises:
            FilterError: The filter cannot be read.
        """
        return SearchRequest(
            query=query,
            tenant=tenant,
            k=self.k,
            retrieve_k=self.retrieve_k,
            filter=None if self.filter is None else parse_filter(self.filter),
            fusion=self.fusion,
            weight_dense=self.weight_dense,
            rerank=self.rerank,
        )


class SearchBody(_Retrieval):
    """What is looked for."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={"examples": [{"query": "how long are backups kept", "k": 5}]}
    )

    query: Text = Field(description="words or a question")


class AnswerBody(_Retrieval):
    """What is asked."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={"examples": [{"question": "How long are backups kept?", "stream": False}]}
    )

    question: Text = Field(description="a question")
    stream: bool = Field(default=False, description="as server-sent events; so does Accept: text/event-stream")


_Rows = Annotated[
    tuple[int, int] | None,
    Field(examples=[[2, 17]], description="of a table: first and last row of the passage that it starts in"),
]
_AlsoIn = Annotated[list[str], Field(description="other documents of the source with the same content")]


class CandidateModel(BaseModel):
    """A passage with its rank; offsets are code points of the document's text, end exclusive."""

    rank: int = Field(examples=[1])
    score: float = Field(examples=[0.871], description="compares within this ranking only")
    passage_id: str = Field(examples=["5e6c1f6e-9d36-5c1c-8c5a-0d6c3f7b9a11"])
    document_id: str = Field(examples=["operations/backups.md"])
    title: str = Field(examples=["Backups"])
    headings: list[str] = Field(examples=[["Backups", "Retention"]])
    page: int | None
    rows: _Rows
    start: int = Field(examples=[120])
    end: int = Field(examples=[163])
    text: str = Field(examples=["Backups are kept for thirty days, then deleted."])
    metadata: dict[str, Any] = Field(examples=[{"year": 2025}])
    also_in: _AlsoIn


class RankedModel(BaseModel):
    """A place in one stage's ranking."""

    rank: int
    passage_id: str
    document_id: str
    score: float


_Timings = Annotated[dict[str, float], Field(examples=[{"embed": 2.1, "retrieve": 1.4, "total": 4.0}])]
_Degraded = Annotated[list[str], Field(description="what could not be done as configured")]
_Skipped = Annotated[
    dict[str, str],
    Field(examples=[{"rerank": "it is switched off"}], description="stage that did not run, as configured: why"),
]
_Stages = Annotated[dict[str, list[RankedModel]] | None, Field(description="with explain only")]


class SearchModel(BaseModel):
    """What was found, best first."""

    query: str = Field(examples=["how long are backups kept"])
    candidates: list[CandidateModel]
    timings_ms: _Timings
    degraded: _Degraded
    skipped: _Skipped
    stages: _Stages = None


class CitationModel(BaseModel):
    """A claim of the answer tied to a span of a stored document version."""

    marker: int = Field(examples=[1], description="the source's number, as it stands in the answer")
    document_id: str | None = Field(examples=["operations/backups.md"])
    version: str | None = Field(examples=["9f2c7a"])
    title: str | None = Field(examples=["Backups"])
    page: int | None
    rows: _Rows
    quote: str = Field(examples=["kept for thirty days"])
    start: int | None = Field(examples=[132])
    end: int | None = Field(examples=[152])
    verified: bool = Field(description="the quote is an exact span of the stored document version")
    answer_start: int = Field(examples=[34], description="where the marker stands in the answer")
    answer_end: int = Field(examples=[37])
    also_in: _AlsoIn


class SourceModel(BaseModel):
    """A numbered span that the answer may cite."""

    number: int = Field(examples=[1])
    document_id: str = Field(examples=["operations/backups.md"])
    version: str = Field(examples=["9f2c7a"])
    title: str = Field(examples=["Backups"])
    headings: list[str]
    page: int | None
    rows: _Rows
    start: int
    end: int
    text: str
    score: float
    passage_ids: list[str]
    also_in: _AlsoIn
    kept: list[tuple[int, int]] = Field(
        examples=[[[120, 163]]], description="the parts a model was shown, as offsets; empty where it was the whole"
    )


class CompressionModel(BaseModel):
    """What a compressor did with the sources."""

    method: str = Field(examples=["extractive"])
    tokens_in: int = Field(examples=[2400], description="words and punctuation marks of all sources")
    tokens_out: int = Field(examples=[1200], description="of what was shown of them")
    milliseconds: float = Field(examples=[41.5])


class UsageModel(BaseModel):
    """Tokens and money of one answer."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    cost_usd: float | None


class AnswerModel(BaseModel):
    """An answer with its evidence."""

    answer: str = Field(examples=["Backups are kept for thirty days. [1]"])
    abstained: bool
    citations: list[CitationModel]
    sources: list[SourceModel]
    model: str = Field(examples=["extractive"])
    usage: UsageModel
    timings_ms: _Timings
    degraded: _Degraded
    skipped: _Skipped
    compression: CompressionModel | None = Field(description="none where nothing was compressed")
    stages: _Stages = None


class HealthModel(BaseModel):
    """Alive, or ready for traffic."""

    status: str = Field(examples=["live"])


class FieldError(BaseModel):
    """What is wrong with one field of a request."""

    field: str = Field(examples=["filter.type"])
    message: str = Field(examples=["missing"])


class ProblemDetails(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = "about:blank"
    title: str = Field(examples=["Service Unavailable"], description="the status in words")
    status: int = Field(examples=[503])
    detail: str = Field(examples=["the store cannot be reached"], description="cause and remedy")
    instance: str = Field(examples=["/v1/search"])
    code: str = Field(examples=["store_unavailable"], description="stable name of the problem")
    request_id: str = Field(examples=["0b8f1c5e6a7d4f2a9c3e5b7d1f0a2c4e"])
    errors: list[FieldError] | None = Field(None, description="with 422 for fields only")
