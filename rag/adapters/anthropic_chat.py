"""Answers by the Anthropic Messages API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from pydantic import BaseModel

from rag.adapters.provider_calls import bounded, bounded_events, completion, read
from rag.adapters.provider_errors import Endpoint, malformed, require_http_url, shown_url
from rag.context.prompt import render_question
from rag.errors import ProviderError
from rag.generation.chat import Completion, StopReason, TextDelta
from rag.types import Prompt, Usage

if TYPE_CHECKING:
    from anthropic.types import MessageParam, TextBlockParam

_STOP_REASONS: dict[str, StopReason] = {
    "end_turn": "complete",
    "stop_sequence": "complete",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}
"""The others the API documents, `tool_use` and `pause_turn`, ask us to go on: they end no answer."""

_DRAIN_TIMEOUT_S = 0.1


class AnthropicChat:
    """A `ChatModel` over the Messages API.

    Args:
        api_key: Never shown in a message or a repr.
        model: As the API names it.
        base_url: Of a compatible server; None is the API itself.
        max_output_tokens: The answer is cut off there.
        connect_timeout_s: For the connection alone.
        timeout_s: For a whole answer, connecting and streaming included.

    Raises:
        ConfigurationError: `base_url` is no URL.
    """

    def __init__(
        self,
        *,
        api_key: str,
        model: str,
        base_url: str | None,
        max_output_tokens: int,
        connect_timeout_s: float,
        timeout_s: float,
    ) -> None:
        require_http_url(base_url)
        import anthropic

        self._sdk = anthropic
        self._model = model
        self._max_output_tokens = max_output_tokens
        self._timeout = anthropic.Timeout(timeout_s, connect=connect_timeout_s)
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key, base_url=base_url, timeout=self._timeout, max_retries=0
        )
        self._endpoint = Endpoint(
            name=f"anthropic:{model}",
            base_url=shown_url(str(self._client.base_url)),
            key_variable="ANTHROPIC_API_KEY",
            connect_timeout_s=connect_timeout_s,
            timeout_s=timeout_s,
            api_key=api_key,
        )

    @property
    def name(self) -> str:
        """`anthropic:` and the model."""
        return self._endpoint.name

    async def complete(self, prompt: Prompt) -> Completion:
        """See `ChatModel.complete`."""
        call = self._client.messages.create(
            model=self._model,
            max_tokens=self._max_output_tokens,
            system=_system(prompt),
            messages=_messages(prompt),
            # Said again: the package refuses long answers when a client's timeout equals its own default.
            timeout=self._timeout,
        )
        message = read(_Message, await bounded(call, self._sdk, self._endpoint), self._endpoint)
        text = "".join(block.text or "" for block in message.content if block.type == "text")
        return completion(text, _usage(message.usage), message.stop_reason, _STOP_REASONS, self._endpoint)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[TextDelta | Completion, None]:
        """See `ChatModel.stream`."""
        pieces: list[str] = []
        counts: dict[str, int] = {}
        stop: str | None = None
        finished = False
        async with aclosing(
            bounded_events(
                lambda: self._client.messages.create(
                    model=self._model,
                    max_tokens=self._max_output_tokens,
                    system=_system(prompt),
                    messages=_messages(prompt),
                    timeout=self._timeout,
                    stream=True,
                ),
                self._sdk,
                self._endpoint,
            )
        ) as events:
            async for received in events:
                event = read(_Event, received, self._endpoint)
                counts |= _counts(event.usage) | _counts(event.message.usage if event.message else None)
                if event.type == "message_stop":
                    finished = True
                    await _drain(events)
                    break
                if event.delta is None:
                    continue
                stop = event.delta.stop_reason or stop
                if event.delta.type == "text_delta" and event.delta.text:
                    pieces.append(event.delta.text)
                    yield TextDelta(event.delta.text)
        if not finished:
            raise malformed(self._endpoint, "broke off: the stream ended without its message_stop; try again")
        usage = _usage(_Usage.model_validate(counts))
        yield completion("".join(pieces), usage, stop, _STOP_REASONS, self._endpoint)

    async def close(self) -> None:
        """See `ChatModel.close`."""
        await self._client.close()


def _system(prompt: Prompt) -> list[TextBlockParam]:
    """The stable part, with the only cache breakpoint: what follows differs with every question."""
    return [{"type": "text", "text": prompt.system, "cache_control": {"type": "ephemeral"}}]


def _messages(prompt: Prompt) -> list[MessageParam]:
    return [{"role": "user", "content": render_question(prompt)}]


async def _drain(events: AsyncGenerator[object, None]) -> None:
    """Read past the last event, so that the connection can be used again; no answer is lost over this."""
    with suppress(ProviderError, TimeoutError):
        async with asyncio.timeout(_DRAIN_TIMEOUT_S):
            await anext(events, None)


class _Usage(BaseModel):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Block(BaseModel):
    type: str
    text: str | None = None


class _Message(BaseModel):
    content: list[_Block]
    stop_reason: str | None
    usage: _Usage


class _Start(BaseModel):
    usage: _Usage


class _Delta(BaseModel):
    type: str | None = None
    text: str | None = None
    stop_reason: str | None = None


class _Event(BaseModel):
    type: str
    message: _Start | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None


def _counts(usage: _Usage | None) -> dict[str, int]:
    """The counts an event carries; they are cumulative, so a later one replaces an earlier one."""
    return usage.model_dump(exclude_none=True) if usage else {}


def _usage(usage: _Usage) -> Usage:
    read_tokens, written_tokens = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    return Usage(
        # The API counts only what is neither read from nor written to the cache as input.
        prompt_tokens=(usage.input_tokens or 0) + read_tokens + written_tokens,
        completion_tokens=usage.output_tokens or 0,
        cached_tokens=read_tokens,
        cache_write_tokens=written_tokens,
    )
