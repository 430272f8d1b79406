"""The playground in a browser: what it shows is what PyTorch says."""

import base64
import contextlib
import json
import os
import random
import re
import struct
import zlib

import make_playground
import numpy as np
import pytest
import torch
from browsing import server, watched_page
from PIL import Image
from test_site import AXE, AXE_SCRIPT, PHONE, SCREEN

pytestmark = pytest.mark.slow
SECONDS = float(os.environ.get("PLAYGROUND_SECONDS", "20"))  # of random clicking
MINUTE = 60_000
# Of pizza2, as docs/playground/questions.js lists them.
CRUST = [10, 11, 12, 13, 17, 21, 25, 29, 32, 37, 40, 41, 42, 43, 44]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    output = tmp_path_factory.mktemp("www") / "playground"
    make_playground.build(output)
    return output


@contextlib.contextmanager
def opening(folder, browser, script="", **options):
    """Yields the page, ready, after a script of the test's own."""
    with (
        server(folder.parent) as address,
        watched_page(browser, **options) as page,
    ):
        page.context.add_init_script(path=AXE_SCRIPT)
        page.add_init_script(script)
        page.goto(f"{address}/playground/index.html")
        page.wait_for_selector("body[data-ready]", timeout=MINUTE)
        yield page


@pytest.fixture(scope="module")
def opened(folder, browser):
    """The page, which takes seconds to start its model, once for all tests."""
    with opening(folder, browser, viewport=SCREEN) as page:
        yield page


@pytest.fixture
def page(opened):
    """The page as it is at first."""
    opened.set_viewport_size(SCREEN)
    settled(opened)
    if opened.locator("#leave").is_visible():
        opened.locator("#leave").click()
    opened.locator("#reset").click()
    opened.locator("[data-name=pizza2]").click()
    opened.wait_for_selector("#equal[data-image=pizza2]")
    settled(opened)
    return opened


def settled(page):
    page.wait_for_function("!document.body.dataset.running")


def shown(page):
    """All that the page says of the model."""
    settled(page)
    words = [
        page.locator(f"#{part}").inner_text() for part in ("three", "five", "says")
    ]
    return (*words, page.locator("#forms").get_attribute("aria-label"))


def probabilities(page):
    """Of pizza, steak and sushi, as the page writes them."""
    text = page.locator("#three").inner_text()
    return [float(p) / 100 for p in re.findall(r"([\d.]+)\s%", text)]


def test_twelve_images_are_as_in_pytorch(page, folder):
    images = json.loads((folder / "course.json").read_text())["images"]
    assert len(images) == 12
    for row in images:
        page.locator(f"[data-name={row['name']}]").click()
        page.wait_for_selector(f"#equal[data-image={row['name']}]")
        difference = page.locator("#equal").get_attribute("data-difference")
        assert float(difference) < 1e-4, row["name"]  # logits, attention
        np.testing.assert_allclose(probabilities(page), row["three"], atol=0.00051)


def test_nothing_is_over_twenty_megabytes(folder):
    assert sum(file.stat().st_size for file in folder.iterdir()) < 20e6


CHANGES = {
    "layer": lambda page: page.locator("#layers label").nth(1).click(),
    "head": lambda page: page.locator("#heads label").nth(2).click(),
    "view": lambda page: page.locator("#views label").nth(3).click(),
    "patch": lambda page: page.locator("[data-place='10']").click(),
    "dropped": lambda page: page.locator("[data-place='10']").click(click_count=2),
    "positions": lambda page: page.locator("#positions").click(),
    "shuffle": lambda page: page.locator("#shuffle").click(),
    "trained": lambda page: page.locator("#trained").click(),
    "image": lambda page: page.locator("[data-name=steak2]").click(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_control_changes_what_is_shown_and_the_address(page, name):
    before, old = shown(page), page.evaluate("location.hash")
    CHANGES[name](page)
    changed = "([old, name]) => location.hash != old && location.hash.includes(name)"
    page.wait_for_function(changed, arg=[old, name])
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
    page.locator("#drop").click()  # nor does it matter where a hole is
    page.locator("#positions").click()
    page.wait_for_function("location.hash.includes('positions')")
    before = shown(page)
    page.locator("#shuffle").click()
    page.wait_for_function("location.hash.includes('shuffle')")
    assert shown(page)[:2] == before[:2]


def test_pointing_at_a_patch_shows_it_and_changes_nothing(page):
    before, address = shown(page), page.url
    page.locator("[data-place='10']").hover()
    says = page.locator("#says", has_text="Where row 2, column 3 looks")
    says.wait_for()
    assert shown(page)[2] != before[2] and page.url == address
    assert page.locator("#views input:checked").get_attribute("value") == "class"
    page.locator("h1").hover()
    says.wait_for(state="detached")
    assert shown(page) == before


def cells(page):
    """Presses the cells of a question in turn: what each, and the page, then says."""
    found = []
    buttons = page.locator("#cells button")
    for k in range(buttons.count()):
        assert "Answer" not in page.locator("#hint").inner_text()
        buttons.nth(k).click()
        page.locator(f"#cells button:nth-child({k + 1})[aria-pressed=true]").wait_for()
        settled(page)
        name, p = re.fullmatch(
            r"([a-z]*)\s*([\d.]+)\s%", buttons.nth(k).locator("b").inner_text().strip()
        ).groups()
        row = probabilities(page)
        found.append(
            (name, float(p) / 100, dict(zip(make_playground.CLASSES, row, strict=True)))
        )
    return found, page.locator("#hint").inner_text()


def test_one_head_follows_the_crust(page, folder):
    page.get_by_role("link", name="head follows the crust").click()
    page.locator("#hint", has_text="0 of 3").wait_for()  # nothing is said at first
    found, answer = cells(page)
    parts = [p for _, p, _ in found]
    best = parts.index(max(parts))
    assert f"head {best + 1}" in page.locator("#cells .best").inner_text()
    assert answer.startswith(f"Answer. Head {best + 1}: {100 * parts[best]:.1f}")
    # The map says the same: its largest weights lie where the cell says.
    page.locator("#cells button").nth(best).click()
    vit, metadata = make_playground.load_checkpoint()
    transform = make_playground.create_transform(**metadata["preprocessing"])
    path = sorted((make_playground.FOOD / "test" / "pizza").iterdir())[1]
    image = transform(make_playground.load_image(path))[None]
    with torch.no_grad():
        inputs = make_playground.example() | {"image": image}
        maps = make_playground.Playground(vit.eval())(**inputs)[2]
    rows = maps[2, :, 0, 1:]  # block 3: a row of weights per head
    share = rows[:, CRUST].sum(1) / rows.sum(1)
    np.testing.assert_allclose(parts, share, atol=0.00051)


def test_the_order_matters_with_positions_alone(page):
    page.get_by_role("link", name="order of the patches").click()
    page.locator("#cells").wait_for()
    found, answer = cells(page)
    assert all(p == row[name] for name, p, row in found)
    ordered, shuffled, *without = [p for _, p, _ in found]
    assert ordered != shuffled and without[0] == without[1]
    assert f"yes, {100 * ordered:.1f}" in answer and "Without: no" in answer


def test_how_many_blocks_it_takes(page):
    page.get_by_role("link", name="How many blocks").click()
    page.locator("#cells").wait_for()
    found, answer = cells(page)
    ahead = [max(row, key=row.get) for _, _, row in found]
    assert [name for name, _, _ in found] == ahead
    first = min(k for k in range(6) if len(set(ahead[k:])) == 1) + 1
    assert 1 < first and answer.startswith(f"Answer. {first}: from block {first} on")


HASTE = """() => {
  const cells = document.querySelectorAll("#cells button");
  const mouse = { bubbles: true, pointerType: "mouse" };
  cells[1].click();
  document.querySelector("#patches button").dispatchEvent(
    new PointerEvent("pointerover", mouse));
  cells[2].click();
}"""


def test_in_haste_no_cell_gets_the_number_of_another(page):
    page.get_by_role("link", name="order of the patches").click()
    page.locator("#hint", has_text="1 of 4").wait_for()
    page.evaluate(HASTE)
    settled(page)
    second = page.locator("#cells button b").nth(1)
    in_haste = second.inner_text()
    page.locator("#cells button").nth(1).click()
    settled(page)
    assert in_haste in ("?", second.inner_text())


def test_another_image_begins_the_question_again(page):
    page.get_by_role("link", name="How many blocks").click()
    page.locator("#hint", has_text="1 of 6").wait_for()
    page.locator("#next").click()
    page.locator("#hint", has_text="2 of 6").wait_for()
    page.locator("[data-name=steak1]").click()
    page.locator("#hint", has_text="1 of 6").wait_for()


def test_a_question_closed_leaves_what_was_chosen_before_it(page):
    page.locator("[data-name=sushi1]").click()
    page.locator("#layers label").nth(1).click()
    before, address = shown(page), page.evaluate("location.hash")
    page.get_by_role("link", name="How many blocks").click()
    page.locator("#cells button").nth(2).click()
    settled(page)
    assert shown(page) != before
    page.locator("#leave").click()
    page.wait_for_function("hash => location.hash == hash", arg=address)
    assert shown(page) == before


def test_after_a_drop_the_map_shows_what_the_class_token_takes(page):
    page.locator("[data-place='10']").click(click_count=2)
    page.wait_for_function("location.hash.includes('dropped=10')")
    says = "What the class token takes. The 8 largest of 63 weights"
    page.locator("#says", has_text=says).wait_for()
    assert page.locator(".named").get_attribute("aria-label") == (
        "row 2, column 3, dropped"
    )
    assert page.locator("#drop").inner_text() == "Put back row 2, column 3"


def test_block_by_block(page):
    """The prediction shown is that after the chosen block; the last is the model's."""
    last = probabilities(page)
    page.locator("#layers label").first.click()
    seen = []
    for block in range(1, 7):
        page.locator("#predict", has_text=f"after block {block}").wait_for()
        seen.append(probabilities(page))
        says = "Next block" if block < 6 else "From block 1"
        assert page.locator("#next").inner_text() == says
        page.locator("#next").click()
    assert seen[-1] == last and len({tuple(row) for row in seen}) == 6


def test_marks_show_the_prediction_before_the_change(page):
    before = probabilities(page)
    page.locator("#shuffle").click()
    page.locator("#explain-three", has_text="Marks").wait_for()
    marks = page.locator("#three .track i")
    places = [marks.nth(k).evaluate("mark => mark.style.left") for k in range(3)]
    found = [float(place.rstrip("%")) / 100 for place in places]
    np.testing.assert_allclose(found, before, atol=0.00051)


def take(page, path):
    """Gives the page a file, and returns what it says of it."""
    # The file before may have had the same name, in another folder.
    page.evaluate("document.getElementById('message').textContent = ''")
    page.locator("#file").set_input_files(path)
    page.locator("#message", has_text=path.name).wait_for()
    settled(page)
    return page.locator("#message").inner_text()


def test_files_of_ones_own(page, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (90, 200, 3)).astype(np.uint8)
    image = Image.fromarray(noise)
    image.save(tmp_path / "wide.png")
    clear = image.copy()
    clear.putalpha(100)
    clear.save(tmp_path / "clear.webp")
    turned = Image.Exif()
    turned[274] = 6
    image.save(tmp_path / "turned.jpg", exif=turned)
    (tmp_path / "words.jpg").write_text("no image")
    (tmp_path / "empty.png").touch()
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(101_000_000)
    huge = bytearray((tmp_path / "wide.png").read_bytes())
    huge[16:24] = struct.pack(">II", 30_000, 30_000)
    huge[29:33] = struct.pack(">I", zlib.crc32(huge[12:29]))
    (tmp_path / "huge.png").write_bytes(huge)
    # The segment of a JPEG that tells its size begins with FF C0, its length and depth.
    jpeg = bytearray((tmp_path / "turned.jpg").read_bytes())
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = struct.pack(">HH", 11_000, 11_000)
    (tmp_path / "large.jpg").write_bytes(jpeg)
    before = shown(page)
    for name in ("words.jpg", "empty.png"):
        assert f"{name} is no image" in take(page, tmp_path / name)
    assert "larger than 100 MB" in take(page, tmp_path / "large.png")
    words = "pixels; up to 120 million can be read"
    assert f"30000 × 30000 {words}" in take(page, tmp_path / "huge.png")
    assert f"11000 × 11000 {words}" in take(page, tmp_path / "large.jpg")
    assert shown(page) == before
    assert "200 × 90 pixels" in take(page, tmp_path / "wide.png")
    seen = shown(page)
    assert seen != before
    assert "transparent is white" in take(page, tmp_path / "clear.webp")
    assert shown(page) != seen
    assert "90 × 200 pixels" in take(page, tmp_path / "turned.jpg")


def test_a_file_is_dropped_on_the_page(page, tmp_path):
    Image.new("RGB", (64, 64), "orange").save(tmp_path / "plain.png")
    text = base64.b64encode((tmp_path / "plain.png").read_bytes()).decode()
    before = shown(page)
    page.evaluate(
        """text => {
          const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], "plain.png"));
          document.dispatchEvent(new DragEvent("drop", { dataTransfer }));
        }""",
        text,
    )
    page.locator("#message", has_text="plain.png").wait_for()
    assert shown(page) != before


def test_ones_own_file_is_scaled_nearly_as_in_lesson_13(page, folder):
    """The browser's canvas scales by other weights than torchvision."""
    images = json.loads((folder / "course.json").read_text())["images"]
    for row in images[:: make_playground.EACH]:  # the first of each class
        files = sorted((make_playground.FOOD / "test" / row["label"]).iterdir())
        take(page, files[0])
        np.testing.assert_allclose(probabilities(page), row["three"], atol=0.1)


def test_a_finger_looks_by_a_tap_and_drops_by_the_button(folder, browser):
    options = {"viewport": PHONE, "has_touch": True, "is_mobile": True}
    with opening(folder, browser, **options) as page:
        page.locator("[data-place='20']").tap()
        page.wait_for_function("location.hash == '#view=query&patch=20'")
        page.locator("#drop").tap()
        page.wait_for_function("location.hash.includes('dropped=20')")
        settled(page)
        assert "64 tokens" in page.locator("#count").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        page.locator("[data-place='20']").tap()  # as the button, it puts back
        page.wait_for_function("!location.hash.includes('dropped')")


IN_VIEW = """name => {
  const { top, bottom } = document.querySelector(name).getBoundingClientRect();
  const below = document.getElementById("below").getBoundingClientRect().top;
  const guide = document.getElementById("guide").getBoundingClientRect().bottom;
  return top >= guide - 1 && bottom <= below + 1;
}"""


@pytest.mark.parametrize(
    ("question", "evidence"),
    [("crust", "#map"), ("order", "#image"), ("many blocks", "#forms")],
)
def test_on_a_phone_question_evidence_and_prediction_share_the_screen(
    folder, browser, question, evidence
):
    options = {"viewport": PHONE, "has_touch": True, "is_mobile": True}
    with opening(folder, browser, **options) as page:
        page.get_by_role("link", name=question).tap()
        page.wait_for_function(IN_VIEW, arg=evidence, timeout=MINUTE)
        before = page.locator("#below").inner_text()
        page.locator("#cells button").nth(1).tap()
        page.locator(
            "#hint", has_text="1 of" if question == "crust" else "2 of"
        ).wait_for()
        settled(page)
        assert page.evaluate(IN_VIEW, evidence)
        assert (page.locator("#below").inner_text() == before) == (question == "crust")


def test_opened_as_a_file_it_says_so_and_shows_a_still(folder, browser):
    with watched_page(browser, only=" asked for ") as page:
        page.goto((folder / "index.html").as_uri())
        page.get_by_text("Serve its folder").wait_for()
        page.wait_for_function("document.querySelector('#still img').naturalWidth > 0")


def test_without_webassembly_it_says_so_and_shows_a_still(folder, browser):
    with server(folder.parent) as address, watched_page(browser) as page:
        page.add_init_script("delete window.WebAssembly")
        page.goto(f"{address}/playground/index.html")
        page.get_by_text("no WebAssembly").wait_for()
        page.wait_for_function("document.querySelector('#still img').naturalWidth > 0")


COUNT_MEGABYTES = """addEventListener("DOMContentLoaded", () => {
  const words = document.getElementById("megabytes");
  window.seen = [];
  const look = () => seen.push(words.textContent);
  new MutationObserver(look).observe(words, { childList: true });
});"""


def test_loading_tells_megabytes(folder, browser):
    with opening(folder, browser, COUNT_MEGABYTES) as page:
        seen = page.evaluate("seen")
    come, all_of_it = map(float, re.findall(r"[\d.]+", seen[-1]))
    assert len(seen) > 2 and come == all_of_it > 5


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(page, theme):
    assert page.evaluate(AXE, [theme, [], {}]) == []


def test_on_a_phone_it_is_no_wider_than_the_screen(page):
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


PLACES = """() => {
  const seen = [...document.querySelectorAll("button, fieldset span, .explain, #five")];
  const shown = seen.filter((e) => e.offsetParent);
  return shown.map((e) => Math.round(e.getBoundingClientRect().top + scrollY));
}"""


@pytest.mark.parametrize("size", [SCREEN, PHONE])
@pytest.mark.parametrize("name", [*CHANGES, "rollout", "hover"])
def test_nothing_jumps_when_something_changes(page, name, size):
    page.set_viewport_size(size)
    before = page.evaluate(PLACES)
    if name == "rollout":
        page.locator("#heads label").nth(2).click()
        page.locator("#views label").nth(3).click()
        assert "Head 2" not in page.locator("#explain-head").inner_text()
    elif name == "hover":
        page.locator("[data-place='10']").hover()
    else:
        CHANGES[name](page)
    page.wait_for_timeout(100)
    settled(page)
    assert page.evaluate(PLACES) == before


def test_random_weights_are_no_prediction(page):
    assert "pizza is ahead" in page.locator("#explain-forms").inner_text()
    page.locator("#trained").click()
    page.locator("#explain-forms", has_text="means nothing").wait_for()
    words = page.locator("#explain-forms").inner_text()
    assert not re.search("(pizza|steak|sushi) is ahead", words)


def test_it_tells_how_long_an_answer_took(page):
    took = []
    for _ in range(6):
        page.locator("#shuffle").click()
        settled(page)
        took.append(
            int(re.search(r"in (\d+) ms", page.locator("#took").inner_text())[1])
        )
    assert 0 < sorted(took)[2] < 1000  # a tenth of it, if nothing else computes


def test_with_the_keyboard_alone(page):
    page.locator("[data-place='27']").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.place") == "28"
    page.keyboard.press("Enter")
    page.wait_for_function("location.hash.includes('patch=28')")
    page.keyboard.press("Enter")
    page.wait_for_function("location.hash.includes('dropped=28')")
    assert "64 tokens" in page.locator("#count").inner_text()


def test_random_clicking_leaves_no_error_and_no_memory(page):
    generator = random.Random(0)
    controls = page.locator("main button:visible, .tries a:visible, fieldset label")
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
    more = page.evaluate(used) - before
    print(f"{clicks} clicks in {SECONDS:.0f} s, {more / 1e6:+.1f} MB")
    assert clicks > 20 and more < 50e6
