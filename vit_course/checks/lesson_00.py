"""Tasks of the exercises of lesson 00b: sizes, shapes and tables of a paper."""

from collections.abc import Callable
from itertools import pairwise
from numbers import Integral

from going_modular.variants import VARIANTS, ViTVariant, count_parameters
from vit_course.checks.hints import NO_RETURN, hint
from vit_course.checks.task import Case, Task

# 1. The size of a head

HEAD_DIMS = {
    lambda v: v.embedding_dim // v.num_transformer_layers: (
        "Base has as many layers as heads, 12. You divide by the layers; the heads "
        "divide D among them."
    ),
    lambda v: 64: "64 is right for most sizes, and no law: look at Huge. Compute it.",
    lambda v: v.embedding_dim: (
        "that is D, the dimension of a whole token. The heads divide it among them."
    ),
    lambda v: v.mlp_size // v.num_heads: (
        "that is the hidden size of the MLP, divided by the heads. The heads divide D."
    ),
    lambda v: v.num_heads // v.embedding_dim: (
        "0 comes of a division the wrong way round (there are fewer heads than "
        "dimensions), and of `%`, which gives what is left over."
    ),
    lambda v: v.embedding_dim * v.num_heads: (
        "more heads do not make a token longer: divide D by the heads, do not multiply."
    ),
}


def _whole(answer, variant: ViTVariant):
    found = answer(variant)
    hint(
        not isinstance(found, float),
        f"it gives {found!r}, a float. The dimension of a head is an int: `//` divides "
        "whole numbers, `/` gives a float.",
    )
    return found


check_head_dim = Task(
    "head_dim",
    "the dimension of one head",
    Case(
        inputs=[
            (VARIANTS["vit_base_16"],),
            (VARIANTS["vit_huge_14"],),
            (ViTVariant(2, 48, 90, 6, patch_size=4, img_size=32),),
            (ViTVariant(7, 90, 36, 9, patch_size=8, img_size=40),),
            (ViTVariant(3, 20, 55, 1),),
        ],
        call=_whole,
        right=lambda v: v.embedding_dim // v.num_heads,
        mistakes=HEAD_DIMS,
        gradient=False,
    ),
)

# 2. Follow the shapes

NAMES = ("batch", "height", "width", "patch_size", "dim", "classes")
SIZES = [
    (2, 224, 320, 16, 192, 3),
    (3, 48, 32, 8, 20, 5),
    (1, 28, 70, 14, 36, 7),
    (5, 12, 4, 4, 10, 2),
]
RIGHT = {
    "patches": lambda b, h, w, p, d, c: (b, h * w // p**2, p * p * 3),
    "projected": lambda b, h, w, p, d, c: (b, h * w // p**2, d),
    "class token": lambda b, h, w, p, d, c: (b, h * w // p**2 + 1, d),
    "encoder": lambda b, h, w, p, d, c: (b, h * w // p**2 + 1, d),
    "head": lambda b, h, w, p, d, c: (b, c),
}
SHAPES: dict[str, dict] = {
    "patches": {
        (
            lambda b, h, w, p, d, c: (b, (h // p) ** 2, p * p * 3),
            lambda b, h, w, p, d, c: (b, (w // p) ** 2, p * p * 3),
        ): (
            "the image need not be square: N is rows times columns of patches, and the "
            "two differ."
        ),
        lambda b, h, w, p, d, c: (b, h * w // p, p * p * 3): (
            "a patch is P pixels high and P pixels wide: divide by P twice."
        ),
        lambda b, h, w, p, d, c: (b, h * w // p**2, p * p): (
            "each pixel of an RGB image has three values, so a flat patch has P·P·3."
        ),
        lambda b, h, w, p, d, c: (b, h * w // p**2, d): (
            "a patch that is only cut out has P·P·3 values; D comes with E. In Base "
            "both are 768, by chance."
        ),
        (
            lambda b, h, w, p, d, c: (b, h * w // p**2, p, p, 3),
            lambda b, h, w, p, d, c: (b, h * w // p**2, 3, p, p),
        ): "a flat patch is one vector: P·P·3 is one size of the shape.",
        lambda b, h, w, p, d, c: (h * w // p**2, p * p * 3): (
            "there is a batch of images: each shape begins with its size."
        ),
        lambda b, h, w, p, d, c: (b, p * p * 3, h * w // p**2): (
            "each patch is a row: the number of patches comes before that of values."
        ),
        lambda b, h, w, p, d, c: (b, h * w // p**2 + 1, p * p * 3): (
            "the class token comes later: cutting an image gives N patches."
        ),
    },
    "projected": {
        lambda b, h, w, p, d, c: (b, h * w // p**2, p * p * 3): (
            "E maps the P·P·3 values of a patch to D features. In Base both are 768, "
            "by chance."
        ),
    },
    "class token": {
        lambda b, h, w, p, d, c: (b, h * w // p**2, d): (
            "the class token is one more token: N patches become N + 1."
        ),
        lambda b, h, w, p, d, c: (b, h * w // p**2, d + 1): (
            "the class token is one more token, not one more feature of each token: "
            "concatenate along the tokens."
        ),
        lambda b, h, w, p, d, c: (b + 1, h * w // p**2, d): (
            "the class token is not one more image: concatenate along the tokens."
        ),
        lambda b, h, w, p, d, c: (b, 1, d): (
            "that is the class token alone. It stands before the N patches."
        ),
    },
    "encoder": {
        lambda b, h, w, p, d, c: (b, h * w // p**2, d): (
            "the encoder keeps the shape: Equations 2 and 3 add their result to their "
            "input, so the class token is still there."
        ),
        (
            lambda b, h, w, p, d, c: (b, h * w // p**2 + 2, d),
            lambda b, h, w, p, d, c: (b, h * w // p**2 + 1, 2 * d),
        ): "position embeddings are added to the tokens, not appended: the shape stays",
        lambda b, h, w, p, d, c: (b, d): (
            "the encoder keeps all tokens. The head reads the class token alone."
        ),
    },
    "head": {
        lambda b, h, w, p, d, c: (b, h * w // p**2 + 1, c): (
            "the head reads one token, the class token (Equation 4), not all of them."
        ),
        lambda b, h, w, p, d, c: (b, 1, c): (
            "taking the class token, z[:, 0], removes the axis of the tokens."
        ),
        lambda b, h, w, p, d, c: (b, d): (
            "that is y, the input of the head. Its output has one logit per class."
        ),
    },
}


def _shape_of(key: str) -> Callable:
    """Calls an answer, and looks at one of its shapes."""

    def call(answer, *sizes):
        found = answer(*sizes)
        hint(found is not None, NO_RETURN)
        hint(
            isinstance(found, dict) and set(found) == set(RIGHT),
            f"give back a dict with the keys {', '.join(map(repr, RIGHT))}",
        )
        shape = found[key]
        hint(
            isinstance(shape, tuple),
            f"the shape of {key!r} is {shape!r}; expected a tuple, such as (2, 3, 4)",
        )
        hint(
            all(isinstance(size, Integral) for size in shape),
            f"the shape of {key!r} is {shape}. Sizes are whole numbers: divide "
            "with `//`; `/` gives a float.",
        )
        case = Case(right=RIGHT[key], inputs=[], mistakes=SHAPES[key])
        known = [RIGHT[key], *(wrong for wrong, _ in case.known_mistakes())]
        given = ", ".join(f"{n} {v}" for n, v in zip(NAMES, sizes, strict=True))
        hint(
            shape in [function(*sizes) for function in known],
            f"{key!r} has shape {shape}, which does not fit {given}",
        )
        return [int(size) for size in shape]

    return call


check_trace_shapes = Task(
    "trace_shapes",
    "the shapes of all tensors",
    *(
        Case(
            inputs=SIZES,
            call=_shape_of(key),
            right=RIGHT[key],
            mistakes={wrong: f"{key!r}: {text}" for wrong, text in SHAPES[key].items()},
            tolerance=0.0,
            gradient=False,
        )
        for key in RIGHT
    ),
)

# 3. Find the wrong row of a table


def _table(*changes: tuple[int, int], reverse: bool = False) -> tuple[list[tuple]]:
    """A table (name, variant, millions); `changes` are wrong rows, by index."""
    names = ("base_16", "base_32", "large_16", "large_32", "huge_14", "small_16")
    variants = [VARIANTS[f"vit_{name}"] for name in (*names, "tiny_16")]
    labels = ("B/16", "B/32", "L/16", "L/32", "H/14", "S/16", "Ti/16")
    millions = [round(_millions(variant)) for variant in variants]
    for index, value in changes:
        millions[index] = value
    rows = list(zip(labels, variants, millions, strict=True))
    return (rows[::-1] if reverse else rows,)


def _millions(variant: ViTVariant, *parts: str) -> float:
    """Counts in millions with 1000 classes: all parts, or those named."""
    counts = count_parameters(variant)
    return sum(n for part, n in counts.items() if part in (parts or counts)) / 1e6


def _where(differ: Callable) -> Callable:
    """The names of rows for which `differ(variant, millions)`, in one string."""
    return lambda rows: ", ".join(n for n, v, printed in rows if differ(v, printed))


_wrong = _where(lambda v, printed: round(_millions(v)) != printed)
TABLES = {
    _where(lambda v, printed: round(_millions(v)) == printed): (
        "these are the rows that are right. Keep those where count and table differ."
    ),
    _where(lambda v, printed: int(_millions(v)) != printed): (
        "`int` and `//` cut the decimals off, so 86.6 million become 86. The table is "
        "rounded: use `round`."
    ),
    lambda rows: ", ".join(
        below for (_, _, n), (below, _, m) in pairwise(rows) if n == m
    ): (
        "equal numbers may both be right, and a wrong one need not equal the one above "
        "it. Count each row."
    ),
    _where(lambda v, printed: round(_millions(v) * 1e6 / 2**20) != printed): (
        "a million is 10**6, not 2**20."
    ),
    _where(lambda v, printed: True): (
        "every row looks wrong. Sum all parts, and round to whole millions before you "
        "compare: an exact count equals no rounded number."
    ),
    _where(lambda v, printed: round(_millions(v, "encoder")) != printed): (
        "this counts the encoder alone. Sum all parts."
    ),
    lambda rows: _wrong(rows).split(", ")[0]: (
        "only the first wrong row is there. A table may have several, so go on to its "
        "end."
    ),
    lambda rows: _wrong(rows).split(", ")[-1]: (
        "only the last wrong row is there. Begin with an empty list, once, before the "
        "loop, and append to it."
    ),
    _where(lambda v, printed: abs(_millions(v) - printed) >= 1): (
        "a difference of less than a million passes. The table prints whole millions: "
        "86 is wrong where the count rounds to 87."
    ),
    _where(lambda v, printed: abs(round(_millions(v)) - printed) > 1): (
        "a difference of one million passes. Both are whole millions: they must be "
        "equal."
    ),
    _where(
        lambda v, printed: (
            round(_millions(v) - count_parameters(v)["head"] / 1e6) != printed
        )
    ): "the head is missing in your count, or has too few classes: the table has 1000.",
}


def _names(answer, rows: list[tuple]) -> str:
    found, names = answer(rows), [name for name, _, _ in rows]
    hint(found is not None, NO_RETURN)
    hint(
        isinstance(found, list | tuple),
        f"it gives {found!r}, expected a list of names, such as ['H/14']; a table "
        "without a wrong row gives an empty list",
    )
    for name in found:
        hint(
            isinstance(name, str),
            f"the list holds {name!r}, expected the names of the rows, such as 'H/14'",
        )
        hint(name in names, f"no row is called {name!r}; there are {', '.join(names)}")
    hint(
        list(found) == sorted(found, key=names.index),
        f"the names are in another order: {found}. Keep the order of the table.",
    )
    return ", ".join(found)


def _not_summed(error: Exception) -> str:
    """The hint for a dict that is used as a number."""
    if not isinstance(error, TypeError) or "dict" not in str(error):
        return ""
    return (
        "`count_parameters` gives back a dict with a number for each part. Sum its "
        "values."
    )


check_wrong_rows = Task(
    "wrong_rows",
    "the wrong rows of a table",
    Case(
        inputs=[  # the one shown, with three wrong rows, with none, upside down
            _table((1, 87)),
            _table((0, 85), (3, 306), (5, 24)),
            _table(),
            _table((4, 631), (5, 24), (6, 5), reverse=True),
        ],
        call=_names,
        right=_wrong,
        mistakes=TABLES,
        explain=_not_summed,
        gradient=False,
        advice="These are not all wrong rows, and no others.",
    ),
)

# 4. Does a larger model fit the formula?

GIANT = ViTVariant(48, 1664, 8192, 16, patch_size=14)
REPORTED = 1_843_000_000
FIELDS = {
    "num_transformer_layers": "the depth, the number of encoder blocks",
    "embedding_dim": "the embedding dimension, D",
    "mlp_size": "the hidden size of the MLP; here it is not four times D",
    "num_heads": "the heads. They cost no parameters, so no count can notice this",
    "patch_size": "the 14 of the name; without it a `ViTVariant` has patches of 16",
    "img_size": "height and width in pixels",
}


def _count(classes: int) -> int:
    parts = count_parameters(GIANT, max(classes, 1))
    return sum(n for part, n in parts.items() if classes or part != "head")


def _measured(answer, classes: int) -> dict:
    found = answer(classes)
    hint(found is not None, NO_RETURN)
    hint(
        isinstance(found, dict)
        and set(found) >= {"variant", "parameters", "difference"},
        "give back a dict with the keys 'variant', 'parameters' and 'difference'",
    )
    variant, count = found["variant"], found["parameters"]
    hint(
        isinstance(variant, ViTVariant),
        f"'variant' is a {type(variant).__name__}, expected a ViTVariant",
    )
    for name, meaning in FIELDS.items():
        mine, right = getattr(variant, name), getattr(GIANT, name)
        hint(mine == right, f"`{name}` is {mine}, expected {right}: {meaning}.")
    hint(
        isinstance(count, int),
        f"'parameters' is a {type(count).__name__}, expected an int, in ones: the sum "
        "of all parts that `count_parameters` gives back",
    )
    return found


def _no_classes(error: Exception) -> str:
    if "num_classes and in_channels" not in str(error):
        return ""
    return (
        "`count_parameters` raises ValueError for 0 classes. Call it with any number "
        "of classes, and leave the part 'head' out of the sum."
    )


def _differs(by: Callable) -> Callable:
    return lambda classes: by(_count(classes))


COUNTS = {
    lambda classes: round(_count(classes) / 1e6): (
        "'parameters' is in millions; give the exact count."
    ),
    lambda classes: _count(max(classes, 1)): (
        "for 0 classes a head of one class is still counted: leave the part out."
    ),
    lambda classes: _count(classes) + (classes == 0): (
        "for 0 classes there is one parameter too many: the head has a bias, too."
    ),
    lambda classes: _count(classes or 1000): (
        "for 0 classes a head of 1000 classes is counted. 0 means no head."
    ),
    lambda classes: _count(1000): (
        "the head has 1000 classes, whatever is asked for. How many does `classes` say?"
    ),
    lambda classes: _count(0): (
        "the head is missing; for one class or more it belongs to the count."
    ),
}
DIFFERENCES = {
    _differs(lambda n: n - REPORTED): (
        "'difference' is absolute. Divide by the paper's number: then it says the same "
        "for small and large models."
    ),
    _differs(lambda n: 100 * (n - REPORTED) / REPORTED): (
        "'difference' is in per cent; give the fraction. The line below the check "
        "prints it as per cent."
    ),
    _differs(lambda n: (n - REPORTED) / n): (
        "'difference' is divided by your count. The paper's number is what you compare "
        "with, so divide by that."
    ),
    _differs(lambda n: abs(n - REPORTED) / REPORTED): (
        "'difference' has lost its sign: negative says that your count is smaller."
    ),
    _differs(lambda n: (REPORTED - n) / REPORTED): (
        "'difference' has the wrong sign: count − reported, so that a larger count is "
        "positive."
    ),
    _differs(lambda n: n / REPORTED): (
        "'difference' is the ratio of both. Subtract 1: equal counts differ by 0."
    ),
    (
        _differs(lambda n: (n - 1843) / 1843),
        _differs(lambda n: (n / 1e6 - REPORTED) / REPORTED),
    ): (
        "the table prints millions and the count is in ones: bring both to the same "
        "unit before you compare them."
    ),
    (
        _differs(lambda n: round((n - REPORTED) / REPORTED, 4)),
        _differs(lambda n: round((n - REPORTED) / REPORTED, 2)),
    ): "'difference' is rounded; give the number as it is, and round when you print.",
}
check_measure_giant = Task(
    "measure_giant",
    "ViT-G/14 counted and compared",
    *(
        Case(
            inputs=[(1000,), (0,), (21_843,), (3,), (1,)],
            call=lambda answer, classes, key=key: _measured(answer, classes)[key],
            right=right,
            mistakes=mistakes,
            explain=_no_classes,
            tolerance=tolerance,
            gradient=False,
            advice=advice,
        )
        for key, right, mistakes, tolerance, advice in (
            ("parameters", _count, COUNTS, 0.0, "It is the sum over all parts."),
            (
                "difference",
                _differs(lambda n: (n - REPORTED) / REPORTED),
                DIFFERENCES,
                1e-9,
                "It is (count − reported) / reported.",
            ),
        )
    ),
)
