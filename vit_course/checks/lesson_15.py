"""Tasks of the exercises of lesson 15: what changed since 2020."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from going_modular.vit import ViT
from vit_course.checks.hints import as_number, hint
from vit_course.checks.task import Case, Task


def _random(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


# 1. LayerScale folded away

FOLDS = {
    lambda x, w, b, g: x @ w.T * g + b: (
        "the bias is not scaled: gamma multiplies all of W x + b."
    ),
    lambda x, w, b, g: x @ (w * g).T + b * g: (
        "gamma multiplies the inputs. It belongs to the outputs: one row of the weight "
        "each."
    ),
    lambda x, w, b, g: x @ w.T + b: (
        "the same inputs pass the dense layer as before: where is gamma?"
    ),
}


def _call_fold(answer, x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor):
    dense = nn.Linear(weight.shape[1], weight.shape[0])
    dense.load_state_dict({"weight": weight, "bias": bias})
    new = answer(dense, gamma)
    hint(
        isinstance(new, nn.Linear),
        f"give back a dense layer, an nn.Linear, not {type(new).__name__}",
    )
    hint(
        torch.equal(dense.weight, weight) and torch.equal(dense.bias, bias),
        "the dense layer that came in has changed: the model that it belongs to would "
        "be scaled twice. Make a new one.",
    )
    return new(x).detach()


check_folded_layer_scale = Task(
    "fold",
    "LayerScale lives in the dense layer before it",
    Case(
        inputs=[
            tuple(_random((5, 4), (4, 4), (4,), (4,))),
            tuple(_random((4, 6), (3, 6), (3,), (3,), seed=1)),
        ],
        call=_call_fold,
        right=lambda x, w, b, g: (x @ w.T + b) * g,
        mistakes=FOLDS,
        gradient=False,
        advice=(
            "(W x + b) times gamma is a sum of two terms. Which matrix, and which "
            "bias, gives it at once?"
        ),
    ),
)

# 2. Find the bug: QK-norm


def _split(x: Tensor, num_heads: int) -> Tensor:
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _normed(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


def _weights(
    norm: Callable = lambda x, num_heads: _normed(_split(x, num_heads)),
    scale: bool = True,
    axis: int = -1,
) -> Callable:
    """Attention weights of all heads, of queries and keys that `norm` splits."""

    def weights(query, key, num_heads):
        q, k = norm(query, num_heads), norm(key, num_heads)
        scores = q @ k.mT / (q.shape[-1] ** 0.5 if scale else 1)
        return scores.softmax(dim=axis)

    return weights


NORMS = {
    _weights(lambda x, num_heads: _split(_normed(x), num_heads)): (
        "each token is normed over all of D, so a head with large values takes the "
        "others' share. Norm after the split into heads."
    ),
    _weights(_split): "queries and keys are not normed at all.",
    _weights(scale=False): "the scaling by 1/sqrt(D_h) is missing.",
    _weights(axis=-2): "softmax runs over the queries: a row must sum to one.",
}
check_mended_qk_norm = Task(
    "mended_weights",
    "each head's queries and keys have a norm of their own",
    Case(
        inputs=[
            (*_random((1, 3, 8), (1, 3, 8)), 2),
            (*(5 * x for x in _random((2, 4, 12), (2, 4, 12), seed=1)), 3),
        ],
        right=_weights(),
        mistakes=NORMS,
        advice="Split first, then norm the D_h values of each query and key.",
    ),
)

# 3. Measure: registers that nobody trained


def _small_vit(seed: int) -> ViT:
    torch.manual_seed(seed)
    vit = ViT(16, 3, 4, 1, 16, 32, num_heads=2, num_classes=5)
    for p in vit.parameters():
        p.data += 0.3 * torch.randn_like(p)
    return vit.eval()


def _kept(first: int) -> Callable:
    """The fraction of predictions that stay, with registers from token `first` on."""

    @torch.no_grad()
    def kept(seed: int, images: Tensor, registers: Tensor) -> float:
        model = _small_vit(seed)
        z, rows = model.embedding(images), registers.expand(len(images), -1, -1)
        z = model.encoder(torch.cat([z[:, :first], rows, z[:, first:]], dim=1))
        now = model.head(model.layer_norm(z[:, 0])).argmax(dim=1)
        return (now == model(images).argmax(dim=1)).float().mean().item()

    return kept


KEPT = {
    lambda *given: 1 - _kept(1)(*given): (
        "that is the fraction of predictions that change. How many stay?"
    ),
    lambda *given: 1.0: (
        "no prediction changes. Do the registers go through the encoder?"
    ),
    _kept(0): (
        "token 0 is a register now, and the head reads it. Keep the class token first."
    ),
}


def _call_kept(answer, seed: int, images: Tensor, registers: Tensor):
    model, before = _small_vit(seed), _small_vit(seed).state_dict()
    found = as_number(answer(model, images, registers))
    hint(
        all(torch.equal(p, before[name]) for name, p in model.state_dict().items()),
        "the model's weights have changed. Registers are tokens, not its weights.",
    )
    if isinstance(found, float | int):
        text = f"a fraction lies between 0 and 1, not at {found}"
        hint(0 <= found <= 1, text)
    return found


check_kept_predictions = Task(
    "kept_predictions",
    "registers belong into the training, not after it",
    Case(
        inputs=[
            (seed, images, 3 * registers)
            for seed, count in ((0, 3), (1, 8), (2, 20))
            for images, registers in [_random((40, 3, 16, 16), (count, 16), seed=seed)]
        ],
        call=_call_kept,
        right=_kept(1),
        mistakes=KEPT,
        gradient=False,
        advice=(
            "Compare with the predictions of the model itself, and put the registers "
            "after the position embedding."
        ),
    ),
)
