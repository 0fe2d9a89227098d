"""The transport over TLS: whom it trusts, what it shows, and how it fails."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING

import pytest
import trustme
from support.raw_server import GIVEN_UP_WITHIN_S, RawServer

from dispatcher import (
    ExecutorClientConfig,
    ExecutorConnectionError,
    ExecutorTimeoutError,
    InvalidSettingsError,
)
from workers.drivers.transport import HttpTransport

if TYPE_CHECKING:
    from pathlib import Path

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


def server_side(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def call(url: str, **config: object) -> int:
    transport = HttpTransport(ExecutorClientConfig.model_validate({"base_url": url, **config}), 1)
    try:
        return transport.call("GET", "/v1/health").status
    finally:
        transport.close()


def tls_failure(url: str, **config: object) -> str:
    with pytest.raises(ExecutorConnectionError) as caught:
        call(url, **config)
    assert caught.value.reason == "tls"
    return str(caught.value)


def test_a_certificate_of_the_configured_authority_is_trusted(authority: trustme.CA, ca_file: Path) -> None:
    with RawServer(OK, tls=server_side(authority)) as server:
        assert call(server.url, ca_file=ca_file) == 200


def test_no_authority_is_taken_from_the_environment(
    authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(ca_file))
    with RawServer(OK, tls=server_side(authority)) as server:
        tls_failure(server.url)


def test_a_certificate_of_an_unknown_authority_is_not(authority: trustme.CA, ca_file: Path) -> None:
    with RawServer(OK, tls=server_side(authority)) as server:
        assert "does its certificate fit" in tls_failure(server.url)
    with RawServer(OK, tls=server_side(trustme.CA())) as server:
        tls_failure(server.url, ca_file=ca_file)
    assert server.received == []


def test_a_certificate_of_another_host_is_not(authority: trustme.CA, ca_file: Path) -> None:
    with RawServer(OK, tls=server_side(authority, "executor.example")) as server:
        tls_failure(server.url, ca_file=ca_file)


@pytest.mark.parametrize("in_one_file", [True, False])
def test_a_worker_shows_its_own_certificate(
    authority: trustme.CA, ca_file: Path, tmp_path: Path, *, in_one_file: bool
) -> None:
    context = server_side(authority)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    worker = authority.issue_cert("worker.example")
    certificate, key = tmp_path / "worker.pem", tmp_path / "worker.key"
    if in_one_file:
        worker.private_key_and_cert_chain_pem.write_to_path(str(certificate))
        shown = {"client_cert_file": certificate}
    else:
        worker.cert_chain_pems[0].write_to_path(str(certificate))
        worker.private_key_pem.write_to_path(str(key))
        shown = {"client_cert_file": certificate, "client_key_file": key}
    with RawServer(OK, tls=context) as server:
        assert call(server.url, ca_file=ca_file, **shown) == 200
        with pytest.raises(ExecutorConnectionError):
            call(server.url, ca_file=ca_file)


@pytest.mark.parametrize(
    "begin", [b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"]
)
def test_an_answer_that_drips_over_tls_is_given_up_when_its_time_is_over(
    authority: trustme.CA, ca_file: Path, begin: bytes
) -> None:
    with RawServer(begin, drip=b"x", tls=server_side(authority)) as server:
        began = time.monotonic()
        with pytest.raises(ExecutorTimeoutError):
            call(server.url, ca_file=ca_file, read_timeout_sec=0.5)
        assert 0.5 <= time.monotonic() - began < GIVEN_UP_WITHIN_S
        assert server.drops > 1


def test_a_tls_connection_that_ends_in_the_middle_may_have_carried_the_request(
    authority: trustme.CA, ca_file: Path
) -> None:
    with RawServer(b"", tls=server_side(authority)) as server:
        with pytest.raises(ExecutorConnectionError) as caught:
            call(server.url, ca_file=ca_file)
        assert caught.value.reason == "broken"


def test_certificate_files_that_cannot_be_used_are_refused_before_the_first_call(
    authority: trustme.CA, tmp_path: Path
) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    lonely = tmp_path / "lonely.pem"
    authority.cert_pem.write_to_path(str(lonely))
    for field, path in (("ca_file", garbage), ("client_cert_file", garbage), ("client_cert_file", lonely)):
        with pytest.raises(InvalidSettingsError) as caught:
            call("https://127.0.0.1:1", **{field: path})
        [(named, problem)] = caught.value.problems
        assert named == field
        assert str(path) in problem


def test_a_private_key_with_a_password_is_refused_rather_than_asked_for(
    authority: trustme.CA, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization as pem  # noqa: PLC0415 (trustme brings it)

    worker = authority.issue_cert("worker.example")
    certificate, key = tmp_path / "worker.pem", tmp_path / "worker.key"
    worker.cert_chain_pems[0].write_to_path(str(certificate))
    private = pem.load_pem_private_key(worker.private_key_pem.bytes(), None)
    locked = pem.BestAvailableEncryption(b"pa55")
    key.write_bytes(private.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, locked))
    with pytest.raises(InvalidSettingsError, match="encrypted"):
        call("https://127.0.0.1:1", client_cert_file=certificate, client_key_file=key)
