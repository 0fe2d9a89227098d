"""Submit fault plans, and get what was observed. See `Dispatcher`."""

from dispatcher.client import Dispatcher
from dispatcher.effects import Effect, effect_of, wilson_interval
from dispatcher.errors import (
    CircuitOpenError,
    DispatcherClosedError,
    DispatchHaltedError,
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorProtocolError,
    ExecutorRejectedError,
    ExecutorServerError,
    ExecutorTimeoutError,
    FaultFailedError,
    FaultInDoubtError,
    FaultLostError,
    FaultUnobservedError,
    InvalidPlanError,
    InvalidSettingsError,
    LedgerRefusedError,
    LedgerUnavailableError,
    MetricsNotReadyError,
    PlanCancelledError,
    PlanConflictError,
    PlanExpiredError,
    PlanUnknownError,
    RecordUnreadableError,
    ResultTimeoutError,
)
from dispatcher.handles import PlanHandle
from dispatcher.interface import ExecutorClient
from dispatcher.models import ActiveFault, ConflictPolicy, FaultPlan, FaultType, Health, PlanState, PlanStatus
from dispatcher.observations import Doubt, Figures, RawObservation
from dispatcher.plan_batch import PlanBatch
from dispatcher.settings.executors import ExecutorClientConfig, OnDoubt, OnOpen, RetryStrategy
from dispatcher.settings.settings import Settings, load_settings
from dispatcher.telemetry.metrics import ExecutorClientMetrics

__all__ = [
    "ActiveFault",
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
    "FaultFailedError",
    "FaultInDoubtError",
    "FaultLostError",
    "FaultPlan",
    "FaultType",
    "FaultUnobservedError",
    "Figures",
    "Health",
    "InvalidPlanError",
    "InvalidSettingsError",
    "LedgerRefusedError",
    "LedgerUnavailableError",
    "MetricsNotReadyError",
    "OnDoubt",
    "OnOpen",
    "PlanBatch",
    "PlanCancelledError",
    "PlanConflictError",
    "PlanExpiredError",
    "PlanHandle",
    "PlanState",
    "PlanStatus",
    "PlanUnknownError",
    "RawObservation",
    "RecordUnreadableError",
    "ResultTimeoutError",
    "RetryStrategy",
    "Settings",
    "effect_of",
    "load_settings",
    "wilson_interval",
]
