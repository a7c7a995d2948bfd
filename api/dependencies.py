"""What routes are given: the open pipeline and the few settings they need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from rag.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Serving:
    """What the application serves; None in the application's state before it is open and after it is closed.

    Attributes:
        tenant: Whose documents are searched.
        ping_interval_s: Seconds between keep-alive comments of a stream.
    """

    pipeline: Pipeline
    tenant: str
    ping_interval_s: float


# Dependencies are coroutines because FastAPI runs plain functions in a thread, which costs more than they do.
async def serving(request: Request) -> Serving:
    """What the application serves; HTTP 503 when it is not open."""
    found: Serving | None = getattr(request.app.state, "serving", None)
    if found is None:
        raise HTTPException(503, "the server is starting or stopping; try again")
    return found


ServingNow = Annotated[Serving, Depends(serving)]
