"""What is configured, what is present, and what each missing piece costs."""

from __future__ import annotations

import importlib.metadata
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rag.bootstrap import (
    build_embedder,
    chosen_provider,
    chunker_identity,
    collection_exists,
    known_models,
    open_collection,
)
from rag.errors import RagError
from rag.retrieval.embedding import Embedder
from rag.settings import Settings


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        status: `missing` costs something and stops nothing; `broken` stops the service.
        cost: What goes without it, and the remedy; empty when all is well.
    """

    name: str
    status: Literal["ok", "missing", "broken"]
    found: str
    cost: str = ""

    def to_json(self) -> dict[str, Any]:
        """The check as JSON."""
        return asdict(self)


async def examine(settings: Settings) -> list[Check]:
    """All checks, in the order of the data's way; nothing is sent to a provider."""
    checks = [Check("data", "ok", f"{settings.data.dir.resolve()}, tenant {settings.data.tenant!r}")]
    try:
        embedder = build_embedder(settings)
    except RagError as error:
        checks.append(Check("embedding", "broken", settings.embedding.model, str(error)))
    else:
        runtime = f"{settings.embedding.runtime} {settings.embedding.precision}"
        checks.append(Check("embedding", "ok", f"{embedder.identity}, {embedder.dimension} dimensions, {runtime}"))
        checks.append(await _check_store(settings, embedder))
    checks.append(Check("chunking", "ok", chunker_identity(settings)))
    checks.append(_check_answerer(settings))
    checks.append(_check_models(settings))
    checks.append(_check_api(settings))
    checks.append(Check("versions", "ok", _versions()))
    return checks


async def _check_store(settings: Settings, embedder: Embedder) -> Check:
    place = settings.store.url or "embedded"
    name = f"{settings.store.collection!r}, {place}"
    try:
        if not await collection_exists(settings):
            return Check("store", "missing", name, "Nothing is ingested yet, so nothing can be found: rag ingest PATH")
        collection = await open_collection(settings, embedder)
    except RagError as error:
        return Check("store", "broken", name, str(error))
    try:
        count = await collection.store.count(settings.data.tenant)
        return Check(
            "store",
            "ok",
            f"{name}, {count} passages, average length {collection.spec.average_length:.0f} terms",
        )
    finally:
        await collection.store.close()


def _check_answerer(settings: Settings) -> Check:
    provider = chosen_provider(settings)
    if provider == "extractive":
        return Check(
            "answers",
            "missing",
            "extractive: sentences of the sources are quoted, none is written",
            "For written answers set ANTHROPIC_API_KEY or OPENAI_API_KEY, or, for a compatible server of your own, "
            'llm.provider = "openai" and llm.providers.openai.base_url.',
        )
    chosen = settings.llm.providers.anthropic if provider == "anthropic" else settings.llm.providers.openai
    key = settings.anthropic_api_key if provider == "anthropic" else settings.openai_api_key
    if key is None and chosen.base_url is None:
        cost = f"llm.provider is {provider!r} and {provider.upper()}_API_KEY is not set"
        return Check("answers", "broken", f"{provider}:{chosen.model}", cost)
    return Check("answers", "ok", f"{provider}:{chosen.model}" + (f" at {chosen.base_url}" if chosen.base_url else ""))


def _check_models(settings: Settings) -> Check:
    present = [str(model["name"]) for model in known_models(settings) if model["present"]]
    return Check("models", "ok", ", ".join(present) or "none of the known ones")


def _check_api(settings: Settings) -> Check:
    if settings.api.keys:
        return Check("api", "ok", f"{len(settings.api.keys)} keys")
    return Check("api", "missing", "no key", "rag serve binds to loopback only; set api.keys (RAG_API__KEYS) for more.")


def _versions() -> str:
    packages = ("rag-service", "qdrant-edge-py", "openvino", "qdrant-client", "anthropic", "openai")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
