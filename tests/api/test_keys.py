import pytest
import pytest_asyncio

from rag.settings import Settings
from tests.api.conftest import make_pipeline, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client():
    settings = Settings(api={"keys": ("first-key", "zweiter-schlüssel")})
    async with serving(await make_pipeline(), settings=settings) as (client, _):
        yield client


@pytest.mark.parametrize("given", ["Bearer first-key", "bearer  zweiter-schlüssel"])
async def test_any_of_the_keys_opens(client, given):
    headers = {"Authorization": given.encode()}
    response = await client.post("/v1/search", json={"query": "moon"}, headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize(
    "given",
    [None, "", "Bearer", "Bearer wrong", "Basic first-key", "first-key", "Bearer first-key2"],
)
@pytest.mark.parametrize("path", ["/v1/search", "/v1/answer", "/v1/unknown"])
async def test_without_one_nothing_below_v1_answers(client, path, given):
    headers = {} if given is None else {"Authorization": given}
    response = await client.post(path, content=b"{", headers={**headers, "Content-Type": "application/json"})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "unauthorized"
    assert response.json()["request_id"] == response.headers["x-request-id"]


async def test_health_and_the_documentation_stay_open(client):
    for path in ("/health/live", "/health/ready", "/openapi.json", "/docs"):
        assert (await client.get(path)).status_code == 200
