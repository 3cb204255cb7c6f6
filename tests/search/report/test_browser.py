"""The report in a browser, clicked through: everything is linked, nothing is loaded, nothing overflows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from asked import NORM, asking
from browsers import open_browser, why_not
from mlflow import MlflowClient
from pages import page_data

from search.report.findings import find
from search.report.page import render
from search.report.reported import read_reported

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "there is a browser")

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1200, "height": 900}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, client: MlflowClient) -> dict[str, Path]:
    """A page of each planted sweep by its name, and one of two sweeps."""
    directory = tmp_path_factory.mktemp("pages")
    names = ("planted", "other", "empty", "running", "diverged", "asked", "begun")
    reported = {name: read_reported(client, name) for name in names}
    asked, plan = reported["asked"], asking({"norm": NORM})
    sweep = replace(asked.sweep, trials=())
    reported["asks only"] = replace(asked, sweep=sweep, plan=plan, findings=find(sweep, asked.evaluations, plan))
    groups = {name: [name] for name in reported if name != "other"}
    groups |= {"two": ["planted", "other"], "one that asks": ["other", "asked"], "other too": ["asks only", "other"]}
    paths = {name: directory / f"{name}.html" for name in groups}
    for name, sweeps in groups.items():
        paths[name].write_text(render(client, [reported[each] for each in sweeps]))
    return paths


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


class Opened:
    """A page, with what it complained of and asked for."""

    def __init__(self, browser: Browser, path: Path, size: dict[str, int] = DESK, scheme: str = "light") -> None:
        self.page: Page = browser.new_page(viewport=size, color_scheme=scheme)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def count(self) -> int:
        """Trials that pass all filters, as the page says."""
        return int(self.page.inner_text("#selected b").split()[0].replace(",", ""))

    def box(self, selector: str) -> Any:
        """Where something is on the screen: x, y, width, height."""
        self.page.locator(selector).scroll_into_view_if_needed()
        return self.page.locator(selector).bounding_box()

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move(*end, steps=4)
        self.page.mouse.up()

    def column(self, place: int) -> list[str]:
        return self.page.locator(f"#table-box tbody td:nth-child({place})").all_inner_texts()

    def painted(self, selector: str) -> str:
        """What is on a canvas."""
        return str(self.page.locator(f"{selector} canvas.base").first.evaluate("canvas => canvas.toDataURL()"))


@pytest.fixture
def opened(browser: Browser, pages: dict[str, Path]) -> Iterator[Opened]:
    view = Opened(browser, pages["planted"])
    yield view
    assert view.complaints == []
    assert [url for url in view.requests if not url.startswith(("file:", "data:"))] == []
    view.page.close()


@pytest.mark.parametrize(
    "name", ["planted", "two", "empty", "running", "diverged", "asked", "asks only", "begun", "one that asks"]
)
def test_no_page_complains_loads_anything_or_is_wider_than_a_phone(
    browser: Browser, pages: dict[str, Path], name: str
) -> None:
    view = Opened(browser, pages[name], PHONE, "dark")
    widths = view.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]
    assert view.complaints == []
    assert [url for url in view.requests if not url.startswith(("file:", "data:"))] == []
    view.page.close()


@pytest.mark.parametrize(
    ("name", "says"),
    [("empty", "No trial has started yet."), ("running", "No trial reached full fidelity."), ("diverged", "is nan")],
)
def test_a_page_without_results_says_so(browser: Browser, pages: dict[str, Path], name: str, says: str) -> None:
    view = Opened(browser, pages[name])
    assert says in view.page.inner_text("main")
    assert view.complaints == []
    view.page.close()


def test_text_of_trials_stays_text(opened: Opened) -> None:
    opened.page.fill("#filter", "alert")
    assert opened.count() > 0
    assert "<script>alert('reason')</script>" in opened.page.inner_text("#table-box")
    assert opened.page.locator("#table-box script, #ends script, #table-box td b").count() == 0
    opened.page.fill("#filter", "<b>first")
    assert opened.count() == 1


def test_the_policy_stops_a_script_that_is_not_the_page_s(opened: Opened) -> None:
    opened.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))"
    )
    assert opened.page.evaluate("window.ran") is None
    assert "Content Security Policy" in opened.complaints.pop()


def test_the_slider_moves_every_picture(opened: Opened) -> None:
    images = opened.page.locator("#sheet img")
    assert images.count() > 8
    moved = "image => getComputedStyle(image).transform"
    last = [image.evaluate(moved) for image in images.all()[:4]]
    assert opened.page.inner_text("#picture-at") == "480"
    opened.page.locator("#picture-step").press("Home")
    assert opened.page.inner_text("#picture-at") == "40"
    assert [image.evaluate(moved) for image in images.all()[:4]] != last
    assert "at step 40" in str(images.first.get_attribute("alt"))
    assert images.first.evaluate("image => image.complete && image.naturalHeight > 0")
    before = images.first.get_attribute("src")
    opened.page.select_option("#picture-kind", "prior_samples")
    assert images.first.get_attribute("src") != before


def test_pictures_are_sorted_and_filtered(opened: Opened) -> None:
    def values() -> list[float]:
        labels = opened.page.locator("#sheet figcaption span:last-child").all_inner_texts()
        return [float(label.split()[-1]) for label in labels]

    opened.page.select_option("#picture-sort", "val/layout_fd")
    assert values() == sorted(values())
    every = opened.page.locator("#sheet figure").count()
    opened.page.select_option("#picture-outcome", "pruned")
    assert 0 < opened.page.locator("#sheet figure").count() < every
    assert all("pruned" in text for text in opened.page.locator("#sheet button").all_inner_texts())


def test_a_box_in_the_front_filters_everything_else(opened: Opened) -> None:
    box = opened.box("#front-plot canvas.over")
    before = {name: opened.painted(name) for name in ("#parallel-plot", "#isolation")}
    assert opened.count() == 28
    left, right = box["x"] + 60, box["x"] + box["width"] / 3
    opened.drag((left, box["y"] + box["height"] - 42), (right, box["y"] + box["height"] / 2))
    assert 0 < opened.count() < 28
    assert len(opened.column(1)) == min(20, opened.count())
    for name, painted in before.items():
        assert opened.painted(name) != painted, f"{name} does not show the selection"
    opened.page.click("#clear")
    assert opened.count() == 28
    assert opened.painted("#parallel-plot") == before["#parallel-plot"]


def test_a_range_on_an_axis_filters_and_a_click_drops_it(opened: Opened) -> None:
    box = opened.box("#parallel-plot canvas.over")
    x, middle = box["x"] + 50, box["y"] + 180
    opened.drag((x, middle), (x, box["y"] + 300))
    kept = opened.count()
    assert 0 < kept < 28
    opened.page.mouse.click(x, middle)
    assert opened.count() == 28


def test_the_filter_understands_names_numbers_and_words(opened: Opened) -> None:
    rates = opened.page.evaluate("column('optimizer.autoencoder.lr').values")
    kinds = opened.page.evaluate("sweep.number.map((_, index) => [outcomeOf(index), shown('loss.kl.control', index)])")
    for text, expected in {
        "lr<0.001": sum(rate < 0.001 for rate in rates),
        "trial<3": 3,
        "trial<=3": 4,
        f"trial>={len(kinds) - 2}": 2,
        "control=fixed": sum(control == "fixed" for _, control in kinds),
        "diverged": sum(outcome == "diverged" for outcome, _ in kinds),
        "nothing-like-this": 0,
    }.items():
        opened.page.fill("#filter", text)
        assert opened.count() == expected
    assert "no trial passes" in opened.page.inner_text("#selected")


def test_the_table_sorts_by_any_column(opened: Opened) -> None:
    place = 1 + opened.page.locator("#table-box th").all_inner_texts().index("pixel_mse")
    opened.page.click("#table-box th button:text-is('pixel_mse')")
    values = [float(text) for text in opened.column(place) if text]
    assert values == sorted(values)
    assert opened.page.locator("#table-box th[aria-sort=ascending]").inner_text() == "pixel_mse"
    opened.page.keyboard.press("Enter")
    values = [float(text) for text in opened.column(place) if text]
    assert values == sorted(values, reverse=True)


def test_numbers_are_shortened_unless_they_are_whole(opened: Opened) -> None:
    """Step 12345 was 12350 in the table and on the card."""
    values = [12345, 131072, 0.123456, 12345.6, 0, None]
    said = ["12345", "131072", "0.1235", "12350", "0", ""]
    assert opened.page.evaluate("values => values.map(format)", values) == said


def test_chosen_trials_have_curves(opened: Opened) -> None:
    chips = opened.page.locator("#chosen button")
    assert chips.count() == 6
    before = opened.painted("#curve-plots")
    opened.page.locator("#table-box tbody input").nth(7).check()
    assert chips.count() == 7
    assert opened.painted("#curve-plots") != before
    chips.first.click()
    assert chips.count() == 6
    assert not opened.page.locator("#table-box tbody input").first.is_checked()
    note = opened.page.inner_text("#curve-note")
    assert "rungs at steps 120, 240" in note
    assert "training curves of trial" in note


def test_pointing_at_a_trial_shows_it_and_a_click_pins_its_run(opened: Opened) -> None:
    box = opened.box("#front-plot canvas.over")
    x, y, index = opened.page.evaluate("front.points.find(([, , index]) => sweep.front[index])")
    opened.page.mouse.move(box["x"] + x, box["y"] + y)
    card = opened.page.locator("#card")
    assert f"Trial {opened.page.evaluate('sweep.number')[index]}" in card.inner_text()
    assert card.locator("img").evaluate("image => image.naturalWidth > 0")
    opened.page.mouse.click(box["x"] + x, box["y"] + y)
    assert opened.page.evaluate("sweep.run")[index] in card.inner_text()
    opened.page.keyboard.press("Escape")
    assert card.is_hidden()


def test_a_click_opens_the_run_where_there_is_a_server(opened: Opened) -> None:
    opened.page.evaluate("sweep.runs = 'about:blank#/experiments/1/runs/RUN?workflowType=machine_learning'")
    box = opened.box("#front-plot canvas.over")
    x, y, index = opened.page.evaluate("front.points.find(([, , index]) => sweep.front[index])")
    with opened.page.context.expect_page() as run:
        opened.page.mouse.click(box["x"] + x, box["y"] + y)
    assert f"/runs/{opened.page.evaluate('sweep.run')[index]}?" in run.value.url
    run.value.close()


def test_the_front_is_walked_with_the_keyboard(opened: Opened) -> None:
    opened.page.locator("#front-plot .plot").focus()
    opened.page.keyboard.press("ArrowRight")
    assert opened.page.inner_text("#spoken").startswith("Trial ")
    opened.page.keyboard.press("Enter")
    assert opened.page.locator("#card.pinned code").count() == 1
    assert opened.page.locator("#card button:focus").count() == 1
    opened.page.keyboard.press("Escape")
    assert opened.page.locator("#front-plot .plot:focus").count() == 1


def test_the_theme_is_switched_and_the_figures_with_it(opened: Opened) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light, painted = opened.page.evaluate(paper), opened.painted("#front-plot")
    opened.page.click("#theme")
    assert opened.page.evaluate(paper) != light
    assert opened.painted("#front-plot") != painted


def test_the_switch_shows_another_sweep(browser: Browser, pages: dict[str, Path]) -> None:
    view = Opened(browser, pages["two"])
    assert view.count() == 28
    assert len(page_data(pages["two"].read_text())["sweeps"]) == 2
    view.page.click("#switch button:has-text('other')")
    assert view.count() == 9
    assert view.page.locator(".of-sweep:visible").first.inner_text().startswith("other")
    assert view.complaints == []
    view.page.close()


def test_it_works_in_a_frame_without_an_origin_as_mlflow_shows_it(browser: Browser, pages: dict[str, Path]) -> None:
    page = browser.new_page(viewport=DESK)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.set_content("<iframe sandbox='allow-scripts' width='1100' height='800'></iframe>")
    page.evaluate(
        "html => { document.querySelector('iframe').src = URL.createObjectURL(new Blob([html], {type: 'text/html'})) }",
        pages["planted"].read_text(),
    )
    frame = page.frame_locator("iframe")
    assert frame.locator("#selected b").inner_text() == "28 trials"
    frame.locator("#theme").click()
    frame.locator(".copy").first.click()
    assert frame.locator("#table-box tbody tr").count() == 20
    assert complaints == []
    page.close()


# --- Questions --------------------------------------------------------------------------------------------------------


PAINTED = """found => {
    const reached = [], ignore = () => {}, keep = at => reached.push(at);
    const names = {moveTo: keep, lineTo: keep, arc: () => reached.push("dot")};
    const pen = new Proxy({}, {get: (_, name) => names[name] ?? ignore, set: () => true});
    const x = new Scale(-6.3, 6.3).range(12, 488);
    paintEffect(pen, x, {ratio: false, smallest: 0.5}, found, {kind: "average", color: "red", y: 0});
    const ends = reached.filter(at => at !== "dot");
    return [Math.min(...ends) < 12, Math.max(...ends) > 488, reached.includes("dot")];
}"""


def test_an_interval_that_leaves_the_forest_ends_in_an_arrow(browser: Browser, pages: dict[str, Path]) -> None:
    """It ended at the edge as if that was its end, and so did an estimate beyond it."""
    view = Opened(browser, pages["asked"])
    painted = {
        (1.0, -3.1, 3.1): [False, False, True],
        (1.0, -4.0, 3.0): [True, False, True],
        (1.0, -3.0, 4.0): [False, True, True],
        (1.0, None, None): [False, False, True],
        (1.0, None, 3.0): [True, False, True],
        (5.0, 4.0, 6.0): [False, True, False],
        (-5.0, -6.0, 1.0): [True, False, False],
        (5.0, None, None): [False, True, False],
    }
    assert {found: view.page.evaluate(PAINTED, list(found)) for found in painted} == painted
    view.page.close()


def test_a_question_is_drawn_and_another_one_when_it_is_chosen(browser: Browser, pages: dict[str, Path]) -> None:
    view = Opened(browser, pages["asked"])
    page = view.page
    colors = "canvas => new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size"
    assert page.locator("#forest canvas.base").evaluate(colors) > 20
    titles = "#question-figures figcaption"
    assert "expected best of n draws by level" in page.locator(titles).all_inner_texts()
    assert page.locator("#question-nuisance").input_value() == "optimizer.autoencoder.lr"
    assert "The effect goes with optimizer.autoencoder.lr, p < 0.001" in page.inner_text("#question-note")
    assert page.locator("#question-sheet img").count() == 12
    first = view.painted("#question-figures figure:first-child")
    page.select_option("#question-nuisance", "model.width")
    assert view.painted("#question-figures figure:first-child") != first, "blocks have the colors of the nuisance"
    page.select_option("#question", "3")
    assert page.inner_text("#question-levels").split("\n") == ["batch norm", "instance norm", "group norm"]
    assert "expected best of n draws by level" not in page.locator(titles).all_inner_texts()
    assert page.locator("#question-sheet img").count() == 18
    names = page.locator("#question-sheet img").first.get_attribute("alt")
    page.select_option("#question-kind", "prior_samples")
    assert page.locator("#question-sheet img").first.get_attribute("alt") != names
    assert view.complaints == []
    page.close()


def test_only_the_sweep_that_asks_shows_questions(browser: Browser, pages: dict[str, Path]) -> None:
    view = Opened(browser, pages["one that asks"])
    page = view.page
    assert "This sweep asks no question." in page.inner_text("#answers")
    assert page.locator("#forest").is_hidden()
    page.click("#switch button:nth-child(2)")
    assert "instance norm raises val/pixel_mse by" in page.inner_text("#answers")
    assert page.locator("#forest canvas.base").is_visible()
    assert view.complaints == []
    page.close()


def test_a_sweep_that_only_asks_shows_nothing_about_other_trials(browser: Browser, pages: dict[str, Path]) -> None:
    view = Opened(browser, pages["asks only"])
    page = view.page
    visible = "parts => parts.filter(part => part.offsetParent).map(part => part.id || part.hash.slice(1))"
    about = ["answers", "one-question", "words"]
    assert page.locator("section").evaluate_all(visible) == about
    assert page.locator("nav a").evaluate_all(visible) == about
    assert "All trials of asked answer questions" in page.inner_text("#words")
    assert "No trial has started yet" not in page.inner_text("#words")
    assert view.complaints == []
    page.close()
    view = Opened(browser, pages["other too"])
    assert not view.page.locator("#trials").is_visible()
    view.page.click("#switch button:nth-child(2)")
    assert view.page.locator("#front canvas.base").first.is_visible()
    assert view.count() == 9
    assert view.complaints == []
    view.page.close()
