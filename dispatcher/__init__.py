"""Submit fault plans, and get what was observed. See `Dispatcher`."""

from dispatcher.client import Dispatcher, PlanHandle
from dispatcher.errors import (
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
    PlanConflictError,
    PlanExpiredError,
    PlanUnknownError,
    ResultTimeoutError,
)
from dispatcher.models import FaultPlan, FaultType, PlanState, PlanStatus, RawObservation
from dispatcher.settings import ExecutorClientConfig, RetryStrategy, Settings, load_settings

__all__ = [
    "Dispatcher",
    "ExecutorClientConfig",
    "ExecutorClientError",
    "ExecutorConnectionError",
    "ExecutorProtocolError",
    "ExecutorRejectedError",
    "ExecutorServerError",
    "ExecutorTimeoutError",
    "FaultFailedError",
    "FaultLostError",
    "FaultPlan",
    "FaultType",
    "InvalidPlanError",
    "InvalidSettingsError",
    "LedgerUnavailableError",
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
