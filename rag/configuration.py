"""Settings from where people write them.

Order, the later wins: defaults, `rag.toml` (or the file `RAG_CONFIG` names), `.env`, environment variables
`RAG_SECTION__KEY`. Provider keys keep their usual names (`ANTHROPIC_API_KEY`, `OPENAI_API_KEY`); each may be given
as a file instead (`ANTHROPIC_API_KEY_FILE`).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError
from pydantic_settings.sources import DotEnvSettingsSource, EnvSettingsSource, TomlConfigSettingsSource

from rag.errors import ConfigurationError
from rag.settings import ENVIRONMENT_PREFIX, Settings

_DATA_DIR = "RAG_DATA_DIR"
_NOT_SETTINGS = {"RAG_CONFIG", _DATA_DIR}
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
        if not name.startswith(ENVIRONMENT_PREFIX) or name in _NOT_SETTINGS:
            continue
        section, separator, _ = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
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
        where = f"environment variable {ENVIRONMENT_PREFIX}{'__'.join(location).upper()}"
    if first["type"] == "extra_forbidden":
        parent: Any = Settings
        for part in location[:-1]:
            parent = parent.model_fields[part].annotation
        return f"{where}: unknown key {name}; known here: {_known(parent)}"
    # The value is repeated so that the reader finds it, but never one that may be or hold a secret.
    is_secret = "key" in name or location[-1].endswith("url") or isinstance(first["input"], Mapping)
    shown = "" if is_secret else f" (got {first['input']!r})"
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
