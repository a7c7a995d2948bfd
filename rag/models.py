"""The models of the settings, built: half of the composition root, beside `rag.bootstrap`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from rag.context.compression import Compressor
from rag.errors import ConfigurationError, ModelNotFoundError
from rag.generation.chat import ChatModel
from rag.retrieval.embedding import Embedder
from rag.retrieval.rerank import DeferredReranker, Reranker
from rag.settings import PACKAGED_MODEL, Settings

Notify = Callable[[str], None]
"""Told in words about work that takes seconds and happens once."""


def models_dir(settings: Settings) -> Path:
    """Where pulled models are."""
    return settings.data.dir / "models"


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
        cache_dir=_graphs_dir(settings),
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


def build_reranker(settings: Settings, notify: Notify = lambda _: None) -> tuple[Reranker | None, str]:
    """The configured reranker, loaded when it is first needed, or None and why there is none, in words.

    Raises:
        ConfigurationError: A model or endpoint is asked for by name, or by `rerank.mode = "on"`, and is not there.
    """
    chosen = settings.rerank
    if chosen.mode == "off":
        return None, "rerank.mode is off"
    if chosen.runtime == "remote":
        from rag.adapters.remote_reranker import RemoteReranker

        if chosen.url is None:
            raise ConfigurationError('rerank.runtime = "remote" needs the endpoint; set rerank.url')
        key = chosen.api_key.get_secret_value() if chosen.api_key else None
        return RemoteReranker(url=chosen.url, model=chosen.model, api_key=key), ""
    from rag.adapters.model_locations import locate

    try:
        path = locate(chosen.model, models_dir(settings))
    except ModelNotFoundError:
        if chosen.mode == "on" or "model" in chosen.model_fields_set:
            raise
        return None, f"no cross-encoder is on disk: where the hub can be reached run rag models pull {chosen.model}"
    return DeferredReranker(partial(_load_reranker, settings, path, notify)), ""


def _load_reranker(settings: Settings, path: Path, notify: Notify) -> Reranker:
    chosen = settings.rerank
    if chosen.runtime == "torch":
        from rag.adapters.torch_reranker import TorchReranker

        return TorchReranker(path, chosen.model, max_tokens=chosen.max_tokens)
    from rag.adapters.graph_reranker import GraphReranker
    from rag.adapters.model_folder import read_classifier_folder

    return GraphReranker(
        read_classifier_folder(path, chosen.model),
        precision=chosen.precision,
        cache_dir=_graphs_dir(settings),
        batch_tokens=chosen.batch_tokens,
        max_tokens=chosen.max_tokens,
        threads=settings.embedding.threads,
        on_export=notify,
    )


def build_compressor(settings: Settings, embedder: Embedder, notify: Notify = lambda _: None) -> Compressor | None:
    """The configured compressor; None for none.

    Raises:
        ConfigurationError: Its model is not configured, not on disk, or not one for this method.
    """
    chosen = settings.compression
    if chosen.method == "none":
        return None
    if chosen.method == "extractive":
        from rag.adapters.extractive_compressor import ExtractiveCompressor

        return ExtractiveCompressor(embedder)
    from rag.adapters.model_locations import locate

    if chosen.model is None:
        raise ConfigurationError(
            f'compression.method = "{chosen.method}" needs a model; set compression.model to a folder or '
            "to a name that `rag models list` shows"
        )
    path = locate(chosen.model, models_dir(settings))
    if chosen.method == "llmlingua-2-graph":
        from rag.adapters.graph_lingua2 import GraphLingua2
        from rag.adapters.model_folder import read_classifier_folder

        return GraphLingua2(
            read_classifier_folder(path, chosen.model),
            precision=chosen.precision,
            cache_dir=_graphs_dir(settings),
            batch_tokens=chosen.batch_tokens,
            threads=settings.embedding.threads,
            on_export=notify,
        )
    from rag.adapters.llmlingua_compressor import LLMLinguaCompressor

    return LLMLinguaCompressor(path, chosen.model, method=chosen.method)


def _graphs_dir(settings: Settings) -> Path:
    return settings.data.dir / "cache" / "graphs"


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


def _openai_key(settings: Settings) -> str:
    if settings.openai_api_key is not None:
        return settings.openai_api_key.get_secret_value()
    if settings.llm.providers.openai.base_url:
        return "none"  # compatible servers in one's own house take any key
    raise ConfigurationError("OpenAI is configured and no key is set; set OPENAI_API_KEY")
