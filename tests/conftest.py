"""What no test may do: reach the network beyond loopback, or see the settings and keys of whoever runs it."""

import ipaddress
import os
import socket

import pytest

_OWN_SETTINGS = ("RAG_", "ANTHROPIC_", "OPENAI_")


def pytest_configure() -> None:
    # Read by the hub's client when it is first imported, which may be before any fixture.
    os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session", autouse=True)
def no_settings_of_the_person_who_runs_the_tests():
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(_OWN_SETTINGS)]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_network_beyond_loopback():
    connect, connect_ex, resolve = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self, address):
        _refuse_remote(self.family, address)
        return connect(self, address)

    def guarded_connect_ex(self, address):
        _refuse_remote(self.family, address)
        return connect_ex(self, address)

    def guarded_resolve(host, *arguments, **options):
        _refuse_remote_host(host)
        return resolve(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        patch.setattr(socket, "getaddrinfo", guarded_resolve)
        yield


def _refuse_remote(family, address):
    if family in (socket.AF_INET, socket.AF_INET6):
        _refuse_remote_host(address[0])


def _refuse_remote_host(host):
    name = host.decode() if isinstance(host, bytes) else host
    # No host, or the one that stands for every interface, is this machine.
    if name in (None, "", "localhost"):
        return
    try:
        address = ipaddress.ip_address(name)
        is_here = address.is_loopback or address.is_unspecified
    except ValueError:
        is_here = False
    if not is_here:
        pytest.fail(f"a test must not reach {name}: use a fake, or a server on loopback")
