"""Settings of the web site; tools/make_site.py prepares the pages and runs Sphinx."""

import base64
import hashlib
import re
import sys
import tomllib
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
METADATA = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
sys.path[:0] = [str(ROOT), str(ROOT / "tools"), str(ROOT / "docs")]

from make_site import next_lesson, repository  # noqa: E402

from vit_course.figures.model import middle_of  # noqa: E402

REPOSITORY, BRANCH = repository()

project = "The Vision Transformer"
html_title = "The Vision Transformer, one equation at a time"
copyright = "its contributors; text and figures CC BY 4.0, code MIT"
release = METADATA["project"]["version"]
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_design",
    "sphinxcontrib.katex",
    "glossary_terms",
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
nitpicky = False  # torch and numpy have no inventory here, so their names stay plain

# The outputs are those stored in the lessons, which `make test` compares.
nb_execution_mode = "off"
nb_merge_streams = True  # what one cell prints is one block
nb_code_prompt_show, nb_code_prompt_hide = "Show the code", "Hide the code"
nb_ipywidgets_js = {}  # would come from the network; progress bars show as text
nb_mime_priority_overrides = [
    ("html", "application/vnd.jupyter.widget-view+json", None)
]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # nn.Module's own say nothing about ours
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_custom_sections = [("Shape", "notes_style")]
default_role = "code"  # docstrings mark names as Markdown does

# KaTeX's script comes with the extension, its fonts lie in _static: no network.
katex_css_path = "katex/katex.min.css"

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["course.css"]
html_js_files = ["course.js"]
html_search_scorer = str(ROOT / "docs" / "scorer.js")
html_scaled_image_link = False  # a click on a figure enlarges it in its page
html_use_index = html_domain_indices = False  # the search finds the same
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_theme_options = {
    "navbar_start": [],  # the sidebar holds the search
    "navbar_persistent": [],
    "repository_url": REPOSITORY,
    "repository_branch": BRANCH,
    "repository_provider": "github",
    "path_to_docs": "",
    "use_repository_button": True,
    "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    "footer_content_items": ["copyright.html"],
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def stored_images(notebook: Path) -> dict[str, dict]:
    """Returns what `show` stores with each image, by the name MyST-NB gives it."""
    found = {}
    for cell in nbformat.read(notebook, as_version=4).cells:
        for output in cell.get("outputs", []):
            for kind in ("image/png", "image/jpeg"):
                seen = output.get("metadata", {}).get(kind, {})
                if seen.get("alt") and kind in output.get("data", {}):
                    image = base64.b64decode(output["data"][kind])
                    found[hashlib.sha256(image).hexdigest()] = seen
    return found


def describe_images(app: Sphinx, doctree: nodes.document) -> None:
    """MyST-NB reads neither the alt text nor the width that `show` stores."""
    source = Path(app.env.doc2path(app.env.docname))
    if source.suffix == ".ipynb":
        found = stored_images(source)
        for image in list(doctree.findall(nodes.image)):
            seen = found.get(Path(image["uri"]).stem, {})
            if "alt" in seen:
                image["alt"] = seen["alt"]
            if "width" in seen:
                image["width"] = f"{seen['width']}px"
            if image["alt"].startswith("The Vision Transformer from image to class"):
                show_whole_map(image)


def show_whole_map(image: nodes.image) -> None:
    """On a phone the drawing of the model scrolls, from the part in colour on."""
    part = re.search(r"the part in colour: (.+)\.", image["alt"])
    middle = middle_of(part[1]) if part else 0
    start = nodes.raw("", f'<div class="model-map" data-middle="{middle}">')
    end = nodes.raw("", "</div>")
    start["format"] = end["format"] = "html"
    image.replace_self([start, image, end])


def follow_the_text(app: Sphinx, page: str, _: str, context: dict, __) -> None:
    """The next page is the one that the lesson names: what can wait is passed over."""
    folder, _, name = page.rpartition("/")
    is_lesson = folder == "notebooks" and (ROOT / f"{page}.ipynb").exists()
    if is_lesson and (said := next_lesson(name)):
        title = app.builder.render_partial(app.env.titles[f"notebooks/{said}"])["title"]
        context["next"] = {"link": f"{said}.html", "title": title}


def setup(app: Sphinx) -> None:
    """Registers what this site adds to its extensions."""
    app.connect("doctree-read", describe_images)
    app.connect("html-page-context", follow_the_text)
