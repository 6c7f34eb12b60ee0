"""The report in a real browser: nothing fails, nothing leaves the machine, and everything is reached with the keyboard."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.chromium import Browser, chromium
from tests.report.made_run import EVIL, make_run, metrics_of, rollout_row, write_rollouts, write_rows
from tests.report.test_live import serving
from tulu.report import live
from tulu.report.writing import write_report

FIGURES = "document.querySelectorAll('figure.chart').length"
FOUND = "document.getElementById('found').textContent"
CHOSEN = "document.getElementById('list').getAttribute('aria-activedescendant')"
COLOURED = "[...document.querySelectorAll('#detail .tokens span')].filter((one) => one.style.background).length"
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as made:
        yield made


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("reports")
    return write_report([make_run(folder / "demo")], folder / "report.html").as_uri()


@pytest.fixture
def page(browser: Browser, report: str) -> Iterator[Browser]:
    """The report, freshly opened; whatever a test does with it, nothing may fail or leave."""
    browser.begin()
    browser.open(report)
    yield browser
    assert browser.complaints == []
    assert browser.requests == [report]
    assert browser.run("window.attacked") is None


def fill(page: Browser, name: str, value: str) -> None:
    """A field of the filters, as a person fills it."""
    script = f"(() => {{ const field = document.querySelector('#filters [name={name}]'); field.value = {json.dumps(value)};"
    page.run(f"{script} field.dispatchEvent(new Event('input', {{ bubbles: true }})); }})()")


def test_it_opens_with_curves_and_rollouts_and_runs_nothing_that_a_run_wrote(page: Browser) -> None:
    assert page.run(FIGURES) == 20
    assert page.run("document.querySelectorAll('svg[data-chart] path.line').length") == 24
    assert page.run(FOUND) == "192 rollouts of the sample match"
    assert EVIL[:30] in page.run("document.querySelector('#detail .tokens').textContent")
    assert page.run("document.images.length") == 0
    page.run("new Promise((done) => setTimeout(done, 200))")


def test_filters_and_the_list_work_with_the_keyboard(page: Browser) -> None:
    fill(page, "reward_max", "0")
    page.wait(f"{FOUND}.startsWith('96 ')")
    fill(page, "truncated", "no")
    page.wait(f"{FOUND}.startsWith('48 ')")
    page.run("document.getElementById('list').focus()")
    for key, chosen in (("ArrowDown", "row-1"), ("End", "row-39"), ("ArrowUp", "row-38"), ("Home", "row-0")):
        page.press(key)
        page.wait(f"{CHOSEN} === '{chosen}'")
    page.press("PageDown")
    page.wait("document.getElementById('page').textContent === '41 – 48'")
    page.press("PageUp")
    page.wait("document.getElementById('page').textContent === '1 – 40'")
    page.press("Enter")
    assert page.run("document.activeElement.id") == "detail"
    page.run("document.querySelector('#filters button[type=reset]').click()")
    page.wait(f"{FOUND}.startsWith('192 ')")
    fill(page, "masked", "yes")
    page.wait(f"{FOUND}.startsWith('0 ')")


def test_tokens_are_coloured_and_a_group_stands_side_by_side(page: Browser) -> None:
    assert page.run("document.querySelectorAll('#detail .cards article').length") == 4
    assert page.run(COLOURED) == 0
    # Of a row's tokens none is without a version; the second completion has tokens of two.
    for colour, least in (("advantage", 4), ("mismatch", 100), ("version", 5)):
        page.run(f"document.querySelector('#detail input[value={colour}]').click()")
        assert page.run(COLOURED) >= least
        assert page.run("document.getElementById('legend').textContent") != ""
    assert page.run("document.querySelectorAll('#legend span.swatch').length") == 2
    page.run("document.querySelector('#detail input[value=none]').click()")
    assert page.run(COLOURED) == 0


def test_curves_are_smoothed_and_tell_their_values(page: Browser) -> None:
    page.run(
        "(() => { const one = document.getElementById('smoothing'); one.value = 0.5; one.dispatchEvent(new Event('input')); })()"
    )
    assert page.run("document.querySelectorAll('svg path.smooth').length") == 24
    page.run("document.querySelector('figure.chart').focus()")
    page.press("Home")
    assert page.run("document.querySelector('figure.chart .value').textContent") == "step 1: 1"
    page.press("ArrowRight")
    assert page.run("document.getElementById('spoken').textContent") == "loss, step 2: 0.5"
    page.press("Escape")
    assert page.run("document.querySelector('figure.chart .value').textContent") == "0.08333"
    # The exponential mean of 1 and 1/2 at weight 1/2, without the bias of a start at 0.
    assert page.run("smoothed([1, 0.5], 0.5)") == pytest.approx([1.0, (0.25 + 0.25) / 0.75])


@pytest.mark.parametrize("width", [320, 390, 760, 1600])
def test_no_screen_is_too_narrow(page: Browser, width: int) -> None:
    page.size(width)
    assert page.run(WIDER) == 0
    below = "document.getElementById('detail').offsetTop > document.getElementById('list').offsetTop + 100"
    assert page.run(below) is (width <= 760)


def test_dark_screens_are_dark(page: Browser) -> None:
    colour = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"
    page.size(1280)
    assert page.run(colour) > 200
    page.size(1280, dark=True)
    assert page.run(colour) < 60


def test_every_control_has_a_name_and_everything_is_reached(page: Browser) -> None:
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    controls = ("button", "checkbox", "combobox", "link", "listbox", "option", "radio", "slider", "spinbutton")
    found = [(node["role"]["value"], node.get("name", {}).get("value")) for node in nodes if "role" in node]
    assert [role for role, name in found if role in controls and not name] == []
    assert {"slider", "listbox", "radio", "spinbutton"} <= {role for role, _ in found}
    seen = set()
    for _ in range(25):
        page.press("Tab", 9)
        seen.add(
            page.run(
                "document.activeElement.id || document.activeElement.className || document.activeElement.getAttribute('href')"
            )
        )
    assert {"skip", "#rollouts", "smoothing", "chart"} <= seen


def test_two_runs_are_compared(browser: Browser, tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, steps=3, text="x") for name in ("one", "two")]
    browser.begin()
    browser.open(write_report(runs, tmp_path / "both.html").as_uri())
    drawn = "[...document.querySelectorAll('figure.chart')][0].querySelectorAll('path.line:not(.gone)').length"
    assert browser.run(drawn) == 2
    browser.run("document.querySelector('[data-run-toggle=\"1\"]').click()")
    assert browser.run(drawn) == 1
    assert browser.complaints == []


def test_names_are_texts_too(browser: Browser, tmp_path: Path) -> None:
    """Names of stages, metrics, verifiers and rows, in a file and in a live page."""
    evil = "<img src=x onerror=window.attacked=1>'\"`${window.attacked=1}"
    run = make_run(tmp_path / evil / "demo", steps=2)
    rows = [{**rollout_row(3, 0, member), "verifier": evil, "id": evil, "detail": evil} for member in range(2)]
    write_rows(run / "rlvr/rollouts/step-000003.parquet", rows)
    with (run / "rlvr/metrics.jsonl").open("a") as stream:
        stream.write(json.dumps({"step": 3, evil: 1.0, f"solved/{evil}": 1.0}) + "\n")
    (run / "rlvr").rename(run / evil)
    browser.begin()
    with serving(run) as server:
        for address in (write_report([run], tmp_path / "report.html").as_uri(), server.url):
            browser.open(address)
            fill(browser, "verifier", evil)
            browser.wait(f"{FOUND}.startsWith('2 ')")
            assert evil in browser.run("document.getElementById('detail').textContent")
            assert evil in browser.run("document.getElementById('charts').textContent")
            browser.run("new Promise((done) => setTimeout(done, 200))")
            assert browser.run("window.attacked") is None
            assert browser.run("document.images.length") == 0
    assert browser.complaints == []


def test_a_live_page_follows_a_run(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "AGAIN_AFTER", 0.0)
    folder = make_run(tmp_path / "demo", steps=3)
    browser.begin()
    with serving(folder) as server:
        browser.open(server.url)
        browser.run("window.kept = 1")
        assert browser.run(FOUND) == "48 rollouts of 48 match"
        fill(browser, "step_min", "3")
        browser.wait(f"{FOUND}.startsWith('16 ')")
        with (folder / "rlvr/metrics.jsonl").open("a") as stream:
            stream.write(json.dumps(metrics_of(4)) + "\n")
        write_rollouts(folder / "rlvr", [4], 4, 4)
        browser.wait(f"{FOUND} === '32 rollouts of 64 match'")
        last = "numbers[document.querySelector('details[data-stage=rlvr] svg').dataset.chart][0].x.at(-1)"
        assert browser.run(last) == 4
        assert browser.run("window.kept") == 1, "it was not loaded anew, and the filter stays"
        assert browser.complaints == []
        assert {url.split("?")[0] for url in browser.requests} <= {
            server.url + name for name in ("", "version", "rollouts", "group")
        }
    browser.wait("document.getElementById('live').className.includes('lost')")
    assert browser.run("window.attacked") is None


def test_what_would_leave_the_page_is_stopped_by_its_policy(browser: Browser, report: str) -> None:
    browser.begin()
    browser.open(report)
    assert browser.run("fetch('https://example.com/').then(() => 'left', () => 'stopped')") == "stopped"
    browser.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.attacked=1>')")
    browser.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.attacked = 1'}))")
    browser.run("new Promise((done) => setTimeout(done, 200))")
    assert browser.run("window.attacked") is None
    assert any("Content Security Policy" in text for text in browser.complaints)
