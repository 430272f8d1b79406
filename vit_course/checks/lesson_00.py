"""Checks of the exercises of lesson 00: sizes, shapes and tables of a paper."""

from collections.abc import Callable
from functools import partial
from numbers import Integral

from torch.torch_version import TorchVersion

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


RELEASES = (
    "0.26.0 0.29.1 1.9.3 1.11.0 1.12.0 1.13.1 2.0.1 2.9.1 2.11.0 2.11.5"
).split()
RELEASES += ["2.14.1", "2.14.10", "10.0.0", "10.2.3"]
MINIMA = "0.9 0.29 1.9 1.12 1.12.1 2.0 2.9 2.9.1 2.11 2.11.0 2.11.5 2.14.2".split()
MINIMA += ["2.14.9", "3.1", "10.0"]
ENDINGS = ("+cu130", "a0", ".dev20260301+cpu", "rc12", "a0+git9f2c1e7", ".post3")
AS_TEXT = (
    "numbers are compared as text: there '9' comes after '11', because '9' is larger "
    "than '1'. Turn each part into an int first."
)
APART = (
    "each number is compared apart from the others. 2.0 is newer than 1.12 though 0 is "
    "less than 12: a later number counts only where the earlier ones are equal."
)
STRICT = "the minimum itself is enough: 2.11.0 is at least 2.11 and at least 2.11.0."


def _numbers(text: str) -> list[int]:
    """Reads the numbers of a version without an ending."""
    return [int(part) for part in text.split(".")]


def _glued(version: str) -> list[int]:
    """Keeps the digits of each part, also those of its ending."""
    parts = ["".join(filter(str.isdigit, p)) for p in version.split(".")[:3]]
    return [int(part) for part in parts]


VERSION_MISTAKES = [  # for versions without an ending
    (
        "the second number alone decides, as in the buggy function: 2.0 is newer than "
        "1.12. The first number counts first.",
        lambda v, m: _numbers(v)[1] >= _numbers(m)[1],
    ),
    (
        APART,
        lambda v, m: all(
            a >= b for a, b in zip(_numbers(v), _numbers(m), strict=False)
        ),
    ),
    (
        APART,
        lambda v, m: all(
            a >= b for a, b in zip(_numbers(v)[:2], _numbers(m)[:2], strict=True)
        ),
    ),
    (AS_TEXT, lambda v, m: v >= m),
    (AS_TEXT, lambda v, m: v.split(".") >= m.split(".")),
    (AS_TEXT, lambda v, m: v.split(".")[:2] >= m.split(".")[:2]),
    (
        "2.11 is not a decimal number: as one it would be less than 2.9. Compare the "
        "numbers between the dots.",
        lambda v, m: (
            float(".".join(v.split(".")[:2])) >= float(".".join(m.split(".")[:2]))
        ),
    ),
    (
        "without the dots 2.9.1 becomes 291 and 2.14.10 becomes 21410: the numbers run "
        "together. Keep them apart, in a list.",
        lambda v, m: int(v.replace(".", "")) >= int(m.replace(".", "")),
    ),
    (
        "only the first number is compared: 2.9 would do where 2.11 is needed.",
        lambda v, m: _numbers(v)[0] >= _numbers(m)[0],
    ),
    (
        "the third number is left out. It counts where the minimum names one: 2.14.1 "
        "is less than 2.14.2.",
        lambda v, m: _numbers(v)[:2] >= _numbers(m)[:2],
    ),
    (STRICT, lambda v, m: _numbers(v) > (_numbers(m) + [0])[:3]),
    (STRICT, lambda v, m: _numbers(v) > _numbers(m)),
    (STRICT, lambda v, m: _numbers(v)[: len(_numbers(m))] > _numbers(m)),
    (
        "the minimum is not looked at: it asks for 1.12 whatever is needed.",
        lambda v, m: _numbers(v) >= [1, 12],
    ),
    (
        "it is the wrong way round: True is for versions that are new enough.",
        lambda v, m: _numbers(v) <= _numbers(m),
    ),
    (
        "it is the wrong way round: True is for versions that are new enough.",
        lambda v, m: _numbers(v) < _numbers(m),
    ),
]
ENDING_MISTAKES = [  # for those with one
    (
        "digits that follow the third number are read into it: 1+cu130 is not 1130. "
        "Stop at the first character that is no digit.",
        lambda v, m: _glued(v) >= _numbers(m),
    ),
    (
        "0.29.0a0 is treated as older than 0.29, as packaging and torch do. In this "
        "task what follows the third number does not count: cut it off first.",
        lambda v, m: TorchVersion(v) >= m,
    ),
]


def check_is_at_least(answer: Callable) -> None:
    """Checks the mended comparison of two versions.

    Raises:
        Hint: it is not right yet.
    """
    plain = [(v, v, m) for v in RELEASES for m in MINIMA]
    with_ending = [(v + end, v, m) for v in RELEASES for m in MINIMA for end in ENDINGS]
    advice = "Compare the numbers between the dots, the first one first."
    _compare_versions(answer, plain, VERSION_MISTAKES, advice)
    advice = "Without an ending you are right: take nothing from the ending."
    _compare_versions(answer, with_ending, ENDING_MISTAKES, advice)
    passed("mended: versions compared number by number")


def _compare_versions(
    answer: Callable, cases: list, mistakes: list, advice: str
) -> None:
    found = []
    for version, _, minimum in cases:
        call = f"is_at_least({version!r}, {minimum!r})"
        with learners_code(partial(_unreadable, call=call)):
            value = answer(version, minimum)
        hint(
            isinstance(value, bool),
            f"{call} gives {value!r}, expected True or False",
        )
        found.append(value)
    right = [_numbers(release) >= _numbers(minimum) for _, release, minimum in cases]
    if found == right:
        return
    for text, mistake in mistakes:
        hint(
            found != [mistake(version, minimum) for version, _, minimum in cases], text
        )
    hint(True not in found or False in found, "it returns True for all versions")
    hint(False not in found or True in found, "it returns False for all versions")
    first = next(i for i, value in enumerate(found) if value != right[i])
    version, _, minimum = cases[first]
    raise Hint(
        f"is_at_least({version!r}, {minimum!r}) gives {found[first]}, expected "
        f"{right[first]}. {advice}"
    )


def _unreadable(error: Exception, call: str) -> str:
    """The hint for a version, or a part of one, that cannot be read."""
    if isinstance(error, ValueError) and str(error).endswith(": ''"):
        ending = "no number stands where your code cuts one out; cut at the dots"
    elif isinstance(error, ValueError) and "invalid literal" in str(error):
        ending = "what follows the third number has to be cut off first"
    elif isinstance(error, ValueError) and "convert string to float" in str(error):
        ending = "a version is not a decimal number"
    elif isinstance(error, AttributeError) and "NoneType" in str(error):
        ending = "your pattern finds nothing in one of the two"
    else:
        return ""
    return f"{call} stops with {type(error).__name__}, {error}: {ending}."


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
