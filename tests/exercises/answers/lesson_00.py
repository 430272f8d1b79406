"""Answers to the exercises of lesson 00."""

import math
import re

import numpy as np
from torch.torch_version import TorchVersion

from answers import right, wrong
from going_modular.variants import ViTVariant, count_parameters

HEAD = "check_head_dim"
SHAPES = "check_trace_shapes"
VERSION = "check_is_at_least"
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


def start(version):
    return re.match(r"\d+\.\d+\.\d+", version).group()


def ints(text):
    return [int(n) for n in text.split(".")]


@wrong(VERSION, "second number alone")
def second_number(version, minimum):
    return int(version.split(".")[1]) >= int(minimum.split(".")[1])


@wrong(VERSION, "apart from the others")
def one_by_one(version, minimum):
    pairs = zip(ints(start(version)), ints(minimum), strict=False)
    return all(a >= b for a, b in pairs)


@wrong(VERSION, "apart from the others")
def major_and_minor(version, minimum):
    (a, b), (c, d) = ints(start(version))[:2], ints(minimum)[:2]
    return a >= c and b >= d


@wrong(VERSION, "compared as text")
def as_text(version, minimum):
    return version >= minimum


@wrong(VERSION, "compared as text")
def as_texts(version, minimum):
    return start(version).split(".") >= minimum.split(".")


@wrong(VERSION, "less than 2.9")
def as_decimal(version, minimum):
    first_two = re.match(r"\d+\.\d+", version).group()
    return float(first_two) >= float(re.match(r"\d+\.\d+", minimum).group())


@wrong(VERSION, "not a decimal number")
def whole_as_decimal(version, minimum):
    return float(version) >= float(minimum)


@wrong(VERSION, "run together")
def without_dots(version, minimum):
    return int(start(version).replace(".", "")) >= int(minimum.replace(".", ""))


@wrong(VERSION, "only the first number")
def first_number(version, minimum):
    return ints(start(version))[0] >= ints(minimum)[0]


@wrong(VERSION, "third number is left out")
def two_numbers(version, minimum):
    return ints(start(version))[:2] >= ints(minimum)[:2]


@wrong(VERSION, "the minimum itself")
def newer_only(version, minimum):
    return ints(start(version)) > (ints(minimum) + [0])[:3]


@wrong(VERSION, "whatever is needed")
def always_1_12(version, minimum):
    return ints(start(version)) >= [1, 12]


@wrong(VERSION, "that are new enough")
def swapped_sides(version, minimum):
    return ints(minimum) >= ints(start(version))


@wrong(VERSION, "has to be cut off")
def no_ending(version, minimum):
    return ints(version) >= ints(minimum)


@wrong(VERSION, "has to be cut off")
def plus_only(version, minimum):
    return ints(version.split("+")[0]) >= ints(minimum)


@wrong(VERSION, "is not 1130")
def all_digits(version, minimum):
    parts = [re.sub(r"\D", "", part) for part in version.split(".")[:3]]
    return ints(".".join(parts)) >= ints(minimum)


@wrong(VERSION, "as packaging and torch do")
def by_torch(version, minimum):
    return bool(TorchVersion(version) >= minimum)


@wrong(VERSION, "Without an ending you are right")
def unfinished_ones_are_old(version, minimum):
    finished = not re.search("dev|rc|a", version)
    return finished and ints(start(version)) >= ints(minimum)


@wrong(VERSION, "Without an ending you are right")
def ending_joined(version, minimum):
    return ints(re.sub(r"[a-z]+|\+.*", "", version)[:9].strip(".")) >= ints(minimum)


@wrong(VERSION, "cut at the dots")
def five_characters(version, minimum):
    return ints(version[:5]) >= ints(minimum)


@wrong(VERSION, "your pattern finds nothing")
def one_digit_in_front(version, minimum):
    return ints(re.match(r"\d\.\d+\.\d+", version).group()) >= ints(minimum)


@wrong(VERSION, "True for all versions")
def everything_is_new(version, minimum):
    return True


@wrong(VERSION, "True or False")
def both_lists(version, minimum):
    return ints(start(version)), ints(minimum)


@wrong(VERSION, "expected")
def by_difference(version, minimum):
    """Weighs the numbers; ten of one are not one of the next."""
    numbers = [a * 10.0**-i for i, a in enumerate(ints(start(version)))]
    return sum(numbers) >= sum(a * 10.0**-i for i, a in enumerate(ints(minimum)))


@right(VERSION)
def by_tuples(version, minimum):
    major, minor, rest = version.split(".", 2)
    third = re.match(r"\d+", rest).group()
    return (int(major), int(minor), int(third)) >= tuple(map(int, minimum.split(".")))


@right(VERSION)
def by_findall(version, minimum):
    have = [int(number) for number in re.findall(r"\d+", version)[:3]]
    need = [int(number) for number in re.findall(r"\d+", minimum)]
    return have >= need


@right(VERSION)
def by_cases(version, minimum):
    have = ints(start(version))
    need = (ints(minimum) + [0])[:3]
    for ours, theirs in zip(have, need, strict=True):
        if ours != theirs:
            return ours > theirs
    return True


@right(VERSION)
def by_release(version, minimum):
    return bool(TorchVersion(start(version)) >= minimum)


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
