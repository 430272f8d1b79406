"""Two processes train on one batch: equal shards, and shards that need a factor."""

from vit_course.figures.canvas import Canvas

BATCH = (3, 6, 0, 5)  # images by number, as in lesson 14b
VALUES = (1, 2, 6)  # of a batch of three, one per image, as in lesson 14b
ROWS = (128, 44)  # middles of the rows of process 0 and process 1
EQUAL = len(VALUES) / len(ROWS)  # values of a process in equal shards
FILLS = (0.12, 0.75)  # of the images of each process; no colour of a part of the model
_SIDE = 34  # of an image


def shards() -> list[tuple[int, ...]]:
    """Returns the images of each process: every second one."""
    return [BATCH[rank :: len(ROWS)] for rank in range(len(ROWS))]


def _image(canvas: Canvas, left: float, middle: float, number: int, rank: int) -> None:
    box = (left, middle - _SIDE / 2, _SIDE, _SIDE)
    canvas.card(box, "layer norm", FILLS[rank], f"{number}", size=11)


def draw_two_processes(dark: bool = False) -> Canvas:
    """Draws one step of two processes, from left to right."""
    canvas = Canvas(800, 216, dark)
    heads = {"batch": 47, "shards": 190, "model": 311, "gradients": 420}
    heads |= {"all-reduce": 550, "step": 706}
    for name, x in heads.items():
        canvas.text(x, 196, name, size=10, weight="bold")
    top = sum(ROWS) / len(ROWS) + 1.5 * (_SIDE + 4)
    for index, number in enumerate(BATCH):
        _image(canvas, 30, top - index * (_SIDE + 4), number, index % len(ROWS))
    look = {"colour": "layer norm"}
    for rank, (y, images) in enumerate(zip(ROWS, shards(), strict=True)):
        canvas.way((70, sum(ROWS) / 2), (106, sum(ROWS) / 2), (106, y), (148, y))
        canvas.text(190, y + 32, f"process {rank}")
        for place, number in enumerate(images):
            _image(canvas, 152 + place * (_SIDE + 4), y, number, rank)
        canvas.way((228, y), (262, y))
        canvas.card((262, y - 21, 98, 42), fill=0.05, label="same weights", **look)
        canvas.way((360, y), (392, y))
        label = rf"$g_{rank}$"
        canvas.card(
            (392, y - 21, 56, 42), fill=FILLS[rank], label=label, size=13, **look
        )
        canvas.way((448, y), (484, y))
        canvas.way((616, y), (650, y))
        label = "new weights"
        canvas.card((650, y - 21, 112, 42), fill=0.05, label=label, **look)
    bottom, height = ROWS[1] - 26, ROWS[0] - ROWS[1] + 52
    canvas.card((484, bottom, 132, height), fill=0.05, **look)
    middle = sum(ROWS) / 2
    canvas.text(550, middle + 24, "$g_0 + g_1$", size=14)
    canvas.text(550, middle, "and halved:")
    canvas.text(550, middle - 20, "the same for both")
    canvas.text(706, middle, "equal again")
    return canvas


def averages() -> list[tuple[list[int], float, float]]:
    """Returns of each process its values, their mean, and mean times factor."""
    shards: list[list[int]] = [
        list(VALUES[rank :: len(ROWS)]) for rank in range(len(ROWS))
    ]
    return [(s, sum(s) / len(s), sum(s) / EQUAL) for s in shards]


def draw_unequal_shards(dark: bool = False) -> Canvas:
    """Draws how the means of two unequal shards become the mean of their batch."""
    canvas = Canvas(730, 216, dark)
    heads = {"batch": 47, "shards": 190, "mean": 307, "times factor": 460}
    for name, x in (heads | {"average": 634}).items():
        canvas.text(x, 196, name, size=10, weight="bold")
    middle = sum(ROWS) / 2
    for index, value in enumerate(VALUES):
        y = middle + (1 - index) * (_SIDE + 4)
        _image(canvas, 30, y, value, index % len(ROWS))
    look = {"colour": "layer norm"}
    found = averages()
    for rank, (y, (values, mean, product)) in enumerate(zip(ROWS, found, strict=True)):
        canvas.way((70, middle), (106, middle), (106, y), (148, y))
        canvas.text(190, y + 32, f"process {rank}")
        left = 190 - (len(values) * (_SIDE + 4) - 4) / 2
        for place, value in enumerate(values):
            _image(canvas, left + place * (_SIDE + 4), y, value, rank)
        canvas.way((228, y), (262, y))
        canvas.card((262, y - 21, 90, 42), fill=0.05, label=f"{mean:.2f}", **look)
        canvas.way((352, y), (386, y))
        label = f"× {len(values)} / {EQUAL} = {product:.2f}"
        canvas.card((386, y - 21, 148, 42), fill=0.05, label=label, **look)
        canvas.way((534, y), (568, y))
    bottom, height = ROWS[1] - 26, ROWS[0] - ROWS[1] + 52
    canvas.card((568, bottom, 132, height), fill=0.05, **look)
    products = [product for _, _, product in found]
    canvas.text(634, middle + 24, " + ".join(f"{x:.2f}" for x in products))
    canvas.text(634, middle, "and halved:")
    canvas.text(634, middle - 24, f"{sum(products) / 2:.2f}", size=13)
    return canvas
