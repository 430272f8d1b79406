"""The web site, built and walked through in a browser."""

import functools
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import axe_playwright_python
import make_site
import nbformat
import pytest
import start_page
from browsing import server, watched_page

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "docs"))
import glossary_terms  # noqa: E402

AXE_SCRIPT = Path(axe_playwright_python.__file__).with_name("axe.min.js")
SCREEN = {"width": 1300, "height": 900}
PHONE = {"width": 390, "height": 844}
LESSONS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def test_links_of_the_readme_become_links_of_the_site():
    def adapt(target, page="index.md"):
        return make_site.adapt_links(f"[x]({target})", page)[4:-1]

    address, branch = make_site.repository()
    assert adapt("going_modular/vit.py") == "reference/vit.md"
    assert adapt("notebooks/exercises") == "notebooks/exercises/index.md"
    assert adapt("notebooks/GLOSSARY.md") == "notebooks/GLOSSARY.md"
    assert adapt("tests/test_vit.py") == f"{address}/blob/{branch}/tests/test_vit.py"
    assert (
        adapt("https://arxiv.org/abs/2010.11929") == "https://arxiv.org/abs/2010.11929"
    )
    assert adapt("#two-commands") == "#two-commands"
    lesson = "notebooks/04_class_token.ipynb"
    assert adapt("exercises/04_class_token.ipynb", lesson) == (
        "exercises/04_class_token.ipynb"
    )
    guide = "notebooks/solutions/README.md"
    assert adapt("../exercises", guide) == "../exercises/index.md"
    assert adapt("../../README.md", guide) == "../../index.md"


def test_no_address_of_the_web_in_the_figures_of_the_first_page(tmp_path):
    text = make_site.first_page(tmp_path)
    assert "<picture>" not in text and "img.shields" not in text
    assert not re.search(r"!\[[^]]*\]\(http", text)
    assert text.count(":class: only-light") == text.count(":class: only-dark") > 0


def test_every_lesson_is_a_card_with_its_own_figure(tmp_path):
    text = start_page.lesson_cards(tmp_path)
    files = {path.stem for path in (tmp_path / "cards").glob("*.jpg")}
    assert files == set(LESSONS)
    assert sum(path.stat().st_size for path in (tmp_path / "cards").iterdir()) < 1.2e6
    for lesson in LESSONS:
        assert f":link: notebooks/{lesson}\n" in text
        first = start_page.first_cell(ROOT / "notebooks" / f"{lesson}.ipynb")
        assert all(f"\n{first[key]}\n" in text for key in ("ability", "minutes"))
    lesson = ROOT / "notebooks" / "04_class_token.ipynb"
    with pytest.raises(ValueError, match="no output in a cell 'gone'"):
        start_page.figure(lesson, "gone")


def test_a_card_that_is_missing_stops_the_build(tmp_path, monkeypatch):
    parts = start_page.card_parts()
    del parts[0]["lessons"]["01_data"]
    monkeypatch.setattr(start_page, "card_parts", lambda: parts)
    with pytest.raises(ValueError, match="missing or unknown: .'01_data'"):
        start_page.lesson_cards(tmp_path)


def test_set_up_imports_and_versions_are_one_folded_cell():
    path = ROOT / "notebooks" / "04_class_token.ipynb"
    cells = make_site.adapt_notebook(path, f"notebooks/{path.name}").cells
    assert cells[2].source.startswith("## Where we are")
    assert cells[1].metadata["tags"] == ["hide-cell"]
    assert "google.colab" in cells[1].source and "from torch import" in cells[1].source
    assert "torch" in cells[1].outputs[0].text


def test_readers_see_nothing_that_is_for_authors_alone():
    for path in make_site.notebooks_in("notebooks"):
        stored = nbformat.read(path, as_version=4).cells
        cells = make_site.adapt_notebook(path, f"notebooks/{path.name}").cells
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        assert "#| " not in code and "OFFLINE is set" not in str(cells), path.name
        assert "def " in code or "def " not in str(stored)
    assert "OFFLINE is set" in str(stored)  # of the last lesson, A5


def test_next_is_what_the_text_of_a_lesson_says():
    assert make_site.next_lesson("06_self_attention") == "07_multihead_self_attention"
    assert make_site.next_lesson("04_class_token") == ""  # as the order says


def test_words_of_the_glossary_are_found_as_they_are_written():
    assert (
        glossary_terms.look_up("Tokens") == glossary_terms.look_up("token") == "token"
    )
    assert glossary_terms.look_up("CNNs") == "CNN"
    assert glossary_terms.look_up("adam") == glossary_terms.look_up("s") == ""
    pieces = glossary_terms.explain_text("Class tokens, tokens, a class token.", set())
    words = [p.astext() for p in pieces if isinstance(p, glossary_terms.Term)]
    assert words == ["Class tokens", "tokens"]
    assert glossary_terms.EVERYDAY <= set(glossary_terms.meanings())


def test_solutions_are_folded_and_carry_a_warning():
    for path in make_site.notebooks_in("notebooks/solutions"):
        notebook = make_site.adapt_notebook(path, f"notebooks/solutions/{path.name}")
        assert ":::{warning}" in notebook.cells[0].source
        folded = 0
        for cell in notebook.cells:
            assert "# BEGIN SOLUTION" not in cell.source, path.name
            if cell.metadata.get("nbgrader", {}).get("solution"):
                folded += 1
                assert (
                    cell.source.startswith("<details>")
                    if cell.cell_type == "markdown"
                    else "hide-cell" in cell.metadata["tags"]
                )
        assert folded > 1, path.name


def markdown_of(lesson):
    notebook = nbformat.read(ROOT / "notebooks" / f"{lesson}.ipynb", as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return re.sub(r"```.*?```|`[^`]*`", "", "\n".join(cells), flags=re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site in a folder of a folder, so that it is served from a sub-path."""
    output = tmp_path_factory.mktemp("www") / "deep" / "course"
    output.parent.mkdir()
    start = os.times().children_user  # of processors, however busy the machine is
    make_site.build(output)  # a warning is an error
    assert os.times().children_user - start < 180
    return output


class _Page(HTMLParser):
    """Links, anchors, pictures and headings of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.without_alt, self.headings = [], set(), [], []
        self.pictures, self.inside = [], False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            self.anchors.add(attributes["id"])
        for name in ("href", "src"):
            if attributes.get(name):
                self.links.append(attributes[name])
        if tag == "img":
            self.pictures.append(attributes["src"])
            if not attributes.get("alt"):
                self.without_alt.append(attributes["src"])
        # Outside of the article the theme repeats the title for printers.
        self.inside |= tag == "article"
        if self.inside and re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))


@pytest.fixture(scope="module")
def pages(site):
    skip = ("_static", "_sources", "_images")
    files = [
        p for p in site.rglob("*.html") if p.relative_to(site).parts[0] not in skip
    ]
    return {path: _Page(path) for path in files}


@pytest.mark.slow
def test_no_internal_link_is_broken(site, pages):
    broken, checked = [], 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            checked += 1
            assert not link.startswith("/"), f"{path}: {link} works only at the top"
            target = (
                (path.parent / unquote(parts.path)).resolve() if parts.path else path
            )
            if not target.exists():
                broken.append(f"{path.relative_to(site)}: {link}")
            # With "=" it is a state of the playground, not a part of a page.
            elif target in pages and parts.fragment and "=" not in parts.fragment:
                if unquote(parts.fragment) not in pages[target].anchors:
                    broken.append(f"{path.relative_to(site)}: {link} has no such part")
    assert not broken, "\n".join(sorted(set(broken)))
    assert checked > 1000


@pytest.mark.slow
def test_pictures_have_alt_texts_and_headings_are_in_order(site, pages):
    for path, page in pages.items():
        name = path.relative_to(site)
        if name.name == "search.html":
            continue  # a script fills it; axe looks at it as well
        assert not page.without_alt, f"{name}: {page.without_alt[:3]}"
        steps = list(zip(page.headings, page.headings[1:], strict=False))
        assert page.headings[:1] == [1], f"{name} begins with {page.headings[:3]}"
        assert page.headings.count(1) == 1, f"{name} has several titles"
        assert all(after <= before + 1 for before, after in steps), name
    pictures = sum(len(page.pictures) for page in pages.values())
    assert pictures > 80


@pytest.mark.slow
def test_no_page_is_over_two_megabytes(site, pages):
    """A page with all its pictures; scripts and fonts are the same for all pages."""
    for path, page in pages.items():
        files = {(path.parent / unquote(src)).resolve() for src in page.pictures}
        size = path.stat().st_size + sum(file.stat().st_size for file in files)
        assert size < 2e6, f"{path.relative_to(site)}: {size / 1e6:.2f} MB"


@pytest.mark.slow
def test_the_download_buttons_give_the_notebooks_themselves(site):
    for folder in make_site.NOTEBOOKS:
        for path in make_site.notebooks_in(folder):
            copy = site / "_sources" / folder / path.name
            assert copy.read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_each_lesson_has_its_colab_and_download_buttons(pages, site):
    address, branch = make_site.repository()
    short = address.removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{short}/blob/{branch}/notebooks"
    for lesson in LESSONS:
        links = pages[site / "notebooks" / f"{lesson}.html"].links
        # One is the theme's button, one the lesson's own link.
        assert links.count(f"{colab}/{lesson}.ipynb") == 2, lesson
        assert f"../_sources/notebooks/{lesson}.ipynb" in links


@pytest.mark.slow
def test_the_reference_shows_equations_signatures_and_proofs(site, browser):
    with watched_page(browser, viewport=SCREEN) as page:
        page.goto((site / "reference" / "class_token.html").as_uri())
        text = page.locator("article").first.inner_text()
        assert "ClassToken(embedding_dim=768)" in text and "ValueError" in text
        assert "equals_a_loop" in text and "04 · The class token" in text
        assert page.locator(".katex-display").count() == 1


@pytest.mark.slow
def test_next_and_previous_lead_through_all_lessons(site, browser):
    with (
        server(site.parents[1]) as address,
        watched_page(browser, viewport=SCREEN) as page,
    ):
        page.goto(f"{address}/deep/course/index.html")
        for before, lesson in zip(["", *LESSONS], LESSONS, strict=False):
            said = make_site.next_lesson(before) if before else ""
            if said in ("", lesson):
                page.locator("a.right-next").click()
            else:  # the one that can wait is in the list of lessons
                link = page.locator("a.right-next").get_attribute("href")
                assert link == f"{said}.html"
                page.goto(page.url.replace(before, lesson))
            page.wait_for_url(f"**/notebooks/{lesson}.html")  # and until it is loaded
            if "$" in markdown_of(lesson):
                page.locator(".katex").first.wait_for(state="attached")
            else:
                assert page.locator(".katex").count() == 0, page.url
            assert page.locator(".katex-error").count() == 0, page.url
            drawn = "Array.from(document.images).every(i => i.naturalWidth > 0)"
            page.evaluate("document.querySelectorAll('img').forEach(i => i.loading='')")
            page.wait_for_function(drawn)
        for lesson in LESSONS[-2::-1]:
            page.locator("a.left-prev").click()
            page.wait_for_url(f"**/notebooks/{lesson}.html")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["http", "file"])
def test_the_search_finds_the_class_token(site, browser, kind):
    with (
        server(site.parents[1]) as address,
        watched_page(browser, viewport=SCREEN) as page,
    ):
        top = f"{address}/deep/course" if kind == "http" else site.as_uri()
        page.goto(f"{top}/notebooks/11_training.html")
        page.keyboard.press("Control+k")
        page.keyboard.type("class token")
        page.keyboard.press("Enter")
        page.wait_for_selector("ul.search li a")
        found = page.locator("ul.search li a").all_inner_texts()
        lessons = [title for title in found if re.match(r"\d\d · [^:]*$", title)]
        assert lessons and lessons[0] == "04 · The class token", found[:5]
        page.wait_for_timeout(500)
        page.locator("ul.search li a", has_text="04 · The class token").first.click()
        page.wait_for_url("**/notebooks/04_class_token.html*")
        title = page.locator("article h1:visible").inner_text()
        assert title.startswith("04 · The class token")


@pytest.mark.slow
def test_dark_mode_by_button_and_by_system(site, browser):
    address = (site / "notebooks" / "04_class_token.html").as_uri()
    background = "getComputedStyle(document.body).backgroundColor"
    for scheme in ("light", "dark"):
        with watched_page(browser, color_scheme=scheme) as page:
            page.goto(address)
            theme = "document.documentElement.dataset.theme"
            assert page.evaluate(theme) == scheme
            first = page.evaluate(background)
            page.locator(".theme-switch-button:visible").click()
            other = {"light": "Dark", "dark": "Light"}[scheme]
            page.get_by_text(other, exact=True).click()
            assert page.evaluate(theme) != scheme
            assert page.evaluate(background) != first


@pytest.mark.slow
def test_with_the_keyboard_alone(site, browser):
    with watched_page(browser, viewport=SCREEN) as page:
        page.goto((site / "notebooks" / "04_class_token.html").as_uri())
        page.keyboard.press("Tab")
        focus = "document.activeElement"
        assert page.evaluate(f"{focus}.textContent").strip() == "Skip to main content"
        page.keyboard.press("Enter")
        assert page.url.endswith("#main-content")
        names = []
        for _ in range(60):
            page.keyboard.press("Tab")
            names.append(page.evaluate(f"{focus}.outerHTML"))
        summaries = [name for name in names if name.startswith("<summary")]
        assert summaries, "the folded set-up is not reached"
        assert any(
            'href="05_position_embedding.html"' in name for name in names
        ) or any("<pre" in name for name in names)


@pytest.mark.slow
def test_terms_say_what_they_mean_and_figures_grow(site, browser):
    with watched_page(browser, viewport=SCREEN) as page:
        page.goto((site / "notebooks" / "04_class_token.html").as_uri())
        term = page.locator(".term", has_text="batch").first
        meaning = term.locator(".meaning")
        assert not meaning.is_visible()
        term.focus()
        assert meaning.is_visible() and "several images" in meaning.inner_text()
        page.keyboard.press("Escape")
        assert not meaning.is_visible()
        words = page.locator(".term").evaluate_all(
            "all => all.map(t => t.firstChild.textContent.toLowerCase())"
        )
        assert len(words) == len(set(words)) > 5
        assert page.locator(":is(h1, h2, h3, code, a) .term").count() == 0

        figure = page.locator("article button.enlarge").first
        figure.focus()
        page.keyboard.press("Enter")
        large = page.locator("dialog.enlarged[open] img")
        assert large.get_attribute("alt") == figure.locator("img").get_attribute("alt")
        page.keyboard.press("Escape")
        assert large.count() == 0


@pytest.mark.slow
def test_on_a_phone_the_drawing_of_the_model_scrolls_to_its_part(site, browser):
    with watched_page(browser, viewport=PHONE) as page:
        page.goto((site / "notebooks" / "10_vision_transformer.html").as_uri())
        box = page.locator(".model-map")
        assert box.locator("img").bounding_box()["width"] > 750
        assert box.evaluate("b => b.clientWidth") < 390
        assert box.evaluate("b => b.scrollLeft") > 300  # the head is at the right
        assert "more-left" in box.get_attribute("class")


@pytest.mark.slow
def test_on_a_phone_wide_figures_and_outputs_scroll_and_fade(site, browser):
    with watched_page(browser, viewport=PHONE) as page:
        page.goto((site / "notebooks" / "13b_attention_maps.html").as_uri())
        for kind in (".wide", "pre"):
            # Held as it is: once it was scrolled, the words would find another.
            box = page.wait_for_selector(f"article {kind}.more-right")
            assert box.evaluate("b => b.scrollWidth > b.clientWidth")
            box.evaluate("b => b.scrollTo(b.scrollWidth, 0)")
            ended = "b => b.matches('.more-left:not(.more-right)')"
            page.wait_for_function(ended, arg=box)


# Thousands of words of code have the same few colours, and axe takes its time over
# each: of every kind it sees one, and formulas when they bring a new colour. What the
# pages of a folder have shown before is known: they share one style.
NEW_KINDS_ONLY = """known => {
  const seen = new Set(known);
  for (const word of document.querySelectorAll('.highlight pre span')) {
    if (seen.has(word.className)) word.replaceWith(word.textContent);
    else seen.add(word.className);
  }
  for (const formula of document.querySelectorAll('.katex-html')) {
    const words = formula.querySelectorAll('[style*=color]');
    const colours = Array.from(words, word => word.style.color);
    if (seen.has('formula') && colours.every(c => seen.has(c))) formula.remove();
    colours.concat('formula').forEach(c => seen.add(c));
  }
  // What opens slowly would be looked at while it is still pale.
  const still = document.createElement('style');
  still.textContent = '* { animation: none !important; transition: none !important }';
  document.head.append(still);
  document.querySelectorAll('details').forEach(d => d.open = true);
  // Text with the same tags, classes and styles, all the way up, has the same colours.
  const all = Array.from(document.querySelectorAll('article *:not(table *)'));
  const isNew = element => {
    let kind = '';
    for (let e = element; e.localName != 'article'; e = e.parentElement)
      kind += `${e.localName} ${e.className} ${e.getAttribute('style')} in `;
    return !seen.has(kind) && seen.add(kind);
  };
  const first = all.filter(isNew);
  all.forEach(element => element.dataset.seen = '');
  for (let element of first)
    for (; element.localName != 'article'; element = element.parentElement)
      delete element.dataset.seen;
  return Array.from(seen);
}"""
AXE = """async ([theme, exclude, options]) => {
  document.documentElement.dataset.theme = theme;
  // A selector for each of thousands of nodes that pass would take longer than axe.
  const quick = {preload: false, resultTypes: ['violations'], selectors: false};
  const answer = await axe.run({exclude}, {...quick, ...options});
  const bad = answer.violations.filter(v => /serious|critical/.test(v.impact));
  return bad.map(v => `${v.id}: ${v.nodes[0].html.slice(0, 120)}`);
}"""


AROUND = [[".bd-sidebar-primary"], [".bd-header-article"]]
FOLDERS = ("reference", *make_site.NOTEBOOKS)


@pytest.fixture(scope="module")
def visited(site, browser, pages):
    """What axe finds on a page, and its width on a phone: one visit for both."""

    @functools.cache
    def visit(folder):
        findings, widths, seen, kinds = [], {}, set(), []
        contrast = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
        rest = {"rules": {"color-contrast": {"enabled": False}}}
        with watched_page(browser, viewport=PHONE) as page:
            page.context.add_init_script(path=AXE_SCRIPT)
            for path in pages:
                parent = path.parent.relative_to(site).as_posix()
                if folder != (parent if parent in FOLDERS else "any other"):
                    continue
                name = path.relative_to(site)
                page.set_viewport_size(PHONE)
                page.goto(path.as_uri())
                widths[name] = page.evaluate("document.documentElement.scrollWidth")
                page.set_viewport_size(SCREEN)
                kinds = page.evaluate(NEW_KINDS_ONLY, kinds)
                # The pages of a folder have one sidebar and one header.
                around = [] if path.parent not in seen else AROUND
                seen.add(path.parent)
                known = [*around, ["[data-seen]"]]
                for theme, exclude, options in (
                    ("light", around, rest),
                    ("light", known, contrast),
                    ("dark", known, contrast),
                ):
                    for finding in page.evaluate(AXE, [theme, exclude, options]):
                        findings.append(f"{name}, {theme}: {finding}")
        return findings, widths

    return visit


@pytest.mark.slow
@pytest.mark.parametrize("folder", [*FOLDERS, "any other"])
def test_axe_finds_nothing_serious_on_any_page(visited, folder):
    findings, widths = visited(folder)
    assert widths and not findings, "\n".join(findings[:40])


@pytest.mark.slow
@pytest.mark.parametrize("folder", [*FOLDERS, "any other"])
def test_on_a_phone_no_page_is_wider_than_the_screen(visited, folder):
    _, widths = visited(folder)
    wide = {str(name): width for name, width in widths.items() if width > 390}
    assert widths and not wide, wide


@pytest.mark.slow
def test_axe_would_find_something(browser):
    """The same call sees a picture without words and letters too pale to be read."""
    with watched_page(browser, only=" asked for ") as page:
        page.context.add_init_script(path=AXE_SCRIPT)
        page.goto(
            "data:text/html,<title>x</title><img src=x><p style='color:%23ccc'>pale"
        )
        found = " ".join(page.evaluate(AXE, ["light", [], {}]))
    assert "image-alt" in found and "color-contrast" in found
