"""Lua scripts, several in one round trip, even if Redis has not loaded the scripts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Self

from redis.exceptions import NoScriptError

from dispatcher.ledger.connection import replies_of
from dispatcher.ledger.exchanges import Exchange, Send, carry_out, exchanging

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import redis

__all__ = ["Call", "Script", "Scripts", "calling", "trying"]


MOST_LOADS = 5
"""How often in a row scripts are loaded for one round trip."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the name under which Redis remembers it."""

    text: str
    sha: str

    @classmethod
    def of(cls, package: str, *parts: str) -> Self:
        """The script whose parts are files in the package's folder `lua`, in this order."""
        folder = resources.files(package) / "lua"
        return cls.with_text("\n".join((folder / f"{part}.lua").read_text("utf-8") for part in parts))

    @classmethod
    def with_text(cls, text: str) -> Self:
        """The script with this text."""
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a script."""

    script: Script
    keys: Sequence[str]
    args: Sequence[str | float]
    on_reply: Callable[[Any], None] | None = None
    """Called with the reply."""

    @property
    def command(self) -> list[str | float]:
        """The command that calls it."""
        return ["EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args]


class Scripts:
    """Carries scripts out, over one client."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def run(self, calls: Sequence[Call]) -> list[Any]:
        """Carry out the calls in one round trip; their replies.

        Raises `redis.RedisError`; if one call fails, all are carried out even so.
        """
        return carry_out(self._client, calling(calls))


def calling(calls: Sequence[Call]) -> Exchange[list[Any]]:
    """`Scripts.run`, apart from the I/O."""
    replies = replies_of((yield from trying(calls)))
    for call, reply in zip(calls, replies, strict=True):
        if call.on_reply is not None:
            call.on_reply(reply)
    return replies


def trying(calls: Sequence[Call]) -> Exchange[list[Any]]:
    """What Redis answers to each call, in one round trip: a reply, or a `redis.ResponseError`.

    Scripts that Redis has lost (it was restarted, or a person flushed them) are loaded, and only the calls
    that missed them are made again. They may be lost between the two, too.
    """
    commands = [each.command for each in calls]
    replies = yield from exchanging(commands)
    for _ in range(MOST_LOADS):
        missed = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if not missed:
            break
        texts = {calls[number].script.text for number in missed}
        replies_of((yield Send([["SCRIPT LOAD", text] for text in texts])))
        again = yield from exchanging([commands[number] for number in missed])
        for number, reply in zip(missed, again, strict=True):
            replies[number] = reply
    return replies
