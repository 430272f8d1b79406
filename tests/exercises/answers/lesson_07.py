"""Answers to the exercises of lesson 07."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from answers import right, wrong
from going_modular.multihead_attention import record_attention
from going_modular.self_attention import scaled_dot_product_attention

RMS = "check_rms_norm"
SEPARATE = "check_separate_projections"
MENDED = "check_mended_split"
SUMS = "check_row_sums_of_heads"


@wrong(RMS, "still LayerNorm")
def subtracts_the_mean(x, gain, eps=1e-6):
    return F.layer_norm(x, x.shape[-1:], gain, eps=eps)


@wrong(RMS, "RMSNorm subtracts no mean")
def divides_by_std(x, gain, eps=1e-6):
    variance = x.var(dim=-1, correction=0, keepdim=True)
    return x / torch.sqrt(variance + eps) * gain


@wrong(RMS, "with D - 1")
def divides_by_torchs_std(x, gain, eps=1e-6):
    return gain * x / (x.std(dim=-1, keepdim=True) + eps)


@wrong(RMS, "a mean: without 1/D")
def divides_by_length(x, gain, eps=1e-6):
    return F.normalize(x, dim=-1) * gain


@wrong(RMS, "The square root is missing")
def no_root(x, gain, eps=1e-6):
    return gain * x / ((x**2).mean(-1, keepdim=True) + eps)


@wrong(RMS, "Divide by it")
def multiplies(x, gain, eps=1e-6):
    return x * ((x**2).mean(-1, keepdim=True) + eps) ** 0.5 * gain


@wrong(RMS, "squares too late")
def mean_before_square(x, gain, eps=1e-6):
    return x / (x.mean(-1, keepdim=True) ** 2 + eps).sqrt() * gain


@wrong(RMS, "squares too late")
def mean_of_sizes(x, gain, eps=1e-6):
    return x / (x.abs().mean(-1, keepdim=True) + eps) * gain


@wrong(RMS, "the backward pass still needs")
def adds_in_place(x, gain, eps=1e-6):
    root = (x**2).mean(-1, keepdim=True).sqrt()
    root += eps
    return x / root * gain


@wrong(RMS, "over the tokens")
def over_the_tokens(x, gain, eps=1e-6):
    return x / (x.square().mean(dim=0) + eps).sqrt() * gain


@wrong(RMS, "the mean needs an axis")
def over_everything(x, gain, eps=1e-6):
    return x / (x.square().mean() + eps).sqrt() * gain


@wrong(RMS, "keepdim=True")
def loses_the_axis(x, gain, eps=1e-6):
    return x / (x.square().mean(dim=-1) + eps).sqrt() * gain


@wrong(RMS, "the scale (`weight`) is not used")
def forgets_the_gain(x, gain, eps=1e-6):
    return F.rms_norm(x, x.shape[-1:], eps=eps)


@wrong(RMS, "the scale (`weight`) is added")
def adds_the_gain(x, gain, eps=1e-6):
    return F.rms_norm(x, x.shape[-1:], eps=eps) + gain


@wrong(RMS, "inside the square root")
def eps_outside(x, gain, eps=1e-6):
    return x / (x.square().mean(-1, keepdim=True).sqrt() + eps) * gain


@wrong(RMS, "a token of zeros becomes NaN")
def no_eps(x, gain, eps=1e-6):
    return x / x.square().mean(-1, keepdim=True).sqrt() * gain


@wrong(RMS, "the call gave another one")
def own_eps(x, gain, eps=1e-6):
    return F.rms_norm(x, x.shape[-1:], gain, 1e-6)


@wrong(RMS, "belongs to the example")
def for_two_axes(x, gain, eps=1e-6):
    return x / (x.square().mean(1, keepdim=True) + eps).sqrt() * gain


@wrong(RMS, "belongs to the example")
def for_five_numbers(x, gain, eps=1e-6):
    return x / (x.square().sum(-1, keepdim=True) / 5 + eps).sqrt() * gain


@wrong(RMS, "no gradient arrives")
def by_numpy(x, gain, eps=1e-6):
    root = (x.detach().square().mean(-1, keepdim=True) + eps).sqrt()
    return x.detach() / root * gain.detach()


@wrong(RMS, "a part of it cut off")
def root_cut_off(x, gain, eps=1e-6):
    return x / (x.detach().square().mean(-1, keepdim=True) + eps).sqrt() * gain


@wrong(RMS, "changes the tensor")
def in_place(x, gain, eps=1e-6):
    out = F.rms_norm(x, x.shape[-1:], gain, eps)
    x.data.mul_(2)
    return out


@wrong(RMS, "`return` missing")
def nothing_back(x, gain, eps=1e-6):
    F.rms_norm(x, x.shape[-1:], gain, eps)


@wrong(RMS, "not written yet")
def blank_norm(x, gain, eps=1e-6):
    raise NotImplementedError


@right(RMS)
def in_float32(x, gain, eps=1e-6):
    numbers = x.float()
    mean_square = numbers.pow(2).mean(dim=-1, keepdim=True)
    return (numbers * torch.rsqrt(mean_square + eps)).type_as(x) * gain


@right(RMS)
def by_torch(x, gain, eps=1e-6):
    return F.rms_norm(x, gain.shape, gain, eps)


@right(RMS)
def by_length(x, gain, eps=1e-6):
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return gain * (x * torch.rsqrt(length**2 / x.shape[-1] + eps))


@right(RMS)
def token_by_token(x, gain, eps=1e-6):
    rows = [r / ((r @ r) / len(r) + eps) ** 0.5 for r in x.reshape(-1, x.shape[-1])]
    return torch.stack(rows).reshape(x.shape) * gain


class Separate(nn.Module):
    """What the answers to the second task share; each changes a part of it."""

    def __init__(self, embedding_dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(embedding_dim, embedding_dim)
        self.key = nn.Linear(embedding_dim, embedding_dim)
        self.value = nn.Linear(embedding_dim, embedding_dim)
        self.out_proj = nn.Linear(embedding_dim, embedding_dim)

    def cut(self, x):
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def join(self, heads):
        return heads.transpose(1, 2).flatten(2)

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)

    def forward(self, tokens):
        parts = [self.cut(part(tokens)) for part in (self.query, self.key, self.value)]
        return self.out_proj(self.join(self.attend(*parts)))

    def rows(self, x):
        return x.chunk(3)

    @torch.no_grad()
    def load(self, attention):
        layers = (self.query, self.key, self.value)
        for end in ("weight", "bias"):
            parts = self.rows(getattr(attention.qkv, end))
            for layer, part in zip(layers, parts, strict=True):
                getattr(layer, end).copy_(part)
            getattr(self.out_proj, end).copy_(getattr(attention.out_proj, end))


@wrong(SEPARATE, "pieces of the *sequence*")
class CutByView(Separate):
    def cut(self, x):
        B, N, D = x.shape
        return x.view(B, self.num_heads, N, D // self.num_heads)

    def join(self, heads):
        return heads.reshape(heads.shape[0], heads.shape[2], -1)


@wrong(SEPARATE, "joining is not")
class JoinByReshape(Separate):
    def join(self, heads):
        return heads.reshape(heads.shape[0], heads.shape[2], -1)


@wrong(SEPARATE, "the cut is not")
class OnlyCutByView(Separate):
    def cut(self, x):
        B, N, D = x.shape
        return x.view(B, self.num_heads, N, D // self.num_heads)


@wrong(SEPARATE, "root of D_h (lesson 07")
class ScaledByAll(Separate):
    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(
            q, k, v, scale=self.out_proj.in_features**-0.5
        )


@wrong(SEPARATE, "not divided")
class Unscaled(Separate):
    def attend(self, q, k, v):
        return (q @ k.mT).softmax(-1) @ v


@wrong(SEPARATE, "softmax runs over the queries")
class OverQueries(Separate):
    def attend(self, q, k, v):
        return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-2) @ v


@wrong(SEPARATE, "`num_heads` changes nothing")
class OneHead(Separate):
    def forward(self, tokens):
        parts = [part(tokens) for part in (self.query, self.key, self.value)]
        return self.out_proj(self.attend(*parts))


@wrong(SEPARATE, "`out_proj` is missing")
class NotProjected(Separate):
    def forward(self, tokens):
        parts = [self.cut(part(tokens)) for part in (self.query, self.key, self.value)]
        return self.join(self.attend(*parts))


@wrong(SEPARATE, "changed places: row i")
class KeysAsk(Separate):
    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(k, q, v)


@wrong(SEPARATE, "block around it")
class Normalised(Separate):
    def forward(self, tokens):
        return super().forward(F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6))


@wrong(SEPARATE, "The shape should stay")
class HeadsLeft(Separate):
    def forward(self, tokens):
        parts = [self.cut(part(tokens)) for part in (self.query, self.key, self.value)]
        return self.attend(*parts)


@wrong(SEPARATE, "type tuple")
class WithTheWeights(Separate):
    def forward(self, tokens):
        return super().forward(tokens), None


@wrong(SEPARATE, "type ndarray")
class NumpyBack(Separate):
    def forward(self, tokens):
        return super().forward(tokens).detach().numpy()


@wrong(SEPARATE, "takes the size of a piece")
class CutBySize(Separate):
    def cut(self, x):
        return torch.stack(x.split(self.num_heads, dim=-1), dim=1)


@wrong(SEPARATE, "divided by D_h and not by its square root")
class DividedBySize(Separate):
    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, scale=1 / q.shape[-1])


@wrong(SEPARATE, "no gradient arrives")
class WithoutGradient(Separate):
    @torch.no_grad()
    def forward(self, tokens):
        return super().forward(tokens)


@wrong(SEPARATE, "belongs to the example")
class ForFiveTokens(Separate):
    def cut(self, x):
        return x.reshape(len(x), 5, self.num_heads, -1).transpose(1, 2)


@wrong(SEPARATE, "does not change query.bias and key.bias")
class NoBiases(Separate):
    @torch.no_grad()
    def load(self, attention):
        layers = (self.query, self.key, self.value)
        for layer, part in zip(layers, attention.qkv.weight.chunk(3), strict=True):
            layer.weight.copy_(part)
        self.out_proj.load_state_dict(attention.out_proj.state_dict())


@wrong(SEPARATE, "does not change out_proj.weight and out_proj.bias")
class NoOutput(Separate):
    def load(self, attention):
        before = copy.deepcopy(self.out_proj.state_dict())
        super().load(attention)
        self.out_proj.load_state_dict(before)


@wrong(SEPARATE, "in turns")
class EveryThird(Separate):
    def rows(self, x):
        return [x[0::3], x[1::3], x[2::3]]


@wrong(SEPARATE, "head by head")
class HeadByHead(Separate):
    def rows(self, x):
        parts = x.unflatten(0, (self.num_heads, 3, -1)).unbind(1)
        return [part.flatten(0, 1) for part in parts]


@wrong(SEPARATE, "key and value have changed places")
class ValueFirst(Separate):
    def rows(self, x):
        q, v, k = x.chunk(3)
        return q, k, v


@wrong(SEPARATE, "matrices are transposed")
class Transposed(Separate):
    def rows(self, x):
        return [part.T if part.ndim == 2 else part for part in x.chunk(3)]


@wrong(SEPARATE, "changes nothing")
class LoadsCopies(Separate):
    def load(self, attention):
        copy.deepcopy(self)
        return self


@wrong(SEPARATE, "share memory")
class Views(Separate):
    def load(self, attention):
        layers = (self.query, self.key, self.value)
        weights, biases = attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3)
        for layer, weight, bias in zip(layers, weights, biases, strict=True):
            layer.weight.data, layer.bias.data = weight.data, bias.data
        self.out_proj.load_state_dict(attention.out_proj.state_dict())


@wrong(SEPARATE, "share memory")
class OutputShared(Separate):
    def load(self, attention):
        super().load(attention)
        self.out_proj = attention.out_proj


@wrong(SEPARATE, "autograd tracks")
class WithGradient(Separate):
    def load(self, attention):
        self.query.weight.copy_(attention.qkv.weight.chunk(3)[0])


@wrong(SEPARATE, "would not be trained")
class Frozen(Separate):
    def load(self, attention):
        super().load(attention)
        for p in self.parameters():
            p.requires_grad_(False)


@wrong(SEPARATE, "`load` freezes the layer")
class FreezesTheLesson(Separate):
    def load(self, attention):
        super().load(attention.requires_grad_(False))


@wrong(SEPARATE, "not written yet")
class BlankLoad(Separate):
    def load(self, attention):
        raise NotImplementedError


@wrong(SEPARATE, "not written yet")
class BlankForward(Separate):
    def forward(self, tokens):
        raise NotImplementedError


@wrong(SEPARATE, "does not use the parameters")
class AsksTheLesson(Separate):
    source = None

    def load(self, attention):
        super().load(attention)
        self.source = [attention]

    def forward(self, tokens):
        return self.source[0](tokens) if self.source else super().forward(tokens)


@right(SEPARATE)
class ByStateDict(Separate):
    def load(self, attention):
        state = {f"out_proj.{n}": p for n, p in attention.out_proj.state_dict().items()}
        for i, name in enumerate(("query", "key", "value")):
            D = attention.out_proj.in_features
            rows = slice(i * D, (i + 1) * D)
            state[f"{name}.weight"] = attention.qkv.weight[rows]
            state[f"{name}.bias"] = attention.qkv.bias[rows]
        self.load_state_dict(state)


@right(SEPARATE)
class ImageByImage(Separate):
    def forward(self, tokens):
        found = []
        for image in tokens:
            parts = [p(image) for p in (self.query, self.key, self.value)]
            cut = [p.unflatten(1, (self.num_heads, -1)).transpose(0, 1) for p in parts]
            heads, _ = scaled_dot_product_attention(*cut)
            found.append(heads.transpose(0, 1).flatten(1))
        return self.out_proj(torch.stack(found))

    def load(self, attention):
        for name, p in attention.named_parameters():
            layer, end = name.split(".")
            names = ("query", "key", "value") if layer == "qkv" else (layer,)
            for own, part in zip(names, p.data.chunk(len(names)), strict=True):
                self.get_parameter(f"{own}.{end}").data = part.clone()


@right(SEPARATE)
class LoopOverHeads(Separate):
    def forward(self, tokens):
        d = self.out_proj.in_features // self.num_heads
        q, k, v = self.query(tokens), self.key(tokens), self.value(tokens)
        heads = []
        for i in range(self.num_heads):
            own = slice(i * d, (i + 1) * d)
            scores = torch.einsum("bid,bjd->bij", q[..., own], k[..., own]) / d**0.5
            heads.append(scores.softmax(-1) @ v[..., own])
        return self.out_proj(torch.cat(heads, dim=-1))


@right(SEPARATE)
class NewParameters(Separate):
    def load(self, attention):
        D = attention.out_proj.in_features
        qkv = attention.qkv
        for i, layer in enumerate((self.query, self.key, self.value)):
            rows = torch.arange(i * D, (i + 1) * D)
            layer.weight = nn.Parameter(qkv.weight.detach()[rows].clone())
            layer.bias = nn.Parameter(qkv.bias.detach()[rows].clone())
        self.out_proj = copy.deepcopy(attention.out_proj)


def cut(x, num_heads):
    return x.unflatten(2, (num_heads, -1)).transpose(1, 2)


@wrong(MENDED, "pieces of the *sequence*")
def still_buggy(query, key, value, num_heads):
    B, N, D = query.shape
    q, k, v = (x.view(B, num_heads, N, D // num_heads) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).reshape(B, N, D)


@wrong(MENDED, "joining is not")
def joined_by_reshape(query, key, value, num_heads):
    parts = [cut(x, num_heads) for x in (query, key, value)]
    heads, _ = scaled_dot_product_attention(*parts)
    return heads.reshape(query.shape)


@wrong(MENDED, "the cut is not")
def cut_by_reshape(query, key, value, num_heads):
    B, N, D = query.shape
    parts = [x.reshape(B, num_heads, N, D // num_heads) for x in (query, key, value)]
    return F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)


@wrong(MENDED, "values of another axis")
def turned_and_cut(query, key, value, num_heads):
    B, N, D = query.shape
    parts = [x.mT.reshape(B, num_heads, N, -1) for x in (query, key, value)]
    return F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)


@wrong(MENDED, "take turns")
def in_turns(query, key, value, num_heads):
    parts = [
        x.unflatten(2, (-1, num_heads)).permute(0, 3, 1, 2) for x in (query, key, value)
    ]
    return F.scaled_dot_product_attention(*parts).permute(0, 2, 3, 1).flatten(2)


@wrong(MENDED, "take turns in the cut")
def cut_in_turns(query, key, value, num_heads):
    parts = [
        x.unflatten(2, (-1, num_heads)).permute(0, 3, 1, 2) for x in (query, key, value)
    ]
    return F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)


@wrong(MENDED, "joined as (D_h, k)")
def joined_turned(query, key, value, num_heads):
    parts = [cut(x, num_heads) for x in (query, key, value)]
    return F.scaled_dot_product_attention(*parts).permute(0, 2, 3, 1).flatten(2)


@wrong(MENDED, "takes the size of a piece")
def split_by_heads(query, key, value, num_heads):
    parts = [x.split(num_heads, dim=-1) for x in (query, key, value)]
    heads = [scaled_dot_product_attention(*p)[0] for p in zip(*parts, strict=True)]
    return torch.cat(heads, dim=-1)


@wrong(MENDED, "divided by D_h and not by its square root")
def divided_by_size(query, key, value, num_heads):
    q, k, v = (cut(x, num_heads) for x in (query, key, value))
    heads = F.scaled_dot_product_attention(q, k, v, scale=1 / q.shape[-1])
    return heads.transpose(1, 2).flatten(2)


@wrong(MENDED, "`num_heads` changes nothing")
def one_head(query, key, value, num_heads):
    return F.scaled_dot_product_attention(query, key, value)


@wrong(MENDED, "heads are averaged")
def averaged(query, key, value, num_heads):
    parts = [cut(x, num_heads) for x in (query, key, value)]
    return F.scaled_dot_product_attention(*parts).mean(dim=1)


@wrong(MENDED, "expected (1, 6, 8)")
def heads_left(query, key, value, num_heads):
    parts = [cut(x, num_heads) for x in (query, key, value)]
    return F.scaled_dot_product_attention(*parts)


@wrong(MENDED, "2 values")
def with_the_weights(query, key, value, num_heads):
    parts = [cut(x, num_heads) for x in (query, key, value)]
    heads, weights = scaled_dot_product_attention(*parts)
    return heads.transpose(1, 2).flatten(2), weights


@wrong(MENDED, "belongs to the example")
def two_heads(query, key, value, num_heads):
    parts = [cut(x, 2) for x in (query, key, value)]
    return F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)


@wrong(MENDED, "belongs to the example")
def causal(query, key, value, num_heads):
    parts = [cut(x, num_heads) for x in (query, key, value)]
    later = query.shape[0] > 1
    out = F.scaled_dot_product_attention(*parts, is_causal=later)
    return out.transpose(1, 2).flatten(2)


@wrong(MENDED, "no gradient arrives")
def detached(query, key, value, num_heads):
    parts = [cut(x.detach(), num_heads) for x in (query, key, value)]
    return F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)


@wrong(MENDED, "changes the tensor")
def scaled_in_place(query, key, value, num_heads):
    parts = [cut(x, num_heads) for x in (query, key, value)]
    out = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
    query.data /= 2
    return out


@wrong(MENDED, "not written yet")
def blank_heads(query, key, value, num_heads):
    raise NotImplementedError


@right(MENDED)
def by_einsum(query, key, value, num_heads):
    q, k, v = (x.unflatten(2, (num_heads, -1)) for x in (query, key, value))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v).flatten(2)


@right(MENDED)
def by_loop(query, key, value, num_heads):
    parts = [x.chunk(num_heads, dim=-1) for x in (query, key, value)]
    heads = [scaled_dot_product_attention(*p)[0] for p in zip(*parts, strict=True)]
    return torch.cat(heads, dim=-1)


@right(MENDED)
def by_filling(query, key, value, num_heads):
    out = torch.empty_like(value)
    size = value.shape[2] // num_heads
    for i in range(0, value.shape[2], size):
        parts = [x[..., i : i + size] for x in (query, key, value)]
        out[..., i : i + size] = F.scaled_dot_product_attention(*parts)
    return out


@right(MENDED)
def by_turned_view(query, key, value, num_heads):
    B, N, D = query.shape
    parts = [x.mT.reshape(B, num_heads, -1, N).mT for x in (query, key, value)]
    return F.scaled_dot_product_attention(*parts).mT.reshape(B, D, N).mT


def recorded(attention, tokens):
    with record_attention(attention) as maps:
        attention(tokens)
    return maps[0]


@wrong(SUMS, "changed places")
def swapped(attention, tokens):
    weights = recorded(attention, tokens)
    return {"max": weights.mean(1).sum(-1), "mean": weights.amax(1).sum(-1)}


@wrong(SUMS, "rows are added up first")
def sums_first(attention, tokens):
    sums = recorded(attention, tokens).sum(-1)
    return {"mean": sums.mean(1), "max": sums.amax(1)}


@wrong(SUMS, "sums of columns")
def columns(attention, tokens):
    weights = recorded(attention, tokens)
    return {"mean": weights.mean(1).sum(1), "max": weights.amax(1).sum(1)}


@wrong(SUMS, "over the *keys*")
def over_keys(attention, tokens):
    weights = recorded(attention, tokens)
    return {"mean": weights.mean(-1).sum(1), "max": weights.amax(-1).sum(1)}


@wrong(SUMS, "heads are left")
def heads_stay(attention, tokens):
    weights = recorded(attention, tokens)
    return {"mean": weights.mean(-1), "max": weights.amax(-1)}


@wrong(SUMS, "over the batch")
def over_batch(attention, tokens):
    weights = recorded(attention, tokens)
    return {"mean": weights.mean(0).sum(-1), "max": weights.amax(0).sum(-1)}


@wrong(SUMS, "nothing to measure")
def divided(attention, tokens):
    weights = recorded(attention, tokens)
    highest = weights.amax(1)
    highest = highest / highest.sum(-1, keepdim=True)
    return {"mean": weights.mean(1).sum(-1), "max": highest.sum(-1)}


@wrong(SUMS, "mean or the map of one head")
def mean_twice(attention, tokens):
    sums = recorded(attention, tokens).mean(1).sum(-1)
    return {"mean": sums, "max": sums}


@wrong(SUMS, "freezes the layer")
def freezes(attention, tokens):
    weights = recorded(attention.requires_grad_(False), tokens)
    return {"mean": weights.mean(1).sum(-1), "max": weights.amax(1).sum(-1)}


@wrong(SUMS, "the two maps")
def only_maps(attention, tokens):
    weights = recorded(attention, tokens)
    return {"mean": weights.mean(1), "max": weights.amax(1)}


@wrong(SUMS, "largest value in a row of the mean")
def largest_share(attention, tokens):
    weights = recorded(attention, tokens).mean(1)
    return {"mean": weights.sum(-1), "max": weights.amax(-1)}


@wrong(SUMS, "sums to k")
def not_averaged(attention, tokens):
    weights = recorded(attention, tokens)
    return {"mean": weights.sum(1).sum(-1), "max": weights.amax(1).sum(-1)}


@wrong(SUMS, "first image")
def first_picture(attention, tokens):
    weights = recorded(attention, tokens)[0]
    return {"mean": weights.mean(0).sum(-1), "max": weights.amax(0).sum(-1)}


@wrong(SUMS, "gives a pair")
def pair(attention, tokens):
    weights = recorded(attention, tokens)
    return {"mean": weights.mean(1).sum(-1), "max": weights.max(dim=1).sum(-1)}


@wrong(SUMS, "a *list* of maps")
def the_list(attention, tokens):
    with record_attention(attention) as maps:
        attention(tokens)
    return {"mean": maps.mean(1).sum(-1), "max": maps.amax(1).sum(-1)}


@wrong(SUMS, "the keys 'mean' and 'max'")
def a_pair(attention, tokens):
    weights = recorded(attention, tokens)
    return weights.mean(1).sum(-1), weights.amax(1).sum(-1)


@wrong(SUMS, "expected (2, 5)")
def one_number(attention, tokens):
    weights = recorded(attention, tokens)
    both = {"mean": weights.mean(1).sum(-1), "max": weights.amax(1).sum(-1)}
    return {name: sums.mean() for name, sums in both.items()}


@wrong(SUMS, "the values are not")
def ones_and_bound(attention, tokens):
    ones = torch.ones(tokens.shape[:2])
    return {"mean": ones, "max": attention.num_heads * ones}


@wrong(SUMS, "still records")
def never_stops(attention, tokens):
    attention.recorded = []
    attention(tokens)
    weights = attention.recorded[0]
    return {"mean": weights.mean(1).sum(-1), "max": weights.amax(1).sum(-1)}


@wrong(SUMS, "not written yet")
def blank_sums(attention, tokens):
    raise NotImplementedError


@right(SUMS)
def by_hand(attention, tokens):
    B, N, D = tokens.shape
    cut = (B, N, 3, attention.num_heads, D // attention.num_heads)
    q, k, _ = attention.qkv(tokens).reshape(cut).permute(2, 0, 3, 1, 4)
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).detach()
    return {"mean": weights.mean(1).sum(-1), "max": weights.amax(1).sum(-1)}


@right(SUMS)
def picture_by_picture(attention, tokens):
    sums = {"mean": [], "max": []}
    for picture in tokens.split(1):
        weights = recorded(attention, picture)[0].numpy()
        sums["mean"].append(torch.tensor(weights.mean(0).sum(-1)))
        sums["max"].append(torch.tensor(weights.max(axis=0).sum(-1)))
    return {name: torch.stack(rows) for name, rows in sums.items()}


@right(SUMS)
def head_by_head(attention, tokens):
    with torch.no_grad(), record_attention(attention) as maps:
        attention(tokens)
    first, *others = maps[0].unbind(dim=1)
    total, highest = first, first
    for head in others:
        total, highest = total + head, torch.maximum(highest, head)
    count = len(others) + 1
    return {"max": highest.sum(dim=2), "mean": total.sum(dim=2) / count}
