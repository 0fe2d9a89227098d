"""The transport against real sockets that misbehave."""

from __future__ import annotations

import gzip
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier
from typing import TYPE_CHECKING

import pytest
from support.loopback import LoopbackServer
from support.plans import plan_record
from support.raw_server import GIVEN_UP_WITHIN_S, RawServer
from support.stub_executor import StubExecutor

from dispatcher import (
    ExecutorClientConfig,
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorProtocolError,
    ExecutorServerError,
    ExecutorTimeoutError,
    InvalidSettingsError,
)
from workers.drivers.transport import HttpTransport
from workers.engine.traces import own_trace_id, step_span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.loopback import Answer
    from support.spans import Spans

    Transports = Callable[..., HttpTransport]


@pytest.fixture
def transport() -> Iterator[Transports]:
    opened: list[HttpTransport] = []

    def make(url: str, **config: object) -> HttpTransport:
        opened.append(HttpTransport(ExecutorClientConfig.model_validate({"base_url": url, **config}), 2))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def stub() -> Iterator[StubExecutor]:
    with StubExecutor() as stub:
        yield stub


def reason(transport: HttpTransport) -> str:
    with pytest.raises(ExecutorConnectionError) as caught:
        transport.call("GET", "/v1/any")
    return caught.value.reason


def test_refusal_dns_and_a_broken_connection_are_distinguished(
    transport: Transports, free_tcp_port: int
) -> None:
    assert reason(transport(f"http://127.0.0.1:{free_tcp_port}")) == "refused"
    assert reason(transport("http://executor.invalid")) == "dns"
    with RawServer(b"") as server:
        assert reason(transport(server.url)) == "broken"


def test_a_plain_server_behind_https_is_a_tls_failure(transport: Transports) -> None:
    with RawServer(b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        assert reason(transport(server.url.replace("http:", "https:"))) == "tls"


def test_a_silent_server_is_a_timeout(transport: Transports) -> None:
    with RawServer(None) as server, pytest.raises(ExecutorTimeoutError, match="no answer in time"):
        transport(server.url, read_timeout_sec=0.1).call("GET", "/v1/any")


def test_an_answer_that_stops_in_the_middle_is_a_broken_connection(transport: Transports) -> None:
    with RawServer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{") as server:
        assert reason(transport(server.url)) == "broken"


@pytest.mark.parametrize("garbage", [b"garbage\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00" * 100])
def test_what_is_not_http_is_a_broken_connection(transport: Transports, garbage: bytes) -> None:
    with RawServer(garbage) as server:
        assert reason(transport(server.url)) == "broken"


def test_an_endless_answer_is_cut_off(transport: Transports) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000
    with RawServer(answer) as server, pytest.raises(ExecutorProtocolError, match="max_response_bytes"):
        transport(server.url, max_response_bytes=1_000).call("GET", "/v1/any")


def test_an_answer_that_is_not_json_shows_its_first_200_bytes(
    stub: StubExecutor, transport: Transports
) -> None:
    stub.answers.append((200, b"<html>" + b"x" * 1_000))
    with pytest.raises(ExecutorProtocolError) as caught:
        transport(stub.url).call("GET", "/v1/any").json()
    assert "<html>" + "x" * 194 + "'" in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{", b'{"a": NaN}', b"\xff", b"[" * 100_000])
def test_bad_json_is_a_protocol_error(stub: StubExecutor, transport: Transports, body: bytes) -> None:
    stub.answers.append((200, body))
    with pytest.raises(ExecutorProtocolError):
        transport(stub.url).call("GET", "/v1/any").json()


def test_no_redirect_is_followed(stub: StubExecutor, transport: Transports) -> None:
    with RawServer(f"HTTP/1.1 302 Found\r\nLocation: {stub.url}/\r\n\r\n".encode()) as server:
        answer = transport(server.url).call("GET", "/v1/any")
    assert answer.status == 302
    assert not answer.ok
    assert stub.calls == []


def test_no_proxy_is_taken_from_the_environment(
    stub: StubExecutor, transport: Transports, monkeypatch: pytest.MonkeyPatch, free_tcp_port: int
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_tcp_port}")
    stub.answers.append((200, {}))
    assert transport(stub.url).call("GET", "/v1/any").ok


@pytest.mark.parametrize(
    "proxy", ["http://me:pa55@", "http://me:pa55@a:b", "socks5://me:pa55@a:1", "ftp://me:pa55@a"]
)
def test_a_proxy_that_cannot_be_used_is_refused_before_the_first_call(
    transport: Transports, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(InvalidSettingsError, match="needs a proxy that is a URL") as caught:
        transport("http://executor.invalid", proxies_from_environment=True)
    assert [field for field, _ in caught.value.problems] == ["proxies_from_environment"]
    assert "pa55" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://.x", "http://*.x", "http://a b", "http://%zz"])
def test_a_base_url_with_an_impossible_host_is_an_invalid_setting(url: str) -> None:
    with pytest.raises(InvalidSettingsError, match=r"base_url must be a (valid )?URL"):
        HttpTransport(ExecutorClientConfig(base_url=url), connections=1)


def test_a_proxy_is_taken_from_the_environment_where_that_is_configured(
    stub: StubExecutor, transport: Transports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", stub.url)
    stub.answers.append((200, {}))
    assert transport("http://executor.invalid", proxies_from_environment=True).call("GET", "/v1/any").ok
    assert stub.calls == [("GET", "http://executor.invalid/v1/any")]


def test_no_credentials_are_taken_from_the_environment(
    stub: StubExecutor, transport: Transports, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password pa55\n")
    monkeypatch.setenv("NETRC", str(netrc))
    stub.answers.append((200, {}))
    transport(stub.url).call("GET", "/v1/any")
    assert "authorization" not in stub.headers[0]


def test_every_call_of_a_plan_belongs_to_its_trace(stub: StubExecutor, transport: Transports) -> None:
    stub.answers.extend([(200, {})] * 4)
    traced_transport = transport(stub.url)
    for plan_id in ("p1", "p1", "p2"):
        with step_span(plan_record(plan_id)):
            traced_transport.call("GET", "/v1/any")
    traced_transport.call("GET", "/v1/any")
    parents = [headers.get("traceparent") for headers in stub.headers]
    assert all(re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", parent or "") for parent in parents[:3])
    ids = [parent[3:35] for parent in parents[:3] if parent]
    assert ids == [f"{own_trace_id(plan_id):032x}" for plan_id in ("p1", "p1", "p2")]
    assert len({parent[36:52] for parent in parents[:3] if parent}) == 3  # each call is a span of its own
    assert parents[3] is None


def test_connections_are_kept_alive(stub: StubExecutor, transport: Transports) -> None:
    stub.answers.extend([(200, {}), (500, {}), (200, {})])
    kept = transport(stub.url)
    for _ in range(3):
        kept.call("GET", "/v1/any")
    assert len(stub.peers) == 1


class TwoAtOnce(LoopbackServer):
    """Answers a request once there is another one at the same time."""

    def __init__(self) -> None:
        self._meeting = Barrier(2)

    def answer_bytes(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        self._meeting.wait(10)
        return 200, b"{}", "application/json"


def test_a_connection_that_was_idle_for_too_long_is_not_used_again(stub: StubExecutor) -> None:
    with closing(HttpTransport(ExecutorClientConfig(base_url=stub.url), 1, reuse_within_s=0.0)) as picky:
        for _ in range(3):
            picky.call("GET", "/v1/health")
    assert len(stub.peers) == 3


def test_calls_at_once_have_a_connection_each_in_any_thread(transport: Transports) -> None:
    with TwoAtOnce() as server:
        shared = transport(server.url)
        for _ in range(3):
            with ThreadPoolExecutor(2) as pool:
                answers = [pool.submit(shared.call, "GET", "/v1/any") for _ in range(2)]
                assert all(answer.result().ok for answer in answers)
        assert len(server.peers) == 2


def test_a_fork_shares_no_connection_with_its_parent(
    stub: StubExecutor, transport: Transports, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = transport(stub.url)
    assert kept.call("GET", "/v1/health").ok
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert kept.call("GET", "/v1/health").ok
    assert len(stub.peers) == 2


def test_no_cookie_is_kept(transport: Transports) -> None:
    answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with RawServer(answer) as server:
        kept = transport(server.url)
        for _ in range(2):
            assert kept.call("GET", "/v1/any").ok
        assert len(server.received) == 2
        assert not any(b"cookie" in request.lower() for request in server.received)


def test_a_token_is_sent_and_appears_in_no_error(stub: StubExecutor, transport: Transports) -> None:
    stub.answers.append((401, {"error": "unauthorized", "message": "who are you?"}))
    answer = transport(stub.url, token="pa55").call("GET", "/v1/any")
    assert stub.headers[0]["authorization"] == "Bearer pa55"
    assert stub.headers[0]["user-agent"].startswith("fault-dispatcher/")
    error = answer.error()
    assert "401 unauthorized: 'who are you?'; check the Executor's token" in str(error)
    assert "pa55" not in repr(error)


def test_a_token_that_the_executor_repeats_goes_no_further(stub: StubExecutor, transport: Transports) -> None:
    stub.answers.append((401, {"message": "Bearer pa55 is unknown"}))
    answer = transport(stub.url, token="pa55").call("GET", "/v1/any")
    assert answer.json() == {"message": "Bearer [token] is unknown"}


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ('a/b"c', '{"message": "a\\/b\\u0022c is unknown"}'),
        ("a<b", '{"message": "a\\u003Cb is unknown"}'),
        ("a\\b", '{"message": "a\\\\b is unknown"}'),
    ],
)
def test_nor_does_a_token_whose_characters_are_escaped(
    stub: StubExecutor, transport: Transports, token: str, words: str
) -> None:
    stub.answers.append((401, words.encode()))
    answer = transport(stub.url, token=token).call("GET", "/v1/any")
    assert answer.json() == {"message": "[token] is unknown"}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"error": "invalid_input", "message": "no such service"}', "no such service"),
        (b'{"error": "invalid request body: EOF"}', "invalid request body: EOF"),
        (b"404 page not found", "404 page not found"),
        (b"", ""),
        (b"[1]", "[1]"),
    ],
)
def test_the_executors_own_words_are_kept(
    stub: StubExecutor, transport: Transports, body: bytes, told: str
) -> None:
    stub.answers.append((404, body))
    error: ExecutorClientError = transport(stub.url).call("GET", "/v1/any").error()
    assert error.args[1:] == (404, told, None)


DRIPS = {
    "in the status line": (b"HTTP/1.1 200 ", b"O"),
    "in interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "in the headers": (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
    "in the body": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"),
    "in chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "in the trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Long: ", b"x"),
}


@pytest.mark.parametrize(("begin", "drop"), DRIPS.values(), ids=DRIPS)
def test_an_answer_that_drips_is_given_up_when_its_time_is_over(
    transport: Transports, begin: bytes, drop: bytes
) -> None:
    with RawServer(begin, drip=drop) as server:
        began = time.monotonic()
        with pytest.raises(ExecutorTimeoutError):
            transport(server.url, read_timeout_sec=0.5).call("GET", "/v1/any")
        assert 0.5 <= time.monotonic() - began < GIVEN_UP_WITHIN_S
        assert server.drops > 1


def test_a_proxy_that_drips_is_given_up_when_the_time_to_connect_is_over(
    transport: Transports, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(b"HTTP/1.1 200 OK\r\nX-Long: ", drip=b"x") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        tunnel = transport(
            "https://executor.invalid", proxies_from_environment=True, connection_timeout_sec=0.5
        )
        began = time.monotonic()
        with pytest.raises(ExecutorTimeoutError):
            tunnel.call("GET", "/v1/any")
        assert 0.5 <= time.monotonic() - began < GIVEN_UP_WITHIN_S
        assert proxy.drops > 1


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: -2",
        b"Content-Length: +2",
        b"Content-Length: 2, 2",
        b"Content-Length: 2\r\nContent-Length: 3",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: identity",
    ],
)
def test_an_answer_whose_end_is_not_clear_is_a_broken_connection(
    transport: Transports, framing: bytes
) -> None:
    with RawServer(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n{}") as server:
        assert reason(transport(server.url)) == "broken"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-More: y\r\n" * 1_000),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"y" * 10_000),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000),
        (CHUNKED + b"0\r\n", b"X-More: y\r\n" * 1_000),
        (CHUNKED + b"0\r\nX-Long: ", b"y" * 10_000),
        (CHUNKED + b"-1\r\n", b"y" * 10_000),
        (CHUNKED + b"-5\r\n", b"y" * 10_000),
    ],
)
def test_bytes_without_end_around_an_answer_break_the_connection(
    transport: Transports, answer: bytes, drop: bytes
) -> None:
    with RawServer(answer + drop * 20, drip=drop) as server:
        assert reason(transport(server.url, max_response_bytes=1_000)) == "broken"


def test_an_answer_in_very_many_pieces_is_refused(transport: Transports) -> None:
    answer = CHUNKED + b"5\r\n12345\r\n" * 100_001 + b"0\r\n\r\n"
    with RawServer(answer) as server, pytest.raises(ExecutorProtocolError, match="more than 100,000 pieces"):
        transport(server.url).call("GET", "/v1/any")


@pytest.mark.parametrize("status", [200, 302])
def test_an_encoded_answer_is_refused_unread(transport: Transports, status: int) -> None:
    body = gzip.compress(b" " * 1_000_000)
    head = f"HTTP/1.1 {status} OK\r\nLocation: /\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}"
    answer = head.encode() + b"\r\n\r\n" + body[:10]
    with RawServer(answer, drip=b"\x00") as server, pytest.raises(ExecutorProtocolError, match="is encoded"):
        transport(server.url, read_timeout_sec=60).call("GET", "/v1/any")


def test_each_answer_on_a_kept_connection_has_its_whole_time(
    stub: StubExecutor, transport: Transports
) -> None:
    kept = transport(stub.url, read_timeout_sec=0.2)
    began = time.monotonic()
    while time.monotonic() - began < 0.3:
        assert kept.call("GET", "/v1/health").ok


@pytest.mark.parametrize(
    ("headers", "asked_s"),
    [
        ("Retry-After: 7", 7.0),
        ("Retry-After: 99999999999", 86_400.0),
        ("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:50:07 GMT", 30.0),
        ("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:00:00 GMT", 0.0),
        ("Retry-After: soon", None),
        (f"Retry-After: {'9' * 400}", 86_400.0),
        ("Retry-After: 1e308", None),
        ("Retry-After: Fri, 31 Dec 9999 23:59:59 -2359", 86_400.0),
        (f"Retry-After: Fri, 31 Dec {'9' * 10} 23:59:59 GMT", None),
        (f"Retry-After: Fri, 31 Dec {'9' * 5_000} 23:59:59 GMT", None),
        (f"Date: Fri, 31 Dec {'9' * 10} 23:59:59 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:50:07 GMT", None),
        ("Retry-After: Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
        ("Retry-After: Sun, 06 Nov 1994 08:50:07 +9999999999999", None),
        ("Retry-After: \u00b2", None),
        ("Retry-After: -1", None),
        ("Retry-After: 1e3", None),
        ("X-Other: 7", None),
    ],
)
def test_how_long_the_executor_asks_to_be_left_alone_is_understood_or_passed_over(
    transport: Transports, headers: str, asked_s: float | None
) -> None:
    answer = f"HTTP/1.1 503 Service Unavailable\r\n{headers}\r\nContent-Length: 0\r\n\r\n"
    with RawServer(answer.encode("latin-1")) as server:
        error = transport(server.url).call("GET", "/v1/any").error()
    assert isinstance(error, ExecutorServerError)
    assert error.retry_after_s == asked_s


def test_a_query_is_sent_and_shown_nowhere(
    transport: Transports, stub: StubExecutor, spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "workers")
    stub.answers.append((200, {}))
    answer = transport(stub.url).call("GET", "/v1/any?key=pa55")
    assert stub.calls[-1] == ("GET", "/v1/any?key=pa55")
    with pytest.raises(ExecutorConnectionError) as unreachable:
        transport("http://127.0.0.1:1").call("GET", "/v1/any?key=pa55")
    logged = [record.getMessage() for record in caplog.records if record.name.startswith("workers")]
    shown = [repr(answer), str(unreachable.value), *logged, *(span.to_json() for span in spans.all())]
    assert len(shown) > 3
    assert all("/v1/any" in text and "pa55" not in text for text in shown)
