"""The certificates that a transport trusts and shows."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, NoReturn

from dispatcher.errors import InvalidSettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dispatcher.settings.executors import Endpoint

__all__ = ["check_certificates"]


def check_certificates(config: Endpoint) -> None:
    """Read the files once, so that a wrong one is known before the first call.

    Raises `InvalidSettingsError`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if config.ca_file:
        _read("ca_file", config.ca_file, lambda: context.load_verify_locations(config.ca_file))
    if config.client_cert_file:
        pair = (config.client_cert_file, config.client_key_file)
        _read("client_cert_file", pair[0], lambda: context.load_cert_chain(*pair, _no_password))


def _read(field: str, path: Path, read: Callable[[], None]) -> None:
    try:
        read()
    except (OSError, ValueError) as exc:  # an SSLError is an OSError
        problem = f"cannot be used: {path}: {exc}"
        raise InvalidSettingsError(f"invalid settings: {field} {problem}", [[field, problem]]) from exc


def _no_password() -> NoReturn:
    """OpenSSL would ask for it at the terminal."""
    raise ValueError("the private key is encrypted, and workers have no password for it")
