"""What every call of a chat provider has in common: one deadline, and rules for what counts as an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from types import ModuleType
from typing import Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from rag.adapters.provider_errors import Endpoint, malformed, translated_errors
from rag.generation.chat import Completion, StopReason
from rag.types import Usage

Reply = TypeVar("Reply")
Event = TypeVar("Event", covariant=True)
Wire = TypeVar("Wire", bound=BaseModel)


class EventStream(Protocol[Event]):
    """A response that is still arriving; both providers' packages return one."""

    async def __anext__(self) -> Event: ...

    async def close(self) -> None:
        """Close the HTTP response; if it is not complete, the provider sees the disconnect."""
        ...


async def bounded(call: Awaitable[Reply], sdk: ModuleType, endpoint: Endpoint) -> Reply:
    """The result of a call, within `endpoint.timeout_s` from now, connecting included.

    Raises:
        ProviderError: One of its kinds.
    """
    with translated_errors(sdk, endpoint):
        async with asyncio.timeout(endpoint.timeout_s):
            return await call


async def bounded_events(
    connect: Callable[[], Awaitable[EventStream[Event]]], sdk: ModuleType, endpoint: Endpoint
) -> AsyncGenerator[Event, None]:
    """The events of a stream, all within `endpoint.timeout_s` of the first step.

    Closing it closes the response. The time the caller takes between two events counts: a reader that stalls
    must not hold the provider for ever.

    Raises:
        ProviderError: One of its kinds, at any step.
    """
    # One scope per step: a timeout that spans a `yield` would cancel whatever its caller does in between.
    deadline = asyncio.get_running_loop().time() + endpoint.timeout_s
    with translated_errors(sdk, endpoint):
        async with asyncio.timeout_at(deadline):
            stream = await connect()
    try:
        while True:
            try:
                with translated_errors(sdk, endpoint):
                    async with asyncio.timeout_at(deadline):
                        event = await stream.__anext__()
            except StopAsyncIteration:
                return
            yield event
    finally:
        await stream.close()


def read(shape: type[Wire], value: object, endpoint: Endpoint) -> Wire:
    """The fields we use of what a provider's package made of an answer; it does not check types itself.

    Raises:
        ProviderResponseError: A field is missing or of another type.
    """
    try:
        return shape.model_validate(value, from_attributes=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        what = f"is not in the documented form ({place + ': ' if place else ''}{first['msg']})"
        raise malformed(endpoint, what) from error


def completion(
    text: str, usage: Usage, stop: str | None, meanings: Mapping[str, StopReason], endpoint: Endpoint
) -> Completion:
    """A finished answer.

    Args:
        text: As the model wrote it.
        usage: Of the whole answer.
        stop: The provider's word for why the model stopped.
        meanings: The provider's words after which an answer may be used, and what each means to us.
        endpoint: Who answered.

    Raises:
        ProviderResponseError: The text is empty, or the model stopped for a reason that ends no answer.
    """
    meaning = meanings.get(stop or "")
    if meaning is None:
        raise malformed(endpoint, f"is not finished: the model stopped for the reason {stop!r}")
    if text.strip():
        return Completion(text=text, usage=usage, stop_reason=meaning, model=endpoint.name)
    if meaning == "refusal":
        raise malformed(endpoint, f"is empty: the provider declined to write one ({stop})")
    if meaning == "length":
        raise malformed(endpoint, "is empty: the token limit was reached first; raise llm.max_output_tokens")
    raise malformed(endpoint, "is empty; try again")
