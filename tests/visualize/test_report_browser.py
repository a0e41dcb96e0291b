"""The report page in a browser: what it shows, plays and lets one do."""

import numpy as np
import pytest
from browser import browser
from visual_commands import EVIL, command, data_of

NAME = "document.querySelector('#clip-name').textContent"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def tab(chromium, report_page):
    """The report, just opened; afterwards it must not have complained or loaded anything."""
    chromium.open(report_page)
    yield chromium
    assert chromium.log == []
    loaded = [url for url in chromium.requests if not url.startswith("data:")]
    assert loaded == [report_page.as_uri()]


def test_page_shows_its_clips(tab, report_page):
    clips = data_of(report_page)["clips"]
    assert tab.run("document.querySelectorAll('#clips li').length") == len(clips)
    assert tab.run("document.querySelectorAll('#map .mark').length") == len(clips)
    names = tab.run("[...document.querySelectorAll('#clips .name')].map((n) => n.textContent)")
    assert names == [clip["name"] for clip in clips]
    assert tab.run(NAME) == clips[0]["name"]
    tab.wait("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert tab.run("document.images.length") == 4
    assert tab.run("document.querySelector('#failed').children.length") == 2
    assert "broken <b>.wav cannot be read" in tab.run(
        "document.querySelector('#failed').textContent"
    )


def test_evil_name_is_only_text(chromium, report_page):
    clips = data_of(report_page)["clips"]
    index = next(i for i, clip in enumerate(clips) if clip["name"] == EVIL)
    chromium.open(report_page, fragment=str(index))
    assert chromium.run(NAME) == EVIL
    assert chromium.run("document.querySelectorAll('img[src=x]').length") == 0
    assert chromium.log == []


def test_click_on_the_map_plays_that_clip(tab, report_page):
    clips = data_of(report_page)["clips"]
    index = next(i for i, clip in enumerate(clips) if clip["seconds"] == 2.5)
    x, y = tab.run(
        f"""(() => {{ const b = document.querySelectorAll('#map .mark')[{index}]
        .getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }})()"""
    )
    tab.click(x, y)
    tab.wait("player.currentTime > 0.2")
    assert tab.run("player.paused") is False
    assert tab.run("player.duration") == pytest.approx(clips[tab.run("selected")]["seconds"], 0.1)
    chosen = tab.run("places[selected]")
    wanted = tab.run(f"places[{index}]")
    assert np.hypot(*np.subtract(chosen, wanted)) < 15  # it, or one drawn over it
    tab.wait("parseFloat(document.querySelector('#input .playhead').style.left) > 2")
    tab.wait("player.ended")


def test_neighbours_lead_on(tab, report_page):
    clips = data_of(report_page)["clips"]
    nearest_one = clips[0]["near"][0][0]
    tab.click_on("#near button")
    assert tab.run("selected") == nearest_one
    assert tab.run(NAME) == clips[nearest_one]["name"]
    assert tab.run("location.hash") == f"#{nearest_one}"
    tab.wait("player.currentTime > 0")


def test_click_on_the_spectrogram_jumps(tab, report_page):
    clips = data_of(report_page)["clips"]
    index = next(i for i, clip in enumerate(clips) if clip["seconds"] == 2.5)
    tab.run(f"select({index}, false)")
    tab.click_on("#input .frame")  # its middle
    tab.wait("player.currentTime >= 1.2")
    assert tab.run("player.currentTime") < 2.3


def test_mask_ratio_is_chosen(tab, report_page):
    clip = data_of(report_page)["clips"][0]
    for index in (2, 0):
        tab.click_on(f"#ratios label:nth-of-type({index + 1})")
        assert tab.run("document.querySelector('#output img').src") == clip["outputs"][index]
        shown = tab.run("document.querySelectorAll('#masked rect').length")
        assert shown == clip["hidden"][index].count("1")


def test_search_and_folders(tab):
    visible = "[...document.querySelectorAll('#clips li')].filter((li) => !li.hidden).length"
    tab.click_on("#folders li:nth-child(1) button")
    assert tab.run("document.querySelector('#folders [aria-pressed=true]').dataset.folder") == (
        "high/far"
    )
    assert tab.run(visible) == 3
    assert tab.run("document.querySelectorAll('#map .dim').length") == 8
    tab.click_on("#folders li:nth-child(1) button")
    assert tab.run(visible) == 11
    tab.run(
        "(() => { const s = document.querySelector('#search'); s.value = 'QUOTED'; "
        "s.dispatchEvent(new Event('input')); })()"
    )
    assert tab.run(visible) == 1
    tab.run(
        "(() => { const s = document.querySelector('#search'); s.value = 'nobody'; "
        "s.dispatchEvent(new Event('input')); })()"
    )
    assert tab.run("document.querySelector('#none').hidden") is False


def test_keyboard_moves_on_the_map(tab):
    tab.run("document.querySelector('#map').focus()")
    tab.run("select(places.findIndex(([x]) => x === Math.min(...places.map(([x]) => x))), false)")
    before = tab.run("places[selected][0]")
    tab.press("ArrowRight")
    assert tab.run("places[selected][0]") > before
    assert tab.run("document.querySelector('#said').textContent").startswith(tab.run(NAME))
    tab.press("Enter")
    tab.wait("!player.paused || player.ended")


def test_colours_and_narrow_screens(tab, report_page):
    background = "getComputedStyle(document.body).backgroundColor"
    light = tab.run(background)
    tab.click_on("#theme")
    dark = tab.run(background)
    assert light != dark
    tab.open(report_page, width=360, height=740, dark=True)
    assert tab.run(background) == dark
    assert tab.run("document.documentElement.scrollWidth") <= 360


def test_every_control_has_a_name(tab):
    """Names that screen readers speak, as the browser itself computes them."""
    nodes = tab.tree()
    controls = [n for n in nodes if n["role"] in ("button", "radio", "searchbox", "image", "img")]
    assert len(controls) > 20
    assert [node for node in controls if not node["name"].strip()] == []


def test_page_of_a_single_clip(chromium, report_folder, tiny_file, tmp_path):
    output = tmp_path / "one.html"
    clip = report_folder / "short" / "50 samples.wav"
    result = command("report", clip, "-o", output, "-w", tiny_file, "--no-reconstructions")
    assert result.exit_code == 0, result.output
    chromium.open(output)
    assert chromium.run(NAME) == "50 samples.wav"
    assert chromium.run("document.querySelector('#near-title').hidden") is True
    assert chromium.run("document.querySelector('#reconstruction').hidden") is True
    assert chromium.log == []
