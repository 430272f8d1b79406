"""Checks of the exercises of lesson 00b: sizes, shapes and tables of a paper."""

from collections.abc import Callable
from numbers import Integral

from going_modular.variants import VARIANTS, ViTVariant, count_parameters
from vit_course.checks.hints import (
    NO_RETURN,
    SHOWN_ONLY,
    Hint,
    compare,
    hint,
    learners_code,
    passed,
)

HEAD_MISTAKES = {
    "Base has as many layers as heads, 12. You divide by the layers; the heads divide "
    "D among them.": lambda v: v.embedding_dim // v.num_transformer_layers,
    "64 is right for most sizes, and no law: look at Huge. Compute it.": (lambda v: 64),
    "that is D, the dimension of a whole token. The heads divide it among them.": (
        lambda v: v.embedding_dim
    ),
    "that is the hidden size of the MLP, divided by the heads. The heads divide D.": (
        lambda v: v.mlp_size // v.num_heads
    ),
    "0 comes of a division the wrong way round (there are fewer heads than "
    "dimensions), and of `%`, which gives what is left over.": (
        lambda v: v.num_heads // v.embedding_dim
    ),
    "more heads do not make a token longer: divide D by the heads, do not multiply.": (
        lambda v: v.embedding_dim * v.num_heads
    ),
}


def check_head_dim(answer: Callable) -> None:
    """Checks the dimension of one head, D_h.

    Raises:
        Hint: it is not right yet.
    """
    variants = [
        VARIANTS["vit_base_16"],
        VARIANTS["vit_huge_14"],
        ViTVariant(2, 48, 90, 6, patch_size=4, img_size=32),
        ViTVariant(7, 90, 36, 9, patch_size=8, img_size=40),
        ViTVariant(3, 20, 55, 1),
    ]
    inputs = [(variant,) for variant in variants]
    compare(answer, _head_dim, inputs, HEAD_MISTAKES, gradient=False)
    with learners_code():
        found = answer(variants[0])
    hint(
        isinstance(found, int),
        f"it gives {found!r}, a {type(found).__name__}. The dimension of a head is an "
        "int: `//` divides whole numbers, `/` gives a float.",
    )
    passed("the dimension of one head")


def _head_dim(variant: ViTVariant) -> int:
    return variant.embedding_dim // variant.num_heads


# For each key what is right, and what comes of a mistake, from
# (batch, height, width, patch_size, dim, classes).
SHAPES = {
    "patches": lambda b, h, w, p, d, c: (b, (h // p) * (w // p), p * p * 3),
    "projected": lambda b, h, w, p, d, c: (b, (h // p) * (w // p), d),
    "class token": lambda b, h, w, p, d, c: (b, (h // p) * (w // p) + 1, d),
    "encoder": lambda b, h, w, p, d, c: (b, (h // p) * (w // p) + 1, d),
    "head": lambda b, h, w, p, d, c: (b, c),
}
NOT_SQUARE = (
    "the image need not be square: N is rows times columns of patches, and the two "
    "differ."
)
ONE_PIXEL_ROW = "a patch is P pixels high and P pixels wide: divide by P twice."
ONE_MORE = "the class token is one more token: N patches become N + 1."
SHAPE_MISTAKES = [
    ("patches", NOT_SQUARE, lambda b, h, w, p, d, c: (b, (h // p) ** 2, p * p * 3)),
    ("patches", NOT_SQUARE, lambda b, h, w, p, d, c: (b, (w // p) ** 2, p * p * 3)),
    ("patches", ONE_PIXEL_ROW, lambda b, h, w, p, d, c: (b, h * w // p, p * p * 3)),
    (
        "patches",
        "each pixel of an RGB image has three values, so a flat patch has P·P·3.",
        lambda b, h, w, p, d, c: (b, (h // p) * (w // p), p * p),
    ),
    (
        "patches",
        "a patch that is only cut out has P·P·3 values; D comes with E. In Base both "
        "are 768, by chance.",
        lambda b, h, w, p, d, c: (b, (h // p) * (w // p), d),
    ),
    (
        "patches",
        "a flat patch is one vector: P·P·3 is one size of the shape.",
        lambda b, h, w, p, d, c: (b, (h // p) * (w // p), p, p, 3),
    ),
    (
        "patches",
        "the class token comes later: cutting an image gives N patches.",
        lambda b, h, w, p, d, c: (b, (h // p) * (w // p) + 1, p * p * 3),
    ),
    (
        "projected",
        "E maps the P·P·3 values of a patch to D features. In Base both are 768, by "
        "chance.",
        lambda b, h, w, p, d, c: (b, (h // p) * (w // p), p * p * 3),
    ),
    ("class token", ONE_MORE, lambda b, h, w, p, d, c: (b, (h // p) * (w // p), d)),
    (
        "class token",
        "the class token is one more token, not one more feature of each token: "
        "concatenate along the tokens.",
        lambda b, h, w, p, d, c: (b, (h // p) * (w // p), d + 1),
    ),
    (
        "class token",
        "the class token is not one more image: concatenate along the tokens.",
        lambda b, h, w, p, d, c: (b + 1, (h // p) * (w // p), d),
    ),
    (
        "encoder",
        "the encoder keeps the shape: Equations 2 and 3 add their result to their "
        "input, so the class token is still there.",
        lambda b, h, w, p, d, c: (b, (h // p) * (w // p), d),
    ),
    (
        "encoder",
        "position embeddings are added to the tokens, not appended: their number "
        "stays.",
        lambda b, h, w, p, d, c: (b, (h // p) * (w // p) + 2, d),
    ),
    (
        "head",
        "the head reads one token, the class token (Equation 4), not all of them.",
        lambda b, h, w, p, d, c: (b, (h // p) * (w // p) + 1, c),
    ),
    (
        "head",
        "taking the class token, z[:, 0], removes the axis of the tokens.",
        lambda b, h, w, p, d, c: (b, 1, c),
    ),
    (
        "head",
        "that is y, the input of the head. Its output has one logit per class.",
        lambda b, h, w, p, d, c: (b, d),
    ),
]


def check_trace_shapes(answer: Callable) -> None:
    """Checks the shapes of the tensors of Figure 1, from patches to logits.

    Raises:
        Hint: it is not right yet.
    """
    cases = [
        (2, 224, 320, 16, 192, 3),
        (3, 48, 32, 8, 20, 5),
        (1, 28, 70, 14, 36, 7),
        (5, 12, 4, 4, 10, 2),
    ]
    for number, case in enumerate(cases):
        with learners_code(was_right=number):
            found = answer(*case)
        hint(found is not None, NO_RETURN)
        hint(
            isinstance(found, dict) and set(found) == set(SHAPES),
            f"give back a dict with the keys {', '.join(map(repr, SHAPES))}",
        )
        for key in SHAPES:
            _check_shape(key, found[key], case, number)
    passed("the shapes of all tensors")


def _check_shape(key: str, found, case: tuple, was_right: int) -> None:
    hint(
        isinstance(found, tuple | list),
        f"the shape of {key!r} is {found!r}; expected a tuple, such as (2, 3, 4)",
    )
    hint(
        all(isinstance(size, Integral) for size in found),
        f"the shape of {key!r} is {tuple(found)}. Sizes are whole numbers: divide with "
        "`//`; `/` gives a float.",
    )
    if tuple(found) == SHAPES[key](*case):
        return
    for at, text, mistake in SHAPE_MISTAKES:
        if at == key and tuple(found) == mistake(*case):
            raise Hint(f"{key!r}: {text}")
    hint(not was_right, f"{key!r}: {SHOWN_ONLY}")
    names = ("batch", "height", "width", "patch_size", "dim", "classes")
    given = ", ".join(f"{n} {v}" for n, v in zip(names, case, strict=True))
    raise Hint(f"{key!r} has shape {tuple(found)}, which does not fit {given}")


def _rows(*changes: tuple[int, int], reverse: bool = False) -> list[tuple]:
    """Makes a table (name, variant, millions); `changes` are wrong rows, by index."""
    names = ("base_16", "base_32", "large_16", "large_32", "huge_14", "small_16")
    variants = [VARIANTS[f"vit_{name}"] for name in (*names, "tiny_16")]
    labels = ("B/16", "B/32", "L/16", "L/32", "H/14", "S/16", "Ti/16")
    millions = [round(_millions(variant)) for variant in variants]
    for index, value in changes:
        millions[index] = value
    rows = list(zip(labels, variants, millions, strict=True))
    return rows[::-1] if reverse else rows


def _millions(variant: ViTVariant, part: str = "") -> float:
    """Counts in millions with 1000 classes; `part` is left out."""
    parts = count_parameters(variant)
    return (sum(parts.values()) - parts.get(part, 0)) / 1e6


def _wrong_rows(rows: list[tuple]) -> list[str]:
    return [name for name, v, printed in rows if round(_millions(v)) != printed]


TABLES = [  # the one shown, one with three wrong rows, one with none, one upside down
    _rows((1, 87)),
    _rows((0, 88), (3, 306), (5, 24)),
    _rows(),
    _rows((4, 631), (5, 24), (6, 5), reverse=True),
]
ROW_MISTAKES = [
    (
        "these are the rows that are right. Keep those where count and table differ.",
        lambda rows: [r[0] for r in rows if r[0] not in _wrong_rows(rows)],
    ),
    (
        "`int` and `//` cut the decimals off, so 86.6 million become 86. The table is "
        "rounded: use `round`.",
        lambda rows: [n for n, v, printed in rows if int(_millions(v)) != printed],
    ),
    (
        "every row looks wrong. Sum all parts, and round to whole millions before you "
        "compare: an exact count equals no rounded number.",
        lambda rows: [name for name, _, _ in rows],
    ),
    (
        "only the first wrong row is there. A table may have several, so go on to its "
        "end.",
        lambda rows: _wrong_rows(rows)[:1],
    ),
    (
        "only the last wrong row is there. Begin with an empty list, once, before the "
        "loop, and append to it.",
        lambda rows: _wrong_rows(rows)[-1:],
    ),
    (
        "a difference of less than a million passes. The table prints whole millions: "
        "86 is wrong where the count rounds to 87.",
        lambda rows: [n for n, v, p in rows if abs(_millions(v) - p) >= 1],
    ),
    (
        "a difference of one million passes. Both are whole millions: they must be "
        "equal.",
        lambda rows: [n for n, v, p in rows if abs(round(_millions(v)) - p) > 1],
    ),
    (
        "the head is missing in your count. The table counts models with 1000 classes.",
        lambda rows: [n for n, v, p in rows if round(_millions(v, "head")) != p],
    ),
]


def check_wrong_rows(answer: Callable) -> None:
    """Checks which rows of a table contradict the count of parameters.

    Raises:
        Hint: it is not right yet.
    """
    for number, rows in enumerate(TABLES):
        with learners_code(_not_summed, was_right=number):
            found = answer(list(rows))
        hint(found is not None, NO_RETURN)
        _check_names(found, [name for name, _, _ in rows])
        found, right = list(found), _wrong_rows(rows)
        if found == right:
            continue
        for text, mistake in ROW_MISTAKES:
            hint(found != mistake(rows), text)
        hint(
            sorted(found) != sorted(right),
            f"the right names in another order: {found}. Keep the order of the table.",
        )
        hint(not number, SHOWN_ONLY)
        raise Hint(
            f"for the table shown it gives {found}, which are not all wrong rows"
        )
    passed("the wrong rows of a table")


def _check_names(found, names: list[str]) -> None:
    """Checks that an answer is a list of names of rows."""
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


def _not_summed(error: Exception) -> str:
    """The hint for a dict that is used as a number."""
    if isinstance(error, TypeError) and "dict" in str(error):
        return (
            "`count_parameters` gives back a dict with a number for each part. Sum its "
            "values."
        )
    return ""


GIANT = ViTVariant(48, 1664, 8192, 16, patch_size=14)
REPORTED = 1_843_000_000
GIANT_FIELDS = {
    "num_transformer_layers": "the depth, the number of encoder blocks",
    "embedding_dim": "the embedding dimension, D",
    "mlp_size": "the hidden size of the MLP; here it is not four times D",
    "num_heads": "the heads. They cost no parameters, so no count can notice this",
    "patch_size": "the 14 of the name; without it a `ViTVariant` has patches of 16",
    "img_size": "height and width in pixels",
}
IN_MILLIONS = (
    "the table prints millions and the count is in ones: bring both to the same unit "
    "before you compare them."
)
DIFFERENCES = [  # from the count
    (
        "'difference' is absolute. Divide by the paper's number: then it says the same "
        "for small and large models.",
        lambda n: n - REPORTED,
    ),
    (
        "'difference' is in per cent; give the fraction. The line below the check "
        "prints it as per cent.",
        lambda n: 100 * (n - REPORTED) / REPORTED,
    ),
    (
        "'difference' is divided by your count. The paper's number is what you compare "
        "with, so divide by that.",
        lambda n: (n - REPORTED) / n,
    ),
    (
        "'difference' has lost its sign: negative says that your count is smaller.",
        lambda n: abs(n - REPORTED) / REPORTED,
    ),
    (
        "'difference' has the wrong sign: count − reported, so that a larger count is "
        "positive.",
        lambda n: (REPORTED - n) / REPORTED,
    ),
    (
        "'difference' is the ratio of both. Subtract 1: equal counts differ by 0.",
        lambda n: n / REPORTED,
    ),
    (IN_MILLIONS, lambda n: (n - 1843) / 1843),
    (IN_MILLIONS, lambda n: (n / 1e6 - REPORTED) / REPORTED),
    (
        "'difference' is rounded; give the number as it is, and round when you print.",
        lambda n: round((n - REPORTED) / REPORTED, 4),
    ),
    (
        "'difference' is rounded; give the number as it is, and round when you print.",
        lambda n: round((n - REPORTED) / REPORTED, 2),
    ),
]


def _giant_count(classes: int) -> int:
    parts = count_parameters(GIANT, max(classes, 1))
    return sum(n for part, n in parts.items() if classes or part != "head")


def check_measure_giant(answer: Callable) -> None:
    """Checks the count of ViT-G/14 and its difference to the published number.

    Raises:
        Hint: it is not right yet.
    """
    for number, classes in enumerate((1000, 0, 21_843, 3, 1)):
        with learners_code(_no_classes, number):
            found = answer(classes)
        hint(found is not None, NO_RETURN)
        keys = {"variant", "parameters", "difference"}
        hint(
            isinstance(found, dict) and set(found) == keys,
            "give back a dict with the keys 'variant', 'parameters' and 'difference'",
        )
        _check_giant_variant(found["variant"])
        _check_giant_count(found["parameters"], classes)
        _check_difference(found["difference"], _giant_count(classes))
    passed("ViT-G/14 counted and compared")


def _no_classes(error: Exception) -> str:
    if isinstance(error, ValueError) and "num_classes and in_channels" in str(error):
        return (
            "`count_parameters` raises ValueError for 0 classes. Call it with any "
            "number of classes, and leave the part 'head' out of the sum."
        )
    return ""


def _check_giant_variant(variant) -> None:
    hint(
        isinstance(variant, ViTVariant),
        f"'variant' is a {type(variant).__name__}, expected a ViTVariant",
    )
    for name, meaning in GIANT_FIELDS.items():
        mine, right = getattr(variant, name), getattr(GIANT, name)
        hint(
            mine == right,
            f"`{name}` is {mine}, expected {right}: {meaning}.",
        )


def _check_giant_count(count, classes: int) -> None:
    right, head = _giant_count(classes), 1664 * 1000 + 1000
    if isinstance(count, float) and round(count) in (right, round(right / 1e6)):
        raise Hint("'parameters' is a float. A count is an int, in ones.")
    hint(
        isinstance(count, int),
        f"'parameters' is a {type(count).__name__}, expected an int: the sum of all "
        "parts that `count_parameters` gives back",
    )
    hint(
        count != round(right / 1e6),
        "'parameters' is in millions; give the exact count.",
    )
    hint(
        classes or count != _giant_count(1),
        "for 0 classes a head of one class is still counted: leave the part out.",
    )
    hint(
        classes == 1000 or count != _giant_count(0) + head,
        f"the head has 1000 classes, whatever is asked for; here it is {classes}.",
    )
    hint(
        classes == 0 or count != _giant_count(0),
        f"the head is missing; for {classes} classes it belongs to the count.",
    )
    hint(
        count == right,
        f"for {classes} classes 'parameters' is {count:,}, expected {right:,}. It is "
        "the sum over all parts of the model.",
    )


def _check_difference(found, count: int) -> None:
    hint(
        isinstance(found, int | float),
        f"'difference' is a {type(found).__name__}, expected a number",
    )

    def same(a: float, b: float) -> bool:
        return abs(a - b) <= 1e-6 * abs(b)

    right = (count - REPORTED) / REPORTED
    if same(found, right):
        return
    for text, mistake in DIFFERENCES:
        hint(not same(found, mistake(count)), text)
    raise Hint(f"for {count:,} parameters 'difference' is {found}, expected {right}")
