"""The page in a browser, as a person uses it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nibble.runs.records import read

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e .[test]")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--mute-audio"]
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield started
        started.close()


@pytest.fixture(scope="module", params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Any, page_file: Path) -> Iterator[Any]:
    """The page, opened once in each colour scheme without a network; `page.said` is what the console showed."""
    context = browser.new_context(color_scheme=request.param, viewport={"width": 1280, "height": 900})
    context.set_offline(True)
    opened = context.new_page()
    opened.said, opened.asked = [], []
    opened.on("console", lambda message: opened.said.append(message.text))
    opened.on("pageerror", lambda error: opened.said.append(str(error)))
    opened.on("dialog", lambda dialog: opened.said.append(f"dialog: {dialog.message}") or dialog.dismiss())
    opened.on("request", lambda asked: opened.asked.append(asked.url))
    opened.goto(page_file.as_uri())
    opened.wait_for_selector("html[data-ready]", timeout=60_000)
    yield opened
    context.close()


def test_it_opens_without_errors_or_requests(page: Any, page_file: Path) -> None:
    assert page.said == []
    assert {url for url in page.asked if not url.startswith("data:")} == {page_file.as_uri()}
    assert page.title() == "tiny"
    for name in ("size", "speed", "damage", "loss", "wer", "sqnr", "weights", "codes"):
        assert page.locator(f"[data-chart={name}] svg.marks [aria-roledescription]").count() > 0, name


def test_the_table_sorts_both_ways(page: Any) -> None:
    column = page.get_by_role("button", name="bytes")
    sizes = []
    for expected in ("ascending", "descending"):
        column.focus()
        page.keyboard.press("Enter")
        assert page.locator("th[aria-sort]").get_attribute("aria-sort") == expected
        cells = page.locator("#systems tbody tr > :nth-child(5)").all_inner_texts()
        sizes.append([int(cell.replace(",", "")) for cell in cells])
    assert sizes[0] == sorted(sizes[0]) == sizes[1][::-1]
    assert sizes[0][0] < sizes[0][-1]


def test_a_run_can_be_chosen(page: Any) -> None:
    for name, quant, codes in (("float", "quant=float", False), ("int4", "quant=int4", True)):
        page.get_by_label("Run", exact=True).select_option(
            label=page.locator(f"#run-choice option >> text={name}").inner_text()
        )
        assert quant in page.locator("#command").inner_text()
        assert f"name: {name}" in page.locator("#config").text_content()
        assert page.locator("[data-chart=codes]").is_visible() is codes
        assert page.url.endswith(f"#run={name}")
    page.locator("tr", has_text="not trained").locator("button.seed").click()
    assert "quant=float" in page.locator("#command").inner_text()
    before = page.locator("[data-chart=weights] svg.marks").inner_html()
    page.get_by_label("Layer", exact=True).select_option("joiner.output")
    page.wait_for_function(
        "before => document.querySelector('[data-chart=weights] svg.marks').innerHTML !== before", arg=before
    )
    assert page.said == []


def test_an_utterance_plays(page: Any) -> None:
    sounds = page.locator("#utterances audio")
    assert sounds.count() == 4
    duration_s = sounds.first.evaluate(
        """async (sound) => {
            await sound.play();
            sound.pause();
            return sound.duration;
        }"""
    )
    assert 0.5 < duration_s < 60
    assert page.locator("#utterances img").first.evaluate("image => image.complete && image.naturalHeight") == 80


def test_what_was_said_is_text_and_nothing_else(page: Any, finished_runs: Path) -> None:
    assert page.locator("#utterances .alignment", has_text="<IMG").count() == 1
    assert page.locator("#utterances .alignment", has_text="{{7*7}}").count() == 1
    assert page.locator("img[src=X], img[src=x]").count() == 0
    assert page.evaluate("document.scripts.length") == 3
    assert "data.corpus_dir=<b>" in page.locator("#command").inner_text()
    words = [words for _, _, words in read(finished_runs / "runs" / "records.jsonl")[0].utterance_errors]
    assert page.locator("#utterances li").count() == len(words)


def test_a_command_is_copied(page: Any) -> None:
    button = page.locator("[data-copy=command]")
    button.click()
    page.wait_for_function("document.getElementById('status').textContent !== ''")
    assert page.locator("#status").inner_text() in ("Copied.", "Selected; copy it with the keyboard.")


def test_colours_follow_the_scheme(page: Any) -> None:
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    red = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert (int(red) < 60) is dark
    colour = page.locator("[data-chart=size] text").first.evaluate(
        "text => getComputedStyle(text).fill.match(/\\d+/)[0]"
    )
    assert (int(colour) > 128) is dark


def test_everything_has_a_name_and_fits_a_phone(page: Any) -> None:
    unnamed = """[...document.querySelectorAll('button, select, audio, img, [role=region]')].filter(
        (one) => !(one.textContent.trim() || one.ariaLabel || one.alt || one.getAttribute('aria-labelledby')
            || one.labels?.length)).length"""
    assert page.evaluate(unnamed) == 0
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function("document.documentElement.scrollWidth <= 390")  # charts are drawn anew
    page.set_viewport_size({"width": 1280, "height": 900})


def test_a_link_opens_its_run(browser: Any, page_file: Path) -> None:
    opened = browser.new_page()
    opened.goto(f"{page_file.as_uri()}#run=float")
    opened.wait_for_selector("html[data-ready]", timeout=60_000)
    assert "quant=float" in opened.locator("#command").inner_text()
    opened.close()
