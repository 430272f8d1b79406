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


@wrong(SEPARATE, "ndarray")
class NumpyBack(Separate):
    def forward(self, tokens):
        return super().forward(tokens).detach().numpy()


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


@wrong(SEPARATE, "freezes the layer")
class FreezesTheLesson(Separate):
    def load(self, attention):
        super().load(attention.requires_grad_(False))


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


@wrong(SUMS, "freezes the layer")
def freezes(attention, tokens):
    weights = recorded(attention.requires_grad_(False), tokens)
    return {"mean": weights.mean(1).sum(-1), "max": weights.amax(1).sum(-1)}


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
