"""Flower in a real browser: what an operator sees of plans, and what others do not."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import sync_playwright
from support.eventually import eventually
from support.flower import Flower
from support.plans import abort_plan
from support.programs import program

from dispatcher import ExecutorRejectedError, PlanCancelledError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page
    from support.processes import Process, Workers
    from support.stub_executor import StubExecutor

    from dispatcher import Dispatcher

WIDE = {"width": 1500, "height": 640}


@pytest.fixture
def worker(start: Workers, stub: StubExecutor) -> Process:
    delays = {
        "DISPATCHER_EXECUTORS__DEFAULT__INITIAL_RETRY_DELAY_SEC": "20",  # there is time to look at what waits
        "DISPATCHER_EXECUTORS__DEFAULT__MAX_RETRY_DELAY_SEC": "20",
        "DISPATCHER_EXECUTORS__DEFAULT__RETRY_JITTER": "0",
    }
    return start(stub.url, "--task-events", **delays)


@pytest.fixture
def flower(worker: Process, redis_url: str, tmp_path: Path) -> Iterator[Flower]:
    environment = {"DISPATCHER_REDIS_URL": redis_url, "FLOWER_BASIC_AUTH": "operator:pa55"}
    with Flower(tmp_path / "flower.log", environment) as flower:
        yield flower


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = program("chromium", "chromium-browser", "google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def logged_in(browser: Browser, flower: Flower) -> Page:
    user, password = flower.login
    login = {"username": user, "password": password}
    context = browser.new_context(http_credentials=login, viewport=WIDE)  # type: ignore[arg-type]
    return context.new_page()


def row(page: Page, plan_id: str) -> str:
    """What the list of tasks says of the plan."""
    rows = page.locator("#tasks-table tbody tr", has=page.get_by_text(plan_id))
    rows.first.wait_for(timeout=10_000)
    assert rows.count() == 1
    return rows.first.inner_text()


def test_an_operator_finds_a_plan_opens_it_and_sees_fault_and_observation(
    browser: Browser, flower: Flower, dispatcher: Dispatcher, stub: StubExecutor
) -> None:
    plan = abort_plan()
    good = dispatcher.submit(plan, plan_id="good-plan")
    good.result(60)
    stub.answers.append((400, {"message": "no such api"}))
    bad = dispatcher.submit(abort_plan(api="/other"), plan_id="bad-plan")
    with pytest.raises(ExecutorRejectedError):
        bad.result(60)
    ends = {good.id: "SUCCESS", bad.id: "FAILURE"}
    eventually(lambda: {name: task["state"] for name, task in flower.tasks().items()} == ends)
    page = logged_in(browser, flower)
    page.goto(f"{flower.url}/tasks")
    listed = row(page, good.id)
    assert "SUCCESS" in listed
    assert str(plan) in listed
    assert "FAILURE" in row(page, bad.id)
    page.get_by_role("link", name=good.id).click()
    page.wait_for_url(f"**/task/{good.id}")
    opened = page.locator("body").inner_text()
    assert str(plan) in opened
    assert "'error_rate': 1.0" in opened
    page.goto(f"{flower.url}/task/{bad.id}")
    failed = page.locator("body").inner_text()
    assert "ExecutorRejectedError" in failed
    assert "no such api" in failed


def test_a_retry_is_seen_with_its_cause(
    browser: Browser, flower: Flower, dispatcher: Dispatcher, stub: StubExecutor
) -> None:
    stub.answers.append((503, {"message": "not yet"}))
    handle = dispatcher.submit(abort_plan(), plan_id="again-plan")
    eventually(lambda: flower.tasks().get(handle.id, {}).get("state") == "RETRY")
    page = logged_in(browser, flower)
    page.goto(f"{flower.url}/task/{handle.id}")
    seen = page.locator("body").inner_text()
    assert "RETRY" in seen
    assert "not yet" in seen
    handle.cancel()
    with pytest.raises(PlanCancelledError):
        handle.result(60)


def test_without_the_password_no_page_shows_anything(
    browser: Browser, flower: Flower, dispatcher: Dispatcher
) -> None:
    dispatcher.submit(abort_plan(), plan_id="good-plan").result(60)
    for path in ("", "tasks", "workers", "broker", "task/good-plan", "api/tasks"):
        assert_closed(browser, flower, path)


def assert_closed(browser: Browser, flower: Flower, path: str) -> None:
    page = browser.new_context().new_page()
    with contextlib.suppress(PlaywrightError):  # the browser shows a dialog instead of a page
        page.goto(f"{flower.url}/{path}")
    shown = page.locator("body").inner_text()
    assert "good-plan" not in shown
    assert "PaymentService" not in shown
    answer = page.request.get(f"{flower.url}/{path}")
    assert answer.status == 401
    assert "plan" not in answer.text().lower()
