"""Tasks of the exercises of lesson 07: RMSNorm, heads and attention maps."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from going_modular.multihead_attention import MultiheadSelfAttention, record_attention
from vit_course.checks.hints import hint
from vit_course.checks.task import Case, Task, equal

# 1. RMSNorm


def _inputs_of_norms() -> list[tuple]:
    g = torch.Generator().manual_seed(7)

    def random(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64)

    token = torch.tensor([8.0, 2.0, 6.0, 4.0, 5.0])
    small = random(2, 3, 4) / 1000
    small[1, 2] = 0.0  # a token of zeros
    return [
        (torch.stack([token, 20 * token + 20]), random(5).float()),
        (random(2, 3, 7) + 1, random(7)),
        (small, random(4)),
        (random(1, 6) - 1, random(6), 0.5),
        (random(3), random(3), 1e-3),
        (random(4, 4) + 1, random(4)),  # axes mixed up would not raise here
    ]


def _divided(by: Callable) -> Callable:
    """A normalisation that divides by `by(x, eps)`."""
    return lambda x, weight, eps=1e-6: x / by(x, eps) * weight


def _mean_square(x, axis=-1):
    return x.square().mean(dim=axis, keepdim=True)


def _rms(x, eps):
    return (_mean_square(x) + eps).sqrt()


def _std(correction: int) -> Callable:
    return lambda x, eps: x.std(dim=-1, correction=correction, keepdim=True) + eps


NORMS = {
    (
        lambda x, weight, eps=1e-6: F.layer_norm(x, x.shape[-1:], weight, eps=eps),
        lambda x, weight, eps=1e-6: _divided(_rms)(x - x.mean(-1, True), weight, eps),
    ): "the mean is subtracted: this is still LayerNorm. RMSNorm only divides.",
    (
        _divided(lambda x, eps: (x.var(-1, correction=0, keepdim=True) + eps).sqrt()),
        _divided(lambda x, eps: (x.var(-1, correction=1, keepdim=True) + eps).sqrt()),
        _divided(_std(0)),
        _divided(_std(1)),
    ): (
        "you divide by the standard deviation, whose squares are of differences from "
        "the mean. RMSNorm subtracts no mean: it squares the values themselves."
    ),
    (
        lambda x, weight, eps=1e-6: F.normalize(x, dim=-1) * weight,
        _divided(lambda x, eps: (x.square().sum(-1, keepdim=True) + eps).sqrt()),
    ): (
        "you divide by the length of the token, the square root of the *sum* of "
        "squares. The M in RMS is a mean: without 1/D the result shrinks as D grows."
    ),
    _divided(lambda x, eps: _mean_square(x) + eps): (
        "you divide by the mean square. The square root is missing, so the result "
        "depends on how large the token is."
    ),
    (
        _divided(lambda x, eps: (x.mean(-1, keepdim=True).square() + eps).sqrt()),
        _divided(lambda x, eps: x.abs().mean(-1, keepdim=True) + eps),
    ): (
        "you take the mean of the values themselves, and their squares too late or not "
        "at all. Square first, then the mean, then the square root."
    ),
    _divided(lambda x, eps: (_mean_square(x, axis=0) + eps).sqrt()): (
        "the mean is taken over the tokens. Each token is normalised by itself, over "
        "its own D features: the last axis."
    ),
    _divided(lambda x, eps: (x.square().mean() + eps).sqrt()): (
        "all tokens have one divisor: the mean needs an axis. Each token is normalised "
        "by itself, over its own D features."
    ),
    _divided(lambda x, eps: (x.square().mean(dim=-1) + eps).sqrt()): (
        "the mean has lost its axis, so that it does not broadcast against the tokens: "
        "`keepdim=True` keeps it as (…, 1)."
    ),
    _divided(lambda x, eps: 1 / _rms(x, eps)): (
        "you multiply by the root mean square. Divide by it."
    ),
    lambda x, weight, eps=1e-6: x / _rms(x, eps): (
        "the scale (`weight`) is not used: each of the D features has its own factor."
    ),
    lambda x, weight, eps=1e-6: x / _rms(x, eps) + weight: (
        "the scale (`weight`) is added. It is a factor; a vector that is added would "
        "be a bias."
    ),
    _divided(lambda x, eps: _mean_square(x).sqrt() + eps): (
        "for small inputs the values differ: eps is added to the mean square, inside "
        "the square root, not outside."
    ),
    _divided(lambda x, eps: _rms(x, 1e-6)): (
        "eps is an argument, and the call gave another one than 1e-6: use it."
    ),
    _divided(lambda x, eps: _rms(x, 0.0)): (
        "eps is not used: a token of zeros becomes NaN, and very small tokens come out "
        "too large."
    ),
}
check_rms_norm = Task(
    "rms_norm",
    "RMSNorm: no mean, no bias, each token by itself",
    Case(inputs=_inputs_of_norms, right=_divided(_rms), mistakes=NORMS),
)

# 2. and 3. Heads


def _cut(x: Tensor, num_heads: int) -> Tensor:
    """(B, N, D) -> (B, k, N, D_h), as it should be."""
    return torch.stack(x.chunk(num_heads, dim=-1), dim=1)


def _cut_by_reshape(x, num_heads):
    return x.reshape(x.shape[0], num_heads, x.shape[1], -1)


def _cut_turned(x, num_heads):
    return _cut_by_reshape(x.mT.reshape(x.shape), num_heads)


def _cut_in_turns(x, num_heads):
    return torch.stack([x[..., i::num_heads] for i in range(num_heads)], dim=1)


def _join(heads: Tensor) -> Tensor:
    """(B, k, N, D_h) -> (B, N, D), as it should be."""
    return torch.cat(heads.unbind(dim=1), dim=-1)


def _join_by_reshape(heads):
    return heads.reshape(heads.shape[0], heads.shape[2], -1)


def _join_turned(heads):
    return heads.permute(0, 2, 3, 1).flatten(2)


def _attend(query, key, value, scale=None, axis=-1):
    scores = query @ key.mT / (scale or query.shape[-1] ** 0.5)
    return scores.softmax(dim=axis) @ value


def _msa(cut=_cut, join=_join, attend=_attend) -> Callable:
    """A function of q, k, v (B, N, D) and the number of heads."""
    return lambda *given: join(attend(*(cut(x, given[3]) for x in given[:3])))


HEADS = {
    _msa(_cut_by_reshape, _join_by_reshape): (
        "the heads are pieces of the *sequence*: `reshape` (or `view`) alone never "
        "moves a value in memory. Cut only D, into (k, D_h); then exchange two axes, "
        "and back."
    ),
    _msa(join=_join_by_reshape): (
        "the cut is right, joining is not: a token's heads must stand side by side "
        "before the last two axes become one, so exchange the axes back first."
    ),
    _msa(_cut_by_reshape): (
        "joining is right, the cut is not: `reshape` (or `view`) straight to (B, k, N, "
        "D_h) takes pieces of the sequence for heads."
    ),
    _msa(_cut_turned): (
        "tokens and features are exchanged first, and then cut as if they were not: a "
        "head gets values of another axis."
    ),
    _msa(_cut_turned, _join_by_reshape): (
        "tokens and features are exchanged first, and then cut as if they were not; "
        "and joining lacks its transpose."
    ),
    _msa(_cut_in_turns, _join_turned): (
        "the heads take turns: head 0 gets features 0, k, 2k … It should have D_h "
        "consecutive ones, so D is cut into (k, D_h), not into (D_h, k)."
    ),
    _msa(_cut_in_turns): (
        "the heads take turns in the cut: head 0 gets features 0, k, 2k … It should "
        "have D_h consecutive ones, so D is cut into (k, D_h), not into (D_h, k)."
    ),
    _msa(join=_join_turned): (
        "the heads are cut well, but joined as (D_h, k): first all of head 0, then all "
        "of head 1 is (k, D_h)."
    ),
    lambda q, k, v, heads: _msa(
        attend=lambda *qkv: _attend(*qkv, scale=q.shape[-1] ** 0.5)
    )(q, k, v, heads): (
        "the scores are divided by the square root of D. A head's dot products run "
        "over D_h entries, so it is the square root of D_h (lesson 07, question 1)."
    ),
    _msa(attend=lambda q, k, v: _attend(q, k, v, scale=q.shape[-1])): (
        "the scores are divided by D_h and not by its square root."
    ),
    _msa(lambda x, heads: torch.stack(x.split(heads, dim=-1), dim=1)): (
        "the pieces have `num_heads` features each, so that there are D_h heads. "
        "`split` takes the size of a piece, `chunk` their number."
    ),
    _msa(attend=lambda *qkv: _attend(*qkv, scale=1.0)): (
        "the scores are not divided by the square root of D_h (Equation 6)."
    ),
    _msa(attend=lambda *qkv: _attend(*qkv, axis=-2)): (
        "the weights of a *key* sum to one: softmax runs over the queries. It belongs "
        "on the last axis, the keys."
    ),
    lambda q, k, v, heads: _attend(q, k, v): (
        "this is one attention over all D features: `num_heads` changes nothing. Each "
        "head has attention weights of its own."
    ),
    lambda q, k, v, heads: _msa()(k, q, v, heads): (
        "queries and keys have changed places: row i must hold the weights of query i "
        "on all keys."
    ),
    _msa(join=lambda heads: heads.mean(dim=1)): (
        "the heads are averaged. Equation 8 concatenates them."
    ),
}

STACKED = ("qkv.weight", "qkv.bias", "out_proj.weight", "out_proj.bias")
LAYERS = ("query", "key", "value", "out_proj")
SEPARATE = tuple(f"{name}.{end}" for name in LAYERS for end in ("weight", "bias"))


def _projected(attend: Callable, project: bool = True) -> Callable:
    """The forward pass, with the parameters of `SEPARATE` as arguments."""

    def forward(tokens, num_heads, wq, bq, wk, bk, wv, bv, wo, bo):
        parts = [tokens @ w.T + b for w, b in ((wq, bq), (wk, bk), (wv, bv))]
        out = attend(*parts, num_heads)
        return out @ wo.T + bo if project else out

    return forward


def _normalised(tokens, num_heads, *parameters):
    tokens = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
    return _projected(_msa())(tokens, num_heads, *parameters)


def _inputs_of_layers() -> list[tuple]:
    g, inputs = torch.Generator().manual_seed(70), []
    for dim, num_heads in ((12, 3), (8, 2), (4, 1)):
        for size in ((2, 5, dim), (1, 3, dim), (3, 7, dim)):
            tokens = torch.randn(size, generator=g)
            shapes = 4 * [(dim, dim), (dim,)]
            values = [0.5 * torch.randn(shape, generator=g) for shape in shapes]
            inputs.append((tokens, num_heads, *values))
    return inputs


def _inputs_of_load() -> list[tuple]:
    """Numbers of heads, and weights of the lesson's layer."""
    g = torch.Generator().manual_seed(73)
    shapes = [((3 * d, d), (3 * d,), (d, d), (d,)) for d in (6, 8)]
    return [
        (heads, *(0.7 * torch.randn(shape, generator=g) for shape in shapes[i]))
        for i, heads in ((0, 3), (1, 2), (0, 2), (1, 4))
    ]


def _stacked(num_heads: int, *values: Tensor) -> MultiheadSelfAttention:
    """The lesson's layer with these weights."""
    layer = MultiheadSelfAttention(len(values[-1]), num_heads)
    for name, value in zip(STACKED, values, strict=True):
        layer.get_parameter(name).data.copy_(value)
    return layer


def _check_layer(layer: nn.Module, values: tuple, text: str) -> None:
    """Checks that the given layer stays as it is: `text` says by what it changed."""
    own = [layer.get_parameter(name) for name in STACKED]
    hint(all(map(torch.equal, own, values)), text)
    hint(
        all(p.requires_grad for p in own),
        "your code freezes the layer that it is given: it would not be trained.",
    )


def _load(answer, num_heads: int, *values: Tensor) -> list[Tensor]:
    """Loads, and gives back the parameters of `SEPARATE`."""
    layer, module = _stacked(num_heads, *values), answer(len(values[-1]), num_heads)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    module.load(layer)
    have = dict(module.named_parameters())
    for name in SEPARATE:
        hint(name in have, f"after `load`, there is no parameter `{name}`")
        hint(
            have[name].requires_grad,
            f"after `load`, `{name}` has requires_grad=False: it would not be trained.",
        )
    kept = [name for name in SEPARATE if equal(have[name].detach(), before[name])]
    hint(
        len(kept) < len(SEPARATE),
        "`load` changes nothing. Do you write into the parameters of `self`, or into "
        "copies of them?",
    )
    hint(
        not kept,
        f"`load` does not change {' and '.join(kept)}. Weights and biases of all four "
        "are trained, and must be copied.",
    )
    text = "`load` changes the layer that it is given. It should only read it."
    _check_layer(layer, values, text)
    return [have[name].detach() for name in SEPARATE]


def _separated(cut: Callable, order=(0, 1, 2), cut_bias: Callable | None = None):
    """What `load` should leave behind: the parameters of `SEPARATE`."""

    def separated(num_heads, weight, bias, out_weight, out_bias):
        weights, biases = cut(weight, num_heads), (cut_bias or cut)(bias, num_heads)
        found = [x for i in order for x in (weights[i], biases[i])]
        return [*found, out_weight, out_bias]

    return separated


def _thirds(x, num_heads):
    return x.chunk(3)


def _by_head(x, num_heads):
    cut = x.reshape(num_heads, 3, -1, *x.shape[1:])
    return [cut[:, i].flatten(0, 1) for i in range(3)]


LOADS = {
    _separated(lambda x, _: [x[i::3] for i in range(3)]): (
        "`qkv` holds all rows of q, then all of k, then all of v. You take its rows in "
        "turns."
    ),
    _separated(_by_head): (
        "you cut `qkv` head by head. In the lesson's layer the order is (3, k, D_h): "
        "first all of q, then all of k, then all of v."
    ),
    (_separated(_thirds, (0, 2, 1)), _separated(_thirds, (1, 0, 2))): (
        "two of query, key and value have changed places: the order in `qkv` is q, k, "
        "v."
    ),
    _separated(_thirds, (0, 0, 0)): (
        "all three have the weights of the query. The rows of `qkv` are cut into three."
    ),
    _separated(lambda x, _: [part.T for part in x.chunk(3)], cut_bias=_thirds): (
        "the matrices are transposed. Both layers are nn.Linear and store them in the "
        "same way."
    ),
}


def _written_with_gradient(error: Exception) -> str:
    if "leaf Variable" not in str(error):
        return ""
    return (
        "autograd tracks parameters, and raises an error when they are overwritten. "
        "Write into them inside `with torch.no_grad():`."
    )


def _check_apart(answer) -> None:
    """Checks that a second `load` replaces the first, and that nothing is shared."""
    _, _, first, second = _inputs_of_load()
    for num_heads, *values in (first, second):
        dim = len(values[-1])
        module, layer = answer(dim, num_heads), _stacked(num_heads, *values)
        module.load(_stacked(num_heads, *(-value for value in values)))
        module.load(layer)
        tokens = torch.randn(2, 5, dim, generator=torch.Generator().manual_seed(dim))
        text = "after `load`, the two layers differ on a second set of weights."
        hint(equal(module(tokens).detach(), layer(tokens).detach(), 1e-4), text)
        for p in module.parameters():
            p.data += 0.1
        _check_layer(
            layer,
            tuple(values),
            "both layers share memory: when one is trained, the other changes, too. "
            "`copy_` (or `clone`) makes a copy; a slice or a chunk is only a view.",
        )
        own = [module.get_parameter(name) for name in SEPARATE]
        right = _projected(_msa())(tokens, num_heads, *own)
        hint(
            equal(module(tokens).detach(), right.detach(), 1e-4),
            "after `load`, `forward` does not use the parameters of this layer: they "
            "were changed, and the output does not show it.",
        )


check_separate_projections = Task(
    "SeparateAttention",
    "three projections, with the weights of one",
    Case(
        sizes=lambda tokens, num_heads, *_: (tokens.shape[-1], num_heads),
        parameters=SEPARATE,
        inputs=_inputs_of_layers,
        call=lambda forward, tokens, _, *given: forward(tokens, *given),
        right=_projected(_msa()),
        mistakes={
            **{_projected(wrong): text for wrong, text in HEADS.items()},
            _projected(_msa(), project=False): (
                "`out_proj` is missing: without U_msa (Equation 8) a head can write to "
                "its own features only."
            ),
            _normalised: (
                "LayerNorm is not a part of this layer: it belongs to the block around "
                "it."
            ),
        },
        advice="Three projections, heads, attention, heads side by side, `out_proj`.",
    ),
    Case(
        inputs=_inputs_of_load,
        call=_load,
        right=_separated(_thirds),
        mistakes=LOADS,
        explain=_written_with_gradient,
        gradient=False,
        advice="Which rows of `qkv` belong to q, which to k, which to v?",
    ),
    also=[_check_apart],
)


def _inputs_of_heads() -> list[tuple]:
    g = torch.Generator().manual_seed(71)
    sizes = [(1, 6, 8, 2), (2, 5, 12, 3), (3, 4, 8, 2), (2, 3, 5, 1), (2, 6, 6, 6)]
    return [
        (*(torch.randn(b, n, d, generator=g) for _ in range(3)), heads)
        for b, n, d, heads in sizes
    ]


check_mended_split = Task(
    "mended_attention",
    "mended: every head attends to all tokens",
    Case(inputs=_inputs_of_heads, right=_msa(), mistakes=HEADS),
)

# 4. One map out of several heads


def _inputs_of_sums() -> list[tuple]:
    g, inputs = torch.Generator().manual_seed(72), []
    for d, num_heads in ((6, 3), (8, 4), (4, 1)):
        shapes = (3 * d, d), (3 * d,), (d, d), (d,)
        values = [0.7 * torch.randn(shape, generator=g) for shape in shapes]
        for size in ((2, 5, d), (1, 7, d), (4, 3, d)):
            inputs.append((torch.randn(size, generator=g), num_heads, *values))
    return inputs


def _sums(of_mean: Callable, of_max: Callable) -> Callable:
    """Both values, as functions of maps (B, k, N, N)."""

    def sums(tokens, num_heads, *values):
        layer = _stacked(num_heads, *values)
        with record_attention(layer) as maps, torch.no_grad():
            layer(tokens)
        return {"mean": of_mean(maps[0]), "max": of_max(maps[0])}

    return sums


def _call_sums(answer, tokens, num_heads, *values):
    layer = _stacked(num_heads, *values)
    found = answer(layer, tokens)
    hint(
        layer.recorded is None,
        "after the call the layer still records, and so keeps every map in memory. "
        "`with record_attention(…)` ends it, also after an error.",
    )
    text = "your code changes the weights of the layer that it measures."
    _check_layer(layer, values, text)
    return found


SUMS = {
    _sums(lambda m: m.amax(1).sum(-1), lambda m: m.mean(1).sum(-1)): (
        "'mean' and 'max' have changed places."
    ),
    _sums(lambda m: m.sum(-1).mean(1), lambda m: m.sum(-1).amax(1)): (
        "every row of your maximum sums to one, as the rows of the mean and of single "
        "heads do. First the maximum over the heads, then the sums of its rows, not "
        "divided by anything."
    ),
    _sums(lambda m: m.mean(1).sum(-2), lambda m: m.amax(1).sum(-2)): (
        "these are sums of columns: what all queries give to one key. A row runs over "
        "the keys, the last axis."
    ),
    _sums(lambda m: m.mean(-1).sum(1), lambda m: m.amax(-1).sum(1)): (
        "mean and maximum are taken over the *keys*. Every mean over the keys is "
        "exactly 1/N, whatever the layer does; the heads are axis 1."
    ),
    _sums(lambda m: m.mean(2).sum(-1), lambda m: m.amax(2).sum(-1)): (
        "mean and maximum are taken over the *queries* (axis 2). The heads are axis 1."
    ),
    _sums(lambda m: m.mean(-1), lambda m: m.amax(-1)): (
        "mean and maximum are taken over the keys, and the heads are left as they are."
    ),
    _sums(lambda m: m.mean(0).sum(-1), lambda m: m.amax(0).sum(-1)): (
        "mean and maximum are taken over the batch, axis 0. The heads are axis 1."
    ),
    _sums(lambda m: m.mean(1), lambda m: m.amax(1)): (
        "these are the two maps. The sums of their rows are asked for."
    ),
    _sums(lambda m: m.mean(1).sum(-1), lambda m: m.mean(1).amax(-1)): (
        "'max' is the largest value in a row of the mean. Take the maximum over the "
        "heads first, and then the sum of each row."
    ),
    _sums(lambda m: m.sum(1).sum(-1), lambda m: m.amax(1).sum(-1)): (
        "the heads are added up, not averaged: a row then sums to k."
    ),
    _sums(lambda m: m.mean(1)[0].sum(-1), lambda m: m.amax(1)[0].sum(-1)): (
        "only the first image of the batch is measured."
    ),
    _sums(lambda m: m.mean(1).sum(-1), lambda m: m.max(1).sum(-1)): (
        "`max(dim=…)` gives a pair, the values and their places. Take `.values`, or "
        "`amax`."
    ),
    _sums(lambda m: [m].mean(1), lambda m: m): (  # pyright: ignore
        "`record_attention` gives a *list* of maps, one per layer. Here it holds one, "
        "(B, k, N, N)."
    ),
}
check_row_sums_of_heads = Task(
    "row_sums",
    "rows of the mean and of the maximum, measured",
    Case(
        inputs=_inputs_of_sums,
        call=_call_sums,
        right=_sums(lambda m: m.mean(1).sum(-1), lambda m: m.amax(1).sum(-1)),
        mistakes=SUMS,
        gradient=False,
        advice="First the mean or the maximum over the heads, axis 1; then the sums.",
    ),
)
