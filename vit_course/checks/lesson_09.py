"""Tasks of the exercises of lesson 09: residual connections and the encoder."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from going_modular.encoder import TransformerEncoderBlock
from vit_course.checks.hints import CHANGED, CUT, hint, with_parameters
from vit_course.checks.task import Case, Task, equal

# 1. One wrapper for both equations


class _Branch(nn.Module):
    """A branch that keeps the shape, mixes tokens and is not linear."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(embedding_dim, embedding_dim))

    def forward(self, z: Tensor) -> Tensor:
        return (z @ self.weight).tanh() + 0.5 * z.roll(1, dims=1)


BRANCHES = {dim: _Branch(dim) for dim in (4, 7)}


def _wrapped(formula: Callable, eps: float = 1e-6) -> Callable:
    """A wrapper by `formula(z, norm, fn)`."""

    def wrapper(z, scale, bias, weight):
        branch = with_parameters(BRANCHES[z.shape[-1]], "weight")
        return formula(
            z,
            lambda z: F.layer_norm(z, z.shape[-1:], scale, bias, eps),
            lambda z: branch(z, weight),
        )

    return wrapper


def _inputs_of_wrappers() -> list[tuple]:
    g, inputs = torch.Generator().manual_seed(9), []
    for dim in BRANCHES:
        for b, n, scale in ((2, 5, 1.0), (1, 3, 2.0), (3, 6, 1.0), (2, 5, 0.002)):
            shapes = (b, n, dim), (dim,), (dim,), (dim, dim)
            z, *weights = (torch.randn(shape, generator=g) for shape in shapes)
            inputs.append((scale * z, *weights))
    return inputs


WRAPPERS = {
    _wrapped(lambda z, n, f: n(z + f(z))): (
        "that is post-norm, LN(z + f(z)). In the ViT the norm belongs to the residual "
        "branch, and the skip connection passes z on as it is."
    ),
    _wrapped(lambda z, n, f: f(n(z))): (
        "the skip connection is missing: the input is not added to the output of `fn`."
    ),
    _wrapped(lambda z, n, f: z + f(z)): (
        "`fn` gets tokens that are not normalised. LN comes before it: f(LN(z))."
    ),
    _wrapped(lambda z, n, f: n(z) + f(n(z))): (
        "the skip connection is normalised, too: LN(z) + f(LN(z)). It must add z as it "
        "came in; the lesson ends with this mistake."
    ),
    _wrapped(lambda z, n, f: z + n(f(z))): (
        "the norm comes after `fn`: z + LN(f(z)). Equation 2 has it before."
    ),
    _wrapped(lambda z, n, f: n(z + f(n(z)))): (
        "the sum is normalised once more. After the sum nothing follows."
    ),
    _wrapped(lambda z, n, f: f(z + n(z))): (
        "`fn` gets the sum z + LN(z). It gets LN(z) alone; z is added to its output."
    ),
    _wrapped(lambda z, n, f: z + f(n(z)), eps=1e-5): (
        "right but for tokens of small variance: has the LayerNorm an eps of 1e-6?"
    ),
}
check_residual = Task(
    "Residual",
    "z + f(LN(z)), for any f",
    Case(
        sizes=lambda z, *_: (z.shape[-1], BRANCHES[z.shape[-1]]),
        parameters=("layer_norm.weight", "layer_norm.bias", "fn.weight"),
        inputs=_inputs_of_wrappers,
        right=_wrapped(lambda z, n, f: z + f(n(z))),
        mistakes=WRAPPERS,
        advice="Read Equation 2 from the inside out: LN first, then fn, then + z.",
    ),
)

# 2. LayerScale

STARTS = {24: (3, 20, 0.1), 10: (5, 16, 0.02)}  # D: heads, MLP size, initial γ


def _inputs_of_blocks() -> list[tuple]:
    """Blocks of the lesson with random weights, tokens, and both γ."""
    inputs = []
    for dim, (heads, mlp_size, _) in STARTS.items():
        block = TransformerEncoderBlock(dim, heads, mlp_size, mlp_dropout=0.0).eval()
        g = torch.Generator().manual_seed(dim)
        for p in block.parameters():
            p.data.normal_(std=0.4, generator=g)
        for size in ((2, 5, dim), (1, 3, dim), (3, 7, dim)):
            given = (torch.randn(s, generator=g) for s in (size, dim, dim))
            inputs.append((block, *given))
    return inputs


def _both(step: Callable) -> Callable:
    """A block whose two halves are `step(branch, z, γ)`."""
    return lambda block, z, one, two: step(
        block.mlp_block, step(block.msa_block, z, one), two
    )


_scaled = _both(lambda f, z, gamma: z + gamma * f(z))


def _mlp_first(block, z, one, two):
    z = z + two * block.mlp_block(z)
    return z + one * block.msa_block(z)


def _with_default_heads(block, *given):
    mlp_size, dim = block.mlp_block.mlp.get_parameter("0.weight").shape
    other = TransformerEncoderBlock(dim, 12, mlp_size).eval()
    other.load_state_dict(block.state_dict())
    return _scaled(other, *given)


BLOCKS = {
    _both(lambda f, z, gamma: gamma * f(z)): (
        "the residual connections are missing: γ scales the output of a branch, and "
        "then the input is added."
    ),
    _both(lambda f, z, gamma: gamma * (z + f(z))): (
        "γ scales the whole sum. The tokens that came in must pass unchanged: z + γ · "
        "f(z), not γ · (z + f(z))."
    ),
    _both(lambda f, z, gamma: gamma * z + f(z)): (
        "γ scales the skip connection. It belongs to the residual branch: z + γ · f(z)."
    ),
    _both(lambda f, z, gamma: z + f(gamma * z)): (
        "γ stands before the branch, where the LayerNorm undoes most of it. It scales "
        "what comes out: γ · f(z)."
    ),
    _both(lambda f, z, gamma: z + gamma * f(f.layer_norm(z))): (
        "tokens are normalised twice: `msa_block` and `mlp_block` begin with a "
        "LayerNorm of their own."
    ),
    _both(
        lambda f, z, gamma: z + gamma * (f.mlp if hasattr(f, "mlp") else f.attention)(z)
    ): (
        "tokens are not normalised. Call `msa_block` and `mlp_block` as a whole; their "
        "LayerNorm is inside."
    ),
    lambda b, z, one, two: z + one * b.msa_block(z) + two * b.mlp_block(z): (
        "both branches read the tokens that came in. The MLP reads z', which includes "
        "the output of attention already."
    ),
    _mlp_first: "the MLP comes first. Equation 2 is attention, Equation 3 the MLP.",
    lambda b, z, one, two: z + two * b.mlp_block(z + one * b.msa_block(z)): (
        "the second sum adds the block's input. Equation 3 adds z', the result of "
        "Equation 2."
    ),
    lambda b, z, one, two: z + one * b.msa_block(z): (
        "the MLP's branch is missing: this is Equation 2 alone."
    ),
    lambda b, z, one, two: _scaled(b, z, two, one): (
        "the two γ are swapped: `gamma_msa` scales attention."
    ),
    (
        lambda b, z, one, two: _scaled(b, z, one, one),
        lambda b, z, one, two: _scaled(b, z, two, two),
    ): (
        "one γ scales both branches. Attention has its own, `gamma_msa`, and the MLP, "
        "`gamma_mlp`."
    ),
    lambda b, z, one, two: _scaled(b, z, one, 1): (
        "`gamma_mlp` is not used: the MLP's branch is added in full."
    ),
    lambda b, z, one, two: _scaled(b, z, 1, two): (
        "`gamma_msa` is not used: attention's branch is added in full."
    ),
    lambda b, z, one, two: _scaled(b, z, 1, 1): (
        "neither γ is used: both branches are added in full."
    ),
    _with_default_heads: (
        "attention has 12 heads, its default: `num_heads` does not reach it."
    ),
}


def _load_block(module: nn.Module, block: nn.Module, *given: Tensor) -> None:
    """Looks at both γ, and gives the learner's block the weights of the lesson's."""
    start = STARTS[given[0].shape[-1]][2]
    gammas = [module.get_parameter(name) for name in ("gamma_msa", "gamma_mlp")]
    hint(
        gammas[0].data_ptr() != gammas[1].data_ptr(),
        "both branches share one γ, or its memory. Their outputs differ; each needs a "
        "tensor of its own.",
    )
    for gamma in gammas:
        hint(
            gamma.numel() > 1,
            "γ is one value for the whole token. LayerScale learns one for each of the "
            "D features.",
        )
        hint(
            equal(gamma, torch.full_like(gamma, start)),
            f"γ must be initialised to `start` in all entries, here {start}; found "
            f"{gamma.flatten()[0].item():.3g} in the first",
        )
    names = module.eval().load_state_dict(block.state_dict(), strict=False)
    unknown = {name.split(".")[0] for name in names.unexpected_keys}
    hint(
        not unknown,
        f"the module has no `{min(unknown, default='')}` with the parameters of "
        "lesson 07's or 08's block; the table names the attributes",
    )
    # The gammas are no part of the lesson's block. A parameter may have two names.
    strange = set(names.missing_keys) - {"gamma_msa", "gamma_mlp"}
    all_names = module.named_parameters(remove_duplicate=False)
    asked_for = {id(p) for name, p in all_names if name not in strange}
    more = [name for name, p in module.named_parameters() if id(p) not in asked_for]
    hint(not more, f"what is `{min(more, default='')}` for? The table has no such part")


def _does_not_fit(error: Exception) -> str:
    if "size mismatch" not in str(error):
        return ""
    return (
        "`msa_block` or `mlp_block` has another size than asked for: does each of "
        "`embedding_dim`, `num_heads` and `mlp_size` reach them?"
    )


check_layer_scale_block = Task(
    "LayerScaleBlock",
    "LayerScale: a factor for each feature of each branch",
    Case(
        sizes=lambda block, z, *_: (z.shape[-1], *STARTS[z.shape[-1]]),
        made=_load_block,
        parameters=("gamma_msa", "gamma_mlp"),
        inputs=_inputs_of_blocks,
        call=lambda forward, block, *given: forward(*given),
        right=_scaled,
        mistakes=BLOCKS,
        explain=_does_not_fit,
        tolerance=1e-4,
        advice="Compare your two sums with the two equations, term by term.",
    ),
)

# 3. Find the bugs: DropPath


def _batches(images: int, rate: float) -> tuple:
    """A branch without zeros, a rate, and how many batches are drawn."""
    g = torch.Generator().manual_seed(images)
    return torch.rand(images, 2, 3, generator=g) + 1, rate, 200 if images > 1 else 2000


def _training(answer, branch: Tensor, rate: float, count: int):
    """What a function does in training, whatever it draws."""
    factors, before = [], branch.detach().clone()
    for _ in range(count):
        out = answer(branch, rate, True)
        if not isinstance(out, Tensor) or out.shape != branch.shape:
            return out
        hint(torch.equal(branch.detach(), before), CHANGED)
        factors.append(out.detach() / before)
        if len(factors) == 1 and out.any() and branch.requires_grad:
            hint(out.requires_grad, CUT)
            (slope,) = torch.autograd.grad(out.sum(), branch, allow_unused=True)
            hint(slope is not None, CUT)
            text = "the gradient does not fit what comes out: is a part of it cut off?"
            hint(equal(slope, factors[-1]), text)
    all_factors = torch.stack(factors)  # (batches, images, tokens, features)
    gone = all_factors == 0
    hint(
        len(branch) == 1 or gone.all() or not gone.any() or (gone != gone[0]).any(),
        "each call drops the same images. Draw anew each time, without a seed and "
        "without a fixed choice.",
    )
    kept, dropped = all_factors[~gone], gone.flatten(2).all(2)
    spread = dropped.sum(1).double().std() / (len(branch) * rate * (1 - rate)) ** 0.5
    return {
        "fraction dropped": round(gone.double().mean().item(), 1),
        "whole images": torch.equal(gone.flatten(2).any(2), dropped),
        "whole tokens": torch.equal(gone.any(3), gone.all(3)),
        "least factor": kept.min().item() if len(kept) else 0.0,
        "largest factor": kept.max().item() if len(kept) else 0.0,
        "spread of the number dropped": round(spread.item()),
    }


def _keep(branch: Tensor, rate: float, axes: int = 1) -> Tensor:
    """Draws for each image, token (`axes=2`) or value (`axes=3`): 1 is kept."""
    shape = [*branch.shape[:axes], 1, 1, 1][:3]
    return (torch.rand(shape) >= rate).float()


def _drops(drop: Callable) -> Callable:
    """What `drop(branch, rate)` does in training."""
    return lambda *given: _training(lambda z, rate, _: drop(z, rate), *given)


def _fixed_number(branch: Tensor, rate: float) -> Tensor:
    keep = torch.ones(len(branch), 1, 1)
    keep[torch.randperm(len(branch))[: int(rate * len(branch))]] = 0
    return branch * keep / (1 - rate)


DROPS = {
    _drops(lambda z, rate: z): "in training (training=True) nothing is dropped.",
    _drops(lambda z, rate: z * (torch.rand(1) >= rate) / (1 - rate)): (
        "all images of a batch are dropped together: there is one draw for the batch. "
        "Draw once per image: a tensor of shape (B, 1, 1)."
    ),
    _drops(lambda z, rate: z * _keep(z, rate, 3) / (1 - rate)): (
        "single values are dropped, as nn.Dropout does. DropPath drops the branch of "
        "an image as a whole or not at all."
    ),
    _drops(lambda z, rate: z * _keep(z, rate, 2) / (1 - rate)): (
        "tokens are dropped one by one. DropPath drops all tokens of an image or none: "
        "one draw per image."
    ),
    _drops(lambda z, rate: z * (torch.rand(len(z)) >= rate) / (1 - rate)): (
        "your draws do not fit the branch. One value per image, to be multiplied with "
        "(B, N, D), has the shape (B, 1, 1)."
    ),
    (
        _drops(lambda z, rate: z * _keep(z, 1 - rate) / rate),
        _drops(lambda z, rate: z * _keep(z, 1 - rate) / (1 - rate)),
    ): (
        "`rate` is the probability of dropping an image; your function keeps it with "
        "that probability."
    ),
    _drops(lambda z, rate: z * _keep(z, rate)): (
        "what is kept is not scaled up, so the mean over many draws is too small. What "
        "must it be divided by, so that the expected value stays the same?"
    ),
    _drops(lambda z, rate: z * _keep(z, rate) * (1 - rate)): (
        "what is kept is multiplied by 1 - rate. It has to grow to keep the mean."
    ),
    _drops(lambda z, rate: z * _keep(z, rate) / rate): (
        "what is kept is divided by rate, the drop probability. What is the "
        "probability of keeping an image?"
    ),
    _drops(lambda z, rate: z * _keep(z, rate) * (1 + rate)): (
        "what is kept is multiplied by 1 + rate: close, but the mean is not kept."
    ),
    _drops(_fixed_number): (
        "the same number of images is dropped in every batch, and an image that is "
        "alone in its batch never. Draw for each image by itself."
    ),
}
check_mended_drop_path = Task(
    "mended_drop_path",
    "mended: whole images, the same expectation, in training only",
    Case(
        inputs=[(*_batches(5, rate)[:2], False) for rate in (0.4, 0.7)],
        right=lambda branch, rate, training: branch,
        mistakes={
            (lambda z, rate, _: z * (1 - rate), lambda z, rate, _: z / (1 - rate)): (
                "evaluation scales the branch. The factor belongs to training, so that "
                "evaluation can use the branch as it is."
            )
        },
        advice="In evaluation (training=False) the branch must come back as it is.",
    ),
    Case(
        inputs=[_batches(10, 0.3), _batches(10, 0.8), _batches(1, 0.3)],
        call=_training,
        right=_drops(lambda z, rate: z * _keep(z, rate) / (1 - rate)),
        mistakes=DROPS,
        advice="Draw for each image by itself; divide what is kept by 1 - rate.",
    ),
    Case(
        inputs=[(*_batches(5, 0.0)[:2], True)],
        right=lambda branch, rate, training: branch,
        advice="With rate 0 the branch must come back as it is.",
    ),
)

# 4. How alike tokens become


class _Step(nn.Module):
    """A simple block for tokens of any size."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, z: Tensor) -> Tensor:
        if self.kind == "mean":  # as attention does, a little
            return z + z.mean(dim=1, keepdim=True)
        if self.kind == "lengths":  # changes no angle
            return z * torch.arange(1.0, z.shape[1] + 1)[:, None]
        return (2 * z).sin()


def _inputs_of_similarity() -> list[tuple]:
    g, inputs = torch.Generator().manual_seed(3), []
    for kinds in (("mean", "sine", "lengths"), ("sine", "mean", "mean", "sine")):
        blocks = nn.Sequential(*map(_Step, kinds))
        sizes = (3, 5, 4), (2, 7, 3), (1, 2, 6), (4, 4, 4)
        tokens = [torch.randn(size, generator=g) for size in sizes]
        tokens.append(torch.ones(2, 3, 4) + 0.1 * tokens[0][:2, :3])
        tokens.append(tokens[0][:, [0, 0, 1, 2]])  # two are equal
        inputs += [(blocks, z) for z in tokens]
    return inputs


def _cosines(z: Tensor, axis: int = -1) -> Tensor:
    unit = F.normalize(z, dim=axis)
    return unit @ unit.mT  # (B, N, N)


def _pairs(table: Tensor) -> Tensor:
    """The entries of two different tokens, of a table (B, N, N) or (N, N)."""
    return table[..., ~torch.eye(table.shape[-1], dtype=torch.bool)]


def _by_layer(measure: Callable, chain: bool = True) -> Callable:
    """A function of blocks and tokens: the measure after each block."""

    def by_layer(blocks, tokens):
        found, z = [], tokens
        for block in blocks:
            z = block(z if chain else tokens)
            found.append(float(measure(z)))
        return found

    return by_layer


def _mean(z: Tensor) -> Tensor:
    return _pairs(_cosines(z)).mean()


_right = _by_layer(_mean)
SIMILARITIES = {
    _by_layer(lambda z: _cosines(z).mean()): (
        "each token's similarity with itself, which is 1, is in the mean. Leave the "
        "diagonal out, also in what you divide by."
    ),
    _by_layer(lambda z: _pairs(_cosines(z)).sum() / _cosines(z).numel()): (
        "the diagonal is left out of the sum, and not of the count: there are N · (N - "
        "1) pairs of different tokens, not N²."
    ),
    _by_layer(lambda z: _mean(z.flatten(0, 1))): (
        "tokens of different images are compared, too. Only pairs within one image "
        "count."
    ),
    _by_layer(lambda z: _pairs(z @ z.mT).mean()): (
        "these are products, not cosines: divide each token by its length first "
        "(F.normalize over the last axis)."
    ),
    _by_layer(lambda z: _pairs(_cosines(z, axis=1)).mean()): (
        "lengths are taken over another axis than D. A token is one row of D features: "
        "dim=-1."
    ),
    _by_layer(lambda z: _cosines(z).diagonal(1, 1, 2).mean()): (
        "only neighbours are compared, token n with n + 1. All pairs count."
    ),
    _by_layer(lambda z: _pairs(_cosines(z)).abs().mean()): (
        "the sign is lost: cosines may be below zero."
    ),
    _by_layer(lambda z: _mean(z.mT)): (
        "this is the similarity of the D features to each other. Tokens are the rows, "
        "axis 1."
    ),
    _by_layer(lambda z: _mean(z.transpose(0, 1))): (
        "images are compared with each other. Compare the tokens within each."
    ),
    _by_layer(lambda z: _mean(z[:1])): (
        "only the first image is measured. Take the mean over all of them."
    ),
    _by_layer(lambda z: _cosines(z)[:, 0, 1:].mean()): (
        "only pairs with the first token are measured. All pairs count."
    ),
    _by_layer(lambda z: _cosines(z)[_cosines(z) < 0.99999].mean()): (
        "pairs are left out because their cosine is 1. Two different tokens may be "
        "alike; leave out the diagonal by its place."
    ),
    _by_layer(lambda z: _mean(z) / 2): (
        "half of the pairs are in the sum, and all in the count."
    ),
    _by_layer(_mean, chain=False): (
        "each block gets the first tokens again. The second block must get what the "
        "first gave back."
    ),
    lambda blocks, z: [_mean(z).item(), *_right(blocks, z)[:-1]]: (
        "the values belong to the tokens before each block. Measure after it."
    ),
    lambda blocks, z: [_mean(z).item(), *_right(blocks, z)]: (
        "there is one value more than there are blocks: the tokens that come in are "
        "not to be measured."
    ),
    lambda blocks, z: _right(blocks, z)[-1:]: (
        "there is one value, of the last block. Give back one for each block."
    ),
}


def _floats(answer, *given):
    found = answer(*given)
    tensors = isinstance(found, list) and any(isinstance(v, Tensor) for v in found)
    hint(not tensors, "the list holds a tensor, expected a number: `.item()`")
    return found


check_similarity_by_layer = Task(
    "similarity_by_layer",
    "similarity of different tokens, after each block",
    Case(
        inputs=_inputs_of_similarity,
        call=_floats,
        right=_right,
        mistakes=SIMILARITIES,
        gradient=False,
        advice="In steps: cosines of all pairs, those of different tokens, mean.",
    ),
)
