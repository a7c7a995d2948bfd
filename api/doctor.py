"""What is configured, what is present, and what each missing piece costs."""

from __future__ import annotations

import importlib.metadata
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rag.bootstrap import chunker_identity, live_generation, open_collection, read_profile
from rag.errors import RagError, StoreBusyError
from rag.models import (
    build_chat,
    build_compressor,
    build_embedder,
    build_reranker,
    chosen_provider,
    known_models,
)
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
        checks.append(await _check_profile(settings, embedder))
        checks.append(await _check_reranker(settings))
        checks.append(await _check_compressor(settings, embedder))
        checks.append(await _check_answerer(settings, embedder))
        await embedder.close()
    checks.append(Check("chunking", "ok", chunker_identity(settings)))
    checks.append(_check_models(settings))
    checks.append(_check_api(settings))
    checks.append(Check("versions", "ok", _versions()))
    return checks


async def _check_store(settings: Settings, embedder: Embedder) -> Check:
    place = settings.store.url or "embedded"
    name = f"{settings.store.collection!r}, {place}"
    try:
        if await live_generation(settings) is None:
            return Check("store", "missing", name, "Nothing is ingested yet, so nothing can be found: rag ingest PATH")
        collection = await open_collection(settings, embedder)
        try:
            count = await collection.store.count(settings.data.tenant)
        finally:
            await collection.store.close()
    except StoreBusyError:
        return Check("store", "ok", f"{name}, in use by another process")
    except RagError as error:
        return Check("store", "broken", name, str(error))
    spec = collection.spec
    found = f"{name}, {count} passages, {spec.lexical}, average length {spec.average_length:.0f} terms"
    return Check("store", "ok", found)


async def _check_profile(settings: Settings, embedder: Embedder) -> Check:
    remedy = "Fusion and reranking are as good as on most collections; to measure yours: rag eval tune FOLDER --live"
    try:
        profile = await read_profile(settings)
    except RagError as error:
        return Check("tuning", "broken", "", str(error))
    if profile is None:
        return Check("tuning", "missing", "none for this collection", remedy)
    if profile.embedding != embedder.identity:
        return Check("tuning", "missing", f"ignored, since it was measured with {profile.embedding}", remedy)
    found = f"{profile.fusion}, weight_dense {profile.weight_dense:g}, measured on {profile.judged}"
    gain = f"held-out gain {profile.gain:+.3f} {profile.measure}" if profile.gain else "the default was kept"
    return Check("tuning", "ok", f"{found}; {gain}")


async def _check_reranker(settings: Settings) -> Check:
    try:
        reranker, reason = build_reranker(settings)
        if reranker is None:
            return Check("reranking", "ok" if settings.rerank.mode == "off" else "missing", "off", reason)
        identity = reranker.identity  # loads it
    except RagError as error:
        return Check("reranking", "broken", settings.rerank.model, str(error))
    await reranker.close()
    unasked = ", not asked whether it answers" if settings.rerank.runtime == "remote" else ""
    return Check("reranking", "ok", f"{identity}, mode {settings.rerank.mode}{unasked}")


async def _check_compressor(settings: Settings, embedder: Embedder) -> Check:
    try:
        compressor = build_compressor(settings, embedder)
    except RagError as error:
        return Check("compression", "broken", settings.compression.method, str(error))
    if compressor is None:
        return Check("compression", "ok", "none")
    await compressor.close()
    return Check("compression", "ok", f"{compressor.name}, mode {settings.compression.mode}")


async def _check_answerer(settings: Settings, embedder: Embedder) -> Check:
    try:
        chat = build_chat(settings, embedder)
    except RagError as error:
        return Check("answers", "broken", chosen_provider(settings), str(error))
    await chat.close()
    if chat.name != "extractive":
        return Check("answers", "ok", chat.name)
    return Check(
        "answers",
        "missing",
        "extractive: sentences of the sources are quoted, none is written",
        "For written answers set ANTHROPIC_API_KEY or OPENAI_API_KEY, or, for a compatible server of your own, "
        'llm.provider = "openai" and llm.providers.openai.base_url.',
    )


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
