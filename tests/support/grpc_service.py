"""A gRPC service without generated code, and a client of it that never stops calling."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import grpc

SERVICE = "pkg.Service"
METHODS = ("Method", "Other")


class GrpcService:
    """Each method answers with what it got."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(4)
        self._server = grpc.server(self._pool)
        echo: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
            lambda request, _: request
        )
        handlers = dict.fromkeys(METHODS, echo)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.stop(None).wait()
        self._pool.shutdown()


class GrpcCalls:
    """Calls each method in turn, one call after the other, through a proxy."""

    def __init__(self, proxy: str, authority: str) -> None:
        """`authority` is what the proxy knows the service by."""
        options = [("grpc.default_authority", authority)]
        self._channel = grpc.insecure_channel(proxy.removeprefix("http://"), options)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._call_on)
        self.codes: dict[str, Counter[grpc.StatusCode]] = {method: Counter() for method in METHODS}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()
        self._channel.close()

    def errors(self, method: str) -> set[grpc.StatusCode]:
        """What its calls got, except success."""
        return {code for code in list(self.codes[method]) if code is not grpc.StatusCode.OK}

    def _call_on(self) -> None:
        calls: dict[str, grpc.UnaryUnaryMultiCallable[bytes, bytes]]
        calls = {method: self._channel.unary_unary(f"/{SERVICE}/{method}") for method in METHODS}
        while not self._over.is_set():
            for method, call in calls.items():
                self.codes[method][self._code(call)] += 1

    def _code(self, call: grpc.UnaryUnaryMultiCallable[bytes, bytes]) -> grpc.StatusCode:
        answered = call.future(b"ping", timeout=30)
        code = answered.code()  # it waits
        assert code != grpc.StatusCode.OK or answered.result() == b"ping"
        return code
