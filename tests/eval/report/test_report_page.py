"""The report's page in headless Chromium: `pytest -m browser`.

Playwright drives KDIFF_CHROMIUM, or a Chromium on the PATH; without it the tests fail and say so.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdiff.eval.report import make_tables, page, read_sweep

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FID = {  # sampler -> NFE -> value; None failed, absent was not computed
    "euler": {5: 91.0, 10: 57.0, 20: 44.0},
    "heun": {5: None, 10: 75.0, 20: 40.0},
    "dpmpp_2m": {5: 74.0, 10: 46.0},
    "<b>bold</b>": {5: 60.0, 10: 42.0, 20: 39.0},
}


def write_sweep(folder):
    """Two models, two metrics, a grid of its own colour for every cell."""
    lines = []
    for m, model in enumerate(("small", "large")):
        for s, (sampler, values) in enumerate(FID.items()):
            for nfe, value in values.items():
                key = f"{model}-{s}-{nfe}"
                Image.new("RGB", (64, 64), (60 * s, 10 * nfe, 90 * m)).save(folder / f"{key}.png")
                cell = {
                    "model": {"name": model, "sha256": model},
                    **{"sampler": sampler, "options": {}, "schedule": "karras", "final": "zero"},
                    **{"steps": nfe, "nfe": nfe, "sigmas": [80.0, 1.0, 0.0]},
                    "seeds": {"first": 0, "n": 1000},
                    "features": {"name": "inception", "resize": "clean", "weights": "w"},
                    "reference": {"name": "cifar10", "n": 50000, "sha256": "r"},
                }
                fid = {"value": value, "error": 0.2, "n": 1000}
                lines.append(
                    {
                        **{"key": key, "cell": cell, "grid": f"{key}.png"},
                        "status": "failed" if value is None else "ok",
                        "error": "not finite at step 3" if value is None else None,
                        "metrics": {}
                        if value is None
                        else {"FID": fid, "IS": {**fid, "value": nfe}},
                        "noise_floor": {"FID": 38.0},
                        "environment": {"torch": "2.9.1"},
                    }
                )
    (folder / "cells.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "sweep.json").write_text(json.dumps({"command": "kdiff sweep --nfe 5,10,20"}))


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    write_sweep(folder)
    sweep = read_sweep(folder)
    (folder / "report.html").write_text(page.render(sweep, make_tables(sweep)), encoding="utf-8")
    return (folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright import sync_api
    except ImportError:
        pytest.fail("no playwright: pip install playwright", pytrace=False)
    found = os.environ.get("KDIFF_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None or not Path(found).exists():
        pytest.fail("no Chromium: install one, or set KDIFF_CHROMIUM to its path", pytrace=False)
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # root's Chromium needs it
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, url):
    """open_page(**context): the page; afterwards, no console message, error or request."""
    troubles = []
    contexts = []

    def open_it(**context):
        contexts.append(browser.new_context(**context))
        page = contexts[-1].new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "request",
            lambda r: None if r.url == url or r.url.startswith("data:") else troubles.append(r.url),
        )
        page.goto(url)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert troubles == []


def shown_rows(page):
    return page.locator(".view:visible tbody tr:visible th").all_inner_texts()


def column(page, index):
    cells = page.locator(".view:visible tbody tr").all()
    return [cell.locator("td").nth(index).inner_text().split()[-1] for cell in cells]


def test_it_renders_tables_curves_pictures_and_where_it_comes_from(open_page):
    page = open_page()
    assert shown_rows(page) == list(FID)
    assert page.locator(".view:visible").count() == 1
    assert page.locator(".plot g.series").count() == len(FID)
    assert page.locator(".plot .mark").count() == 10
    assert page.locator(".plot .error").count() == 10
    assert page.locator(".plot").get_by_text("noise floor 38", exact=True).is_visible()
    assert page.locator(".missing:visible").inner_text() == "—"
    assert page.locator("#failures li").first.inner_text().endswith("not finite at step 3")
    assert page.get_by_text("kdiff sweep --nfe 5,10,20").is_visible()
    assert "N = 1,000" in page.locator(".view:visible h2").inner_text()
    widths = page.locator(".picture img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert widths == [64, 64]


def test_a_heading_sorts_with_what_is_missing_last(open_page):
    page = open_page()
    heading = page.locator(".view:visible thead th").nth(1)
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert shown_rows(page) == ["<b>bold</b>", "dpmpp_2m", "euler", "heun"]
    heading.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert shown_rows(page) == ["euler", "dpmpp_2m", "<b>bold</b>", "heun"]
    page.locator(".view:visible thead th button").first.click()
    assert heading.get_attribute("aria-sort") == "none"
    assert shown_rows(page) == ["<b>bold</b>", "dpmpp_2m", "euler", "heun"]


def test_the_filter_keeps_rows_and_their_curves(open_page):
    page = open_page()
    page.get_by_label("Filter").fill("EUL")
    assert shown_rows(page) == ["euler"]
    assert page.locator(".plot g.series").count() == 1
    assert page.locator("#count").inner_text() == "1 of 4 rows"
    page.get_by_label("Filter").fill("nothing like it")
    assert shown_rows(page) == [] and page.locator(".plot g.series").count() == 0
    page.get_by_label("Filter").fill("")
    assert shown_rows(page) == list(FID)


def test_metric_and_model_are_chosen(open_page):
    page = open_page()
    page.get_by_label("Metric").select_option("IS, N = 1,000")
    assert page.locator(".view:visible h2").inner_text() == "IS, small, N = 1,000"
    assert page.get_by_text("noise floor").count() == 2  # in the two hidden captions of FID
    page.get_by_label("Model").select_option("large")
    assert page.locator(".view:visible h2").inner_text() == "IS, large, N = 1,000"
    assert page.locator("#settings").get_by_text("large").count() == 2


def test_the_legend_switches_a_curve_off_and_on(open_page):
    page = open_page()
    button = page.locator(".legend button", has_text="heun")
    button.press("Space")
    assert button.get_attribute("aria-pressed") == "false"
    assert page.locator(".plot g.series").count() == 3
    assert button.evaluate("one => one === document.activeElement")
    button.click()
    assert page.locator(".plot g.series").count() == 4


def test_pointing_at_a_curve_shows_value_error_and_n_and_a_click_its_pictures(open_page):
    page = open_page()
    page.locator(".legend button", has_text="euler").focus()
    box = page.locator(".plot .series.s0 .mark").nth(1).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.locator(".tip").inner_text().split("\n") == [
        *("euler", "NFE 10: 57.00 ± 0.20", "N = 1,000")
    ]
    page.mouse.down()
    page.mouse.up()
    assert page.locator("#name-a").inner_text() == "euler, NFE 10"
    page.mouse.move(0, 0)
    assert not page.locator(".tip").is_visible()


def test_two_figures_are_compared_with_what_differs(open_page):
    page = open_page()
    table = page.locator(".view:visible")
    table.get_by_role("button", name="57.00").click()
    table.get_by_role("button", name="46.00").press("Enter")
    names = [page.locator(f"#name-{slot}").inner_text() for slot in "ab"]
    assert names == ["euler, NFE 10", "dpmpp_2m, NFE 10"]
    colours = page.locator(".picture img").evaluate_all(
        """all => all.map(image => {
            const canvas = document.createElement("canvas").getContext("2d");
            canvas.drawImage(image, 0, 0);
            return [...canvas.getImageData(9, 9, 1, 1).data.slice(0, 3)];
        })"""
    )
    assert np.array_equal(colours, [[0, 100, 0], [120, 100, 0]])
    pressed = table.locator("button[aria-pressed=true][data-slot]").all_inner_texts()
    assert [text.split()[0] for text in pressed] == ["57.00", "46.00"]
    different = page.locator("#settings .differs th").all_inner_texts()
    assert "FID" in different and "schedule" not in different


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_no_width_scrolls_the_page_sideways(open_page, width):
    page = open_page(viewport={"width": width, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    svg = page.locator(".plot svg").bounding_box()
    assert svg["x"] >= 0 and svg["x"] + svg["width"] <= width


def test_a_tap_on_a_phone_brings_the_pictures_into_view(open_page):
    page = open_page(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    page.locator(".view:visible").get_by_role("button", name="57.00").tap()
    assert page.locator("#name-a").inner_text() == "euler, NFE 10"
    top = page.locator("#compare").bounding_box()["y"]
    assert 0 <= top < 640


def luminance(colour):
    """Of `rgb(r, g, b)`, as WCAG 2 defines it."""
    channels = np.array([float(c) for c in colour[4:-1].split(",")]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_scheme_applies_and_can_be_read(open_page, scheme):
    page = open_page(color_scheme=scheme)
    colour = "(one, name) => getComputedStyle(one)[name]"
    paper = luminance(page.locator("body").evaluate(colour, "backgroundColor"))
    assert (paper < 0.05) == (scheme == "dark")
    for selector in ("h1", ".caption", ".view small", ".failures li", ".eyebrow", "dt"):
        ink = luminance(page.locator(selector).first.evaluate(colour, "color"))
        contrast = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
        assert contrast >= 4.5, selector
    for series in page.locator(".plot g.series").all():
        ink = luminance(series.evaluate(colour, "color"))
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 2.5


def test_without_javascript_the_tables_are_all_there(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator(".view:visible").count() == 4
    assert page.locator(".controls").is_hidden()
