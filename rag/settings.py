"""One frozen tree of settings, read from `rag.toml` and the environment. Units are in the names.

Order, the later wins: defaults, `rag.toml` (or the file `RAG_CONFIG` names), `.env`, environment variables
`RAG_SECTION__KEY`. Provider keys keep their usual names (`ANTHROPIC_API_KEY`, `OPENAI_API_KEY`); each may be given
as a file instead (`ANTHROPIC_API_KEY_FILE`).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError
from pydantic_settings.sources import DotEnvSettingsSource, EnvSettingsSource, TomlConfigSettingsSource

from rag.errors import ConfigurationError

PACKAGED_MODEL = "all-MiniLM-L6-v2"
_PREFIX = "RAG_"
_DATA_DIR = "RAG_DATA_DIR"
_NOT_SETTINGS = {"RAG_CONFIG", _DATA_DIR}

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _plain_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must begin with http:// or https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password; keys have settings of their own")
    try:
        parts.port  # noqa: B018 - reading it is what checks it
    except ValueError as error:
        raise ValueError("must have a number from 0 to 65535 as port") from error
    return url


Url = Annotated[str, AfterValidator(_plain_url)]


def _usable_key(key: SecretStr) -> SecretStr:
    if not key.get_secret_value() or any(character.isspace() for character in key.get_secret_value()):
        raise ValueError("must not be empty or hold white space")
    return key


ApiKey = Annotated[SecretStr, AfterValidator(_usable_key)]


class _Section(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class Data(_Section):
    """Where everything this service writes lives."""

    dir: Path = Path(".rag")
    tenant: str = Field("default", min_length=1, description="whose documents the command line reads and writes")


class Embedding(_Section):
    """The dense model.

    `model` is the packaged MiniLM, a folder, a name under `<data.dir>/models`, a hub id in the local hub cache,
    or, with `runtime = "openai"`, a model of that provider.
    """

    runtime: Literal["openvino", "torch", "openai"] = "openvino"
    model: str = Field(PACKAGED_MODEL, min_length=1)
    precision: Literal["int8", "bf16", "fp32"] = "int8"
    dimensions: Count | None = Field(None, description="shorten vectors to this length (openai only)")
    batch_tokens: Count = Field(2048, description="tokens per batch inside the model")
    threads: int = Field(0, ge=0, description="0 = all cores")


class Lexical(_Section):
    """BM25."""

    language: str = Field("english", description="stemmer and stop words; 'none' for neither")
    k1: float = Field(1.2, ge=0)
    b: Fraction = 0.75


class Store(_Section):
    """Where passages live: a folder under `data.dir`, or a Qdrant server."""

    url: Url | None = Field(None, description="of a Qdrant server; none = embedded, in data.dir")
    api_key: SecretStr | None = None
    prefer_grpc: bool = False
    timeout_s: Seconds = 30
    collection: str = Field("passages", pattern=r"^[A-Za-z0-9_-]{1,64}$")


class Chunking(_Section):
    """How documents become passages."""

    strategy: Literal["sentence-window", "semantic", "recursive", "fixed"] = "sentence-window"
    sentences: Count = Field(6, description="sentences per passage (sentence-window)")
    max_tokens: Count = Field(200, description="no passage is longer, in words and punctuation marks")
    overlap_tokens: int = Field(40, ge=0, description="shared by neighbours (recursive, fixed)")
    breakpoint_percentile: float = Field(90, ge=0, le=100, description="of distances, ends a passage (semantic)")
    buffer_sentences: int = Field(0, ge=0, description="embedded with each sentence, per side (semantic)")
    min_tokens: int = Field(40, ge=0, description="a breakpoint leaves no less on either side (semantic)")
    context: Literal["none", "llm"] = Field("none", description="who writes what situates a passage in its document")


class Contextual(_Section):
    """How a language model writes the context of passages, where `chunking.context` is `llm`."""

    provider: Literal["auto", "anthropic", "openai"] = Field("auto", description="auto = the one that answers")
    model: str | None = Field(None, min_length=1, description="none = the provider's model that answers")
    passages_per_call: Count = 20
    max_prefix_tokens: int = Field(30_000, ge=2000, description="longer documents are shown in parts")
    concurrency: Count = Field(4, description="calls under way at once, each of another document")
    max_tokens: Count = Field(5_000_000, description="per run, read and written; above it nothing is begun")
    max_usd: float | None = Field(None, gt=0, allow_inf_nan=False, description="as max_tokens; needs prices")
    usd_per_million_input: Price | None = None
    usd_per_million_cached: Price | None = Field(None, description="read from the provider's cache; none = as input")
    usd_per_million_cache_write: Price | None = Field(None, description="none = as input")
    usd_per_million_output: Price | None = None


class JsonFields(_Section):
    """Which fields of JSON records say what; of several the first that is there counts."""

    id: tuple[str, ...] = ("id", "_id", "uid", "uuid", "doc_id", "document_id")
    title: tuple[str, ...] = ("title", "name", "subject", "headline")
    text: tuple[str, ...] = ("text", "content", "contents", "body", "page_content", "passage", "markdown")


class Ingest(_Section):
    """How files are read."""

    workers: int = Field(0, ge=0, description="processes that parse; 0 = one less than cores")
    timeout_s: Seconds = Field(60, description="a parser that takes longer is stopped, and its file reported")
    memory_bytes: Count = Field(2 * 1024**3, description="a parser that takes more is stopped")
    json_fields: JsonFields = JsonFields()


class Retrieval(_Section):
    """From a query to a ranking."""

    k: Count = Field(10, le=1000, description="candidates returned")
    retrieve_k: Count = Field(100, le=10_000, description="candidates per leg")
    fusion: Literal["rrf", "convex"] = "convex"
    rrf_k: Count = 60
    weight_dense: Fraction = Field(0.5, description="of the dense leg; the lexical leg has the rest")
    window_sentences: int = Field(3, ge=0, description="added on both sides of a hit, in the answer's context")


class PromptSettings(_Section):
    """What a chat model is shown."""

    max_context_tokens: Count = Field(3000, description="budget of all sources together")
    max_sources: Count = Field(8, description="at most so many numbered sources")


class AnthropicProvider(_Section):
    """The Anthropic Messages API."""

    model: str = Field("claude-sonnet-5-5", min_length=1)
    base_url: Url | None = None


class OpenAIProvider(_Section):
    """The OpenAI Chat Completions API, or anything that speaks it at `base_url`."""

    model: str = Field("gpt-5.5", min_length=1)
    base_url: Url | None = None


class Providers(_Section):
    """The providers by wire format."""

    anthropic: AnthropicProvider = AnthropicProvider()
    openai: OpenAIProvider = OpenAIProvider()


class Llm(_Section):
    """Who writes the answers.

    `auto` is the provider whose key is set (Anthropic first), else `extractive`.
    """

    provider: Literal["auto", "extractive", "anthropic", "openai"] = "auto"
    providers: Providers = Providers()
    max_output_tokens: Count = 1024
    connect_timeout_s: Seconds = 5
    timeout_s: Seconds = 60


class Api(_Section):
    """The HTTP server."""

    keys: tuple[ApiKey, ...] = Field((), description="bearer keys; none = loopback only")
    max_body_bytes: Count = 1_000_000
    shutdown_timeout_s: Seconds = 30


class Telemetry(_Section):
    """Logs."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(BaseSettings):
    """The whole tree, with the provider keys that stand outside its sections."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        nested_model_default_partial_update=True,
    )

    data: Data = Data()
    embedding: Embedding = Embedding()
    lexical: Lexical = Lexical()
    store: Store = Store()
    ingest: Ingest = Ingest()
    chunking: Chunking = Chunking()
    contextual: Contextual = Contextual()
    retrieval: Retrieval = Retrieval()
    prompt: PromptSettings = PromptSettings()
    llm: Llm = Llm()
    api: Api = Api()
    telemetry: Telemetry = Telemetry()
    anthropic_api_key: SecretStr | None = Field(None, exclude=True)
    openai_api_key: SecretStr | None = Field(None, exclude=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment and file are read by `load_settings`, which also knows where each value came from."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


_KEYS = {"ANTHROPIC_API_KEY": "anthropic_api_key", "OPENAI_API_KEY": "openai_api_key"}


def load_settings(directory: Path | None = None) -> Settings:
    """The settings of this process.

    Args:
        directory: Where `rag.toml` and `.env` are looked for; the working directory when None.

    Raises:
        ConfigurationError: One line that names the key, what is wrong with it and where it was set.
    """
    directory = directory or Path.cwd()
    dotenv = _read_dotenv(directory / ".env")
    variables = {**dotenv, **os.environ}
    _refuse_unknown_variables(variables)
    path = _config_path(variables, directory)
    try:
        layers = {
            str(path): _without_keys(TomlConfigSettingsSource(Settings, path)(), path) if path else {},
            ".env": _sections(DotEnvSettingsSource(Settings, env_file=directory / ".env", env_file_encoding="utf-8")()),
            "environment": _sections(EnvSettingsSource(Settings)()),
        }
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    except SettingsError as error:
        raise ConfigurationError(f"environment: {error}; lists are written as JSON") from error
    tree: dict[str, Any] = {}
    for layer in layers.values():
        tree = _merge(tree, layer)
    if variables.get(_DATA_DIR):
        tree = _merge(tree, {"data": {"dir": variables[_DATA_DIR]}})
    tree |= {field: secret for name, field in _KEYS.items() if (secret := _read_secret(variables, name))}
    try:
        return Settings(**tree)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, layers)) from None


def _without_keys(tree: dict[str, Any], path: Path) -> dict[str, Any]:
    for name, field in _KEYS.items():
        if field in tree:
            raise ConfigurationError(f"{path}: {field} does not belong in a file of settings; set {name} instead")
    return tree


def _sections(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Without what else an environment or a `.env` holds."""
    sections = Settings.model_fields.keys() - _KEYS.values()
    return {name: value for name, value in variables.items() if name in sections}


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        known = merged.get(key)
        merged[key] = _merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def _read_dotenv(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    from dotenv import dotenv_values

    try:
        return {name: value for name, value in dotenv_values(path).items() if value is not None}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _refuse_unknown_variables(variables: Mapping[str, str]) -> None:
    """A misspelt variable must not be passed over; pydantic-settings reads only those it expects."""
    for name in sorted(variables):
        if not name.startswith(_PREFIX) or name in _NOT_SETTINGS:
            continue
        section, separator, _ = name.removeprefix(_PREFIX).lower().partition("__")
        if not separator or section not in Settings.model_fields:
            raise ConfigurationError(
                f"environment variable {name}: not a setting; write RAG_SECTION__KEY, section one of {_known(Settings)}"
            )


def _known(section: type[BaseModel]) -> str:
    return ", ".join(name for name in section.model_fields if name not in _KEYS.values())


def _config_path(variables: Mapping[str, str], directory: Path) -> Path | None:
    named = variables.get("RAG_CONFIG")
    if named:
        if not Path(named).is_file():
            raise ConfigurationError(f"RAG_CONFIG names {named}, which is not a file")
        return Path(named)
    path = directory / "rag.toml"
    return path if path.is_file() else None


def _read_secret(variables: Mapping[str, str], name: str) -> str | None:
    value, file = variables.get(name), variables.get(f"{name}_FILE")
    if value and file:
        raise ConfigurationError(f"both {name} and {name}_FILE are set; unset one")
    if file:
        try:
            value = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{name}_FILE: cannot read {file}: {error}") from error
        if not value:
            raise ConfigurationError(f"{name}_FILE: {file} is empty; put the key into it, or unset the variable")
    if value and not (value.isascii() and value.isprintable() and " " not in value):
        raise ConfigurationError(f"{name} holds white space or unprintable characters; paste the key alone")
    return value or None


def _explain(error: ValidationError, layers: Mapping[str, Mapping[str, Any]]) -> str:
    first = error.errors(include_url=False)[0]
    location = tuple(str(part) for part in first["loc"])
    name = ".".join(location)
    where = next((place for place, layer in reversed(list(layers.items())) if _holds(layer, location)), "settings")
    if where == "environment":
        where = f"environment variable {_PREFIX}{'__'.join(location).upper()}"
    if first["type"] == "extra_forbidden":
        parent: Any = Settings
        for part in location[:-1]:
            parent = parent.model_fields[part].annotation
        return f"{where}: unknown key {name}; known here: {_known(parent)}"
    # The value is repeated so that the reader finds it, but never one that may be a secret.
    shown = "" if "key" in name else f" (got {first['input']!r})"
    unit = "; write a number of seconds, without a unit" if location[-1].endswith("_s") else ""
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {name}: {message[0].lower()}{message[1:]}{unit}{shown}"


def _holds(layer: object, location: tuple[str, ...]) -> bool:
    for part in location:
        if isinstance(layer, list):
            return True
        if not isinstance(layer, Mapping) or part not in layer:
            return False
        layer = layer[part]
    return True
