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
    found = new(x).detach()
    hint(
        torch.allclose(found, F.linear(x, new.weight, new.bias), atol=1e-5),
        "the output is not W x + b of the new layer's own weight and bias (a hook?). "
        "Fold gamma into them.",
    )
    return found


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
    scale: Callable = lambda D, num_heads: (D / num_heads) ** 0.5,
    axis: int | None = -1,
) -> Callable:
    """Attention weights of all heads, of queries and keys that `norm` splits."""

    def weights(query, key, num_heads):
        q, k = norm(query, num_heads), norm(key, num_heads)
        scores = q @ k.mT / scale(query.shape[-1], num_heads)
        return scores if axis is None else scores.softmax(dim=axis)

    return weights


NORMS = {
    _weights(lambda x, num_heads: _split(_normed(x), num_heads)): (
        "each token is normed over all of D, so a head with large values takes the "
        "others' share. Norm after the split into heads."
    ),
    _weights(lambda x, num_heads: _normed(_split(_normed(x), num_heads))): (
        "the norm before the split is still there: beside one long head the others "
        "become so short that the epsilon of the second norm counts. Leave it out."
    ),
    _weights(lambda x, num_heads: F.normalize(_split(x, num_heads), dim=-1)): (
        "each query and key has length 1. LayerNorm subtracts the mean and divides by "
        "the standard deviation."
    ),
    _weights(_split): "queries and keys are not normed at all.",
    _weights(
        lambda x, num_heads: _normed(x.reshape(len(x), num_heads, x.shape[1], -1))
    ): (
        "tokens and heads are mixed: split the features first, (B, N, k, D_h), then "
        "swap the axes 1 and 2."
    ),
    _weights(lambda x, k: _normed(x.unflatten(-1, (-1, k)).permute(0, 3, 1, 2))): (
        "the heads are interleaved. A head is D_h neighbouring features: "
        "`unflatten(-1, (num_heads, -1))`."
    ),
    _weights(scale=lambda D, num_heads: 1): "the scaling by 1/sqrt(D_h) is missing.",
    _weights(scale=lambda D, num_heads: D**0.5): (
        "the scaling is by 1/sqrt(D). The queries of a head have D_h features: "
        "1/sqrt(D_h)."
    ),
    _weights(axis=None): "these are scores: the softmax over the keys is missing.",
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
    vit = ViT(16, 3, 4, 2, 16, 32, num_heads=2, num_classes=5)
    for p in vit.parameters():
        p.data += 0.3 * torch.randn_like(p)
    return vit.eval()


def _kept(
    insert: Callable = lambda z, r: torch.cat([z[:, :1], r, z[:, 1:]], dim=1),
    read: Callable = lambda model, z: model.layer_norm(model.encoder(z))[:, 0],
    axis: int = 1,
) -> Callable:
    """The fraction of predictions that stay when registers are inserted."""

    @torch.no_grad()
    def kept(seed: int, images: Tensor, registers: Tensor) -> float:
        model = _small_vit(seed)
        rows = registers.expand(len(images), -1, -1)
        now = model.head(read(model, insert(model.embedding(images), rows)))
        same = now.argmax(dim=axis) == model(images).argmax(dim=axis)
        return same.float().mean().item()

    return kept


KEPT = {
    lambda *given: 1 - _kept()(*given): (
        "that is the fraction of predictions that change. How many stay?"
    ),
    lambda *given: 1.0: (
        "no prediction changes. Do the registers go through the encoder, and are the "
        "other predictions those of the model without them?"
    ),
    _kept(lambda z, r: torch.cat([r, z], dim=1)): (
        "token 0 is a register now, and the head reads it. Keep the class token first."
    ),
    _kept(lambda z, r: torch.cat([z[:, :1], r, z[:, 1 + r.shape[1] :]], dim=1)): (
        "the registers take the place of patches. All patches stay, behind them."
    ),
    _kept(lambda z, r: torch.cat([z[:, :1], r[:, :1], z[:, 1:]], dim=1)): (
        "only the first register is there. How many rows has `registers`?"
    ),
    _kept(lambda z, r: z + F.pad(r.mean(1, keepdim=True), (0, 0, 0, z.shape[1] - 1))): (
        "the registers are added to the class token. They are tokens of their own."
    ),
    _kept(read=lambda model, z: model.encoder(z)[:, 0]): (
        "the head reads what the encoder gives. `layer_norm` stands between them."
    ),
    _kept(read=lambda model, z: model.layer_norm(model.encoder(z)).mean(dim=1)): (
        "the head reads the mean of all tokens. It reads token 0, the class token."
    ),
    _kept(read=lambda model, z: model.layer_norm(z)[:, 0]): (
        "the sequence does not pass the `encoder`."
    ),
    _kept(axis=0): (
        "argmax runs over the images. The class of an image is the largest of its "
        "logits, along axis 1."
    ),
}


def _call_kept(answer, seed: int, images: Tensor, registers: Tensor):
    model, before = _small_vit(seed), _small_vit(seed).state_dict()
    logits = model(images)
    found = as_number(answer(model, images, registers))
    hint(
        all(torch.equal(p, before[name]) for name, p in model.state_dict().items()),
        "the model's weights have changed. Registers are tokens, not its weights.",
    )
    hint(
        torch.equal(model(images), logits),
        "the model gives other logits afterwards: is a hook still in it? Remove it.",
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
            for seed, count in ((0, 3), (1, 8), (2, 12))
            for images, registers in [_random((100, 3, 16, 16), (count, 16), seed=seed)]
        ],
        call=_call_kept,
        right=_kept(),
        mistakes=KEPT,
        gradient=False,
        advice=(
            "Compare with the predictions of the model itself, and put the registers "
            "after the position embedding, as they are."
        ),
    ),
)
