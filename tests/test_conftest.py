import asyncio
import os
import socket

import pytest

_DOCUMENTATION_ADDRESS = "192.0.2.1"  # of TEST-NET-1, which is nobody's


def test_an_address_beyond_loopback_cannot_be_reached():
    with socket.socket() as remote, pytest.raises(pytest.fail.Exception, match=r"must not reach 192\.0\.2\.1"):
        remote.connect((_DOCUMENTATION_ADDRESS, 9))


async def test_nor_can_it_from_an_event_loop():
    with pytest.raises(pytest.fail.Exception, match=r"must not reach 192\.0\.2\.1"):
        await asyncio.open_connection(_DOCUMENTATION_ADDRESS, 9)


def test_a_name_is_not_resolved():
    with pytest.raises(pytest.fail.Exception, match=r"must not reach example\.invalid"):
        socket.create_connection(("example.invalid", 80))


def test_loopback_stays_open():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1])).close()


def test_the_environment_holds_no_settings():
    assert not [name for name in os.environ if name.startswith(("RAG_", "ANTHROPIC_", "OPENAI_"))]
    assert os.environ["HF_HUB_OFFLINE"] == "1"
