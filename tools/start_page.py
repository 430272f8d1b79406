"""The first page of the site: docs/start.md with each lesson as a card."""

import base64
import io
import json
import re
import tomllib
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont, ImageOps

ROOT = Path(__file__).resolve().parent.parent
SIZE = 560, 315  # pixels of a card's image
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf"
CARD = """::::{{grid-item-card}} {title}
:link: notebooks/{name}
:link-type: doc
:img-top: images/cards/{name}.jpg
:img-alt: {alt}

{equation}

{ability}

:::{{card-footer}}
{minutes}
:::
::::"""

GRID = ":::::{grid} 1 2 2 3\n:gutter: 3\n:class-container: lessons\n\n%s\n:::::"


def card_parts() -> list[dict]:
    """Returns the parts of the course in docs/cards.toml: title, text and lessons."""
    text = (ROOT / "docs" / "cards.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["part"]


def card_figures() -> dict[str, dict]:
    """Returns which figure a lesson's card shows, by the lesson's name."""
    return {k: v for part in card_parts() for k, v in part["lessons"].items()}


def cells_of(path: Path) -> list[dict]:
    """Returns a notebook's cells as they are stored, which is fast."""
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def first_cell(path: Path) -> dict[str, str]:
    """Reads what a lesson says of itself: title, equation, ability and minutes.

    Raises:
        ValueError: the lesson lacks "At the end …" or "About N minutes".
    """
    text = "".join(cells_of(path)[0]["source"])
    ability = re.search(r"^At the end (.+)$", text, re.MULTILINE)
    minutes = re.search(r"^About (\d+ minutes[^·]*) ·", text, re.MULTILINE)
    if not ability or not minutes:
        raise ValueError(f"{path.name}: no line At the end …, or none About N minutes")
    equation = re.search(r"\$\$(.+?)\$\$", text, re.DOTALL)
    # On a card there is room for the first of several formulas.
    formula = re.split(r"\\q?quad", equation[1])[0].strip(" ,") if equation else ""
    note = re.sub(r" \((?:it )?(.+)\)$", r" · \1", minutes[1])
    return {
        "title": text.splitlines()[0].lstrip("# "),
        "equation": f"${formula}$" if formula else "",
        "ability": ability[1][0].upper() + ability[1][1:],
        "minutes": note,
    }


def draw_text(text: str) -> Image.Image:
    """Draws the first lines of what a cell printed, as a terminal shows them."""
    lines = [line[:57] for line in text.splitlines()[:9]]
    size = min(24, int(SIZE[0] / (0.63 * max(map(len, lines)))))
    image = Image.new("RGB", SIZE, "#171a21")
    font = ImageFont.truetype(str(FONT), size)
    ImageDraw.Draw(image).multiline_text(
        (SIZE[0] / 2, SIZE[1] / 2), "\n".join(lines), "#dfe3ea", font, "mm", spacing=10
    )
    return image


def figure(path: Path, cell_id: str) -> tuple[Image.Image, str]:
    """Returns the last image that a cell of a lesson has stored, and its alt text.

    Of a cell without an image, what it printed is drawn.

    Raises:
        ValueError: the lesson has no such cell, or the cell no output.
    """
    cells = [cell for cell in cells_of(path) if cell["id"] == cell_id]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    for output in reversed(outputs):
        for kind in ("image/png", "image/jpeg"):
            if kind in output.get("data", {}):
                pixels = base64.b64decode("".join(output["data"][kind]))
                image = Image.open(io.BytesIO(pixels)).convert("RGB")
                return image, output["metadata"][kind]["alt"]
    printed = [
        o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs
    ]
    text = "".join("".join(lines) for lines in printed).strip()
    if text:
        return draw_text(text), f"It prints: {'; '.join(text.splitlines()[:3])}"
    raise ValueError(
        f"docs/cards.toml: {path.name} has no output in a cell {cell_id!r}"
    )


def write_thumbnail(image: Image.Image, crop: list[float], file: Path) -> None:
    """Writes a part of an image, on white, in the size of a card.

    Args:
        crop: left, top, right and bottom, in 0 … 1 of the image.
    """
    left, top, right, bottom = crop
    width, height = image.size
    image = image.crop((left * width, top * height, right * width, bottom * height))
    file.parent.mkdir(parents=True, exist_ok=True)
    ImageOps.pad(image, SIZE, color="white").save(file, quality=75, optimize=True)


def lesson_cards(images: Path) -> str:
    """Returns the cards of all lessons in Markdown, and writes their images.

    Raises:
        ValueError: a lesson lacks in docs/cards.toml, or stands there twice.
    """
    parts = card_parts()
    named = [name for part in parts for name in part["lessons"]]
    lessons = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    if sorted(named) != lessons:
        wrong = sorted(set(named) ^ set(lessons)) or "a lesson twice"
        raise ValueError(f"docs/cards.toml: missing or unknown: {wrong}")
    pages = []
    for part in parts:
        cards = []
        for name, choice in part["lessons"].items():
            path = ROOT / "notebooks" / f"{name}.ipynb"
            image, alt = figure(path, choice["figure"])
            crop = choice.get("crop", [0, 0, 1, 1])
            write_thumbnail(image, crop, images / "cards" / f"{name}.jpg")
            cards.append(CARD.format(name=name, alt=alt, **first_cell(path)))
        pages.append(f"### {part['title']}\n\n{part['text']}")
        pages.append(GRID % "\n\n".join(cards))
    return "\n\n".join(pages)


def start_page(images: Path) -> str:
    """Returns the page in Markdown; its links count from the top of the repository."""
    text = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    return text.replace("<!-- the lessons -->", lesson_cards(images))
