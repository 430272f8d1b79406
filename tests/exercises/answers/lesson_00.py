"""Answers to the exercises of lesson 00b."""

import math

import numpy as np

from answers import right, wrong
from going_modular.variants import ViTVariant, count_parameters

HEAD = "check_head_dim"
SHAPES = "check_trace_shapes"
ROWS = "check_wrong_rows"
GIANT = "check_measure_giant"


@wrong(HEAD, "divide by the layers")
def by_layers(variant):
    return variant.embedding_dim // variant.num_transformer_layers


@wrong(HEAD, "no law")
def always_64(variant):
    return 64


@wrong(HEAD, "the dimension of a whole token")
def whole_token(variant):
    return variant.embedding_dim


@wrong(HEAD, "the hidden size of the MLP, divided")
def shared_mlp(variant):
    return variant.mlp_size // variant.num_heads


@wrong(HEAD, "wrong way round")
def upside_down(variant):
    return variant.num_heads // variant.embedding_dim


@wrong(HEAD, "what is left over")
def remainder(variant):
    return variant.embedding_dim % variant.num_heads


@wrong(HEAD, "do not multiply")
def multiplied(variant):
    return variant.embedding_dim * variant.num_heads


@wrong(HEAD, "`//` divides whole numbers")
def head_as_float(variant):
    return variant.embedding_dim / variant.num_heads


@wrong(HEAD, "belongs to the example")
def twelve_heads(variant):
    return variant.embedding_dim // 12


@wrong(HEAD, "a `return` missing")
def head_without_return(variant):
    variant.embedding_dim // variant.num_heads


@wrong(HEAD, "not written yet")
def blank_head(variant):
    raise NotImplementedError("your lines go here")


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


@wrong(SHAPES, "rows times columns")
def square_by_height(b, h, w, p, d, c):
    return shapes(b, h, h, p, d, c)


@wrong(SHAPES, "rows times columns")
def square_by_width(b, h, w, p, d, c):
    return shapes(b, w, w, p, d, c)


@wrong(SHAPES, "divide by P twice")
def divided_once(b, h, w, p, d, c):
    return shapes(b, h, w, p, d, c, patches=(b, h * w // p, p * p * 3))


@wrong(SHAPES, "three values")
def grey(b, h, w, p, d, c):
    return shapes(b, h, w, p, d, c, patches=(b, h * w // p**2, p * p))


@wrong(SHAPES, "D comes with E")
def embedded_too_soon(b, h, w, p, d, c):
    return shapes(b, h, w, p, d, c, patches=(b, h * w // p**2, d))


@wrong(SHAPES, "one size of the shape")
def not_flat(b, h, w, p, d, c):
    return shapes(b, h, w, p, d, c, patches=(b, h * w // p**2, p, p, 3))


@wrong(SHAPES, "the class token comes later")
def token_too_soon(b, h, w, p, d, c):
    return shapes(b, h, w, p, d, c, patches=(b, h * w // p**2 + 1, p * p * 3))


@wrong(SHAPES, "E maps")
def not_projected(b, h, w, p, d, c):
    return shapes(b, h, w, p, d, c, projected=(b, h * w // p**2, p * p * 3))


@wrong(SHAPES, "one more token: N")
def no_class_token(b, h, w, p, d, c):
    n = h * w // p**2
    return shapes(b, h, w, p, d, c) | {"class token": (b, n, d), "encoder": (b, n, d)}


@wrong(SHAPES, "not one more feature")
def longer_tokens(b, h, w, p, d, c):
    return shapes(b, h, w, p, d, c) | {"class token": (b, h * w // p**2, d + 1)}


@wrong(SHAPES, "not one more image")
def more_pictures(b, h, w, p, d, c):
    return shapes(b, h, w, p, d, c) | {"class token": (b + 1, h * w // p**2, d)}


@wrong(SHAPES, "the encoder keeps the shape")
def token_lost(b, h, w, p, d, c):
    return shapes(b, h, w, p, d, c, encoder=(b, h * w // p**2, d))


@wrong(SHAPES, "not appended")
def positions_concatenated(b, h, w, p, d, c):
    return shapes(b, h, w, p, d, c, encoder=(b, h * w // p**2 + 2, d))


@wrong(SHAPES, "not all of them")
def head_of_all(b, h, w, p, d, c):
    return shapes(b, h, w, p, d, c, head=(b, h * w // p**2 + 1, c))


@wrong(SHAPES, "removes the axis")
def head_keeps_axis(b, h, w, p, d, c):
    return shapes(b, h, w, p, d, c, head=(b, 1, c))


@wrong(SHAPES, "one logit per class")
def head_not_applied(b, h, w, p, d, c):
    return shapes(b, h, w, p, d, c, head=(b, d))


@wrong(SHAPES, "`/` gives a float")
def float_sizes(b, h, w, p, d, c):
    return shapes(b, h, w, p, d, c, patches=(b, h / p * w / p, p * p * 3))


@wrong(SHAPES, "belongs to the example")
def three_classes(b, h, w, p, d, c):
    return shapes(b, h, w, p, d, 3)


@wrong(SHAPES, "the keys")
def shapes_in_a_list(b, h, w, p, d, c):
    return list(shapes(b, h, w, p, d, c).values())


@wrong(SHAPES, "expected a tuple")
def products(b, h, w, p, d, c):
    return {name: math.prod(s) for name, s in shapes(b, h, w, p, d, c).items()}


@wrong(SHAPES, "does not fit")
def batch_last(b, h, w, p, d, c):
    return {name: s[::-1] for name, s in shapes(b, h, w, p, d, c).items()}


@wrong(SHAPES, "a `return` missing")
def shapes_without_return(b, h, w, p, d, c):
    shapes(b, h, w, p, d, c)


@right(SHAPES)
def from_lists(b, h, w, p, d, c):
    tokens = [b, len(range(0, h, p)) * len(range(0, w, p)), d]
    patches = [*tokens[:2], 3 * p**2]
    longer = [b, tokens[1] + 1, d]
    names = ("patches", "projected", "class token", "encoder", "head")
    return dict(zip(names, (patches, tokens, longer, longer, [b, c]), strict=True))


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


@wrong(ROWS, "rows that are right")
def the_right_ones(rows):
    return [name for name, v, printed in rows if round(millions(v)) == printed]


@wrong(ROWS, "cut the decimals off")
def cut_off(rows):
    return [name for name, v, printed in rows if int(millions(v)) != printed]


@wrong(ROWS, "cut the decimals off")
def floor_division(rows):
    found = []
    for name, variant, printed in rows:
        if sum(count_parameters(variant).values()) // 1_000_000 != printed:
            found.append(name)
    return found


@wrong(ROWS, "equals no rounded number")
def not_rounded(rows):
    return [name for name, v, printed in rows if millions(v) != printed]


@wrong(ROWS, "equals no rounded number")
def not_in_millions(rows):
    return [n for n, v, p in rows if sum(count_parameters(v).values()) != p]


@wrong(ROWS, "not all wrong rows")
def rounded_to_a_tenth(rows):
    return [name for name, v, printed in rows if round(millions(v), 1) != printed]


@wrong(ROWS, "only the first wrong row")
def returns_in_the_loop(rows):
    for name, variant, printed in rows:
        if round(millions(variant)) != printed:
            return [name]
    return []


@wrong(ROWS, "only the last wrong row")
def new_list_each_time(rows):
    found = []
    for name, variant, printed in rows:
        if round(millions(variant)) != printed:
            found = [name]
    return found


@wrong(ROWS, "less than a million passes")
def nearly(rows):
    return [name for name, v, printed in rows if abs(millions(v) - printed) >= 1]


@wrong(ROWS, "one million passes")
def one_off(rows):
    return [name for name, v, printed in rows if abs(round(millions(v)) - printed) > 1]


@wrong(ROWS, "the head is missing")
def without_the_head(rows):
    found = []
    for name, variant, printed in rows:
        parts = count_parameters(variant)
        del parts["head"]
        if round(sum(parts.values()) / 1e6) != printed:
            found.append(name)
    return found


@wrong(ROWS, "Sum all parts")
def encoders_only(rows):
    counts = {name: count_parameters(v)["encoder"] for name, v, _ in rows}
    return [name for name, _, printed in rows if round(counts[name] / 1e6) != printed]


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


@wrong(ROWS, "expected the names")
def whole_rows(rows):
    return [row for row in rows if round(millions(row[1])) != row[2]]


@wrong(ROWS, "no row is called")
def long_names(rows):
    return [f"ViT-{name}" for name, v, p in rows if round(millions(v)) != p]


@wrong(ROWS, "belongs to the example")
def by_eye(rows):
    return ["B/32"]


@wrong(ROWS, "not all wrong rows")
def copied_from_above(rows):
    pairs = zip(rows, rows[1:], strict=False)
    return [name for (name, _, above), (_, _, below) in pairs if above == below]


@wrong(ROWS, "a `return` missing")
def rows_without_return(rows):
    [name for name, v, printed in rows if round(millions(v)) != printed]


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


@wrong(GIANT, "a head of one class")
def one_class_at_least(classes):
    count = sum(count_parameters(giant(), max(classes, 1)).values())
    return measured(classes, parameters=count, difference=(count - PAPER) / PAPER)


@wrong(GIANT, "the head has 1000 classes")
def always_1000(classes):
    return measured(classes, parameters=count_of(1000))


@wrong(GIANT, "the head is missing")
def never_a_head(classes):
    return measured(classes, parameters=count_of(0))


@wrong(GIANT, "in millions; give")
def count_in_millions(classes):
    return measured(classes, parameters=round(count_of(classes) / 1e6))


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


@wrong(GIANT, "absolute")
def absolute(classes):
    return measured(classes, difference=count_of(classes) - PAPER)


@wrong(GIANT, "per cent; give")
def per_cent(classes):
    return measured(classes, difference=100 * (count_of(classes) - PAPER) / PAPER)


@wrong(GIANT, "divided by your count")
def by_ours(classes):
    count = count_of(classes)
    return measured(classes, difference=(count - PAPER) / count)


@wrong(GIANT, "lost its sign")
def without_sign(classes):
    return measured(classes, difference=abs(count_of(classes) - PAPER) / PAPER)


@wrong(GIANT, "wrong sign")
def other_sign(classes):
    return measured(classes, difference=(PAPER - count_of(classes)) / PAPER)


@wrong(GIANT, "Subtract 1")
def quotient(classes):
    return measured(classes, difference=count_of(classes) / PAPER)


@wrong(GIANT, "the same unit")
def other_unit(classes):
    return measured(classes, difference=(count_of(classes) - 1843) / 1843)


@wrong(GIANT, "is rounded")
def rounded(classes):
    return measured(classes, difference=round(measured(classes)["difference"], 4))


@wrong(GIANT, "the keys")
def pair(classes):
    return count_of(classes), (count_of(classes) - PAPER) / PAPER


@wrong(GIANT, "the head has 1000 classes")
def constants(classes):
    return measured(1000)


@right(GIANT)
def by_formula(classes):
    d, m = 1664, 8192
    block = 4 * d * d + 9 * d + 2 * d * m + m
    count = 48 * block + (14 * 14 * 3 + 1) * d + 258 * d + 2 * d + (d + 1) * classes
    return measured(classes, parameters=count, difference=count / PAPER - 1)


@right(GIANT)
def minus_the_head(classes):
    parts = count_parameters(giant(), num_classes=1 if classes == 0 else classes)
    count = sum(parts.values()) - (parts["head"] if classes == 0 else 0)
    return dict(variant=giant(), parameters=count, difference=(count - PAPER) / PAPER)
