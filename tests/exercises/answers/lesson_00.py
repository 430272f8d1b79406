"""Answers to the exercises of lesson 00b."""

import math

import numpy as np

from answers import right, wrong
from going_modular.variants import ViTVariant, count_parameters

HEAD = "check_head_dim"
SHAPES = "check_trace_shapes"
ROWS = "check_wrong_rows"
GIANT = "check_measure_giant"


@wrong(HEAD, "`//` divides whole numbers")
def head_as_float(variant):
    return variant.embedding_dim / variant.num_heads


@wrong(HEAD, "belongs to the example")
def twelve_heads(variant):
    return variant.embedding_dim // 12


@wrong(HEAD, "FrozenInstanceError")
def writes_into_the_variant(variant):
    variant.embedding_dim //= variant.num_heads
    return variant.embedding_dim


@right(HEAD)
def head_by_int(variant):
    return int(variant.embedding_dim / variant.num_heads)


@right(HEAD)
def head_by_divmod(variant):
    quotient, _ = divmod(variant.embedding_dim, variant.num_heads)
    return quotient


def shapes(b, h, w, p, d, c, **other):
    """The right shapes, some of them replaced."""
    n = (h // p) * (w // p)
    found = {
        "patches": (b, n, p * p * 3),
        "projected": (b, n, d),
        "class token": (b, n + 1, d),
        "encoder": (b, n + 1, d),
        "head": (b, c),
    }
    return found | other


@wrong(SHAPES, "`/` gives a float")
def float_sizes(b, h, w, p, d, c):
    return shapes(b, h, w, p, d, c, patches=(b, h / p * w / p, p * p * 3))


@wrong(SHAPES, "does not fit")
def three_classes(b, h, w, p, d, c):
    return shapes(b, h, w, p, d, 3)


@wrong(SHAPES, "the keys")
def shapes_in_a_list(b, h, w, p, d, c):
    return list(shapes(b, h, w, p, d, c).values())


@wrong(SHAPES, "expected a tuple")
def products(b, h, w, p, d, c):
    return {name: math.prod(s) for name, s in shapes(b, h, w, p, d, c).items()}


@wrong(SHAPES, "expected a tuple")
def lists(b, h, w, p, d, c):
    return {name: list(s) for name, s in shapes(b, h, w, p, d, c).items()}


@wrong(SHAPES, "does not fit")
def batch_last(b, h, w, p, d, c):
    return {name: s[::-1] for name, s in shapes(b, h, w, p, d, c).items()}


@right(SHAPES)
def from_lists(b, h, w, p, d, c):
    tokens = [b, len(range(0, h, p)) * len(range(0, w, p)), d]
    patches = [*tokens[:2], 3 * p**2]
    longer = [b, tokens[1] + 1, d]
    names = ("patches", "projected", "class token", "encoder", "head")
    found = patches, tokens, longer, longer, [b, c]
    return dict(zip(names, map(tuple, found), strict=True))


@right(SHAPES)
def by_pixels(b, h, w, p, d, c):
    n = h * w // p**2
    found = {"head": (b, c), "patches": (b, n, 3 * h * w // n), "projected": (b, n, d)}
    for name in ("class token", "encoder"):
        found[name] = (b, 1 + n, d)
    return found


@right(SHAPES)
def with_numpy(b, h, w, p, d, c):
    n = np.prod(np.array([h, w]) // p)
    found = shapes(b, h, w, p, d, c, patches=(b, n, 3 * p**2), projected=(b, n, d))
    return found | {"class token": (b, n + 1, d), "encoder": (b, n + 1, d)}


def millions(variant, classes=1000):
    return sum(count_parameters(variant, classes).values()) / 1e6


@wrong(ROWS, "not all wrong rows")
def rounded_to_a_tenth(rows):
    return [name for name, v, printed in rows if round(millions(v), 1) != printed]


@wrong(ROWS, "in another order")
def sorted_by_name(rows):
    return sorted(
        (name for name, v, printed in rows if round(millions(v)) != printed),
        key=lambda name: (-len(name), name),
    )


@wrong(ROWS, "Sum its values")
def divides_the_dict(rows):
    return [n for n, v, p in rows if round(count_parameters(v) / 1e6) != p]


@wrong(ROWS, "expected a list")
def one_name(rows):
    for name, variant, printed in rows:
        if round(millions(variant)) != printed:
            return name


@wrong(ROWS, "expected the names")
def positions(rows):
    return [
        i for i, (_, v, printed) in enumerate(rows) if round(millions(v)) != printed
    ]


@wrong(ROWS, "no row is called")
def long_names(rows):
    return [f"ViT-{name}" for name, v, p in rows if round(millions(v)) != p]


@wrong(ROWS, "belongs to the example")
def by_eye(rows):
    return ["B/32"]


@right(ROWS)
def by_filter(rows):
    bad = filter(lambda row: round(millions(row[1])) != row[2], rows)
    return [name for name, *_ in bad]


@right(ROWS)
def by_distance(rows):
    return tuple(name for name, v, p in rows if abs(millions(v) - p) > 0.5)


@right(ROWS)
def by_text(rows):
    return [name for name, v, p in rows if f"{millions(v):.0f}" != str(p)]


PAPER = 1_843_000_000


def giant(**other):
    sizes = {
        "num_transformer_layers": 48,
        "embedding_dim": 1664,
        "mlp_size": 8192,
        "num_heads": 16,
        "patch_size": 14,
    }
    return ViTVariant(**sizes | other)


def measured(classes, variant=None, **other):
    """The right answer, some of it replaced."""
    variant = variant or giant()
    parts = count_parameters(variant, max(1, classes))
    count = sum(n for name, n in parts.items() if classes or name != "head")
    difference = (count - PAPER) / PAPER
    found = {"variant": variant, "parameters": count, "difference": difference}
    return found | other


def count_of(classes):
    return measured(classes)["parameters"]


@wrong(GIANT, "patches of 16")
def default_patch(classes):
    return measured(classes, ViTVariant(48, 1664, 8192, 16))


@wrong(GIANT, "not four times D")
def four_times(classes):
    return measured(classes, giant(mlp_size=4 * 1664))


@wrong(GIANT, "encoder blocks")
def order_of_the_table(classes):
    return measured(classes, ViTVariant(1664, 48, 8192, 16, patch_size=14))


@wrong(GIANT, "cost no parameters")
def heads_of_64(classes):
    return measured(classes, giant(num_heads=26))


@wrong(GIANT, "ValueError for 0 classes")
def zero_classes(classes):
    return measured(
        classes, parameters=sum(count_parameters(giant(), classes).values())
    )


@wrong(GIANT, "is a float")
def count_as_float(classes):
    return measured(classes, parameters=float(count_of(classes)))


@wrong(GIANT, "expected an int")
def count_of_parts(classes):
    return measured(classes, parameters=count_parameters(giant(), max(classes, 1)))


@wrong(GIANT, "sum over all parts")
def encoder_only(classes):
    parts = count_parameters(giant(), max(classes, 1))
    return measured(classes, parameters=parts["encoder"])


@wrong(GIANT, "the keys")
def pair(classes):
    return count_of(classes), (count_of(classes) - PAPER) / PAPER


@right(GIANT)
def by_formula(classes):
    d, m = 1664, 8192
    block = 4 * d * d + 9 * d + 2 * d * m + m
    count = 48 * block + (14 * 14 * 3 + 1) * d + 258 * d + 2 * d + (d + 1) * classes
    return measured(classes, parameters=count, difference=count / PAPER - 1)


@right(GIANT)
def with_its_parts(classes):
    return measured(classes, parts=count_parameters(giant(), max(classes, 1)))


@right(GIANT)
def minus_the_head(classes):
    parts = count_parameters(giant(), num_classes=1 if classes == 0 else classes)
    count = sum(parts.values()) - (parts["head"] if classes == 0 else 0)
    return dict(variant=giant(), parameters=count, difference=(count - PAPER) / PAPER)
