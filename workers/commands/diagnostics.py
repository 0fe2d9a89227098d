"""What `dispatcher doctor` looks at: facts come in, findings go out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from dispatcher.capabilities import NEEDED_BY
from dispatcher.ledger.record import PlanRecord
from workers.breaker.rules import BreakerState
from workers.drivers.contract import same_major

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from dispatcher.errors import RecordUnreadableError
    from workers.breaker.shared import BreakerStatus

__all__ = [
    "LATE_S",
    "Finding",
    "Level",
    "breaker",
    "capabilities",
    "clock",
    "contract",
    "fsync",
    "in_doubt",
    "latency",
    "overdue",
    "redis_server",
    "worker_fleet",
]

OLDEST_REDIS = (6, 2)
LEAST_HEADROOM = 0.2
MOST_SKEW_S = 1.0
SLOW_MS = 5.0
VERY_SLOW_MS = 50.0
LATE_S = 5.0
MOST_NAMED = 5


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    level: Level
    message: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.level:<8} {self.what}: {self.message}" + (f". {self.fix}" if self.fix else "")


def redis_server(info: Mapping[str, Any]) -> list[Finding]:
    """Version, persistence, eviction, memory and clients, by Redis's own `INFO`."""
    found = [_version(info), _persistence(info), _eviction(info), _memory(info)]
    return [*found, *_evicted(info), *_clients(info)]


def _version(info: Mapping[str, Any]) -> Finding:
    if "valkey_version" in info:  # whose `redis_version` is that of the last Redis that it is compatible with
        return Finding("redis version", Level.OK, f"Valkey {info['valkey_version']}")
    version = str(info.get("redis_version", "unknown"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST_REDIS:
        wanted = ".".join(map(str, OLDEST_REDIS))
        return Finding("redis version", Level.ERROR, version, f"Use Redis {wanted} or newer")
    return Finding("redis version", Level.OK, version)


def _persistence(info: Mapping[str, Any]) -> Finding:
    if info.get("aof_last_write_status", "ok") != "ok" or info.get("rdb_last_bgsave_status", "ok") != "ok":
        fix = "See its log, and whether its disk is full: what it has not written is lost when it restarts"
        return Finding("redis persistence", Level.ERROR, "the last write to its disk failed", fix)
    if info.get("aof_enabled"):
        return Finding("redis persistence", Level.OK, "append-only file")
    fix = "Set appendonly yes, or plans are lost when Redis restarts"
    return Finding("redis persistence", Level.WARNING, "no append-only file", fix)


def _eviction(info: Mapping[str, Any]) -> Finding:
    policy = str(info.get("maxmemory_policy", "unknown"))
    if policy == "noeviction":
        return Finding("redis eviction", Level.OK, policy)
    fix = "Set maxmemory-policy noeviction, or plans vanish when memory runs short"
    return Finding("redis eviction", Level.ERROR, policy, fix)


def _memory(info: Mapping[str, Any]) -> Finding:
    used = int(info.get("used_memory", 0))
    limit = int(info.get("maxmemory", 0)) or int(info.get("total_system_memory", 0))
    message = f"{used / 1e6:.0f} MB of {limit / 1e6:.0f} MB used"
    if limit and used > limit * (1 - LEAST_HEADROOM):
        fix = "Give Redis more memory, or keep results for a shorter time (result_expires_sec)"
        return Finding("redis memory", Level.WARNING, message, fix)
    return Finding("redis memory", Level.OK, message)


def _evicted(info: Mapping[str, Any]) -> Iterator[Finding]:
    evicted = int(info.get("evicted_keys", 0))
    if evicted:
        fix = "Plans may be among them. Set maxmemory-policy noeviction, and give Redis more memory"
        yield Finding("redis evictions", Level.ERROR, f"{evicted} keys since it started", fix)


def _clients(info: Mapping[str, Any]) -> Iterator[Finding]:
    connected, most = int(info.get("connected_clients", 0)), int(info.get("maxclients", 0))
    if most and connected > most * (1 - LEAST_HEADROOM):
        message = f"{connected} of at most {most} are connected"
        yield Finding("redis clients", Level.WARNING, message, "Raise maxclients, or start fewer processes")


def fsync(policy: str | None) -> Iterator[Finding]:
    """How often Redis has its append-only file written to the disk. None: it does not say."""
    if policy == "no":
        fix = "Set appendfsync everysec, or up to 30 s of plans are lost when the machine fails"
        yield Finding("redis fsync", Level.WARNING, "left to the operating system", fix)


def clock(ahead_s: float) -> Finding:
    """By how much this machine's clock is ahead of the Redis server's, in seconds."""
    message = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s >= 0 else 'behind'} the Redis server"
    if abs(ahead_s) > MOST_SKEW_S:
        fix = "A plan's start_time is by the server's clock: keep both in step (NTP)"
        return Finding("clock", Level.WARNING, message, fix)
    return Finding("clock", Level.OK, message)


def latency(round_trip_ms: float) -> Finding:
    """How long one Redis command takes, in milliseconds."""
    message = f"{round_trip_ms:.1f} ms a round trip"
    if round_trip_ms > SLOW_MS:
        level = Level.ERROR if round_trip_ms > VERY_SLOW_MS else Level.WARNING
        return Finding("redis latency", level, message, "Run workers nearer to Redis: a step takes several")
    return Finding("redis latency", Level.OK, message)


def contract(executor: str, message: str | None, spoken: str) -> Finding:
    """The version of the contract that an Executor says it keeps, and the one that its driver knows."""
    what, conformance = f"contract of {executor}", "dispatcher conformance URL checks it"
    if message is None:
        return Finding(what, Level.OK, f"names no contract version; {conformance}")
    if same_major(message, spoken):
        return Finding(what, Level.OK, f"version {message}, and the driver's is {spoken}")
    fix = f"Bring it and this fleet to the same major version; {conformance}"
    return Finding(what, Level.WARNING, f"version {message!r}, but the driver's is {spoken}", fix)


def capabilities(
    executor: str, said: Collection[str], declared: Collection[str] | None, supports: Collection[str]
) -> Finding:
    """What an Executor can do beyond the basics: as it says, or as the settings declare."""
    what = f"capabilities of {executor}"
    missing = sorted(str(each) for each in set(declared or ()) - set(said))
    if missing:
        message = f"the settings declare {', '.join(missing)}, and the Executor does not say so itself"
        fix = "Make sure that it can, or remove it from capabilities: a fault could hit real users"
        return Finding(what, Level.WARNING, message, fix)
    can = set(said if declared is None else declared)
    listed = ", ".join(sorted(str(each) for each in can)) or "none"
    refused = [NEEDED_BY[each] for each in NEEDED_BY if each not in can & set(supports)]
    rest = f"; plans with {' or '.join(refused)} are refused" if refused else ""
    return Finding(what, Level.OK, f"{listed}{rest}")


def overdue(late_s: float | None, in_flight: int) -> Finding:
    """For how long the plan that waits most for a worker has been due. None: there is none."""
    if late_s is None or late_s <= LATE_S:
        return Finding("plans", Level.OK, f"{in_flight} in flight, none of them late")
    message = f"{in_flight} in flight, one of them due for {late_s:.0f} s"
    return Finding("plans", Level.ERROR, message, "Start workers, or more of them")


def breaker(status: BreakerStatus) -> Finding:
    """A circuit breaker that lets no calls through, or all."""
    what, state = f"breaker of {status.executor}", status.state.replace("_", " ")
    if status.state is BreakerState.CLOSED:
        return Finding(what, Level.OK, state)
    close = f"dispatcher breaker close --executor {status.executor}"
    if status.by_hand:
        return Finding(what, Level.WARNING, f"{state} by hand: {status.reason}", close)
    level = Level.ERROR if status.state is BreakerState.OPEN else Level.WARNING
    fix = f"Read the log of that Executor. Once it is well, the breaker closes by itself, or: {close}"
    return Finding(what, level, f"{state}: {status.reason}", fix)


def in_doubt(plans: Sequence[PlanRecord | RecordUnreadableError | None]) -> Finding:
    """The faults of ended plans of which it is unknown whether they are over."""
    records = [plan for plan in plans if isinstance(plan, PlanRecord)]
    if not records:
        return Finding("faults in doubt", Level.OK, "none")
    named = "; ".join(
        f"{each.plan.service} {each.plan.api} since plan {each.id} ({each.doubt})"
        for each in records[:MOST_NAMED]
    )
    more = f" and {len(records) - MOST_NAMED} more" if len(records) > MOST_NAMED else ""
    fix = "Look at the targets. If they are well: dispatcher release SERVICE PATH --reason TEXT"
    return Finding("faults in doubt", Level.ERROR, f"{named}{more}", fix)


def worker_fleet(
    replies: Mapping[str, Mapping[str, Any]], queue: str, own_version: str, waiting: int = 0
) -> list[Finding]:
    """What the workers say of themselves: version, queues, executors. `waiting` plans are queued."""
    if not replies:
        plans = "1 plan waits" if waiting == 1 else f"{waiting} plans wait"
        none = f"none answers, and {plans} for one" if waiting else "none answers"
        return [Finding("workers", Level.ERROR, none, "Start one: dispatcher worker")]
    findings = []
    for name, message in sorted(replies.items()):
        version, queues = str(message.get("version")), [str(each) for each in message.get("queues", [])]
        said = f"version {version}, queue {', '.join(queues)}"
        if queue not in queues:
            fix = f"It receives no messages from {queue}: give it the same settings"
            findings.append(Finding(f"worker {name}", Level.ERROR, said, fix))
        elif version != own_version:
            fix = f"This is version {own_version}: bring both to the same one"
            findings.append(Finding(f"worker {name}", Level.WARNING, said, fix))
        else:
            findings.append(Finding(f"worker {name}", Level.OK, said))
    return findings
