"""Tasks of the exercises of lesson 08: the MLP."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from going_modular.mlp import MLPBlock
from vit_course.checks.hints import hint, learners_code
from vit_course.checks.task import Case, Task, equal


def _random(shapes, seed: int, size: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [size * torch.randn(shape, generator=generator) for shape in shapes]


def _check_tensor(out, what: str) -> None:
    """Checks that something, named in words, gave back a tensor."""
    hint(out is not None, f"{what} gives back None. Is a `return` missing?")
    kind = type(out).__name__
    hint(isinstance(out, torch.Tensor), f"{what} gives {kind}, expected a tensor")


def _mlp(activation=F.gelu, first=lambda x: x, last=lambda x: x):
    """Two dense layers on tokens (…, D), with something before and after them."""

    def call(tokens, w1, b1, w2, b2):
        return last(activation(first(tokens) @ w1.T + b1) @ w2.T + b2)

    return call


def _tanh_gelu(x):
    return F.gelu(x, approximate="tanh")


ACTIVATIONS = {
    lambda x: x: "the GELU is missing: without it, two layers are one matrix.",
    F.relu: "ReLU stands where the GELU belongs.",
    _tanh_gelu: (
        "this is the approximate GELU, with tanh. The lesson uses the exact one."
    ),
}

# 1. Convolutions


def _on_axis_1(mlp):
    """The same on (B, D, N); weights are copied, so no gradient reaches them."""

    def call(x, *weights):
        return mlp(x.mT, *(w.detach() for w in weights)).mT

    return call


def _turned(x, w1, b1, w2, b2):
    x = F.conv1d(x.mT, w1[..., None].detach(), b1.detach())
    return F.conv1d(F.gelu(x), w2[..., None].detach(), b2.detach()).mT


def _normalised(x):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


CONVOLUTION_MISTAKES = {
    **{_on_axis_1(_mlp(wrong)): text for wrong, text in ACTIVATIONS.items()},
    _on_axis_1(_mlp(last=F.gelu)): (
        "there is a GELU behind the second layer, too. It stands between them."
    ),
    (
        _on_axis_1(_mlp(first=_normalised)),
        _on_axis_1(_mlp(first=lambda x: 1.5 * _normalised(x))),  # the block's own
    ): (
        "LayerNorm is not asked for: the module computes `block.mlp`, and `layer_norm` "
        "stands before it."
    ),
    _turned: (
        "your module turns the axes itself. It gets (B, D, N), as `nn.Conv1d` wants "
        "it, and gives back (B, D, N)."
    ),
}


def _block(dim: int, size: int, weights) -> MLPBlock:
    """The lesson's block with these weights, in training mode, with much dropout."""
    block = MLPBlock(dim, size, dropout=0.5)
    block.layer_norm.weight.data.fill_(1.5)
    own = [p for layer in (0, 3) for p in block.mlp[layer].parameters()]
    for p, value in zip(own, weights, strict=True):
        p.data.copy_(value.detach())
    return block


def _convolutions(found) -> list[nn.Conv1d]:
    """The two convolutions of an answer, in order."""
    hint(found is not None, "it gives back None. Is a `return` missing?")
    kind = "class" if isinstance(found, type) else type(found).__name__
    hint(
        isinstance(found, nn.Module),
        f"give back a module, such as an nn.Sequential. It gives a {kind}.",
    )
    convolutions = [m for m in found.modules() if isinstance(m, nn.Conv1d)]
    hint(
        len(convolutions) == 2,
        f"the module holds {len(convolutions)} layers of type nn.Conv1d, expected two",
    )
    for convolution in convolutions:
        wide = convolution.kernel_size[0]
        hint(
            wide == 1,
            f"the kernel is {wide} tokens wide, so an output depends on neighbouring "
            "tokens. A dense layer reads one token.",
        )
        hint(
            all(p.requires_grad for p in convolution.parameters()),
            "a weight has requires_grad=False: the module could not be trained.",
        )
        hint(
            convolution.bias is not None,
            "a layer has no bias, and the block's have one.",
        )
    return sorted(convolutions, key=lambda w: -w.out_channels)


def _check_copies(convolutions, weights) -> None:
    """Says which weights are not those of the block. Called when an output differs."""
    for name, convolution, weight, bias in (
        ("first", convolutions[0], *weights[:2]),
        ("second", convolutions[1], *weights[2:]),
    ):
        shape = (*weight.shape, 1)
        have = tuple(convolution.weight.shape)
        hint(
            have == shape,
            f"the weight of the {name} convolution is {have}, expected {shape}",
        )
        right = equal(convolution.weight.detach()[..., 0], weight.detach())
        hint(
            right,
            f"the weight of the {name} convolution is not the block's. A new layer is "
            "initialised randomly: copy the weights into it.",
        )
        hint(
            equal(convolution.bias.detach(), bias.detach()),
            f"the bias of the {name} convolution is not the block's: copy it, too.",
        )


def _call_convolutions(answer, x, *weights):
    size, dim = weights[0].shape
    module = answer(_block(dim, size, weights))
    convolutions = _convolutions(module)
    copy = x.detach().clone()
    out = module.train()(x)
    _check_tensor(out, "the module")
    hint(
        out.shape == x.shape,
        f"for an input {tuple(x.shape)}, (B, D, N), the module gives "
        f"{tuple(out.shape)}. The shape should stay.",
    )
    text = "called twice, your module gives two outputs: it holds dropout."
    hint(equal(out.detach(), module(copy).detach()), text)
    if not equal(out.detach(), _on_axis_1(_mlp())(x, *weights).detach()):
        _check_copies(convolutions, weights)
    return out


def _blocks() -> list[tuple]:
    inputs = []
    for i, (b, n, dim, size) in enumerate(((2, 5, 8, 32), (1, 7, 3, 5), (3, 2, 4, 6))):
        shapes = [(b, dim, n), (size, dim), (size,), (dim, size), (dim,)]
        inputs.append(tuple(_random(shapes, 80 + i)))
    return inputs


def _check_apart(answer) -> None:
    """Checks that the block stays as it is, and that the copies can be trained."""
    x, *weights = _blocks()[1]
    block = _block(3, 5, weights)
    before = {name: value.clone() for name, value in block.state_dict().items()}
    module = answer(block)
    text = "your code changes the block. It should only read it."
    hint(_unchanged(block, before), text)
    convolutions = _convolutions(module)
    other = _random([w.shape for w in weights], 83)
    with torch.no_grad():
        for convolution, weight, bias in zip(
            convolutions, other[::2], other[1::2], strict=True
        ):
            convolution.weight.copy_(weight[..., None])
            convolution.get_parameter("bias").copy_(bias)
    hint(
        _unchanged(block, before),
        "module and block share memory: when one is trained, the other changes, too. "
        "Copy the weights (`load_state_dict`, `copy_` or `clone`).",
    )
    out = module(x)
    hint(
        equal(out.detach(), _on_axis_1(_mlp())(x, *other)),
        "the output does not depend on the weights of the two convolutions: does "
        "something else do the work?",
    )
    own = [p for convolution in convolutions for p in convolution.parameters()]
    reached = out.requires_grad and torch.autograd.grad(
        out.sum(), own, allow_unused=True
    )
    hint(
        reached and all(gradient is not None for gradient in reached),
        "no gradient arrives at a weight of the convolutions: the module could not be "
        "trained. `.data`, `detach` and `no_grad` in `forward` cut the graph.",
    )


check_mlp_of_convolutions = Task(
    "as_convolutions",
    "the MLP as two convolutions",
    Case(
        inputs=_blocks,
        call=_call_convolutions,
        right=_on_axis_1(_mlp()),
        mistakes=CONVOLUTION_MISTAKES,
    ),
    also=[_check_apart],
)


def _unchanged(module: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(p, before[name]) for name, p in module.state_dict().items())


# 2. GEGLU

GATED = tuple(
    f"{n}.{end}" for n in ("gate", "value", "out") for end in ("weight", "bias")
)


def _gated(combine):
    def call(tokens, wg, bg, wv, bv, wo, bo):
        return combine(tokens @ wg.T + bg, tokens @ wv.T + bv) @ wo.T + bo

    return call


GATE_MISTAKES = {
    lambda tokens, wg, bg, wv, bv, wo, bo: (
        F.gelu(tokens @ wg.T + bg) * (tokens @ wv.T + bv)
    ): ("the product is of size M. The last matrix maps from M back to D."),
    _gated(lambda g, v: g * F.gelu(v)): "GELU acts on `value`. It belongs on `gate`.",
    _gated(
        lambda g, v: g * v
    ): "GELU is missing: it acts on `gate`, before the product.",
    _gated(
        lambda g, v: F.gelu(g * v)
    ): "GELU acts on the product. It belongs on `gate` alone, before the product.",
    _gated(
        lambda g, v: F.gelu(g) * F.gelu(v)
    ): "GELU acts on both. It belongs on `gate` alone.",
    _gated(
        lambda g, v: F.gelu(g) + v
    ): "the two are added. A gate multiplies, element by element.",
    _gated(
        lambda g, v: g.sigmoid() * v
    ): "the gate has a sigmoid: that is GLU. GEGLU has the GELU in its place.",
    _gated(
        lambda g, v: F.silu(g) * v
    ): "the gate has SiLU: that is SwiGLU. GEGLU has the GELU in its place.",
    _gated(lambda g, v: g.relu() * v): "ReLU stands where the GELU belongs.",
    _gated(
        lambda g, v: _tanh_gelu(g) * v
    ): "this is the approximate GELU, with tanh. The lesson uses the exact one.",
    _gated(lambda g, v: F.gelu(g)): "`value` is not used: this is the ordinary MLP.",
}


def _exact(dim: int, size: int) -> float:
    """M for which 3 D M + 2 M + D parameters are as many as the two layers have."""
    return size * (2 * dim + 1) / (3 * dim + 2)


def _nearest(dim: int, size: int) -> int:
    return round(_exact(dim, size))


TOO_SMALL = (
    "`nearest_size` is one too small. Is the fraction truncated, though the "
    "nearest integer is above (`round`)? Or a bias forgotten?"
)
SIZE_MISTAKES = {
    lambda dim, size: size: (
        "`nearest_size` gives `mlp_size` itself: with three matrices in place of two, "
        "that is half as many parameters again."
    ),
    lambda dim, size: size // 2: (
        "`nearest_size` gives half of `mlp_size`. GEGLU has a third matrix, which maps "
        "back to D; does the ordinary MLP not have one, too?"
    ),
    lambda dim, size: math.floor(_exact(dim, size)): TOO_SMALL,
    lambda dim, size: round(2 * size * dim / (3 * dim + 1)): TOO_SMALL,
    (
        lambda dim, size: round((2 * dim * size + size + dim) / (3 * dim + 2)),
        lambda dim, size: round((2 * dim * size + size) / (3 * dim + 1)),
        lambda dim, size: round((2 * dim * size + size + dim) / (3 * dim + 1)),
    ): (
        "`nearest_size` misses a bias, or counts one for the ordinary MLP only. Each "
        "of the five layers has one, of the size of its output."
    ),
    lambda dim, size: math.ceil(_exact(dim, size)): (
        "`nearest_size` is one too large. Do you always round up? Or count more than "
        "the dense layers?"
    ),
    lambda dim, size: round(2 * size / 3): (
        "`nearest_size` leaves out the biases. With them M is not exactly two thirds "
        "of `mlp_size`: D and mlp_size both matter."
    ),
    lambda dim, size: 2 * size // 3: (
        "`nearest_size` leaves out the biases, and truncates instead of rounding."
    ),
    lambda dim, size: _nearest(dim, 4 * dim): (
        "`nearest_size` takes 4 D for granted. Use `mlp_size`."
    ),
    lambda dim, size: round(8 * dim / 3): (
        "`nearest_size` takes 4 D for granted, and leaves out the biases."
    ),
    _exact: "`nearest_size` is not rounded: M counts hidden units.",
}


def _size(answer, dim: int, size: int):
    found = answer.nearest_size(dim, size)
    exact = found == _exact(dim, size) != round(found)  # a mistake of its own
    text = f"`nearest_size` gives a {type(found).__name__}; M is an int"
    hint(not isinstance(found, float) or exact or found != round(found), text)
    return found


def _sizes_of(shapes: list[tuple], seed: int) -> list[tuple]:
    """Tokens and parameters for the sizes (D, M)."""
    return [
        tuple(_random([(*axes, dim), *parameters(dim, size)], seed + i, 0.8))
        for dim, size, parameters in shapes
        for i, axes in enumerate(((2, 5), (1, 3), (7,)))
    ]


def _gated_shapes(dim: int, size: int) -> list[tuple]:
    return [(size, dim), (size,), (size, dim), (size,), (dim, size), (dim,)]


check_geglu = Task(
    "GEGLU",
    "GEGLU, and the M that makes it as large as the ordinary MLP",
    Case(
        sizes=lambda tokens, weight, *_: (weight.shape[1], weight.shape[0]),
        parameters=GATED,
        inputs=_sizes_of(
            [(d, m, _gated_shapes) for d, m in ((4, 7), (6, 5), (3, 16))], 85
        ),
        right=_gated(lambda g, v: F.gelu(g) * v),
        mistakes=GATE_MISTAKES,
    ),
    Case(
        inputs=[(768, 3072), (1, 103), (4, 64), (4, 16), (3, 100), (5, 10), (192, 768)],
        call=_size,
        right=_nearest,
        mistakes=SIZE_MISTAKES,
        gradient=False,
    ),
)

# 3. Dropout

DENSE = tuple(f"{n}.{end}" for n in ("widen", "narrow") for end in ("weight", "bias"))
IN_EVALUATION = (
    "called twice in evaluation mode, it gives two outputs: dropout is still active. "
    "`F.dropout` is, unless its argument `training` is False: hand over "
    "`self.training`, read in `forward`, since `train()` and `eval()` set it later. An "
    "nn.Dropout belongs in `__init__`: made in `forward`, it is in training mode."
)
FIXED_RATE = (
    "with a `dropout` of 0, two outputs in training differ: the dropout probability "
    "does not come from the argument `dropout`."
)
RATE = 0.25  # dropout probability in the check


def _outcomes(
    hidden: float, out: float, scale: bool = True, early: bool = False
) -> list[float]:
    """All possible values of an output with the weights of `_check_training`.

    Args:
        hidden: dropout probability after the first layer.
        out: dropout probability after the second.
        scale: whether what is kept is divided by 1 - p.
        early: whether the first dropout stands before GELU.
    """
    up, last = (1 / (1 - hidden), 1 / (1 - out)) if scale else (1.0, 1.0)
    two = torch.tensor(2.0)
    unit = F.gelu(two * up) if early else F.gelu(two) * up
    sums = (0, 1, 10, 11) if hidden else (11,)
    found = [(unit.item() * s + 1.0) * last for s in sums]
    return [*found, 0.0] if out else found


TRAINING_MISTAKES = {
    "in training nothing is dropped at all. Dropout is there for training: it must "
    "stop in evaluation only.": _outcomes(0, 0),
    "in training, nothing is dropped after `widen`: dropout stands after both "
    "layers.": _outcomes(0, RATE),
    "in training, nothing is dropped after `narrow`: dropout stands after both "
    "layers.": _outcomes(RATE, 0),
    "what is kept in training is not divided by 1 - p, so the sums are smaller than in "
    "evaluation.": _outcomes(RATE, RATE, scale=False),
    "dropout stands before GELU. Here it comes after it: the outputs of GELU are kept "
    "or dropped.": _outcomes(RATE, RATE, early=True),
    "the probability is taken for that of values being *kept*: `dropout` is the "
    "probability that a value is set to zero.": _outcomes(1 - RATE, 1 - RATE),
    "the dropout probability is 0.1, whatever the argument `dropout` says.": _outcomes(
        0.1, 0.1
    ),
    "the dropout probability is 0.5, whatever the argument `dropout` says.": _outcomes(
        0.5, 0.5
    ),
}


def _values(out: torch.Tensor, known: list[float]) -> torch.Tensor:
    """Which of the known values each entry is, -1 for none."""
    near = torch.isclose(out[..., None], torch.tensor(known), rtol=1e-4, atol=1e-4)
    return torch.where(near.any(dim=-1), near.int().argmax(dim=-1), -1)


def _check_training(module: nn.Module) -> None:
    """Checks dropout in training, with weights that make every mask readable.

    For a token of ones, both hidden units are GELU(2). The first counts once in each
    output, the second ten times, and 1 is added.
    """
    with torch.no_grad():
        module.get_parameter("widen.weight").fill_(0.5)
        module.get_parameter("widen.bias").fill_(0.5)
        module.get_parameter("narrow.weight").copy_(torch.tensor([[1.0, 10.0]] * 3))
        module.get_parameter("narrow.bias").fill_(1.0)
    tokens = torch.ones(4, 1000, 3)
    torch.manual_seed(0)
    with learners_code(), torch.no_grad():
        out, again = module(tokens), module(tokens)
    known = _outcomes(RATE, RATE)
    at = _values(out, known)
    if (at < 0).any():
        for text, outcomes in TRAINING_MISTAKES.items():
            hint((_values(out, outcomes) < 0).any(), text)
        strange = out[at < 0][0].item()
        listed = ", ".join(f"{v:.3f}" for v in sorted(known))
        hint(
            False,
            "with `widen` and `narrow` set so that every mask can be read, an output "
            f"in training is {strange:.3f}, where one of {listed} is expected.",
        )
    hint(
        not torch.equal(out, again),
        "in training the same values are dropped each time. Draw anew in each call.",
    )
    each = (
        "in training the values are not dropped one by one: each feature of each token "
        "in each image has a draw of its own."
    )
    dropped = (at == 4).float()  # (4, 1000, 3)
    hint(abs(dropped.prod(dim=-1).mean() - RATE**3) < 0.02, each)
    hint((dropped.mean(dim=(0, 1)) - RATE).abs().max() < 0.05, each)
    hint((dropped.mean(dim=1) - RATE).abs().max() < 0.1, each)
    hint((dropped.prod(dim=0).mean(dim=0) - RATE**4).abs().max() < 0.04, each)
    both = (at == 3).any(dim=-1).float()  # no hidden unit dropped, (4, 1000)
    hint(abs(both.prod(dim=0).mean() - both.mean() ** 4) < 0.05, each)
    kept = at[dropped == 0]
    for i, rate in enumerate((RATE**2, *[RATE * (1 - RATE)] * 2, (1 - RATE) ** 2)):
        hint(abs((kept == i).float().mean() - rate) < 0.05, each)


def _rate(tokens) -> float:
    return 0.0 if tokens.shape[-1] == 6 else 0.5


def _scaled_in_evaluation(factor):
    def call(tokens, *weights):
        scale = factor(1 - _rate(tokens))
        return scale * _mlp(lambda x: scale * F.gelu(x))(tokens, *weights)

    return call


DENSE_MISTAKES = {
    **{_mlp(wrong): text for wrong, text in ACTIVATIONS.items()},
    _scaled_in_evaluation(lambda keep: keep): (
        "in evaluation the values are multiplied by 1 - p. What is kept in training is "
        "divided by 1 - p already, so evaluation leaves all as it is."
    ),
    _scaled_in_evaluation(lambda keep: 1 / keep): (
        "in evaluation the values are divided by 1 - p. That belongs to those that are "
        "kept in training."
    ),
    _mlp(last=F.gelu): (
        "there is a GELU behind `narrow`, too. It stands between the layers."
    ),
    _mlp(first=_normalised): (
        "LayerNorm is not a part of the buggy MLP, and not of this one."
    ),
}


def _dense_shapes(dim: int, size: int) -> list[tuple]:
    return [(size, dim), (size,), (dim, size), (dim,)]


def _set_mode(module: nn.Module, tokens, *_) -> None:
    nn.Sequential(module).train(_rate(tokens) == 0)  # a rate of 0: as in evaluation


def _called_twice(call, tokens, *parameters):
    copy = tokens.clone()
    out, again = call(tokens, *parameters), call(copy, *parameters)
    if isinstance(out, torch.Tensor):
        text = IN_EVALUATION if _rate(tokens) else FIXED_RATE
        hint(equal(out.detach(), again.detach()), text)
    return out


def _check_modes(answer: type) -> None:
    """Checks training, evaluation, and training again."""
    module = answer(3, 2, RATE)
    model = nn.Sequential(module)
    _check_training(module)
    tokens = torch.ones(2, 50, 3)
    with torch.no_grad():
        model.eval()
        first, second = module(tokens), module(tokens)
    hint(torch.equal(first, second), IN_EVALUATION)
    hint(equal(first, torch.full_like(first, _outcomes(0, 0)[0])), IN_EVALUATION)
    model.train()
    _check_training(module)


check_mended_dropout = Task(
    "MendedMLP",
    "mended: dropout in training, none in evaluation",
    Case(
        sizes=lambda tokens, weight, *_: (*weight.shape[::-1], _rate(tokens)),
        parameters=DENSE,
        made=_set_mode,
        inputs=_sizes_of(
            [(d, m, _dense_shapes) for d, m in ((4, 7), (3, 2), (6, 5))], 88
        ),
        call=_called_twice,
        right=_mlp(),
        mistakes=DENSE_MISTAKES,
    ),
    also=[_check_modes],
)


# 4. Dead units


def _dead_fraction(hidden: torch.Tensor) -> float:
    """Of units before ReLU, (…, M)."""
    return (hidden.flatten(end_dim=-2) <= 0).all(dim=0).float().mean().item()


def _of_hidden(measure, bias: float = 1.0):
    """A function of weight, bias and inputs from one of the hidden layer (…, M)."""
    return lambda w, b, x: float(measure(x @ w.T + bias * b))


DEAD_MISTAKES = {
    _of_hidden(lambda h: (h.flatten(end_dim=-2) <= 0).all(dim=0).sum()): (
        "this is how many units are dead. Their fraction is that, divided by M."
    ),
    _of_hidden(
        lambda h: 1 - _dead_fraction(h)
    ): "this is the fraction of units that are active.",
    _of_hidden(
        lambda h: 100 * _dead_fraction(h)
    ): "this is the fraction in per cent. It should lie between 0 and 1.",
    _of_hidden(lambda h: (h <= 0).float().mean()): (
        "this is the fraction of all zeros after ReLU, over units *and* inputs. Most "
        "of those units are active for another input. First decide for each unit: is "
        "it zero for all inputs?"
    ),
    _of_hidden(lambda h: (h.flatten(end_dim=-2) <= 0).any(0).float().mean()): (
        "a unit counts as dead when it is zero for *one* input. It must be zero for "
        "all."
    ),
    _of_hidden(lambda h: (h <= 0).all(dim=-1).float().mean()): (
        "this is the fraction of *inputs* for which all units are zero. Units are the "
        "last axis; `all` belongs on the others."
    ),
    _of_hidden(lambda h: (h.flatten(end_dim=-2) < 0).all(0).float().mean()): (
        "a unit that reaches exactly 0 and never more is dead, too: ReLU gives 0."
    ),
    _of_hidden(
        _dead_fraction, bias=0.0
    ): "the bias of the layer is missing. It is what makes most units dead.",
    _of_hidden(lambda h: (h.flatten(end_dim=-2).mean(0) <= 0).float().mean()): (
        "a unit is judged by its mean over the inputs. It is active if it is positive "
        "for one of them."
    ),
    _of_hidden(lambda h: (h <= 0).all(dim=0).float().mean()): (
        "with several leading axes, only the first was reduced. A unit is dead when it "
        "is zero for all tokens of all images."
    ),
    _of_hidden(lambda h: (h <= 0).all(dim=-2).float().mean()): (
        "with several leading axes, only one was reduced. A unit is dead when it is "
        "zero for all tokens of all images."
    ),
}


def _measure_layer(answer, weight, bias, inputs):
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data.copy_(weight)
    layer.bias.data.copy_(bias)
    before = {name: p.clone() for name, p in layer.state_dict().items()}
    found = answer(layer, inputs)
    hint(_unchanged(layer, before), "your code changes the layer that it measures.")
    return found


def _layers() -> list[tuple]:
    rows = [[2.0, -1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [3.0, -1.0]]
    shown = (
        torch.tensor(rows),
        torch.tensor([0.0, -5.0, -4.0, 0.0, -1.0]),
        torch.tensor([[1.0, 2.0], [3.0, 1.0], [0.0, 4.0]]),
    )
    inputs = [shown]
    sizes = ((40,), 4, 16), ((3, 7), 5, 12), ((1,), 3, 8)
    for i, (axes, dim, size) in enumerate(sizes):
        weight, x = _random([(size, dim), (*axes, dim)], 90 + i)
        inputs.append((weight, torch.linspace(-7.0, 3.0, size), x))
    for bias in (-1.0, 1.0):  # all dead, and none
        inputs.append((torch.zeros(3, 2), torch.full((3,), bias), torch.ones(4, 2)))
    return inputs


check_dead_units = Task(
    "dead_fraction",
    "dead units, counted over all inputs",
    Case(
        inputs=_layers,
        call=_measure_layer,
        right=_of_hidden(_dead_fraction),
        mistakes=DEAD_MISTAKES,
        gradient=False,
    ),
)
