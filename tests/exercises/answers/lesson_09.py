"""Answers to the exercises of lesson 09."""

import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import stochastic_depth

from answers import right, wrong
from going_modular.encoder import DropPath, TransformerEncoderBlock
from going_modular.mlp import MLPBlock
from going_modular.multihead_attention import MultiheadSelfAttentionBlock

RESIDUAL = "check_residual"
SCALE = "check_layer_scale_block"
DROP = "check_mended_drop_path"
ALIKE = "check_similarity_by_layer"


class Wrapper(nn.Module):
    """What the answers share: the constructor that the task gives."""

    def __init__(self, embedding_dim, fn):
        super().__init__()
        self.layer_norm = nn.LayerNorm(embedding_dim, eps=1e-6)
        self.fn = fn


@wrong(RESIDUAL, "changes the tensor")
class InPlace(Wrapper):
    def forward(self, z):
        z += self.fn(self.layer_norm(z))
        return z


@wrong(RESIDUAL, "backward pass still needs")
class Overwritten(Wrapper):
    def forward(self, z):
        normed = self.layer_norm(z)
        out = self.fn(normed) + z
        normed.mul_(2)
        return out


@wrong(RESIDUAL, "the gradient is not")
class DetachedBranch(Wrapper):
    def forward(self, z):
        return z + self.fn(self.layer_norm(z)).detach()


@wrong(RESIDUAL, "no parameter `fn.weight`")
class HiddenInAList(Wrapper):
    def __init__(self, embedding_dim, fn):
        super().__init__(embedding_dim, None)
        self.parts = [fn]

    def forward(self, z):
        return z + self.parts[0](self.layer_norm(z))


@wrong(RESIDUAL, "the values are not")
class Product(Wrapper):
    def forward(self, z):
        return z * self.fn(self.layer_norm(z))


@right(RESIDUAL)
class InSteps(Wrapper):
    def forward(self, z):
        branch = self.layer_norm(z)
        branch = self.fn(branch)
        return torch.add(branch, z)


@right(RESIDUAL)
class ByFunctions(Wrapper):
    def forward(self, z):
        gain, bias = self.layer_norm.weight, self.layer_norm.bias
        mean = z.mean(-1, keepdim=True)
        deviation = (z.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()
        return self.fn((z - mean) / deviation * gain + bias) + z


class Scaled(nn.Module):
    """What the answers to the second task share."""

    def __init__(self, embedding_dim, num_heads, mlp_size, start=0.1):
        super().__init__()
        self.msa_block = MultiheadSelfAttentionBlock(embedding_dim, num_heads)
        self.mlp_block = MLPBlock(embedding_dim, mlp_size)
        self.gamma_msa = nn.Parameter(start * torch.ones(embedding_dim))
        self.gamma_mlp = nn.Parameter(start * torch.ones(embedding_dim))

    def forward(self, tokens):
        tokens = tokens + self.gamma_msa * self.msa_block(tokens)
        return tokens + self.gamma_mlp * self.mlp_block(tokens)


@wrong(SCALE, "both branches share one γ")
class OneFactor(Scaled):
    def __init__(self, *sizes, **more):
        super().__init__(*sizes, **more)
        self.gamma_mlp = self.gamma_msa


@wrong(SCALE, "or its memory")
class OneMemory(Scaled):
    def __init__(self, embedding_dim, num_heads, mlp_size, start=0.1):
        super().__init__(embedding_dim, num_heads, mlp_size)
        gamma = torch.full((embedding_dim,), start)
        self.gamma_msa, self.gamma_mlp = nn.Parameter(gamma), nn.Parameter(gamma)


@wrong(SCALE, "one value for the whole token")
class OneNumber(Scaled):
    def __init__(self, embedding_dim, num_heads, mlp_size, start=0.1):
        super().__init__(embedding_dim, num_heads, mlp_size)
        self.gamma_msa = nn.Parameter(torch.tensor(start))
        self.gamma_mlp = nn.Parameter(torch.tensor(start))


@wrong(SCALE, "has shape (1, 1, 24)")
class MoreAxes(Scaled):
    def __init__(self, embedding_dim, num_heads, mlp_size, start=0.1):
        super().__init__(embedding_dim, num_heads, mlp_size)
        self.gamma_msa = nn.Parameter(torch.full((1, 1, embedding_dim), start))
        self.gamma_mlp = nn.Parameter(torch.full((1, 1, embedding_dim), start))


@wrong(SCALE, "must be initialised to `start`")
class AlwaysATenth(Scaled):
    def __init__(self, embedding_dim, num_heads, mlp_size, start=0.1):
        super().__init__(embedding_dim, num_heads, mlp_size, start=0.1)


@wrong(SCALE, "no parameter `gamma_msa`")
class PlainTensors(Scaled):
    def __init__(self, embedding_dim, num_heads, mlp_size, start=0.1):
        super().__init__(embedding_dim, num_heads, mlp_size, start)
        del self.gamma_msa, self.gamma_mlp
        self.gamma_msa = start * torch.ones(embedding_dim)
        self.gamma_mlp = start * torch.ones(embedding_dim)


@wrong(SCALE, "another size")
class DefaultMLP(Scaled):
    def __init__(self, embedding_dim, num_heads, mlp_size, start=0.1):
        super().__init__(embedding_dim, num_heads, mlp_size, start)
        self.mlp_block = MLPBlock(embedding_dim)


@wrong(SCALE, "no `msa_block`")
class OtherNames(Scaled):
    def __init__(self, *sizes, **more):
        super().__init__(*sizes, **more)
        self.attention = self.msa_block
        del self.msa_block

    def forward(self, tokens):
        tokens = tokens + self.gamma_msa * self.attention(tokens)
        return tokens + self.gamma_mlp * self.mlp_block(tokens)


@wrong(SCALE, "what is `norm.bias` for")
class NormAtTheEnd(Scaled):
    def __init__(self, embedding_dim, num_heads, mlp_size, start=0.1):
        super().__init__(embedding_dim, num_heads, mlp_size, start)
        self.norm = nn.LayerNorm(embedding_dim)

    def forward(self, tokens):
        return self.norm(super().forward(tokens))


@wrong(SCALE, "changes the tensor")
class ScaledInPlace(Scaled):
    def forward(self, tokens):
        tokens += self.gamma_msa * self.msa_block(tokens)
        return tokens + self.gamma_mlp * self.mlp_block(tokens)


@wrong(SCALE, "no gradient arrives")
class DetachedFactors(Scaled):
    def forward(self, tokens):
        tokens = tokens + self.gamma_msa.detach() * self.msa_block(tokens)
        return tokens + self.gamma_mlp.detach() * self.mlp_block(tokens)


@right(SCALE)
class ByInheritance(TransformerEncoderBlock):
    def __init__(self, embedding_dim, num_heads, mlp_size, start=0.1):
        super().__init__(embedding_dim, num_heads, mlp_size)
        for name in ("gamma_msa", "gamma_mlp"):
            gamma = nn.Parameter(torch.full((embedding_dim,), float(start)))
            self.register_parameter(name, gamma)

    def forward(self, tokens):
        tokens = tokens + torch.mul(self.msa_block(tokens), self.gamma_msa)
        return torch.addcmul(tokens, self.gamma_mlp, self.mlp_block(tokens))


@right(SCALE)
class ByDiagonal(Scaled):
    def forward(self, tokens):
        branches = (self.msa_block, self.gamma_msa), (self.mlp_block, self.gamma_mlp)
        for block, gamma in branches:
            tokens = tokens + block(tokens) @ torch.diag(gamma)
        return tokens


@right(SCALE)
class ByAList(nn.Module):
    """Each block has two names; the first is not the one of the table."""

    def __init__(self, embedding_dim, num_heads, mlp_size, start=0.1):
        super().__init__()
        attention = MultiheadSelfAttentionBlock(embedding_dim, num_heads)
        self.blocks = nn.ModuleList([attention, MLPBlock(embedding_dim, mlp_size)])
        self.msa_block, self.mlp_block = self.blocks
        self.gamma_msa = nn.Parameter(torch.full((embedding_dim,), start))
        self.gamma_mlp = nn.Parameter(torch.full((embedding_dim,), start))

    def forward(self, tokens):
        for block, gamma in zip(
            self.blocks, (self.gamma_msa, self.gamma_mlp), strict=True
        ):
            tokens = tokens + block(tokens) * gamma
        return tokens


def one_a_picture(branch, rate):
    return (torch.rand(len(branch), 1, 1) >= rate).float()


@wrong(DROP, "In evaluation")
def always_training(branch, rate, training):
    return branch * one_a_picture(branch, rate) / (1 - rate)


@wrong(DROP, "same images")
def seeded(branch, rate, training):
    generator = torch.Generator().manual_seed(42)
    if not training:
        return branch
    keep = torch.rand(len(branch), 1, 1, generator=generator) >= rate
    return branch * keep / (1 - rate)


@wrong(DROP, "changes the tensor")
def in_place(branch, rate, training):
    if training:
        branch *= one_a_picture(branch, rate) / (1 - rate)
    return branch


@wrong(DROP, "no gradient arrives")
def without_gradient(branch, rate, training):
    out = branch.detach()
    return out * one_a_picture(branch, rate) / (1 - rate) if training else out


@wrong(DROP, "With rate 0")
def stops_at_zero(branch, rate, training):
    if not training:
        return branch
    if rate == 0:
        return branch * 0
    return branch * one_a_picture(branch, rate) / (1 - rate)


@right(DROP)
def by_bernoulli(branch, rate, training):
    if not training or rate == 0:
        return branch
    keep = torch.bernoulli(torch.full((branch.size(0),), 1 - rate))
    return torch.einsum("b,bnd->bnd", keep / (1 - rate), branch)


@right(DROP)
def by_dropout(branch, rate, training):
    return branch * F.dropout(branch.new_ones(len(branch), 1, 1), rate, training)


@right(DROP)
def by_the_lessons_class(branch, rate, training):
    return DropPath(rate).train(training)(branch)


@right(DROP)
def by_torchvision(branch, rate, training):
    return stochastic_depth(branch, rate, "row", training)


@right(DROP)
def picture_by_picture(branch, rate, training):
    if not training:
        return branch.clone()
    draw = random.Random(torch.randint(2**31, ()).item()).random
    rows = [p / (1 - rate) if draw() >= rate else 0 * p for p in branch]
    return torch.stack(rows)


@right(DROP)
def zeros_to_start_with(branch, rate, training):
    if not training:
        return branch
    out = torch.zeros_like(branch)
    for i in range(len(branch)):
        if torch.rand(1) >= rate:
            out[i] = branch[i] / (1 - rate)
    return out


@right(DROP)
def stacked(branch, rate, training):
    if not training:
        return branch
    kept = torch.rand(len(branch)) >= rate
    rows = [
        p / (1 - rate) if keep else torch.zeros_like(p)
        for p, keep in zip(branch, kept, strict=True)
    ]
    return torch.stack(rows)


@right(DROP)
def by_dropout2d(branch, rate, training):
    return F.dropout2d(branch[None], rate, training)[0]  # pictures are its channels


def table_of(tokens):
    unit = F.normalize(tokens, dim=-1)
    return unit @ unit.mT


def others_of(tokens):
    return ~torch.eye(tokens.shape[1], dtype=torch.bool)


def after_each(blocks, tokens, measure):
    found = []
    with torch.no_grad():
        for block in blocks:
            tokens = block(tokens)
            found.append(measure(tokens).item())
    return found


@wrong(ALIKE, "expected a number")
def tensors(blocks, tokens):
    return [torch.tensor(value) for value in by_mask(blocks, tokens)]


@wrong(ALIKE, "belongs to the example")
def five_tokens(blocks, tokens):
    pairs = ~torch.eye(5, dtype=torch.bool)
    return after_each(blocks, tokens, lambda z: table_of(z)[:, pairs].mean())


@wrong(ALIKE, "changes the tensor")
def tokens_changed(blocks, tokens):
    found = by_mask(blocks, tokens)
    tokens.data.copy_(F.normalize(tokens.data, dim=-1))
    return found


@right(ALIKE)
def by_mask(blocks, tokens):
    return after_each(blocks, tokens, lambda z: table_of(z)[:, others_of(z)].mean())


@right(ALIKE)
def by_sums(blocks, tokens):
    found = []
    for depth in range(1, len(blocks) + 1):
        z = blocks[:depth](tokens)
        batch, n, _ = z.shape
        total = F.cosine_similarity(z[:, :, None], z[:, None], dim=-1).sum()
        found.append(((total - batch * n) / (batch * n * (n - 1))).item())
    return found


@right(ALIKE)
def by_upper_triangle(blocks, tokens):
    found = []
    for block in blocks:
        tokens = block(tokens).detach()
        i, j = torch.triu_indices(tokens.shape[1], tokens.shape[1], offset=1)
        unit = tokens / tokens.square().sum(-1, keepdim=True).sqrt()
        found.append(float((unit[:, i] * unit[:, j]).sum(-1).mean()))
    return tuple(found)


@right(ALIKE)
def by_numpy(blocks, tokens):
    pairs = 1 - np.eye(tokens.numpy().shape[1])

    def measure(z):
        unit = z.numpy() / np.linalg.norm(z.numpy(), axis=-1, keepdims=True)
        table = unit @ unit.transpose(0, 2, 1)
        return (table * pairs).sum() / (len(z) * pairs.sum())

    return after_each(blocks, tokens, measure)
