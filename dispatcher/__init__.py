"""Submit fault plans, and get what was observed. See `Dispatcher`."""

from dispatcher.client import Dispatcher
from dispatcher.endpoints import ExecutorClientConfig, OnOpen, RetryStrategy
from dispatcher.errors import (
    CircuitOpenError,
    DispatchHaltedError,
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorProtocolError,
    ExecutorRejectedError,
    ExecutorServerError,
    ExecutorTimeoutError,
    FaultFailedError,
    FaultLostError,
    InvalidPlanError,
    InvalidSettingsError,
    LedgerUnavailableError,
    PlanCancelledError,
    PlanConflictError,
    PlanExpiredError,
    PlanUnknownError,
    ResultTimeoutError,
)
from dispatcher.executor_client import ExecutorClient
from dispatcher.handles import PlanBatch, PlanHandle
from dispatcher.metrics import ExecutorClientMetrics
from dispatcher.models import (
    ActiveFault,
    ConflictPolicy,
    FaultPlan,
    FaultType,
    Health,
    PlanState,
    PlanStatus,
    RawObservation,
)
from dispatcher.settings import Settings, load_settings

__all__ = [
    "ActiveFault",
    "CircuitOpenError",
    "ConflictPolicy",
    "DispatchHaltedError",
    "Dispatcher",
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
    "FaultLostError",
    "FaultPlan",
    "FaultType",
    "Health",
    "InvalidPlanError",
    "InvalidSettingsError",
    "LedgerUnavailableError",
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
    "ResultTimeoutError",
    "RetryStrategy",
    "Settings",
    "load_settings",
]
