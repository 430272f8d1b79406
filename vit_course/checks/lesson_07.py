"""Checks of the exercises of lesson 07: RMSNorm, heads and attention maps."""

import torch
from torch import nn

from going_modular.multihead_attention import MultiheadSelfAttention, record_attention
from vit_course.checks.hints import (
    compare,
    equal,
    hint,
    is_a_class,
    is_a_function,
    learners_code,
    passed,
    with_parameters,
)


def _divided(by):
    """A normalisation that divides by `by(x, eps)`."""
    return lambda x, weight, eps=1e-6: x / by(x, eps) * weight


def _mean_square(x, axis=-1):
    return x.square().mean(dim=axis, keepdim=True)


def _rms(x, eps):
    return (_mean_square(x) + eps).sqrt()


def _variance(x, correction):
    return x.var(dim=-1, correction=correction, keepdim=True)


def _mean_subtracted(x, weight, eps=1e-6):
    return _divided(_rms)(x - x.mean(dim=-1, keepdim=True), weight, eps)


NORM_MISTAKES = {
    "the mean is subtracted: this is still LayerNorm. RMSNorm only divides.": (
        _mean_subtracted
    ),
    "you divide by the standard deviation. Its squares are of differences from the "
    "mean; RMSNorm subtracts no mean and takes the squares of the values themselves.": (
        _divided(lambda x, eps: (_variance(x, 0) + eps).sqrt())
    ),
    "you divide by the standard deviation (torch's, with D - 1). RMSNorm subtracts no "
    "mean and takes the squares of the values themselves.": _divided(
        lambda x, eps: (_variance(x, 1) + eps).sqrt()
    ),
    "you divide by the length of the token, the square root of the *sum* of squares. "
    "The M in RMS is a mean: without 1/D the result shrinks as D grows.": _divided(
        lambda x, eps: (x.square().sum(dim=-1, keepdim=True) + eps).sqrt()
    ),
    "you divide by the mean square. The square root is missing, so the result depends "
    "on how large the token is.": _divided(lambda x, eps: _mean_square(x) + eps),
    "you take the mean of the values themselves, and their squares too late or not at "
    "all. Square first, then the mean, then the square root.": _divided(
        lambda x, eps: (x.mean(dim=-1, keepdim=True).square() + eps).sqrt()
    ),
    "the mean is taken over the tokens. Each token is normalised by itself, over its "
    "own D features: the last axis.": _divided(
        lambda x, eps: (_mean_square(x, axis=0) + eps).sqrt()
    ),
    "all tokens have one divisor: the mean needs an axis. Each token is normalised by "
    "itself, over its own D features.": _divided(
        lambda x, eps: (x.square().mean() + eps).sqrt()
    ),
    "the mean has lost its axis, so that it does not broadcast against the tokens: "
    "`keepdim=True` keeps it as (…, 1).": _divided(
        lambda x, eps: (x.square().mean(dim=-1) + eps).sqrt()
    ),
    "you multiply by the root mean square. Divide by it.": _divided(
        lambda x, eps: 1 / _rms(x, eps)
    ),
    "the scale (`weight`) is not used: each of the D features has its own factor.": (
        lambda x, weight, eps=1e-6: x / _rms(x, eps)
    ),
    "the scale (`weight`) is added. It is a factor; a vector that is added would be a "
    "bias.": (lambda x, weight, eps=1e-6: x / _rms(x, eps) + weight),
    "for small inputs the values differ: eps is added to the mean square, inside the "
    "square root, not outside.": _divided(lambda x, eps: _mean_square(x).sqrt() + eps),
    "eps is an argument, and the call gave another one than 1e-6: use it.": _divided(
        lambda x, eps: _rms(x, 1e-6)
    ),
    "eps is not used: a token of zeros becomes NaN, and very small tokens come out too "
    "large.": _divided(lambda x, eps: _rms(x, 0.0)),
}


def check_rms_norm(answer) -> None:
    """Checks a normalisation by the root mean square.

    Raises:
        Hint: it is not right yet.
    """
    is_a_function(answer, "rms_norm")
    generator = torch.Generator().manual_seed(7)

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    token = torch.tensor([8.0, 2.0, 6.0, 4.0, 5.0])
    shown = torch.stack([token, 20 * token + 20])  # (2, 5)
    small = random(2, 3, 4) / 1000
    small[1, 2] = 0.0  # a token of zeros
    inputs = [
        (shown, random(5).float()),
        (random(2, 3, 7) + 1, random(7)),
        (small, random(4)),
        (random(1, 6) - 1, random(6), 0.5),
        (random(3), random(3), 1e-3),
        (random(4, 4) + 1, random(4)),  # axes mixed up would not raise here
    ]
    compare(answer, _divided(_rms), inputs, NORM_MISTAKES)
    passed("RMSNorm: no mean, no bias, each token by itself")


# Attention from the equations, head by head, and with the mistakes of learners.


def _cut(x, num_heads):
    """(B, N, D) -> (B, k, N, D_h), as it should be."""
    return torch.stack(x.chunk(num_heads, dim=-1), dim=1)


def _cut_by_reshape(x, num_heads):
    return x.reshape(x.shape[0], num_heads, x.shape[1], -1)


def _cut_turned(x, num_heads):
    return x.transpose(1, 2).reshape(x.shape[0], num_heads, x.shape[1], -1)


def _cut_in_turns(x, num_heads):
    return torch.stack([x[..., i::num_heads] for i in range(num_heads)], dim=1)


def _cut_by_size(x, num_heads):
    return torch.stack(x.split(num_heads, dim=-1), dim=1)


def _join(heads):
    """(B, k, N, D_h) -> (B, N, D), as it should be."""
    return torch.cat(heads.unbind(dim=1), dim=-1)


def _join_by_reshape(heads):
    return heads.reshape(heads.shape[0], heads.shape[2], -1)


def _join_turned(heads):
    return heads.permute(0, 2, 3, 1).flatten(2)


def _attend(query, key, value, scale=None, axis=-1):
    scores = query @ key.mT / (scale or query.shape[-1] ** 0.5)
    return scores.softmax(dim=axis) @ value


def _msa(cut=_cut, join=_join, attend=_attend):
    """A function of q, k, v (B, N, D) and the number of heads."""

    def call(query, key, value, num_heads):
        parts = [cut(x, num_heads) for x in (query, key, value)]
        return join(attend(*parts))

    return call


def _scaled_by_all(query, key, value, num_heads):
    scale = query.shape[-1] ** 0.5
    attend = _msa(attend=lambda q, k, v: _attend(q, k, v, scale))
    return attend(query, key, value, num_heads)


def _unscaled(query, key, value):
    return _attend(query, key, value, scale=1.0)


def _averaged(query, key, value, num_heads):
    query, key, value = (_cut(x, num_heads) for x in (query, key, value))
    return _attend(query, key, value).mean(dim=1)


HEAD_MISTAKES = {
    "the heads are pieces of the *sequence*: cutting and joining use `reshape` (or "
    "`view`) alone, which never moves a value in memory. Cut only D, into (k, D_h); "
    "then exchange two axes. And back.": _msa(_cut_by_reshape, _join_by_reshape),
    "the cut is right, joining is not: a token's heads must stand side by side before "
    "the last two axes become one, so exchange the axes back first.": _msa(
        join=_join_by_reshape
    ),
    "joining is right, the cut is not: `reshape` (or `view`) straight to (B, k, N, "
    "D_h) takes pieces of the sequence for heads.": _msa(_cut_by_reshape),
    "tokens and features are exchanged first, and then cut as if they were not: a head "
    "gets values of another axis.": _msa(_cut_turned),
    "tokens and features are exchanged first, and then cut as if they were not; and "
    "joining lacks its transpose.": _msa(_cut_turned, _join_by_reshape),
    "the heads take turns: head 0 gets features 0, k, 2k … It should have D_h "
    "consecutive ones, so D is cut into (k, D_h), not into (D_h, k).": _msa(
        _cut_in_turns, _join_turned
    ),
    "the heads take turns in the cut: head 0 gets features 0, k, 2k … It should have "
    "D_h consecutive ones, so D is cut into (k, D_h), not into (D_h, k).": _msa(
        _cut_in_turns
    ),
    "the heads are cut well, but joined as (D_h, k): first all of head 0, then all of "
    "head 1 is (k, D_h).": _msa(join=_join_turned),
    "the scores are divided by the square root of D. A head's dot products run over "
    "D_h entries, so it is the square root of D_h (lesson 07, question "
    "1).": _scaled_by_all,
    "the scores are divided by D_h and not by its square root.": _msa(
        attend=lambda q, k, v: _attend(q, k, v, q.shape[-1])
    ),
    "the pieces have `num_heads` features each, so that there are D_h heads. `split` "
    "takes the size of a piece, `chunk` their number.": _msa(_cut_by_size),
    "the scores are not divided by the square root of D_h (Equation 6).": _msa(
        attend=_unscaled
    ),
    "the weights of a *key* sum to one: softmax runs over the queries. It belongs on "
    "the last axis, the keys.": _msa(attend=lambda *p: _attend(*p, axis=-2)),
    "this is one attention over all D features: `num_heads` changes nothing. Each head "
    "has attention weights of its own.": lambda q, k, v, num_heads: _attend(q, k, v),
    "queries and keys have changed places: row i must hold the weights of query i on "
    "all keys.": lambda q, k, v, num_heads: _msa()(k, q, v, num_heads),
    "the heads are averaged. Equation 8 concatenates them.": _averaged,
}


def _weights_of(dim: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Random weights and biases of the lesson's layer: qkv, then out_proj."""
    shapes = [(3 * dim, dim), (3 * dim,), (dim, dim), (dim,)]
    return [0.7 * torch.randn(shape, generator=generator) for shape in shapes]


def _stacked(dim: int, num_heads: int, values) -> MultiheadSelfAttention:
    """The lesson's layer with these weights."""
    layer = MultiheadSelfAttention(dim, num_heads)
    for name, value in zip(STACKED, values, strict=True):
        layer.get_parameter(name).data.copy_(value)
    return layer


STACKED = ("qkv.weight", "qkv.bias", "out_proj.weight", "out_proj.bias")
SEPARATE = tuple(
    f"{layer}.{end}"
    for layer in ("query", "key", "value", "out_proj")
    for end in ("weight", "bias")
)


def _projected(num_heads, attend):
    """Our forward pass with the parameters of `SEPARATE` as arguments."""

    def call(tokens, wq, bq, wk, bk, wv, bv, wo, bo):
        parts = [tokens @ w.T + b for w, b in ((wq, bq), (wk, bk), (wv, bv))]
        return attend(*parts, num_heads) @ wo.T + bo

    return call


def _not_projected(num_heads):
    def call(tokens, wq, bq, wk, bk, wv, bv, wo, bo):
        query, key, value = tokens @ wq.T + bq, tokens @ wk.T + bk, tokens @ wv.T + bv
        return _msa()(query, key, value, num_heads)

    return call


def _normalised(num_heads):
    project = _projected(num_heads, _msa())

    def call(tokens, *parameters):
        dim = tokens.shape[-1:]
        tokens = nn.functional.layer_norm(tokens, dim, eps=1e-6)
        return project(tokens, *parameters)

    return call


def _separated(cut_weight, cut_bias, order=(0, 1, 2)):
    """What `load` should leave behind: the parameters of `SEPARATE`."""

    def call(weight, bias, out_weight, out_bias, num_heads):
        weights, biases = cut_weight(weight, num_heads), cut_bias(bias, num_heads)
        found = []
        for i in order:
            found += [weights[i], biases[i]]
        return [*found, out_weight, out_bias]

    return call


def _thirds(x, num_heads):
    return x.chunk(3)


def _every_third(x, num_heads):
    return [x[i::3] for i in range(3)]


def _by_head(x, num_heads):
    cut = x.reshape(num_heads, 3, -1, *x.shape[1:])
    return [cut[:, i].flatten(0, 1) for i in range(3)]


def _turned(x, num_heads):
    return [part.T for part in x.chunk(3)]


LOAD_MISTAKES = {
    "`qkv` holds all rows of q, then all of k, then all of v. You take its rows in "
    "turns.": _separated(_every_third, _every_third),
    "you cut `qkv` head by head. In the lesson's layer the order is (3, k, D_h): "
    "first all of q, then all of k, then all of v.": _separated(_by_head, _by_head),
    "key and value have changed places: the order in `qkv` is q, k, v.": _separated(
        _thirds, _thirds, (0, 2, 1)
    ),
    "query and key have changed places: the order in `qkv` is q, k, v.": _separated(
        _thirds, _thirds, (1, 0, 2)
    ),
    "all three have the weights of the query. The rows of `qkv` are cut into three.": (
        _separated(_thirds, _thirds, (0, 0, 0))
    ),
    "the matrices are transposed. Both layers are nn.Linear and store them in the "
    "same way.": _separated(_turned, _thirds),
}


def _of_one_shape(call, num_heads):
    """Names tokens and heads if the shape is wrong; `compare` would list all inputs."""

    def checked(tokens, *parameters):
        out = call(tokens, *parameters)
        hint(out is not None, "`forward` gives back None. Is a `return` missing?")
        hint(
            isinstance(out, torch.Tensor),
            f"`forward` gives back a thing of type {type(out).__name__}, expected one "
            "tensor",
        )
        hint(
            out.shape == tokens.shape,
            f"for tokens {tuple(tokens.shape)} and {num_heads} heads, `forward` gives "
            f"{tuple(out.shape)}. The shape should stay.",
        )
        return out

    return checked


def _check_load(answer: type, generator) -> None:
    """Checks where the weights of the lesson's layer arrive, by value."""
    for dim, num_heads in ((6, 3), (8, 2)):
        values = _weights_of(dim, generator)
        layer = _stacked(dim, num_heads, values)
        with learners_code():
            module = answer(dim, num_heads)
        before = {name: p.detach().clone() for name, p in module.named_parameters()}
        with learners_code(_written_with_gradient):
            module.load(layer)
        have = dict(module.named_parameters())
        for name in SEPARATE:
            hint(name in have, f"after `load`, there is no parameter `{name}`")
            hint(
                have[name].shape == before[name].shape,
                f"after `load`, `{name}` is {tuple(have[name].shape)}. It was made as "
                f"{tuple(before[name].shape)} and should keep its shape.",
            )
            hint(
                have[name].requires_grad,
                f"after `load`, `{name}` has requires_grad=False: it would not be "
                "trained.",
            )
        right = _separated(_thirds, _thirds)(*values, num_heads=num_heads)
        same = {
            name: equal(have[name].detach(), value)
            for name, value in zip(SEPARATE, right, strict=True)
        }
        kept = {name for name in SEPARATE if equal(have[name].detach(), before[name])}
        hint(
            kept != set(SEPARATE),
            "`load` changes nothing. Do you write into the parameters of `self`, or "
            "into copies of them?",
        )
        forgotten = [name for name in SEPARATE if not same[name] and name in kept]
        hint(
            not forgotten or not all(name.endswith("bias") for name in forgotten),
            f"`load` does not change {' and '.join(forgotten)}. A projection has a "
            "bias as well: it is initialised to zero in the lesson, and training "
            "changes it.",
        )
        hint(not forgotten, f"`load` does not change {' and '.join(forgotten)}.")
        found = [have[name].detach() for name in SEPARATE]
        advice = "Which rows of `qkv` belong to q, which to k, which to v?"
        compare(
            lambda *_, found=found: found,
            _separated(_thirds, _thirds),
            [(*values, num_heads)],
            LOAD_MISTAKES,
            gradient=False,
            advice=advice,
        )
        for name, value in zip(STACKED, values, strict=True):
            text = "`load` changes the layer that it is given. It should only read it."
            hint(torch.equal(layer.get_parameter(name).detach(), value), text)
            text = "`load` freezes the layer that it is given: it would not be trained."
            hint(layer.get_parameter(name).requires_grad, text)
        _check_apart(module, layer, values)


def _written_with_gradient(error: Exception) -> str:
    if "leaf Variable" not in str(error):
        return ""
    return (
        "autograd tracks parameters, and raises an error when they are overwritten. "
        "Write into them inside `with torch.no_grad():`."
    )


def _check_apart(module: nn.Module, layer: nn.Module, values) -> None:
    """Checks that a change of one layer does not reach the other, only its output."""
    shared = (
        "both layers share memory: when one is trained, the other changes, too. "
        "`copy_` (or `clone`) makes a copy; a slice or a chunk is only a view."
    )
    with torch.no_grad():
        for p in module.parameters():
            p += 0.1
    for name, value in zip(STACKED, values, strict=True):
        hint(torch.equal(layer.get_parameter(name).detach(), value), shared)
    dim = values[0].shape[1]
    tokens = torch.randn(2, 4, dim, generator=torch.Generator().manual_seed(73))
    own = [module.get_parameter(name) for name in SEPARATE]
    right = _projected(layer.num_heads, _msa())(tokens, *own)
    with learners_code():
        out = module(tokens)
    hint(
        equal(out.detach(), right.detach(), 1e-4),
        "after `load`, `forward` does not use the parameters of this layer: they were "
        "changed, and the output does not show it.",
    )


def check_separate_projections(answer: type) -> None:
    """Checks attention with three projections, and the weights that it loads.

    Raises:
        Hint: it is not right yet.
    """
    is_a_class(answer, "SeparateAttention")
    generator = torch.Generator().manual_seed(70)
    for dim, num_heads in ((12, 3), (8, 2), (4, 1)):
        with learners_code():
            module = answer(dim, num_heads)
        call = with_parameters(module, *SEPARATE)
        shapes = [(dim, dim), (dim,)] * 4
        inputs = []
        for size in ((2, 5, dim), (1, 3, dim), (3, 7, dim)):
            tokens = torch.randn(size, generator=generator)
            values = [0.5 * torch.randn(s, generator=generator) for s in shapes]
            inputs.append((tokens, *values))
        mistakes = {
            text: _projected(num_heads, wrong) for text, wrong in HEAD_MISTAKES.items()
        }
        mistakes |= {
            "`out_proj` is missing: without U_msa (Equation 8) a head can write to its "
            "own features only.": _not_projected(num_heads),
            "LayerNorm is not a part of this layer: it belongs to the block around "
            "it.": _normalised(num_heads),
        }
        right = _projected(num_heads, _msa())
        compare(_of_one_shape(call, num_heads), right, inputs, mistakes)
    _check_load(answer, generator)
    for dim, num_heads, batch, n in ((6, 3, 2, 5), (8, 4, 1, 3)):
        with learners_code():
            module = answer(dim, num_heads)
        for _ in range(2):  # a second `load` must replace the first
            values = _weights_of(dim, generator)
            layer = _stacked(dim, num_heads, values)
            tokens = torch.randn(batch, n, dim, generator=generator)
            with learners_code():
                module.load(layer)
                out = module(tokens)
            text = "after `load`, the two layers differ on a second set of weights."
            hint(equal(out.detach(), layer(tokens).detach(), 1e-4), text)
    passed("three projections, with the weights of one")


def check_mended_split(answer) -> None:
    """Checks attention in several heads, of given queries, keys and values.

    Raises:
        Hint: it is not right yet.
    """
    is_a_function(answer, "mended_attention")
    generator = torch.Generator().manual_seed(71)
    sizes = [(1, 6, 8, 2), (2, 5, 12, 3), (3, 4, 8, 2), (2, 3, 5, 1), (2, 6, 6, 6)]
    inputs = [
        (*(torch.randn(b, n, d, generator=generator) for _ in range(3)), heads)
        for b, n, d, heads in sizes
    ]
    compare(answer, _msa(), inputs, HEAD_MISTAKES)
    passed("mended: every head attends to all tokens")


def _sums(of_mean, of_max):
    """A mistake, or none, as a function of maps (B, k, N, N)."""
    return lambda maps: [of_mean(maps), of_max(maps)]


SUM_MISTAKES = {
    "'mean' and 'max' have changed places.": _sums(
        lambda m: m.amax(1).sum(-1), lambda m: m.mean(1).sum(-1)
    ),
    "every row of your maximum sums to one. Either the rows are added up first (those "
    "of single heads do sum to one), or the map is divided by its sums, or it is the "
    "mean or the map of one head: nothing to measure. First the maximum over the "
    "heads, then the sums of its rows.": (
        _sums(lambda m: m.sum(-1).mean(1), lambda m: m.sum(-1).amax(1))
    ),
    "these are sums of columns: what all queries give to one key. A row runs over the "
    "keys, the last axis.": _sums(
        lambda m: m.mean(1).sum(-2), lambda m: m.amax(1).sum(-2)
    ),
    "mean and maximum are taken over the *keys*. Every mean over the keys is exactly "
    "1/N, whatever the layer does; the heads are axis 1.": _sums(
        lambda m: m.mean(-1).sum(1), lambda m: m.amax(-1).sum(1)
    ),
    "mean and maximum are taken over the *queries* (axis 2). The heads are axis 1.": (
        _sums(lambda m: m.mean(2).sum(-1), lambda m: m.amax(2).sum(-1))
    ),
    "mean and maximum are taken over the keys, and the heads are left as they "
    "are.": _sums(lambda m: m.mean(-1), lambda m: m.amax(-1)),
    "mean and maximum are taken over the batch, axis 0. The heads are axis 1.": _sums(
        lambda m: m.mean(0).sum(-1), lambda m: m.amax(0).sum(-1)
    ),
    "these are the two maps. The sums of their rows are asked for.": _sums(
        lambda m: m.mean(1), lambda m: m.amax(1)
    ),
    "'max' is the largest value in a row of the mean. Take the maximum over the heads "
    "first, and then the sum of each row.": _sums(
        lambda m: m.mean(1).sum(-1), lambda m: m.mean(1).amax(-1)
    ),
    "the heads are added up, not averaged: a row then sums to k.": _sums(
        lambda m: m.sum(1).sum(-1), lambda m: m.amax(1).sum(-1)
    ),
    "only the first image of the batch is measured.": _sums(
        lambda m: m.mean(1)[0].sum(-1), lambda m: m.amax(1)[0].sum(-1)
    ),
    "`max(dim=…)` gives a pair, the values and their places. Take `.values`, or "
    "`amax`.": _sums(lambda m: m.mean(1).sum(-1), lambda m: m.max(1).sum(-1)),
    "`record_attention` gives a *list* of maps, one per layer. Here it holds one, (B, "
    "k, N, N).": lambda maps: [maps].mean(1),  # pyright: ignore[reportAttributeAccessIssue]
}


def check_row_sums_of_heads(answer) -> None:
    """Checks the sums of rows of one map, made out of several heads.

    Raises:
        Hint: it is not right yet.
    """
    is_a_function(answer, "row_sums")
    generator = torch.Generator().manual_seed(72)
    for dim, num_heads in ((6, 3), (8, 4), (4, 1)):
        values = _weights_of(dim, generator)
        layer = _stacked(dim, num_heads, values)

        def measured(tokens, layer=layer):
            found = answer(layer, tokens)
            hint(found is not None, "it gives back None. Is a `return` missing?")
            both = isinstance(found, dict) and set(found) == {"mean", "max"}
            hint(both, "give back a dict with the keys 'mean' and 'max'")
            return [found["mean"], found["max"]]

        def on_maps(function, layer=layer):
            def call(tokens):
                with record_attention(layer) as maps, torch.no_grad():
                    layer(tokens)
                return function(maps[0])

            return call

        right = _sums(lambda m: m.mean(1).sum(-1), lambda m: m.amax(1).sum(-1))
        inputs = [
            (torch.randn(b, n, dim, generator=generator),)
            for b, n in ((2, 5), (1, 7), (4, 3))
        ]
        mistakes = {text: on_maps(wrong) for text, wrong in SUM_MISTAKES.items()}
        compare(measured, on_maps(right), inputs, mistakes, gradient=False)
        hint(
            layer.recorded is None,
            "after the call the layer still records, and so keeps every map in "
            "memory. `with record_attention(…)` ends it, also after an error.",
        )
        for name, value in zip(STACKED, values, strict=True):
            own = layer.get_parameter(name)
            text = "your code changes the weights of the layer that it measures."
            hint(torch.equal(own.detach(), value), text)
            text = (
                "your code freezes the layer that it measures: it would not be trained."
            )
            hint(own.requires_grad, text)
    passed("rows of the mean and of the maximum, measured")
