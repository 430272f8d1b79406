"""The playground in a browser: what it shows is what PyTorch says."""

import json
import os
import random
import re

import make_playground
import numpy as np
import pytest
from browsing import server, watched_page
from PIL import Image
from test_site import AXE, AXE_SCRIPT, PHONE, SCREEN

pytestmark = pytest.mark.slow
SECONDS = float(os.environ.get("PLAYGROUND_SECONDS", "20"))  # of random clicking
MINUTE = 60_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    output = tmp_path_factory.mktemp("www") / "playground"
    make_playground.build(output)
    return output


@pytest.fixture
def page(folder, browser):
    with (
        server(folder.parent) as address,
        watched_page(browser, viewport=SCREEN) as page,
    ):
        page.context.add_init_script(path=AXE_SCRIPT)
        page.goto(f"{address}/playground/index.html")
        page.wait_for_selector("body[data-ready]", timeout=MINUTE)
        yield page


def settled(page):
    page.wait_for_function("!document.body.dataset.running")


def shown(page):
    """All that the page says of the model."""
    settled(page)
    words = [
        page.locator(f"#{part}").inner_text() for part in ("three", "five", "says")
    ]
    return (*words, page.locator("#forms").get_attribute("aria-label"))


def test_twelve_images_are_as_in_pytorch(page, folder):
    images = json.loads((folder / "course.json").read_text())["images"]
    assert len(images) == 12
    for row in images:
        page.locator(f"[data-name={row['name']}]").click()
        page.wait_for_selector(f"#equal[data-image={row['name']}]")
        difference = page.locator("#equal").get_attribute("data-difference")
        assert float(difference) < 1e-4, row["name"]  # logits, attention
        text = page.locator("#three").inner_text()
        numbers = [float(p) / 100 for p in re.findall(r"([\d.]+) %", text)]
        np.testing.assert_allclose(numbers, row["three"], atol=0.0051)


def test_nothing_is_over_twenty_megabytes(folder):
    assert sum(file.stat().st_size for file in folder.iterdir()) < 20e6


CHANGES = {
    "layer": lambda page: page.locator("#layers label").nth(1).click(),
    "head": lambda page: page.locator("#heads label").nth(2).click(),
    "view": lambda page: page.locator("#views label").nth(3).click(),
    "patch": lambda page: page.locator("[data-place='10']").hover(),
    "dropped": lambda page: page.locator("[data-place='10']").click(),
    "positions": lambda page: page.locator("#positions").click(),
    "shuffle": lambda page: page.locator("#shuffle").click(),
    "trained": lambda page: page.locator("#trained").click(),
    "image": lambda page: page.locator("[data-name=steak2]").click(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_control_changes_what_is_shown_and_the_address(page, name):
    before = shown(page)
    CHANGES[name](page)
    page.wait_for_function("name => location.hash.includes(name)", arg=name)
    after = shown(page)
    assert after != before
    address = page.url
    page.goto("about:blank")
    page.goto(address)  # the address alone brings the same state
    page.wait_for_selector("body[data-ready]", timeout=MINUTE)
    assert shown(page) == after
    page.locator("#reset").click()
    if name != "image":
        assert shown(page) == before


def test_shuffled_patches_change_nothing_without_positions(page):
    page.locator("#positions").click()
    before = shown(page)
    page.locator("#shuffle").click()
    page.wait_for_function("location.hash.includes('shuffle')")
    assert shown(page)[:2] == before[:2]


def test_files_of_ones_own(page, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (90, 200, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "wide.png")
    Image.fromarray(noise).convert("RGBA").save(tmp_path / "clear.webp")
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(noise).save(tmp_path / "turned.jpg", exif=turned)
    (tmp_path / "words.jpg").write_text("no image")
    (tmp_path / "empty.png").touch()
    before = shown(page)
    for name in ("words.jpg", "empty.png"):
        page.locator("#file").set_input_files(tmp_path / name)
        page.locator("#message", has_text=f"{name} is no image").wait_for()
        assert shown(page) == before
    for name in ("wide.png", "clear.webp", "turned.jpg"):
        page.locator("#file").set_input_files(tmp_path / name)
        page.locator("#message", has_text=f"{name}: its middle").wait_for()
        assert shown(page) != before


def test_opened_as_a_file_it_says_so(folder, browser):
    with watched_page(browser, only=" asked for ") as page:
        page.goto((folder / "index.html").as_uri())
        page.get_by_text("Serve its folder").wait_for()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(page, theme):
    assert page.evaluate(AXE, [theme, [], {}]) == []


def test_on_a_phone_it_is_no_wider_than_the_screen(page):
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_with_the_keyboard_alone(page):
    page.locator("[data-place='27']").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.place") == "28"
    page.keyboard.press("Enter")
    page.wait_for_function("location.hash.includes('dropped=28')")
    assert "63 patches" in page.locator("#count").inner_text()


def test_random_clicking_leaves_no_error_and_no_memory(page):
    generator = random.Random(0)
    controls = page.locator("main button, fieldset label")
    used = "performance.memory.usedJSHeapSize"
    for name in ("#trained", "#trained"):
        page.locator(name).click()
        settled(page)
    before = page.evaluate(used)
    end = page.evaluate("performance.now()") + 1000 * SECONDS
    clicks = 0
    while page.evaluate("performance.now()") < end:
        control = controls.nth(generator.randrange(controls.count()))
        control.click(force=True, timeout=MINUTE)
        clicks += 1
    settled(page)
    assert clicks > 20 and page.evaluate(used) < before + 50e6
