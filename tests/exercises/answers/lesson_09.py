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


@wrong(RESIDUAL, "post-norm")
class PostNorm(Wrapper):
    def forward(self, z):
        return self.layer_norm(z + self.fn(z))


@wrong(RESIDUAL, "the skip connection is missing")
class NoSum(Wrapper):
    def forward(self, z):
        return self.fn(self.layer_norm(z))


@wrong(RESIDUAL, "not normalised")
class NoNorm(Wrapper):
    def forward(self, z):
        return z + self.fn(z)


@wrong(RESIDUAL, "the skip connection is normalised")
class Slipped(Wrapper):
    def forward(self, z):
        z = self.layer_norm(z)
        return z + self.fn(z)


@wrong(RESIDUAL, "comes after `fn`")
class NormBehind(Wrapper):
    def forward(self, z):
        return z + self.layer_norm(self.fn(z))


@wrong(RESIDUAL, "normalised once more")
class NormOnTop(Wrapper):
    def forward(self, z):
        return self.layer_norm(z + self.fn(self.layer_norm(z)))


@wrong(RESIDUAL, "gets LN(z) alone")
class SumFirst(Wrapper):
    def forward(self, z):
        return self.fn(z + self.layer_norm(z))


@wrong(RESIDUAL, "eps of 1e-6")
class OtherEps(Wrapper):
    def __init__(self, embedding_dim, fn):
        super().__init__(embedding_dim, fn)
        self.layer_norm = nn.LayerNorm(embedding_dim)

    def forward(self, z):
        return z + self.fn(self.layer_norm(z))


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


@wrong(RESIDUAL, "`return` missing")
class NoReturn(Wrapper):
    def forward(self, z):
        z + self.fn(self.layer_norm(z))


@wrong(RESIDUAL, "not written yet")
class Blank(Wrapper):
    def forward(self, z):
        raise NotImplementedError("your lines go here; then run the check below")


@wrong(RESIDUAL, "must be a class")
def not_a_class(embedding_dim, fn):
    return PostNorm(embedding_dim, fn)


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


@wrong(SCALE, "residual connections are missing")
class ScaledWithoutSum(Scaled):
    def forward(self, tokens):
        tokens = self.gamma_msa * self.msa_block(tokens)
        return self.gamma_mlp * self.mlp_block(tokens)


@wrong(SCALE, "scales the whole sum")
class ScaledSum(Scaled):
    def forward(self, tokens):
        tokens = self.gamma_msa * (tokens + self.msa_block(tokens))
        return self.gamma_mlp * (tokens + self.mlp_block(tokens))


@wrong(SCALE, "scales the skip connection")
class ScaledRoad(Scaled):
    def forward(self, tokens):
        tokens = self.gamma_msa * tokens + self.msa_block(tokens)
        return self.gamma_mlp * tokens + self.mlp_block(tokens)


@wrong(SCALE, "stands before the branch")
class ScaledBefore(Scaled):
    def forward(self, tokens):
        tokens = tokens + self.msa_block(self.gamma_msa * tokens)
        return tokens + self.mlp_block(self.gamma_mlp * tokens)


@wrong(SCALE, "both branches read")
class SideBySide(Scaled):
    def forward(self, tokens):
        attention = self.gamma_msa * self.msa_block(tokens)
        return tokens + attention + self.gamma_mlp * self.mlp_block(tokens)


@wrong(SCALE, "the MLP comes first")
class Swapped(Scaled):
    def forward(self, tokens):
        tokens = tokens + self.gamma_mlp * self.mlp_block(tokens)
        return tokens + self.gamma_msa * self.msa_block(tokens)


@wrong(SCALE, "adds the block's input")
class AddsTheInput(Scaled):
    def forward(self, tokens):
        first = tokens + self.gamma_msa * self.msa_block(tokens)
        return tokens + self.gamma_mlp * self.mlp_block(first)


@wrong(SCALE, "normalised twice")
class NormedTwice(Scaled):
    def forward(self, tokens):
        msa, mlp = self.msa_block, self.mlp_block
        tokens = tokens + self.gamma_msa * msa(msa.layer_norm(tokens))
        return tokens + self.gamma_mlp * mlp(mlp.layer_norm(tokens))


@wrong(SCALE, "Equation 2 alone")
class OnlyAttention(Scaled):
    def forward(self, tokens):
        return tokens + self.gamma_msa * self.msa_block(tokens)


@wrong(SCALE, "not normalised")
class WithoutNorm(Scaled):
    def forward(self, tokens):
        tokens = tokens + self.gamma_msa * self.msa_block.attention(tokens)
        return tokens + self.gamma_mlp * self.mlp_block.mlp(tokens)


@wrong(SCALE, "are swapped")
class SwappedFactors(Scaled):
    def forward(self, tokens):
        tokens = tokens + self.gamma_mlp * self.msa_block(tokens)
        return tokens + self.gamma_msa * self.mlp_block(tokens)


@wrong(SCALE, "`gamma_msa` scales both")
class FirstFactorTwice(Scaled):
    def forward(self, tokens):
        tokens = tokens + self.gamma_msa * self.msa_block(tokens)
        return tokens + self.gamma_msa * self.mlp_block(tokens)


@wrong(SCALE, "`gamma_mlp` is not used")
class OneBranch(Scaled):
    def forward(self, tokens):
        tokens = tokens + self.gamma_msa * self.msa_block(tokens)
        return tokens + self.mlp_block(tokens)


@wrong(SCALE, "neither")
class Unscaled(Scaled):
    def forward(self, tokens):
        tokens = tokens + self.msa_block(tokens)
        return tokens + self.mlp_block(tokens)


@wrong(SCALE, "both branches share one γ")
class OneFactor(Scaled):
    def __init__(self, *sizes, **more):
        super().__init__(*sizes, **more)
        self.gamma_mlp = self.gamma_msa


@wrong(SCALE, "share memory")
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


@wrong(SCALE, "found 1 in the first")
class StartsAtOne(Scaled):
    def __init__(self, embedding_dim, num_heads, mlp_size, start=0.1):
        super().__init__(embedding_dim, num_heads, mlp_size, start=1.0)


@wrong(SCALE, "no parameter `gamma_msa`")
class PlainTensors(Scaled):
    def __init__(self, embedding_dim, num_heads, mlp_size, start=0.1):
        super().__init__(embedding_dim, num_heads, mlp_size, start)
        del self.gamma_msa, self.gamma_mlp
        self.gamma_msa = start * torch.ones(embedding_dim)
        self.gamma_mlp = start * torch.ones(embedding_dim)


@wrong(SCALE, "12 heads")
class DefaultHeads(Scaled):
    def __init__(self, embedding_dim, num_heads, mlp_size, start=0.1):
        super().__init__(embedding_dim, num_heads, mlp_size, start)
        self.msa_block = MultiheadSelfAttentionBlock(embedding_dim)


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


@wrong(DROP, "in evaluation")
def always_training(branch, rate, training):
    return branch * one_a_picture(branch, rate) / (1 - rate)


@wrong(DROP, "evaluation scales")
def old_dropout(branch, rate, training):
    if not training:
        return branch * (1 - rate)
    return branch * one_a_picture(branch, rate)


@wrong(DROP, "dropped together")
def one_a_batch(branch, rate, training):
    if not training:
        return branch
    return branch * (torch.rand(1) >= rate) / (1 - rate)


@wrong(DROP, "not scaled up")
def not_rescaled(branch, rate, training):
    return branch * one_a_picture(branch, rate) if training else branch


@wrong(DROP, "multiplied by 1 - rate")
def rescaled_down(branch, rate, training):
    if not training:
        return branch
    return branch * one_a_picture(branch, rate) * (1 - rate)


@wrong(DROP, "divided by rate")
def divided_by_rate(branch, rate, training):
    if not training:
        return branch
    return branch * one_a_picture(branch, rate) / rate


@wrong(DROP, "keeps it with that probability")
def keeps_the_rate(branch, rate, training):
    if not training:
        return branch
    return branch * (1 - one_a_picture(branch, rate)) / rate


@wrong(DROP, "nn.Dropout")
def single_numbers(branch, rate, training):
    return F.dropout(branch, rate, training)


@wrong(DROP, "one by one")
def single_tokens(branch, rate, training):
    return branch * F.dropout(torch.ones(*branch.shape[:2], 1), rate, training)


@wrong(DROP, "(B, 1, 1)")
def one_axis(branch, rate, training):
    if not training:
        return branch
    return branch * (torch.rand(branch.shape[0]) >= rate) / (1 - rate)


@wrong(DROP, "same images")
def seeded(branch, rate, training):
    generator = torch.Generator().manual_seed(42)
    if not training:
        return branch
    keep = torch.rand(len(branch), 1, 1, generator=generator) >= rate
    return branch * keep / (1 - rate)


@wrong(DROP, "alone in its batch")
def fixed_number(branch, rate, training):
    if not training:
        return branch
    keep = torch.ones(len(branch), 1, 1)
    keep[torch.randperm(len(branch))[: int(rate * len(branch))]] = 0
    return branch * keep / (1 - rate)


@wrong(DROP, "nothing is dropped")
def never(branch, rate, training):
    return branch


@wrong(DROP, "changes the tensor")
def in_place(branch, rate, training):
    if training:
        branch *= one_a_picture(branch, rate) / (1 - rate)
    return branch


@wrong(DROP, "no gradient arrives")
def without_gradient(branch, rate, training):
    out = branch.detach()
    return out * one_a_picture(branch, rate) / (1 - rate) if training else out


@wrong(DROP, "with rate 0")
def stops_at_zero(branch, rate, training):
    if not training:
        return branch
    if rate == 0:
        return branch * 0
    return branch * one_a_picture(branch, rate) / (1 - rate)


@wrong(DROP, "not written yet")
def drop_blank(branch, rate, training):
    raise NotImplementedError("your lines go here; then run the check below")


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


@wrong(ALIKE, "similarity with itself")
def with_itself(blocks, tokens):
    return after_each(blocks, tokens, lambda z: table_of(z).mean())


@wrong(ALIKE, "not of the count")
def wrong_count(blocks, tokens):
    return after_each(
        blocks, tokens, lambda z: table_of(z).masked_fill(~others_of(z), 0).mean()
    )


@wrong(ALIKE, "different images")
def across_pictures(blocks, tokens):
    def measure(z):
        z = z.flatten(0, 1)[None]
        return table_of(z)[:, others_of(z)].mean()

    return after_each(blocks, tokens, measure)


@wrong(ALIKE, "products, not cosines")
def products(blocks, tokens):
    return after_each(blocks, tokens, lambda z: (z @ z.mT)[:, others_of(z)].mean())


@wrong(ALIKE, "another axis")
def wrong_axis(blocks, tokens):
    def measure(z):
        unit = F.normalize(z)
        return (unit @ unit.mT)[:, others_of(z)].mean()

    return after_each(blocks, tokens, measure)


@wrong(ALIKE, "only neighbours")
def neighbours(blocks, tokens):
    return after_each(
        blocks,
        tokens,
        lambda z: F.cosine_similarity(z[:, 1:], z[:, :-1], dim=-1).mean(),
    )


@wrong(ALIKE, "the sign is lost")
def absolute(blocks, tokens):
    return after_each(
        blocks, tokens, lambda z: table_of(z)[:, others_of(z)].abs().mean()
    )


@wrong(ALIKE, "first image")
def first_picture(blocks, tokens):
    return after_each(blocks, tokens, lambda z: table_of(z)[0][others_of(z)].mean())


@wrong(ALIKE, "with the first token")
def with_the_first(blocks, tokens):
    return after_each(
        blocks,
        tokens,
        lambda z: F.cosine_similarity(z[:, :1], z[:, 1:], dim=-1).mean(),
    )


@wrong(ALIKE, "gets the first tokens again")
def not_chained(blocks, tokens):
    def measure(z):
        return table_of(z)[:, others_of(z)].mean()

    return [measure(block(tokens)).item() for block in blocks]


@wrong(ALIKE, "Measure after it")
def one_too_early(blocks, tokens):
    found = []
    for block in blocks:
        found.append(table_of(tokens)[:, others_of(tokens)].mean().item())
        tokens = block(tokens)
    return found


@wrong(ALIKE, "one value more")
def one_too_many(blocks, tokens):
    first = table_of(tokens)[:, others_of(tokens)].mean().item()
    return [first, *by_mask(blocks, tokens)]


@wrong(ALIKE, "because their cosine is 1")
def all_but_ones(blocks, tokens):
    return after_each(
        blocks, tokens, lambda z: table_of(z)[table_of(z) < 0.99999].mean()
    )


@wrong(ALIKE, "of the last block")
def only_the_last(blocks, tokens):
    return by_mask(blocks, tokens)[-1:]


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


@wrong(ALIKE, "not written yet")
def alike_blank(blocks, tokens):
    raise NotImplementedError("your lines go here; then run the check below")


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
