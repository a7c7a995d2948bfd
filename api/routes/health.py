"""Whether the process lives, and whether it can serve."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from api.dependencies import ServingNow
from api.routes.documented import problems
from api.schemas import HealthModel

router = APIRouter(prefix="/health", tags=["health"])

_NO_PASSAGE = "00000000-0000-0000-0000-000000000000"


@router.get("/live", summary="Whether the process lives", response_model=HealthModel)
async def live() -> Response:
    """Says yes, as long as there is someone to say it."""
    return JSONResponse({"status": "live"})


@router.get(
    "/ready",
    summary="Whether requests can be served",
    response_model=HealthModel,
    responses=problems(500, 503),
)
async def ready(serving: ServingNow) -> Response:
    """Asks the store for a passage it does not have, which costs little and needs all of it."""
    await serving.pipeline.store.fetch(serving.tenant, [_NO_PASSAGE])
    return JSONResponse({"status": "ready"})
