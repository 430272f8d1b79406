"""Checks of the exercises of lesson 04: the class token."""

import torch

from vit_course.checks.hints import (
    NO_RETURN,
    Hint,
    as_number,
    compare,
    hint,
    is_a_class,
    is_a_function,
    is_initialised_small,
    learners_code,
    passed,
    with_parameters,
)

APPENDED = (
    "the class token is appended to the patches. Equation 1 prepends it, and "
    "everything after it (position embedding, head) reads token 0."
)
ONE_FOR_ALL = (
    "the number of images must not be a size of the parameter: x_class is one vector, "
    "the same for all images. A batch of another size must work, too."
)


def _token_and_patches(sizes: list[tuple[int, int, int]], count: int = 1) -> list:
    """Inputs (patch tokens, weight) of several sizes (batch, patches, D)."""
    generator = torch.Generator().manual_seed(4)
    return [
        (
            torch.randn(b, n, d, generator=generator),
            torch.randn(1, count, d, generator=generator),
        )
        for b, n, d in sizes
    ]


def _prepended(tokens: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.cat([weight.expand(tokens.shape[0], -1, -1), tokens], dim=1)


def _appended(tokens: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.cat([tokens, weight.expand(tokens.shape[0], -1, -1)], dim=1)


def _added(tokens: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return tokens + weight


def _first_image_only(tokens: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    others = torch.zeros_like(weight).expand(tokens.shape[0] - 1, -1, -1)
    return torch.cat([torch.cat([weight, others]), tokens], dim=1)


def _not_repeated(tokens: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.cat([weight, tokens], dim=1)


def _repeat_with_minus_one(tokens, weight):
    return weight.repeat(tokens.shape[0], -1, -1)


def _joined_along_the_batch(tokens, weight):
    return torch.cat([weight.expand(tokens.shape[0], -1, -1), tokens])


def _in_place_of_a_patch(tokens, weight):
    return torch.cat([weight.expand(tokens.shape[0], -1, -1), tokens[:, 1:]], dim=1)


MISTAKES = {
    '-1 means "leave as it is" in `expand` only. `repeat` counts copies: one is 1.': (
        _repeat_with_minus_one
    ),
    "`torch.cat` joins along the batch if it is told nothing else. Token and patches "
    "are joined along the sequence, axis 1.": _joined_along_the_batch,
    APPENDED: _appended,
    "the token is added to the patches. Concatenate it: it is one more token, so that "
    "N patches become N + 1 tokens.": _added,
    "only the first image has the token. All images need a copy of it.": (
        _first_image_only
    ),
    "the token has another batch size than the patches, and `torch.cat` does not "
    "broadcast. It is axis 0, the batch, that needs B copies, and no "
    "other.": _not_repeated,
    "the first patch is gone: the class token took its place. N patches become N + 1 "
    "tokens.": _in_place_of_a_patch,
}


def check_repeated_class_token(answer: type) -> None:
    """Checks a class token whose forward pass repeats it for each image.

    Raises:
        Hint: it is not right yet.
    """
    is_a_class(answer, "RepeatedClassToken")
    inputs = _token_and_patches([(2, 3, 4), (1, 3, 4), (5, 2, 4)])
    with learners_code():
        module = answer(4)
    compare(with_parameters(module, "weight"), _prepended, inputs, MISTAKES)
    passed("one class token, repeated for each image")


def _check_start(answer: type) -> None:
    """Checks that class tokens are initialised with different, small random values."""
    with learners_code():
        module = answer(embedding_dim=30, count=20)
    start = module.weight.detach()[0]  # (20, 30)
    hint(
        len(start.unique(dim=0)) == len(start),
        "class tokens are initialised to the same values, and have no positions of "
        "their own: those that the head reads alike, or not at all, would stay equal "
        "for ever. Initialise `weight` with small random values.",
    )
    is_initialised_small(start, "weight")


def check_class_tokens(answer: type) -> None:
    """Checks several class tokens in one module, and how they are split off again.

    Raises:
        Hint: it is not right yet.
    """
    is_a_class(answer, "ClassTokens")
    for count in (3, 1, 2):
        with learners_code():
            module = answer(embedding_dim=4, count=count)
        forward = with_parameters(module, "weight")
        shape = tuple(module.weight.shape)
        hint(
            count == 1 or shape != (1, 1, 4),
            "there is one vector for all the class tokens, so they are always equal: "
            "each needs a row of its own in `weight`.",
        )
        hint(
            shape == (1, count, 4),
            f"`weight` has shape {shape}, expected (1, count, embedding_dim) = "
            f"(1, {count}, 4)",
        )
        inputs = _token_and_patches([(2, 5, 4), (5, 7, 4), (1, 3, 4)], count)
        compare(forward, _prepended, inputs, MISTAKES)
        splits = {
            "`split` takes one token for the class tokens, however many there are.": (
                lambda tokens: (tokens[:, :1], tokens[:, 1:])
            ),
            "`split` cuts along the batch. The tokens are axis 1.": (
                lambda tokens, c=count: (tokens[:c], tokens[c:])
            ),
            "`split` gives the patches first. The class tokens come first.": (
                lambda tokens, c=count: (tokens[:, c:], tokens[:, :c])
            ),
            "`split` takes the last tokens. The class tokens come first.": (
                lambda tokens, c=count: (tokens[:, -c:], tokens[:, :-c])
            ),
        }
        compare(
            lambda tokens, m=module: m.split(tokens),
            lambda tokens, c=count: (tokens[:, :c], tokens[:, c:]),
            [(_prepended(*given),) for given in inputs],
            splits,
        )
    _check_start(answer)
    passed("several class tokens, prepended and split off again")


def check_mended_class_token(answer: type) -> None:
    """Checks the mended class token: one vector, whatever the size of the batch.

    Raises:
        Hint: it is not right yet.
    """
    is_a_class(answer, "MendedClassToken")

    def asks_for_more(error: Exception) -> str:
        enough = "MendedClassToken(embedding_dim) must be enough to make one"
        if not isinstance(error, TypeError) or "__init__() " not in str(error):
            return ""
        more = f" {ONE_FOR_ALL[0].upper()}{ONE_FOR_ALL[1:]}"
        return f"{enough}, but {error}.{more if 'missing' in str(error) else ''}"

    with learners_code(asks_for_more):
        module = answer(4)
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor):
        raise Hint("`self.weight` must hold the class token")
    shape = tuple(weight.shape)
    one_for_all = f"{ONE_FOR_ALL} `weight` should be (1, 1, D)."
    hint(shape[1:] != (1, 4) or shape[0] == 1, one_for_all)
    hint(
        shape == (1, 1, 4),
        f"for D = 4 `weight` has shape {shape}, expected (1, 1, D) = (1, 1, 4)",
    )
    inputs = _token_and_patches([(2, 3, 4), (1, 3, 4), (5, 2, 4)])
    compare(with_parameters(module, "weight"), _prepended, inputs, MISTAKES)
    passed("mended: one vector for batches of every size")


def check_class_token_memory(answer) -> None:
    """Checks the measured bytes of a class token for 512 images.

    Raises:
        Hint: it is not right yet.
    """
    is_a_function(answer, "measure_bytes")
    for batch, size, dtype in (
        (512, 192, torch.float32),
        (3, 8, torch.float32),
        (5, 6, torch.float64),
    ):
        weight = torch.zeros(1, 1, size, dtype=dtype)
        with learners_code():
            measured = answer(weight, batch)
        hint(measured is not None, NO_RETURN)
        both = isinstance(measured, dict) and set(measured) == {"expand", "repeat"}
        hint(both, "give back a dict with the keys 'expand' and 'repeat'")
        found = tuple(as_number(measured[name]) for name in ("expand", "repeat"))
        hint(
            all(isinstance(number, int | float) for number in found),
            "each of the two values must be a number: of bytes, and not a tensor, a "
            "string or a method that was not called (`nbytes()`).",
        )
        one = weight.nbytes  # bytes of a vector
        hint(
            found != (one, one),
            "both are the bytes of one vector. Did you measure `weight` itself, or the "
            "expanded tensor twice?",
        )
        hint(
            found[0] != found[1],
            "both are the same: `numel()`, `.nbytes` and `getsizeof` do not see that "
            "memory is shared (`untyped_storage().nbytes()` does), and `contiguous`, "
            "`clone` or `cat` make a copy, so that it is not shared any more.",
        )
        hint(
            found != (batch * one, one),
            "the two are swapped: which of them makes copies?",
        )
        hint(
            found != (size, batch * size),
            "these are counts of values, not bytes: a float32 takes four.",
        )
        hint(
            dtype == torch.float32 or found != (4 * size, batch * 4 * size),
            "a value takes four bytes in yours, whatever its dtype: this `weight` is "
            "of float64, which takes eight. `untyped_storage().nbytes()` knows.",
        )
        hint(
            found == (one, batch * one),
            f"for {batch} images and D = {size} it gives {measured}. Measure "
            "`untyped_storage().nbytes()` of each.",
        )
    passed("bytes of both, measured")
