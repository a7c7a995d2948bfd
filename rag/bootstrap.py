"""The only composition root: settings -> adapters -> what a command or the server runs on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

from rag.context.prompt import CONTEXT_VERSION
from rag.errors import ConfigurationError, ModelNotFoundError
from rag.generation.chat import ChatModel
from rag.pipeline import Defaults, Pipeline
from rag.retrieval.embedding import Embedder
from rag.retrieval.lexical import LexicalEncoder
from rag.retrieval.store import CollectionSpec, Generations, PassageStore, check_same_spec
from rag.settings import PACKAGED_MODEL, Settings

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

_QDRANT_PORT = 6333
"""Where qdrant-client looks for a server whose address names no port, for both http and https."""

Notify = Callable[[str], None]
"""Told in words about work that takes seconds and happens once."""


@dataclass(frozen=True, slots=True)
class Collection:
    """An open collection with the lexical encoder that fits it."""

    store: PassageStore
    lexical: LexicalEncoder
    spec: CollectionSpec


def models_dir(settings: Settings) -> Path:
    """Where pulled models are."""
    return settings.data.dir / "models"


def collection_dir(settings: Settings) -> Path:
    """Where this machine keeps what belongs to the collection: the embedded store and the manifest."""
    place = "embedded"
    if settings.store.url:
        address = urlsplit(settings.store.url)
        host = f"[{address.hostname}]" if ":" in str(address.hostname) else address.hostname
        # However it is spelled, for one server there is one manifest.
        spelled = f"{address.scheme}://{host}:{address.port or _QDRANT_PORT}{address.path.rstrip('/')}"
        place = f"{address.hostname}-{hashlib.sha256(spelled.encode()).hexdigest()[:8]}"
    return settings.data.dir / "collections" / place / settings.store.collection


def chunker_identity(settings: Settings) -> str:
    """What a collection remembers of its chunking."""
    chunking = settings.chunking
    sizes = {
        "sentence-window": ("sentences", "max_tokens"),
        "semantic": ("breakpoint_percentile", "buffer_sentences", "min_tokens", "max_tokens"),
        "recursive": ("max_tokens", "overlap_tokens"),
        "fixed": ("max_tokens", "overlap_tokens"),
    }[chunking.strategy]
    parts = [chunking.strategy, *(f"{name}={getattr(chunking, name):.15g}" for name in sizes)]
    if chunking.context == "llm":
        parts.append(f"context={context_model(settings)}:{CONTEXT_VERSION}")
    return ":".join(parts)


def context_model(settings: Settings) -> str:
    """Who writes the context of passages, as `ChatModel.name`; `extractive` where no language model is configured."""
    chosen = settings.contextual.provider
    provider = chosen_provider(settings) if chosen == "auto" else chosen
    if provider == "extractive":
        return provider
    return f"{provider}:{settings.contextual.model or getattr(settings.llm.providers, provider).model}"


def build_embedder(settings: Settings, notify: Notify = lambda _: None) -> Embedder:
    """The configured embedder, loaded.

    Raises:
        ConfigurationError: The model is not on disk, or a key is missing.
    """
    chosen = settings.embedding
    if chosen.runtime == "openai":
        from rag.adapters.openai_embeddings import OpenAIEmbedder

        return OpenAIEmbedder(
            api_key=_openai_key(settings),
            model=chosen.model,
            dimensions=chosen.dimensions,
            base_url=settings.llm.providers.openai.base_url,
            connect_timeout_s=settings.llm.connect_timeout_s,
            timeout_s=settings.llm.timeout_s,
        )
    if chosen.dimensions is not None:
        raise ConfigurationError('embedding.dimensions is for embedding.runtime = "openai" only; remove it')
    from rag.adapters.model_locations import PACKAGED_SHA256, locate

    path = locate(chosen.model, models_dir(settings))
    if chosen.runtime == "torch":
        from rag.adapters.torch_embedder import TorchEmbedder

        return TorchEmbedder(path, chosen.model)
    from rag.adapters.graph_embedder import GraphEmbedder
    from rag.adapters.model_folder import read_model_folder

    return GraphEmbedder(
        read_model_folder(path, chosen.model),
        precision=chosen.precision,
        cache_dir=settings.data.dir / "cache" / "graphs",
        batch_tokens=chosen.batch_tokens,
        threads=chosen.threads,
        expected_sha256=PACKAGED_SHA256 if chosen.model == PACKAGED_MODEL else None,
        on_export=notify,
    )


def build_chat(settings: Settings, embedder: Embedder) -> ChatModel:
    """The configured answerer: `auto` takes the provider whose key is set, else the extractive one.

    Raises:
        ConfigurationError: A provider is chosen by name and its key is missing.
    """
    llm = settings.llm
    choice = chosen_provider(settings)
    if choice == "anthropic":
        from rag.adapters.anthropic_chat import AnthropicChat

        if settings.anthropic_api_key is None:
            raise ConfigurationError('llm.provider = "anthropic" needs a key; set ANTHROPIC_API_KEY')
        return AnthropicChat(
            api_key=settings.anthropic_api_key.get_secret_value(),
            model=llm.providers.anthropic.model,
            base_url=llm.providers.anthropic.base_url,
            max_output_tokens=llm.max_output_tokens,
            connect_timeout_s=llm.connect_timeout_s,
            timeout_s=llm.timeout_s,
        )
    if choice == "openai":
        from rag.adapters.openai_chat import OpenAIChat

        return OpenAIChat(
            api_key=_openai_key(settings),
            model=llm.providers.openai.model,
            base_url=llm.providers.openai.base_url,
            max_output_tokens=llm.max_output_tokens,
            connect_timeout_s=llm.connect_timeout_s,
            timeout_s=llm.timeout_s,
        )
    from rag.adapters.extractive import ExtractiveAnswerer

    return ExtractiveAnswerer(embedder)


def build_context_chat(settings: Settings, embedder: Embedder, *, max_output_tokens: int) -> ChatModel:
    """The model that writes the context of passages.

    Raises:
        ConfigurationError: No language model is configured, or its key is missing.
    """
    provider, _, model = context_model(settings).partition(":")
    if not model:
        raise ConfigurationError(
            'chunking.context = "llm" needs a language model, and none is configured; set ANTHROPIC_API_KEY or '
            'OPENAI_API_KEY, or contextual.provider, or go back to chunking.context = "none"'
        )
    llm = settings.llm
    own = getattr(llm.providers, provider).model_copy(update={"model": model})
    changed = {
        "provider": provider,
        "providers": llm.providers.model_copy(update={provider: own}),
        "max_output_tokens": max_output_tokens,
    }
    return build_chat(settings.model_copy(update={"llm": llm.model_copy(update=changed)}), embedder)


def known_models(settings: Settings) -> list[dict[str, str | int | bool]]:
    """The models known by name, each with whether it is on this machine."""
    from dataclasses import asdict

    from rag.adapters.model_locations import KNOWN_MODELS, PACKAGED, locate

    def present(name: str) -> bool:
        try:
            locate(name, models_dir(settings))
        except ModelNotFoundError:
            return False
        return True

    return [{**asdict(model), "present": present(model.name)} for model in (PACKAGED, *KNOWN_MODELS)]


def pull_model(settings: Settings, name: str) -> Path:
    """Download a known model; the folder it is in.

    Raises:
        UsageError: The name is unknown.
        ProviderError: The hub cannot be reached.
    """
    from rag.adapters.model_locations import pull

    return pull(name, models_dir(settings))


def chosen_provider(settings: Settings) -> str:
    """Which answerer `llm.provider` comes down to."""
    if settings.llm.provider != "auto":
        return settings.llm.provider
    if settings.anthropic_api_key is not None:
        return "anthropic"
    return "openai" if settings.openai_api_key is not None else "extractive"


def open_generations(settings: Settings) -> Generations:
    """The collections behind the configured name; nothing is opened or sent yet."""
    if settings.store.url is None:
        from rag.adapters.qdrant_edge_generations import QdrantEdgeGenerations

        return QdrantEdgeGenerations(collection_dir(settings))
    from rag.adapters.qdrant_server_generations import QdrantServerGenerations

    return QdrantServerGenerations(partial(_qdrant_client, settings), settings.store.collection)


async def live_generation(settings: Settings) -> str | None:
    """The collection that is served; None before anything was ingested.

    Raises:
        StoreError: The server cannot be reached.
    """
    generations = open_generations(settings)
    try:
        return await generations.live()
    finally:
        await generations.close()


async def open_collection(settings: Settings, embedder: Embedder, generation: str | None = None) -> Collection:
    """Open the live collection, or another generation of it.

    Raises:
        ConfigurationError: There is none, or it was built with other settings.
        StoreError: The store is in use, unreachable or damaged.
    """
    generations = open_generations(settings)
    try:
        generation = generation or await generations.live()
        if generation is None:
            raise nothing_ingested(settings)
        store = await generations.open(generation)
    finally:
        await generations.close()
    spec = store.spec
    try:
        configured = collection_spec(settings, embedder, collection_id=spec.id, average_length=spec.average_length)
        check_same_spec(spec, configured, collection=settings.store.collection)
        return Collection(store, _lexical(settings, spec.average_length), spec)
    except ConfigurationError:
        await store.close()
        raise


async def open_collection_without_model(settings: Settings) -> Collection:
    """Open the live collection to delete or move what it holds, for which nothing is embedded.

    Raises:
        ConfigurationError: There is none, or its lexical settings were others.
        StoreError: The store is in use, unreachable or damaged.
    """
    from rag.adapters.qdrant_bm25 import lexical_identity

    generations = open_generations(settings)
    try:
        generation = await generations.live()
        if generation is None:
            raise nothing_ingested(settings)
        store = await generations.open(generation)
    finally:
        await generations.close()
    spec, lexical = store.spec, settings.lexical
    try:
        identity = lexical_identity(language=lexical.language, k1=lexical.k1, b=lexical.b)
        check_same_spec(spec, replace(spec, lexical=identity), collection=settings.store.collection)
        return Collection(store, _lexical(settings, spec.average_length), spec)
    except ConfigurationError:
        await store.close()
        raise


async def create_collection(settings: Settings, embedder: Embedder, sample: Sequence[str], *, live: bool) -> Collection:
    """Make a collection as configured.

    Args:
        sample: Passages as they will be indexed; their mean length normalises BM25 in the whole collection.
        live: Serve from it at once.
    """
    from rag.adapters.qdrant_bm25 import term_counts

    counts = term_counts(sample, language=settings.lexical.language)
    average_length = max(1.0, sum(counts) / max(1, len(counts)))
    spec = collection_spec(settings, embedder, collection_id=uuid4().hex, average_length=average_length)
    generations = open_generations(settings)
    try:
        store = await generations.create(spec)
        if live:
            await generations.make_live(spec.id)
    finally:
        await generations.close()
    return Collection(store, _lexical(settings, average_length), spec)


def nothing_ingested(settings: Settings) -> ConfigurationError:
    """Said where a collection is needed and there is none."""
    return ConfigurationError(
        f"nothing is ingested yet: there is no collection {settings.store.collection!r}. Run: rag ingest PATH"
    )


async def open_pipeline(settings: Settings, notify: Notify = lambda _: None) -> Pipeline:
    """The query path over the configured collection. Raises as `open_collection` and `build_embedder`."""
    # Asked first, since a model that is not exported yet takes seconds to open.
    if await live_generation(settings) is None:
        raise nothing_ingested(settings)
    embedder = build_embedder(settings, notify)
    chat = build_chat(settings, embedder)
    return build_pipeline(settings, embedder, chat, await open_collection(settings, embedder))


def build_pipeline(settings: Settings, embedder: Embedder, chat: ChatModel, collection: Collection) -> Pipeline:
    """The query path over an open collection."""
    retrieval, prompt = settings.retrieval, settings.prompt
    return Pipeline(
        embedder=embedder,
        lexical=collection.lexical,
        store=collection.store,
        chat=chat,
        defaults=Defaults(
            k=retrieval.k,
            retrieve_k=retrieval.retrieve_k,
            fusion=retrieval.fusion,
            rrf_k=retrieval.rrf_k,
            weight_dense=retrieval.weight_dense,
            window_sentences=retrieval.window_sentences,
            max_context_tokens=prompt.max_context_tokens,
            max_sources=prompt.max_sources,
        ),
    )


def collection_spec(
    settings: Settings, embedder: Embedder, *, collection_id: str, average_length: float
) -> CollectionSpec:
    """What a collection is built with as configured."""
    from rag.adapters.qdrant_bm25 import lexical_identity

    lexical = settings.lexical
    return CollectionSpec(
        id=collection_id,
        embedding=embedder.identity,
        dimension=embedder.dimension,
        lexical=lexical_identity(language=lexical.language, k1=lexical.k1, b=lexical.b),
        chunker=chunker_identity(settings),
        average_length=average_length,
    )


def _lexical(settings: Settings, average_length: float) -> LexicalEncoder:
    from rag.adapters.qdrant_bm25 import QdrantBm25

    chosen = settings.lexical
    return QdrantBm25(language=chosen.language, k1=chosen.k1, b=chosen.b, average_length=average_length)


def _qdrant_client(settings: Settings) -> AsyncQdrantClient:
    from rag.adapters.qdrant_server import connect

    store = settings.store
    return connect(
        str(store.url),
        api_key=store.api_key.get_secret_value() if store.api_key else None,
        prefer_grpc=store.prefer_grpc,
        timeout_s=store.timeout_s,
    )


def _openai_key(settings: Settings) -> str:
    if settings.openai_api_key is not None:
        return settings.openai_api_key.get_secret_value()
    if settings.llm.providers.openai.base_url:
        return "none"  # compatible servers in one's own house take any key
    raise ConfigurationError("OpenAI is configured and no key is set; set OPENAI_API_KEY")
