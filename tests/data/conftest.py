"""Every test of the data sets runs without network."""

import socket

import pytest


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VIBX_DATA_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
