"""The page in a browser, as a reviewer uses it: by keys and by clicks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from made_result import Served

from mfmc_ray.review import session as sessions
from mfmc_ray.review.decisions import APPROVE, REDACT, RESWAP, Reviews

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 20_000  # ms


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser is installed ({', '.join(BROWSERS)})")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(SECONDS)
    page.said = []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.goto(served.server.url)
    page.wait_for_selector("#list li[aria-selected=true]")
    yield page
    page.close()


def last(served: Served, number: int) -> str | None:
    face = served.session.queue.items[number].face
    row = Reviews.load(served.work).last(face["image_id"], face["face_no"], face["box"])
    return row and row.decision


def shows(page: Any, selector: str, text: str) -> None:
    """Waits until an element says so; the page allows no scripts from elsewhere, those of tests neither."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_contain_text(text, timeout=SECONDS)


def test_faces_are_decided_about_by_keys(page: Any, served: Served) -> None:
    assert page.inner_text("#left") == "80 of 80 left"
    assert "original faces are shown" in page.inner_text("header")
    assert page.locator("#after").evaluate("img => img.decode().then(() => img.naturalWidth)") == 360
    for key in ("a", "r", "ArrowDown", "s", "j", "k", "ArrowRight"):
        page.keyboard.press(key)
    shows(page, "#left", "77 of 80 left")
    assert [last(served, n) for n in range(5)] == [APPROVE, REDACT, None, RESWAP, None]
    page.wait_for_selector("#item-5[aria-selected=true]")
    assert page.get_attribute("#item-1", "data-decision") == REDACT
    assert "2 decided, waiting for the next run" in page.inner_text("header")
    page.keyboard.press("u")
    page.wait_for_selector("#item-3[aria-selected=true]")
    assert last(served, 3) is None
    page.keyboard.press("u")
    page.keyboard.press("u")
    page.keyboard.press("u")  # there is none left
    page.wait_for_selector("#item-0[aria-selected=true]")
    shows(page, "#said", "Undone. 80 left.")
    assert page.is_disabled("#undo")
    assert len(Reviews.load(served.work)) == 0
    page.keyboard.press("Control+a")  # is the browser's
    page.keyboard.down("r")
    for _ in range(3):
        page.keyboard.down("r")  # held down, it repeats
    page.keyboard.up("r")
    shows(page, "#left", "79 of 80 left")
    assert len(Reviews.load(served.work)) == 1
    assert not [text for text in page.said if "404" not in text]  # one original is not there


def test_faces_are_decided_about_by_clicks_and_more_are_loaded(page: Any, served: Served) -> None:
    page.click("#item-4")
    page.click("#redact")
    page.wait_for_selector("#item-5[aria-selected=true]")
    assert last(served, 4) == REDACT
    assert page.locator("#list li").count() == 40
    page.evaluate("document.getElementById('list').scrollTo(0, 1e6)")
    page.wait_for_selector("#list li:nth-child(80)")
    page.click("nav button[data-kind=covered]")
    page.wait_for_selector("#list li:nth-child(9):last-child")
    page.wait_for_selector("#item-0[aria-selected=true]")
    assert page.is_disabled("#reswap")
    assert page.get_attribute("nav button[data-kind=covered]", "aria-pressed") == "true"
    number = next(n for n, item in enumerate(served.session.queue.items) if item.face["path"] == "005.jpg")
    page.click("nav button[data-kind=all]")
    page.click(f"#item-{number}")
    page.wait_for_selector("div.face.gone")  # its original is not there
    assert page.inner_text("div.face.gone").startswith("the original is not there")
    assert page.evaluate("document.querySelector('[aria-activedescendant]').getAttribute('aria-activedescendant')") == f"item-{number}"


def test_a_result_that_has_changed_is_said(page: Any, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "FRESH_SECONDS", 0.0)
    served.fresh = False
    page.keyboard.press("a")
    shows(page, "#error", "The result has changed since this page was opened")
    assert len(Reviews.load(served.work)) == 0
