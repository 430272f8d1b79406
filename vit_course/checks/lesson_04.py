"""Tasks of the exercises of lesson 04: the class token."""

from types import FrameType

import torch
from torch import Tensor

from vit_course.checks.hints import (
    ForbiddenCalls,
    Hint,
    hint,
    is_initialised_small,
)
from vit_course.checks.task import Case, Task


def _inputs(*sizes: tuple[int, int, int], counts: tuple[int, ...] = (1,)) -> list:
    """Patch tokens and class tokens, of sizes (batch, patches, D)."""
    g = torch.Generator().manual_seed(4)
    return [
        (torch.randn(b, n, d, generator=g), torch.randn(1, count, d, generator=g))
        for count in counts
        for b, n, d in sizes
    ]


def _for_all(weight: Tensor, tokens: Tensor) -> Tensor:
    return weight.expand(tokens.shape[0], -1, -1)


def _prepended(tokens: Tensor, weight: Tensor) -> Tensor:
    return torch.cat([_for_all(weight, tokens), tokens], dim=1)


def _first_image_only(tokens: Tensor, weight: Tensor) -> Tensor:
    others = torch.zeros_like(weight).expand(tokens.shape[0] - 1, -1, -1)
    return torch.cat([torch.cat([weight, others]), tokens], dim=1)


MISTAKES = {
    lambda t, w: w.repeat(t.shape[0], -1, -1): (
        "-1 means “leave as it is” in `expand` only. `repeat` counts copies: one is 1."
    ),
    lambda t, w: torch.cat([_for_all(w, t), t]): (
        "`torch.cat` joins along the batch if it is told nothing else. Token and "
        "patches are joined along the sequence, axis 1."
    ),
    lambda t, w: torch.cat([t, _for_all(w, t)], dim=1): (
        "the class token is appended to the patches. Equation 1 prepends it, and "
        "everything after it (position embedding, head) reads token 0."
    ),
    lambda t, w: t + w: (
        "the token is added to the patches. Concatenate it: it is one more token, so "
        "that N patches become N + 1 tokens."
    ),
    _first_image_only: (
        "only the first image has the token. All images need a copy of it."
    ),
    lambda t, w: torch.cat([w, t], dim=1): (
        "the token has another batch size than the patches, and `torch.cat` does not "
        "broadcast. It is axis 0, the batch, that needs B copies, and no other."
    ),
    lambda t, w: torch.cat([0 * _for_all(w, t), t], dim=1): (
        "the tokens that you prepend are zeros, whatever `self.weight` holds: nothing "
        "would be learned. Prepend `self.weight`."
    ),
    lambda t, w: torch.cat([_for_all(w, t), t[:, 1:]], dim=1): (
        "the first patch is gone: the class token took its place. N patches become N + "
        "1 tokens."
    ),
}
ONE_TOKEN = {
    "sizes": lambda tokens, weight: (tokens.shape[2],),
    "parameters": ("weight",),
    "inputs": _inputs((2, 3, 4), (1, 3, 4), (5, 2, 4)),
    "right": _prepended,
    "mistakes": MISTAKES,
}


VIEW = "this is a view again, as in the lesson. The task asks for copies: `repeat`."


def _is_a_view(name: str, caller: FrameType) -> bool:
    of_einops = caller.f_globals.get("__name__", "").startswith("einops")
    # Its `repeat` begins with a view.
    return name in ("expand", "expand_as", "broadcast_to") and not of_einops


def _call_without_expand(module, *given: Tensor) -> Tensor:
    with ForbiddenCalls(_is_a_view, VIEW):
        return module(*given)


check_repeated_class_token = Task(
    "RepeatedClassToken",
    "one class token, repeated for each image",
    Case(**ONE_TOKEN, call=_call_without_expand),
)


def _one_vector_each(module, tokens: Tensor, weight: Tensor) -> None:
    hint(
        module.weight.shape[1] != 1 or weight.shape[1] == 1,
        "there is one vector for all the class tokens, so they are always equal: each "
        "needs a row of its own in `weight`.",
    )


def _check_start(answer: type) -> None:
    """Checks that class tokens are initialised with different, small random values."""
    start = answer(embedding_dim=30, count=20).weight.detach()[0]  # (20, 30)
    hint(
        len(start.unique(dim=0)) == len(start),
        "class tokens are initialised to the same values, and have no positions of "
        "their own: those that the head reads alike, or not at all, would stay equal "
        "for ever. Initialise `weight` with small random values.",
    )
    is_initialised_small(start, "weight")
    again = answer(embedding_dim=30, count=20).weight.detach()[0]
    hint(
        not torch.equal(start, again),
        "two objects get the same random values: a seed is set in `__init__`. Leave "
        "seeds to whoever uses the class.",
    )


SEVERAL = _inputs((2, 5, 4), (5, 7, 4), (1, 3, 4), counts=(3, 1, 2))
SPLITS = {
    lambda t, c: (t[:, :1], t[:, 1:]): (
        "`split` takes one token for the class tokens, however many there are."
    ),
    lambda t, c: (t[:c], t[c:]): "`split` cuts along the batch. The tokens are axis 1.",
    lambda t, c: (t[:, c:], t[:, :c]): (
        "`split` gives the patches first. The class tokens come first."
    ),
    lambda t, c: (t[:, -c:], t[:, :-c]): (
        "`split` takes the last tokens. The class tokens come first."
    ),
}
check_class_tokens = Task(
    "ClassTokens",
    "several class tokens, prepended and split off again",
    Case(
        sizes=lambda tokens, weight: (tokens.shape[2], weight.shape[1]),
        parameters=("weight",),
        made=_one_vector_each,
        inputs=SEVERAL,
        right=_prepended,
        mistakes=MISTAKES,
    ),
    Case(
        sizes=lambda tokens, count: (tokens.shape[2], count),
        call=lambda module, tokens, count: module.split(tokens),
        inputs=[(_prepended(t, w), w.shape[1]) for t, w in SEVERAL],
        right=lambda t, c: (t[:, :c], t[:, c:]),
        mistakes=SPLITS,
    ),
    also=[_check_start],
)

ONE_FOR_ALL = (
    "The number of images must not be a size of the parameter: x_class is one vector, "
    "the same for all images, so `weight` should be (1, 1, D)."
)


def _asks_for_more(error: Exception) -> str:
    if not isinstance(error, TypeError) or "__init__() " not in str(error):
        return ""
    more = ONE_FOR_ALL if "missing" in str(error) else "Which arguments does it take?"
    return f"MendedClassToken(embedding_dim) must be enough, but {error}. {more}"


def _one_for_all(module, *_) -> None:
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        raise Hint("`self.weight` must hold the class token")
    hint(weight.shape[1:] != (1, 4) or len(weight) == 1, ONE_FOR_ALL)


check_mended_class_token = Task(
    "MendedClassToken",
    "mended: one vector for batches of every size",
    Case(**ONE_TOKEN, made=_one_for_all, explain=_asks_for_more),
)


def _bytes(expand: float, repeat: float) -> dict[str, float]:
    return {"expand": expand, "repeat": repeat}


NOT_SHARED = (
    "both are the same: `numel()`, `.nbytes` and `getsizeof` do not see that memory is "
    "shared (`untyped_storage().nbytes()` does), and `contiguous`, `clone` or `cat` "
    "make a copy, so that it is not shared any more."
)
SIZES = {
    lambda w, b: _bytes(b * w.nbytes, b * w.nbytes): NOT_SHARED,
    lambda w, b: _bytes(b * w.numel() * 4, b * w.numel() * 4): NOT_SHARED,
    lambda w, b: _bytes(w.nbytes, w.nbytes): (
        "both are the bytes of one vector. Did you measure `weight` itself, or the "
        "expanded tensor twice?"
    ),
    lambda w, b: _bytes(b * w.nbytes, w.nbytes): (
        "the two are swapped: which of them makes copies?"
    ),
    (
        lambda w, b: _bytes(w.nbytes / 1024, b * w.nbytes / 1024),
        lambda w, b: _bytes(w.nbytes // 1024, b * w.nbytes // 1024),
    ): "these are KiB. Give back the bytes, undivided.",
    lambda w, b: _bytes(w.numel(), b * w.numel()): (
        "these are counts of values, not bytes: a float32 takes four."
    ),
    lambda w, b: _bytes(4 * w.numel(), b * 4 * w.numel()): (
        "a value takes four bytes in yours, whatever its dtype: this `weight` is of "
        "float64, which takes eight. `untyped_storage().nbytes()` knows."
    ),
}
check_class_token_memory = Task(
    "measure_bytes",
    "bytes of both, measured",
    Case(
        inputs=[
            (torch.zeros(1, 1, 192), 512),
            (torch.zeros(1, 1, 8), 3),
            (torch.zeros(1, 1, 6, dtype=torch.float64), 5),
        ],
        right=lambda w, b: _bytes(w.nbytes, b * w.nbytes),
        mistakes=SIZES,
        gradient=False,
        advice="Measure `untyped_storage().nbytes()` of each.",
    ),
)
