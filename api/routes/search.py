"""`POST /v1/search`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from api.dependencies import ServingNow
from api.disconnect import until_disconnect
from api.rendering import search_log_fields, search_to_json
from api.routes.documented import BEARER, problems
from api.schemas import SearchBody, SearchModel

router = APIRouter(prefix="/v1", tags=["search"], dependencies=[BEARER])


@router.post(
    "/search",
    summary="Find passages by meaning and by words",
    response_model=SearchModel,
    responses=problems(400, 401, 413, 415, 422, 500, 502, 503, 504),
)
async def search(body: SearchBody, request: Request, serving: ServingNow) -> Response:
    """Candidates, best first, with where each stands in its document."""
    search_request = body.to_request(body.query, serving.tenant)
    result = await until_disconnect(request.receive, serving.pipeline.search(search_request))
    request.state.log_fields.update(search_log_fields(result))
    return JSONResponse(search_to_json(result, explain=body.explain))
