"""Checks of the exercises of lesson 15: what changed since 2020."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from going_modular.vit import ViT
from vit_course.checks.hints import (
    as_number,
    compare,
    hint,
    is_a_function,
    learners_code,
    passed,
)


def _random(*shapes: tuple[int, ...], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


# 1. LayerScale folded away


def _dense(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    dense = nn.Linear(weight.shape[1], weight.shape[0])
    dense.load_state_dict({"weight": weight, "bias": bias})
    return dense


def check_folded_layer_scale(answer: Callable) -> None:
    """Checks a dense layer that has taken in the factors of LayerScale.

    Args:
        answer: takes a dense layer and gamma, gives a new dense layer.

    Raises:
        Hint: it is not right yet.
    """
    is_a_function(answer, "fold")

    def folded(x, weight, bias, gamma):
        dense = _dense(weight, bias)
        new = answer(dense, gamma)
        hint(
            isinstance(new, nn.Linear),
            f"give back a dense layer, an nn.Linear, not {type(new).__name__}",
        )
        hint(
            torch.equal(dense.weight, weight) and torch.equal(dense.bias, bias),
            "the dense layer that came in has changed: the model that it belongs to "
            "would be scaled twice. Make a new one.",
        )
        return new(x).detach()

    inputs = [
        tuple(_random((5, 4), (4, 4), (4,), (4,))),
        tuple(_random((4, 6), (3, 6), (3,), (3,), seed=1)),
    ]
    mistakes = {
        "the bias is not scaled: gamma multiplies all of W x + b.": (
            lambda x, w, b, g: x @ w.T * g + b
        ),
        "gamma multiplies the inputs. It belongs to the outputs: one row of the "
        "weight each.": lambda x, w, b, g: x @ (w * g).T + b * g,
        "the same inputs pass the dense layer as before: where is gamma?": (
            lambda x, w, b, g: x @ w.T + b
        ),
    }
    compare(
        folded,
        lambda x, w, b, g: (x @ w.T + b) * g,
        inputs,
        mistakes,
        gradient=False,
        advice="(W x + b) times gamma is a sum of two terms. Which matrix, and which "
        "bias, gives it at once?",
    )
    passed("LayerScale lives in the dense layer before it")


# 2. Find the bug: QK-norm


def _weights(norm: Callable, scale: bool = True, axis: int = -1) -> Callable:
    """Attention weights of all heads, with a norm before and after the split."""

    def call(query, key, num_heads):
        def heads(x):
            return norm(x, num_heads)

        q, k = heads(query), heads(key)
        scores = q @ k.mT / (q.shape[-1] ** 0.5 if scale else 1)
        return scores.softmax(dim=axis)

    return call


def _split(x: torch.Tensor, num_heads: int) -> torch.Tensor:
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _normed(x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:])


def check_mended_qk_norm(answer: Callable) -> None:
    """Checks the attention weights with a LayerNorm on each query and key.

    Args:
        answer: takes queries, keys (B, N, D) and the number of heads.

    Raises:
        Hint: it is not right yet.
    """
    is_a_function(answer, "mended_weights")
    inputs = [
        (*_random((1, 3, 8), (1, 3, 8)), 2),
        (*(5 * x for x in _random((2, 4, 12), (2, 4, 12), seed=1)), 3),
    ]
    per_head = lambda x, k: _normed(_split(x, k))  # noqa: E731
    mistakes = {
        "each token is normed over all of D, so a head with large values takes the "
        "others' share. Norm after the split into heads.": _weights(
            lambda x, k: _split(_normed(x), k)
        ),
        "queries and keys are not normed at all.": _weights(_split),
        "the scaling by 1/sqrt(D_h) is missing.": _weights(per_head, scale=False),
        "softmax runs over the queries: a row must sum to one.": _weights(
            per_head, axis=-2
        ),
    }
    advice = "Split first, then norm the D_h values of each query and key."
    compare(answer, _weights(per_head), inputs, mistakes, advice=advice)
    passed("each head's queries and keys have a norm of their own")


# 3. Measure: registers that nobody trained


def _with(model: ViT, images: torch.Tensor, make: Callable) -> torch.Tensor:
    with torch.no_grad():
        z = model.encoder(make(model.embedding(images)))
        return model.head(model.layer_norm(z[:, 0])).argmax(dim=1)


def _between(registers: torch.Tensor) -> Callable:
    def make(z):
        rows = registers.expand(len(z), -1, -1)
        return torch.cat([z[:, :1], rows, z[:, 1:]], dim=1)

    return make


def _kept(model, images, registers, make=_between) -> float:
    with torch.no_grad():
        before = model(images).argmax(dim=1)
    now = _with(model, images, make(registers))
    return (now == before).float().mean().item()


def _small_vit(seed: int) -> ViT:
    torch.manual_seed(seed)
    vit = ViT(
        img_size=16,
        patch_size=4,
        num_transformer_layers=1,
        embedding_dim=16,
        mlp_size=32,
        num_heads=2,
        num_classes=5,
    )
    for p in vit.parameters():
        p.data += 0.3 * torch.randn_like(p)
    return vit.eval()


def check_kept_predictions(answer: Callable) -> None:
    """Checks the fraction of predictions that survive registers.

    Args:
        answer: takes a model in evaluation mode, images and registers (R, D).

    Raises:
        Hint: it is not right yet.
    """
    is_a_function(answer, "kept_predictions")
    for seed, count in ((0, 3), (1, 8), (2, 20)):
        model = _small_vit(seed)
        images, registers = _random((40, 3, 16, 16), (count, 16), seed=seed)
        registers = 3 * registers
        state = {name: p.clone() for name, p in model.state_dict().items()}
        with learners_code():
            found = as_number(answer(model, images, registers))
        hint(found is not None, "your code gives back None. Is a `return` missing?")
        hint(isinstance(found, float | int), "give back one number, a fraction")
        hint(
            all(torch.equal(p, state[name]) for name, p in model.state_dict().items()),
            "the model's weights have changed. Registers are tokens, not its weights.",
        )
        expected = _kept(model, images, registers)
        if abs(found - expected) < 1e-6:
            continue
        hint(0 <= found <= 1, f"a fraction lies between 0 and 1, not at {found}")
        hint(
            abs(found - (1 - expected)) > 1e-6,
            "that is the fraction of predictions that change. How many stay?",
        )
        hint(
            found != 1,
            "no prediction changes. Do the registers go through the encoder?",
        )
        first = _kept(
            model,
            images,
            registers,
            lambda r: lambda z: torch.cat([r.expand(len(z), -1, -1), z], dim=1),
        )
        hint(
            abs(found - first) > 1e-6,
            "token 0 is a register now, and the head reads it. Keep the class token "
            "first.",
        )
        hint(
            False,
            f"{count} registers leave {expected:.3f} of the predictions as they were; "
            f"you found {found:.3f}. Compare with the predictions of the model itself, "
            "and put the registers after the position embedding.",
        )
    passed("registers belong into the training, not after it")
