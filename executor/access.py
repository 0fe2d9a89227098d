"""Who may use the API: clients with the token, or all programs of this machine."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import socket
import tempfile
from pathlib import Path

__all__ = ["is_loopback", "refuse_an_open_door", "token_of"]

TOKEN_BYTES = 32
HOW_TO_HAVE_ONE = "give --token-file FILE (a file that does not exist is made), or set EXECUTOR_TOKEN"


def token_of(given: str, file: Path | None) -> str | None:
    """The bearer token: what is given in EXECUTOR_TOKEN, or what the file holds. None if there is neither.

    A file that does not exist is made with a random token, for its owner only.

    Raises `ValueError` if both are given or the token is invalid, and `OSError` for the file.
    """
    if file is None:
        return _checked(given, "EXECUTOR_TOKEN") if given else None
    if given:
        raise ValueError("EXECUTOR_TOKEN and --token-file exclude each other: give one of them")
    if not file.exists():
        _make(file)
    return _checked(file.read_text("utf-8", "replace").strip(), str(file))


def refuse_an_open_door(host: str, token: str | None) -> None:
    """Raises `ValueError` if other machines could use the API without a token, and `OSError` for the host."""
    if token is None and not is_loopback(host):
        raise ValueError(f"--host {host} lets in other machines, and no token is set: {HOW_TO_HAVE_ONE}")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there. Raises `OSError` for an unknown name."""
    if not host:  # all addresses
        return False
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, None)}
    except OSError as exc:
        raise OSError(f"{host}: {exc.strerror}") from exc
    return all(ipaddress.ip_address(each).is_loopback for each in found)


def _make(file: Path) -> None:
    """All of it or nothing: a reader never finds half a token. The first of several makers wins."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, new = tempfile.mkstemp(prefix=f"{file.name}.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as made:
            made.write(f"{secrets.token_urlsafe(TOKEN_BYTES)}\n")
        os.link(new, file)
    except FileExistsError:
        pass
    finally:
        Path(new).unlink()


def _checked(token: str, where: str) -> str:
    if not re.fullmatch(r"[!-~]+", token):
        raise ValueError(f"{where} holds no token: it must be printable ASCII without spaces")
    return token
