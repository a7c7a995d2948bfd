"""What goes wrong between us and a provider, said in this project's errors.

The `anthropic` and `openai` packages are generated from one template: their errors have the same names and
attributes, and both send through httpx2. So one translation serves both; the package is handed in.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import ModuleType
from urllib.parse import urljoin, urlsplit

from rag.errors import (
    ConfigurationError,
    ProviderAuthError,
    ProviderError,
    ProviderRateLimitError,
    ProviderResponseError,
    ProviderTimeoutError,
    UsageError,
)

_DETAIL_CHARACTERS = 300
_OVERLOADED = 529
_IN_STREAM_STATUS = {
    "authentication_error": 401,
    "billing_error": 402,
    "insufficient_quota": 429,
    "invalid_request_error": 400,
    "not_found_error": 404,
    "overloaded_error": _OVERLOADED,
    "permission_error": 403,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "timeout_error": 504,
}
"""An error inside a stream arrives under HTTP 200; its type says which status it would have had."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Who is called, for the messages of errors.

    Attributes:
        name: `provider:model`.
        base_url: As shown to people: without user name, password and query.
        key_variable: The environment variable, or setting, the key is read from.
        api_key: Removed from whatever the provider says.
        section: Of the settings, where the times are set; None where they are not.
        url_setting: The setting that the URL is read from.
    """

    name: str
    base_url: str
    key_variable: str
    connect_timeout_s: float
    timeout_s: float
    api_key: str = field(repr=False)
    section: str | None = "llm"
    url_setting: str = "base_url"

    def __str__(self) -> str:
        return f"{self.name} at {self.base_url}"


def require_http_url(base_url: str | None, setting: str = "base_url") -> None:
    """Refuse a URL that no request can be sent to; None is the provider's own. `setting` is what it is read from.

    Raises:
        ConfigurationError: It is not an absolute http or https URL.
    """
    if base_url is None:
        return
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(
            f"{setting} {base_url.rpartition('@')[2]!r} is no http or https URL; write it like https://host:port/v1"
        )


def shown_url(base_url: str) -> str:
    """A base URL without the parts that may hold a secret."""
    parts = urlsplit(base_url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


@contextmanager
def translated_errors(sdk: ModuleType, endpoint: Endpoint) -> Iterator[None]:
    """Turn what a provider's package raises inside the block into this project's errors.

    Args:
        sdk: The `anthropic` or `openai` package.
        endpoint: Named in the messages.

    Raises:
        ProviderError: One of its kinds.
        UsageError: The request's text is not Unicode.
    """
    import httpx2

    with translated_http_errors(endpoint):
        try:
            yield
        except sdk.APIStatusError as error:
            raise status_error(endpoint, error.status_code, error.response.headers, error.body) from error
        except sdk.APITimeoutError as error:
            raise _timeout_error(endpoint, connecting=isinstance(error.__cause__, httpx2.ConnectTimeout)) from error
        except sdk.APIConnectionError as error:
            raise _connection_error(endpoint, error.__cause__ or error) from error
        except sdk.APIResponseValidationError as error:
            raise malformed(endpoint, "is not the documented JSON") from error
        except sdk.APIError as error:
            raise status_error(endpoint, 200, {}, error.body) from error


@contextmanager
def translated_http_errors(endpoint: Endpoint) -> Iterator[None]:
    """As `translated_errors`, for what httpx2 itself raises.

    Raises:
        ProviderError: One of its kinds.
        UsageError: The request's text is not Unicode.
    """
    import anyio
    import httpx2

    try:
        yield
    except TimeoutError as error:
        raise _timeout_error(endpoint, connecting=False) from error
    except httpx2.TimeoutException as error:
        raise _timeout_error(endpoint, connecting=isinstance(error, httpx2.ConnectTimeout)) from error
    except (httpx2.RequestError, ssl.SSLError, anyio.EndOfStream) as error:
        raise _connection_error(endpoint, error) from error
    except UnicodeEncodeError as error:
        raise UsageError(f"text for {endpoint} cannot be sent: it holds half of a surrogate pair") from error
    except ValueError as error:  # JSON, UTF-8 and base64 that cannot be decoded
        raise malformed(endpoint, f"cannot be decoded ({type(error).__name__})") from error


def malformed(endpoint: Endpoint, what: str) -> ProviderResponseError:
    """The error for an answer that arrived and is of no use; `what` completes "the answer ..."."""
    return ProviderResponseError(f"{endpoint}: the answer {what}")


def _timeout_error(endpoint: Endpoint, *, connecting: bool) -> ProviderTimeoutError:
    if connecting:
        longer = f", or raise {endpoint.section}.connect_timeout_s" if endpoint.section else ""
        return ProviderTimeoutError(
            f"{endpoint}: no connection within {endpoint.connect_timeout_s:g} s; check the network and "
            f"{endpoint.url_setting}{longer}"
        )
    longer = f", or raise {endpoint.section}.timeout_s" if endpoint.section else ""
    return ProviderTimeoutError(f"{endpoint}: no complete answer within {endpoint.timeout_s:g} s; try again{longer}")


def _connection_error(endpoint: Endpoint, cause: BaseException) -> ProviderError:
    import httpx2

    if isinstance(cause, (httpx2.ConnectError, httpx2.ProxyError, httpx2.UnsupportedProtocol)):
        detail = _clean(endpoint, str(cause)) or type(cause).__name__
        return ProviderError(
            f"{endpoint}: cannot connect ({detail}); check {endpoint.url_setting} and that the server can be reached"
        )
    return malformed(endpoint, f"broke off: the connection was lost ({type(cause).__name__}); try again")


def status_error(endpoint: Endpoint, status: int, headers: Mapping[str, str], body: object) -> ProviderError:
    """The error for an answer that is one by its status, or by an error inside a stream.

    Args:
        body: As JSON or text.
    """
    if 300 <= status < 400:
        return _redirect_error(endpoint, status, headers)
    kind, detail = _kind_and_detail(body)
    if status < 400:
        status = _IN_STREAM_STATUS.get(kind, 500)
        said = f"reported an error inside the stream ({kind or 'of no type'})"
    else:
        said = f"answered HTTP {status}"
    detail = f": {shown}" if (shown := _clean(endpoint, detail)) else ""
    retry_after_s = _retry_after_s(headers)
    if status == 401:
        # Without the provider's own words: they repeat parts of the key.
        return ProviderAuthError(f"{endpoint} {said}: the key is refused; check {endpoint.key_variable}")
    if status == 403:
        return ProviderAuthError(
            f"{endpoint} {said}{detail}; check what the key in {endpoint.key_variable} is allowed to use"
        )
    if status in {402, 429, _OVERLOADED} or (status == 400 and _is_quota(detail)):
        return ProviderRateLimitError(
            f"{endpoint} {said}{detail}; try again later, or check the account's limits and balance",
            retry_after_s=retry_after_s,
        )
    if status in {408, 504}:
        return ProviderTimeoutError(f"{endpoint} {said}{detail}; try again", retry_after_s=retry_after_s)
    if status == 404:
        return ProviderError(f"{endpoint} {said}{detail}; check the model's name and {endpoint.url_setting}")
    remedy = "try again later" if status >= 500 else "the request cannot be served as it is"
    return ProviderError(f"{endpoint} {said}{detail}; {remedy}", retry_after_s=retry_after_s)


def _redirect_error(endpoint: Endpoint, status: int, headers: Mapping[str, str]) -> ProviderError:
    """Redirects are not followed: they would take the key along to wherever they lead."""
    location = headers.get("location", "")
    try:
        target = shown_url(urljoin(endpoint.base_url, location)) if location else "no Location"
    except ValueError:
        target = "a Location that is no URL"
    return ProviderError(
        f"{endpoint} answered HTTP {status}, a redirect to {_clean(endpoint, target)}; "
        f"set {endpoint.url_setting} to the address that answers itself"
    )


def _is_quota(detail: str) -> bool:
    """Anthropic reports a used-up quota as an invalid request; only the words tell it from a real one."""
    words = detail.lower()
    return "usage limit" in words or "credit balance" in words


def _kind_and_detail(body: object) -> tuple[str, str]:
    """An error body's type and message, from any of the shapes that compatible servers send."""
    if isinstance(body, Mapping) and isinstance(body.get("error"), (Mapping, str)):
        body = body["error"]
    if isinstance(body, Mapping):
        kind = body.get("type") or body.get("code")
        detail = body.get("message") or body.get("detail") or ""
        return (kind if isinstance(kind, str) else ""), str(detail)
    return "", body if isinstance(body, str) else ""


def _clean(endpoint: Endpoint, detail: str) -> str:
    if endpoint.api_key:
        detail = detail.replace(endpoint.api_key, "[key]")
    detail = " ".join(detail.split())
    return detail if len(detail) <= _DETAIL_CHARACTERS else detail[: _DETAIL_CHARACTERS - 1] + "…"


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header, which holds a number or a date; None if absent or unreadable."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
