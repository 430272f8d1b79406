"""The drawings that a lesson shows with `show_drawing`, by name."""

import json
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from vit_course.figures.canvas import Canvas
from vit_course.figures.clock_hands import draw_clock_hand, draw_clock_hands
from vit_course.figures.draw import FIGURES
from vit_course.figures.equation_1 import draw_equation_1
from vit_course.figures.figure_1 import draw_figure_1
from vit_course.figures.five_changes import draw_five_changes
from vit_course.figures.four_to_eight import draw_four_to_eight
from vit_course.figures.hero import draw_hero
from vit_course.figures.loading import draw_loading
from vit_course.figures.mlp_by_hand import draw_mlp_by_hand
from vit_course.figures.patch_axes import draw_patch_axes, draw_patch_axes_back
from vit_course.figures.residual_stream import draw_residual_stream
from vit_course.figures.sliding_kernel import draw_sliding_kernel
from vit_course.figures.two_heads import draw_two_heads
from vit_course.figures.two_processes import (
    draw_two_processes,
    draw_unequal_shards,
)
from vit_course.figures.wirings import draw_wirings

ALT_TEXTS = Path(__file__).resolve().parents[2] / "images" / "alt_texts.json"
# Drawings of `images/`, whose alternative texts are in ALT_TEXTS.
OF_IMAGES = {name: draw for name, (_, draw) in FIGURES.items()} | {"hero": draw_hero}
# Drawings that no file of `images/` holds: an alternative text, and who draws it.
OF_LESSONS: dict[str, tuple[str, Callable[..., Canvas]]] = {
    "clock_hand": (
        "Nine clocks, of positions 0 to 8, with one hand that turns an eighth of a "
        "turn per position: at 8 it points up again, as at 0. Below, two waves show "
        "how far right (the sine) and how far up (the cosine) its tip is.",
        draw_clock_hand,
    ),
    "clock_hands": (
        "The same nine clocks with a second, short hand that turns eight times slower. "
        "At position 8 the long hand points up, as at 0, but the short one has moved.",
        draw_clock_hands,
    ),
    "equation_1": (
        "Equation 1. Above: an image of H by W pixels is cut into N patches, each a "
        "row of P²·C values, and multiplied by the matrix E. Below: the class token "
        "and N patch embeddings, plus the N + 1 rows of E_pos, give the N + 1 tokens "
        "of z_0.",
        draw_equation_1,
    ),
    "figure_1": (
        "The architecture from its input, an image, to its output, logits: the layers "
        "patch embedding, class token and position embedding, 12 encoder blocks, the "
        "layers LayerNorm and head. Below, one block from inside: tokens pass "
        "LayerNorm and self-attention, then LayerNorm, Linear, GELU and Linear, each "
        "half with a skip connection.",
        draw_figure_1,
    ),
    "five_changes": (
        "One encoder block, with what is new in full colour. 1, LayerScale: the last "
        "box of both branches, before the sum; 2, registers: four tokens between class "
        "token and patches; 3, QK-norm: after q and k, before softmax. 4, SwiGLU: "
        "between the two linear layers of the MLP; 5, attention pooling: after the "
        "blocks, before the head.",
        draw_five_changes,
    ),
    "four_to_eight": (
        "Four wide boxes with the values 0, 10, 20, 30, and below them eight narrow "
        "ones. The middle of the second narrow box lies a quarter of the way from the "
        "middle of 0 to that of 10, so it gets three quarters of 0 and a quarter of "
        "10, which is 2.5.",
        draw_four_to_eight,
    ),
    "loading": (
        "From files to a batch. Folders named pizza, steak and sushi hold the images; "
        "the Dataset numbers them, and when asked for an entry it makes a tensor and "
        "its label; the DataLoader asks in random order and deals 32 at a time; a "
        "batch is one tensor of images, (32, 3, 224, 224), and one of labels, (32,).",
        draw_loading,
    ),
    "mlp_by_hand": (
        "Five tokens x of one value, -2 to 2, pass a tiny MLP: the first layer gives "
        "the hidden units x, -x, x-1 and -x-1, ReLU sets the negative ones to 0, the "
        "second layer adds them times 2, 1, -4 and -2. The outputs are 0, 1, 0, 2, 0. "
        "A frame follows token 4: 2, then 2, -2, 1, -3, then 2, 0, 1, 0, then 0.",
        draw_mlp_by_hand,
    ),
    "patch_axes": (
        "Cutting images in three operations, with a colour per axis: a reshape splits "
        "H into H/P and P, and W into W/P and P; a permute brings H/P and W/P together "
        "after B; a reshape joins them to N, and C, P and P to one axis. Pixel 22 goes "
        "from index 3, 4 of the image to index 5, 2: the third value of patch 6.",
        draw_patch_axes,
    ),
    "patch_axes_back": (
        "The way back: the six axes B, H/P, W/P, C, P and P, numbered from 0 to 5, go "
        "to the order 0, 3, 1, 4, 2, 5, which is B, C, H/P, P, W/P, P. Pixel 22 goes "
        "from patch row 1 and patch column 2 back to its place in the image.",
        draw_patch_axes_back,
    ),
    "residual_stream": (
        "A token of two features, 8 and 2, on a thick line from z_0 to z_2, the "
        "residual stream. Four branches leave it, two per block; each passes LN and "
        "MSA, or LN and MLP, and comes back to a sum. They add 0 and 0.5, 1 and 0, 0 "
        "and -0.5, 0.5 and 1, and the token becomes 9.5 and 3.",
        draw_residual_stream,
    ),
    "sliding_kernel": (
        "A kernel of 2 by 2 moves over an image of 4 by 4 with stride 2 and visits its "
        "four patches. On patch 2, kernel 2 (right minus left) sums the products to "
        "one value, 8. Three kernels give three feature maps, and the place of patch 2 "
        "in all three maps is its token: 12, 8, 0.",
        draw_sliding_kernel,
    ),
    "two_heads": (
        "Three tokens of four values go to two heads. Each head multiplies all four "
        "values by a matrix of its own, (4, 2), has a map of its own, (3, 3), which is "
        "given, and makes two values per token; the results lie side by side, (3, 4), "
        "and are multiplied by a last matrix, (4, 4). A frame follows token 1.",
        draw_two_heads,
    ),
    "two_processes": (
        "One step of two processes, from left to right. A batch of four images, 3, 6, "
        "0, 5, is divided into two shards: process 0 gets 3 and 0, process 1 gets 6 "
        "and 5. Both have the same weights, and compute a gradient each; all-reduce "
        "gives both the sum, which is halved, so both take the same step and stay "
        "equal.",
        draw_two_processes,
    ),
    "unequal_shards": (
        "A batch of three images with the values 1, 2, 6 is divided into two shards: "
        "process 0 gets 1 and 6, process 1 gets 2. The means are 3.50 and 2.00; times "
        "the factors 2 / 1.5 and 1 / 1.5 they are 4.67 and 1.33, and the average of "
        "these is 3.00, the mean of the batch.",
        draw_unequal_shards,
    ),
    "wirings": (
        "Three wirings of one block. Without a skip connection, LayerNorm, MSA, "
        "LayerNorm and MLP follow in a row; in post-norm, the tokens also go around "
        "MSA and around MLP and are added, and each LayerNorm comes after the sum. In "
        "pre-norm, they go around LayerNorm and MSA, then around LayerNorm and MLP, "
        "and only two sums lie on their way.",
        draw_wirings,
    ),
}


def drawing(name: str, dark: bool = False) -> tuple[Figure, str]:
    """Draws one of the drawings, and returns it with its alternative text.

    Raises:
        ValueError: there is no drawing of that name.
    """
    if name in OF_LESSONS:
        alt, draw = OF_LESSONS[name]
    elif name in OF_IMAGES:
        alt = json.loads(ALT_TEXTS.read_text(encoding="utf-8"))[name]
        draw = OF_IMAGES[name]
    else:
        known = ", ".join([*OF_IMAGES, *OF_LESSONS])
        raise ValueError(f"no drawing is called {name!r}; there are {known}")
    canvas = draw(dark)
    canvas.frame()
    return canvas.figure, alt
