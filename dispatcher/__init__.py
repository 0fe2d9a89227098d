"""Submit fault plans, and get what was observed. See `Dispatcher`.

All names except the errors are imported with their first use: a program loads only what it needs.
"""

from typing import TYPE_CHECKING

from dispatcher.errors import (
    CapabilityMissingError,
    CircuitOpenError,
    DispatcherClosedError,
    DispatchHaltedError,
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorProtocolError,
    ExecutorRejectedError,
    ExecutorServerError,
    ExecutorTimeoutError,
    ExtraMissingError,
    FaultFailedError,
    FaultInDoubtError,
    FaultLostError,
    FaultUnobservedError,
    InvalidPlanError,
    InvalidSettingsError,
    LedgerRefusedError,
    LedgerUnavailableError,
    MetricsNotReadyError,
    PartlySubmittedError,
    PlanCancelledError,
    PlanConflictError,
    PlanExpiredError,
    PlanUnknownError,
    RecordUnreadableError,
    ResultTimeoutError,
)
from dispatcher.lazy import lazy_names as _lazy_names

if TYPE_CHECKING:
    from dispatcher.capabilities import Capability
    from dispatcher.client import Dispatcher
    from dispatcher.effects import Effect, effect_of, wilson_interval
    from dispatcher.handles import PlanHandle
    from dispatcher.history import Filters, HistoryPage
    from dispatcher.interface import ExecutorClient
    from dispatcher.models import (
        ActiveFault,
        ConflictPolicy,
        FaultPlan,
        FaultType,
        Health,
        PlanState,
        PlanStatus,
    )
    from dispatcher.observations import Doubt, Figures, RawObservation
    from dispatcher.plan_batch import PlanBatch
    from dispatcher.protocols import Protocol
    from dispatcher.settings.executors import ExecutorClientConfig, OnDoubt, OnOpen, RetryStrategy
    from dispatcher.settings.settings import Settings, load_settings
    from dispatcher.telemetry.metrics import ExecutorClientMetrics

__all__ = [
    "ActiveFault",
    "Capability",
    "CapabilityMissingError",
    "CircuitOpenError",
    "ConflictPolicy",
    "DispatchHaltedError",
    "Dispatcher",
    "DispatcherClosedError",
    "Doubt",
    "Effect",
    "ExecutorClient",
    "ExecutorClientConfig",
    "ExecutorClientError",
    "ExecutorClientMetrics",
    "ExecutorConnectionError",
    "ExecutorProtocolError",
    "ExecutorRejectedError",
    "ExecutorServerError",
    "ExecutorTimeoutError",
    "ExtraMissingError",
    "FaultFailedError",
    "FaultInDoubtError",
    "FaultLostError",
    "FaultPlan",
    "FaultType",
    "FaultUnobservedError",
    "Figures",
    "Filters",
    "Health",
    "HistoryPage",
    "InvalidPlanError",
    "InvalidSettingsError",
    "LedgerRefusedError",
    "LedgerUnavailableError",
    "MetricsNotReadyError",
    "OnDoubt",
    "OnOpen",
    "PartlySubmittedError",
    "PlanBatch",
    "PlanCancelledError",
    "PlanConflictError",
    "PlanExpiredError",
    "PlanHandle",
    "PlanState",
    "PlanStatus",
    "PlanUnknownError",
    "Protocol",
    "RawObservation",
    "RecordUnreadableError",
    "ResultTimeoutError",
    "RetryStrategy",
    "Settings",
    "effect_of",
    "load_settings",
    "wilson_interval",
]

if not TYPE_CHECKING:  # type checkers would take any name for one that exists
    __getattr__, __dir__ = _lazy_names(
        __name__,
        {
            "capabilities": ("Capability",),
            "client": ("Dispatcher",),
            "effects": ("Effect", "effect_of", "wilson_interval"),
            "handles": ("PlanHandle",),
            "history": ("Filters", "HistoryPage"),
            "interface": ("ExecutorClient",),
            "models": (
                "ActiveFault",
                "ConflictPolicy",
                "FaultPlan",
                "FaultType",
                "Health",
                "PlanState",
                "PlanStatus",
            ),
            "observations": ("Doubt", "Figures", "RawObservation"),
            "plan_batch": ("PlanBatch",),
            "protocols": ("Protocol",),
            "settings.executors": ("ExecutorClientConfig", "OnDoubt", "OnOpen", "RetryStrategy"),
            "settings.settings": ("Settings", "load_settings"),
            "telemetry.metrics": ("ExecutorClientMetrics",),
        },
    )
