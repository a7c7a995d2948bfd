"""Every error this project raises on purpose.

    RagError
    ├── UsageError                 the caller's input is wrong               exit 2, HTTP 422
    │   └── FilterError            a metadata filter cannot be read
    ├── ConfigurationError         settings, models or keys are wrong        exit 2, not served
    │   ├── ModelNotFoundError     a configured model is not on disk
    │   └── CollectionMismatchError  a collection was built with other settings
    ├── DocumentError              one document cannot be read               exit 1, named in `failed`
    ├── StoreError                 the passage store failed                  exit 3, HTTP 503
    │   └── StoreBusyError         another process owns the embedded store
    ├── ModelRuntimeError          a model that was loaded failed to run     exit 3, HTTP 503
    └── ProviderError              an LLM or embedding provider failed       exit 3, HTTP 502
        ├── ProviderAuthError      the key is refused
        ├── ProviderRateLimitError the provider asks to slow down            HTTP 503
        ├── ProviderTimeoutError   no answer in time                         HTTP 504
        └── ProviderResponseError  the answer is malformed, filtered or cut off

Messages name the cause and the remedy. Exit codes live in `api/cli.py`, HTTP statuses in `api/errors.py`;
adapters translate vendor errors into these with `raise ... from`.
"""

from __future__ import annotations


class RagError(Exception):
    """Root of the tree; `code` is the stable, machine-readable name of the error."""

    code = "internal_error"


class UsageError(RagError):
    """The caller's input is wrong."""

    code = "invalid_request"


class FilterError(UsageError):
    """A metadata filter cannot be read."""

    code = "invalid_filter"


class ConfigurationError(RagError):
    """Settings, models or keys are wrong; nothing can start before they are mended."""

    code = "configuration_error"


class ModelNotFoundError(ConfigurationError):
    """A configured model is not on disk."""

    code = "model_not_found"


class CollectionMismatchError(ConfigurationError):
    """A collection was built with other settings than those now configured."""

    code = "collection_mismatch"


class DocumentError(RagError):
    """One document cannot be read; a run goes on with the others."""

    code = "document_unreadable"


class StoreError(RagError):
    """The passage store failed or cannot be reached."""

    code = "store_unavailable"


class StoreBusyError(StoreError):
    """Another process owns the embedded store."""

    code = "store_busy"


class ModelRuntimeError(RagError):
    """A model that was loaded failed to run."""

    code = "model_failed"


class ProviderError(RagError):
    """An LLM or embedding provider failed.

    Args:
        message: Cause and remedy.
        retry_after_s: Seconds the provider asks to wait, where it says so.
    """

    code = "provider_error"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ProviderAuthError(ProviderError):
    """The provider refuses the key."""

    code = "provider_auth"


class ProviderRateLimitError(ProviderError):
    """The provider asks to slow down, or a quota is used up."""

    code = "provider_rate_limited"


class ProviderTimeoutError(ProviderError):
    """The provider did not answer in time."""

    code = "provider_timeout"


class ProviderResponseError(ProviderError):
    """The provider's answer is malformed, empty, filtered or cut off in the middle."""

    code = "provider_response"
