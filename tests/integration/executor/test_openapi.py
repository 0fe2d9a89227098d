"""The Executor's contract as a document: it is the application's own, and the application keeps it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from executor.contract import CONTRACT
from executor.openapi import document
from executor.sample_service import SAMPLE_SERVICES
from workers.drivers.contract import SPOKEN

if TYPE_CHECKING:
    from support.processes import ExecutorProcess

EXPECTED = """\
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "404", "409", "422"]  # 422: a used key
use_after_free.enabled = false  # a fault that was stopped is still known
ensure_resource_availability.enabled = false  # a policy ends by itself, or is replaced
"""
COMMITTED = Path(__file__).parents[3] / "executor" / "openapi.yaml"


def test_the_committed_document_is_the_applications_own() -> None:
    assert COMMITTED.read_text("utf-8") == document(), "run `make docs`"


def test_its_version_is_the_one_in_the_health_answer_and_in_drivers() -> None:
    described: dict[str, Any] = yaml.safe_load(document())
    assert described["info"]["version"].startswith(f"{CONTRACT}.")
    assert described["components"]["schemas"]["Health"]["properties"]["contract"]["default"] == CONTRACT
    assert CONTRACT == SPOKEN


def test_every_operation_and_field_of_the_specification_is_there() -> None:
    described: dict[str, Any] = yaml.safe_load(document())
    operations = {(method, path) for path, each in described["paths"].items() for method in each}
    assert {
        ("get", "/v1/faults"),
        ("post", "/v1/faults/apply"),
        ("post", "/v1/faults/stop-all"),
        ("get", "/v1/faults/{apply_id}/status"),
        ("get", "/v1/faults/{apply_id}/metrics"),
        ("delete", "/v1/faults/{apply_id}"),
        ("get", "/v1/health"),
        ("post", "/v1/policies"),
        ("get", "/v1/policies"),
        ("get", "/v1/policies/{name}"),
        ("delete", "/v1/policies/{name}"),
    } == operations
    schemas = described["components"]["schemas"]
    fields = {name: set(each.get("properties", {})) for name, each in schemas.items()}
    assert fields["FaultApply"] == {
        "service",
        "api",
        "fault_type",
        "percentage",
        "duration_seconds",
        "fault_config",
        "protocol",
        "headers",
    }
    assert fields["FaultConfig"] == {"delay_ms", "http_status", "grpc_status", "start_delay_ms"}
    assert fields["Health"] == {"status", "contract", "capabilities"}
    assert fields["FaultApplied"] == {"apply_id", "status", "message"}
    assert fields["FaultStatus"] == {"apply_id", "status", "start_time", "end_time", "error_msg", "doubt"}
    counts = {"success_count", "error_count", "requests", "faulted", "unanswered", "unfinished"}
    latencies = {f"latency_{what}_ms" for what in ("sd", "p50", "p95", "p99")}
    observed = {"apply_id", "status_code", "latency_ms", "error_rate", "trace_data", "logs"}
    assert fields["FaultMetrics"] == observed | counts | latencies | {"start_time", "end_time", "doubt"}
    assert fields["ListedFault"] == {"apply_id", "key", "service", "api", "status", "start_time"}


@pytest.mark.lasts_long
def test_schemathesis_finds_nothing_wrong(executor: ExecutorProcess, tmp_path: Path) -> None:
    described: dict[str, Any] = yaml.safe_load(document())
    for schema in ("FaultApply", "Selector"):  # or hardly any request would get past an unknown service
        described["components"]["schemas"][schema]["properties"]["service"]["enum"] = list(SAMPLE_SERVICES)
    [headers, _] = described["components"]["schemas"]["Match"]["properties"]["headers"]["anyOf"]
    headers["maxItems"] = 1  # no schema can say that their names must differ
    for parameter in described["paths"]["/v1/faults/apply"]["post"]["parameters"]:
        if parameter["name"] == "not-after":  # or hardly any apply would be in time
            parameter["schema"]["enum"] = ["2999-12-31T23:59:59.999Z"]
    contract = tmp_path / "openapi.yaml"
    contract.write_text(yaml.safe_dump(described))
    (tmp_path / "schemathesis.toml").write_text(EXPECTED)
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", str(contract), "--url", executor.url]
    options = ["--max-examples", "10", "--seed", "1", "--no-color", "--generation-deterministic"]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=240
    )
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-1_000:]
    assert "No issues found" in done.stdout, done.stdout[-5_000:]
