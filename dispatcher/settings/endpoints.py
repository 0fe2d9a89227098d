"""What is set for every server that workers call over HTTP."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_core import core_schema

from dispatcher.limits import MAX_SECONDS
from dispatcher.settings.urls import split_url
from dispatcher.settings.validation import no_switch, outermost

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

__all__ = ["Endpoint", "Float", "Int", "Seconds", "Section"]

Int = Annotated[int, BeforeValidator(no_switch)]
Float = Annotated[float, BeforeValidator(no_switch)]
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False), BeforeValidator(no_switch)]

VISIBLE = r"[!-~]*"
"""What a token consists of: visible ASCII."""


class Section(BaseModel):
    """A part of the settings.

    Raises `InvalidSettingsError`, which names every wrong field and shows no value, however it is made.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """See pydantic. `outermost` comes around all other validators, those of derived classes included."""
        return core_schema.no_info_wrap_validator_function(outermost, handler(source))


class Endpoint(Section):
    """A server that workers call over HTTP, and how far it is trusted."""

    base_url: str | None = None
    """`http://host:port`"""

    token: SecretStr | None = None
    """Sent as a bearer token."""

    token_file: Path | None = None
    """A file that holds the token, instead of `token`. It is read once, when a program starts."""

    ca_file: Path | None = None
    """Certificates that the server's may be signed with (PEM), instead of the public ones."""

    client_cert_file: Path | None = None
    """The certificate by which the server knows a worker (PEM)."""

    client_key_file: Path | None = None
    """Its private key, if that is not in the same file."""

    proxies_from_environment: bool = False
    """Whether HTTP_PROXY, HTTPS_PROXY and NO_PROXY apply."""

    connection_timeout_sec: Seconds = 5.0
    """How long connecting may take."""

    read_timeout_sec: Seconds = 30.0
    """What waiting for an answer and reading it may take together."""

    max_response_bytes: Int = Field(default=5_000_000, ge=1_000)
    """A longer answer breaks the contract."""

    @field_validator("base_url")
    @classmethod
    def _is_an_http_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = split_url(value)
        if url.scheme not in {"http", "https"} or not url.hostname:
            raise ValueError("must be a URL such as http://localhost:8000")
        if url.query or url.fragment or "@" in url.netloc:
            raise ValueError("must have no credentials, query or fragment")
        return value.rstrip("/")

    @field_validator("token")
    @classmethod
    def _fits_into_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(VISIBLE, value.get_secret_value()):
            raise ValueError("must be printable ASCII without spaces; does it end with a line break?")
        return value

    @field_validator("ca_file", "client_cert_file", "client_key_file", "token_file")
    @classmethod
    def _is_a_file(cls, value: Path | None) -> Path | None:
        if value is not None and not os.path.isfile(value):  # noqa: PTH113 (`Path` raises if a folder is closed)
            # Without the value: people also write the token or the key itself here.
            raise ValueError("must be the name of a file that this user can reach, and there is no such file")
        return value

    @model_validator(mode="after")
    def _a_key_has_a_certificate(self) -> Self:
        if self.client_key_file and not self.client_cert_file:
            raise ValueError("client_key_file needs client_cert_file")
        return self

    @field_validator("token_file")
    @classmethod
    def _holds_a_token(cls, value: Path | None) -> Path | None:
        if value is not None:
            _token_in(value)
        return value

    @model_validator(mode="after")
    def _token_of_its_file(self) -> Self:
        """Not by assignment, because the model is frozen, and the field would count as set."""
        if self.token_file is not None:
            token = _token_in(self.token_file)
            if self.token not in {None, token}:
                raise ValueError("token and token_file exclude each other")
            self.__dict__["token"] = token
        return self

    @property
    def url(self) -> str:
        """Base URL, without a slash at its end."""
        return self.base_url or ""


def _token_in(file: Path) -> SecretStr:
    """What the file holds, without the line break at its end."""
    try:
        token = file.read_text("utf-8", "replace").strip()
    except OSError as exc:
        raise ValueError(f"cannot be read: {exc.strerror}") from exc
    if not token:
        raise ValueError(f"holds no token: {file} is empty")
    if not re.fullmatch(VISIBLE, token):
        raise ValueError("must be printable ASCII without spaces")
    return SecretStr(token)
