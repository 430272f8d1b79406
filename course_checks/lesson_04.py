"""Checks of the exercises of lesson 04: the class token."""

import torch

from course_checks.hints import (
    compare,
    hint,
    is_a_class,
    learners_code,
    passed,
    with_parameters,
)

IN_FRONT = (
    "the class token stands behind the patches. Equation 1 puts it in front, and "
    "everything after it (positions, head) reads row 0."
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


def _in_front(tokens: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.cat([weight.expand(tokens.shape[0], -1, -1), tokens], dim=1)


def _behind(tokens: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
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
    IN_FRONT: _behind,
    "the token is added to the patches. Concatenate it: it is one more row, so that "
    "N patches become N + 1 tokens.": _added,
    "only the first image has the token. All images need a copy of it.": (
        _first_image_only
    ),
    "the token has another batch than the patches, and `torch.cat` does not broadcast. "
    "It is axis 0, the batch, that needs B copies, and no other.": _not_repeated,
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
    compare(with_parameters(module, "weight"), _in_front, inputs, MISTAKES)
    passed("one class token, repeated for each image")


def check_class_tokens(answer: type) -> None:
    """Checks several class tokens in one module, and how they are split off again.

    Raises:
        Hint: it is not right yet.
    """
    is_a_class(answer, "ClassTokens")
    for count in (3, 1, 2):
        with learners_code():
            module = answer(embedding_dim=4, count=count)
        shape = tuple(getattr(module, "weight", torch.empty(0)).shape)
        hint(
            count == 1 or shape != (1, 1, 4),
            "there is one vector for all the class tokens. They would stay equal for "
            "ever: each needs a row of its own in `weight`.",
        )
        hint(
            shape == (1, count, 4),
            f"`weight` has shape {shape}, expected (1, count, embedding_dim) = "
            f"(1, {count}, 4)",
        )
        inputs = _token_and_patches([(2, 5, 4), (5, 7, 4)], count)
        compare(with_parameters(module, "weight"), _in_front, inputs, MISTAKES)
        splits = {
            "`split` takes one token for the class tokens, however many there are.": (
                lambda tokens: (tokens[:, :1], tokens[:, 1:])
            ),
            "`split` cuts along the batch. The tokens are axis 1.": (
                lambda tokens, c=count: (tokens[:c], tokens[c:])
            ),
            "`split` gives the patches first. The class tokens stand in front.": (
                lambda tokens, c=count: (tokens[:, c:], tokens[:, :c])
            ),
            "`split` takes the last tokens. The class tokens stand in front.": (
                lambda tokens, c=count: (tokens[:, -c:], tokens[:, :-c])
            ),
        }
        compare(
            lambda tokens, m=module: m.split(tokens),
            lambda tokens, c=count: (tokens[:, :c], tokens[:, c:]),
            [(_in_front(*given),) for given in inputs],
            splits,
        )
    passed("several class tokens, put in front and split off again")


def check_mended_class_token(answer: type) -> None:
    """Checks the mended class token: one vector, whatever the size of the batch.

    Raises:
        Hint: it is not right yet.
    """
    is_a_class(answer, "MendedClassToken")

    def asks_for_more(error: Exception) -> str:
        enough = "MendedClassToken(embedding_dim) must be enough to make one"
        wants = isinstance(error, TypeError)
        return f"{enough}, but {error}. {ONE_FOR_ALL}" if wants else ""

    with learners_code(asks_for_more):
        module = answer(4)
    weight = getattr(module, "weight", None)
    hint(isinstance(weight, torch.Tensor), "`self.weight` must hold the class token")
    hint(
        tuple(weight.shape) == (1, 1, 4), f"{ONE_FOR_ALL} `weight` should be (1, 1, D)"
    )
    inputs = _token_and_patches([(2, 3, 4), (1, 3, 4), (5, 2, 4)])
    compare(with_parameters(module, "weight"), _in_front, inputs, MISTAKES)
    passed("mended: one vector for batches of every size")


def check_class_token_memory(answer) -> None:
    """Checks the measured bytes of a class token for 512 images.

    Raises:
        Hint: it is not right yet.
    """
    with learners_code():
        found = answer(torch.zeros(1, 1, 192), 512)
        other = answer(torch.zeros(1, 1, 8), 3)
    for measured, (batch, size) in ((found, (512, 192)), (other, (3, 8))):
        both = isinstance(measured, dict) and set(measured) == {"expand", "repeat"}
        hint(both, "give back a dict with the keys 'expand' and 'repeat'")
        one = 4 * size  # bytes of a vector of float32
        hint(
            measured["repeat"] != measured["expand"],
            "both are the same: `numel()`, `.nbytes` and `getsizeof` do not see that "
            "memory is shared. `untyped_storage().nbytes()` does.",
        )
        hint(
            (measured["expand"], measured["repeat"]) != (batch * one, one),
            "the two are swapped: which of them makes copies?",
        )
        hint(
            (measured["expand"], measured["repeat"]) != (size, batch * size),
            "these are numbers, not bytes: a float32 takes four.",
        )
        hint(
            (measured["expand"], measured["repeat"]) == (one, batch * one),
            f"for {batch} images and D = {size} it gives {measured}. Measure "
            "`untyped_storage().nbytes()` of each.",
        )
    passed("bytes of both, measured")
