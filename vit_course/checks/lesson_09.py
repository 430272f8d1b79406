"""Checks of the exercises of lesson 09: residual connections and the encoder."""

import torch
import torch.nn.functional as F
from torch import nn

from going_modular.encoder import TransformerEncoderBlock
from vit_course.checks.hints import (
    CHANGED,
    NO_RETURN,
    Hint,
    compare,
    equal,
    hint,
    in_place,
    is_a_class,
    learners_code,
    passed,
    with_parameters,
)

CUT = (
    "no gradient arrives at the branch, so nothing before it can be trained. `detach`, "
    "`.data`, numpy and `no_grad` cut the graph; integers have no gradient"
)


class _Branch(nn.Module):
    """A branch that keeps the shape, mixes tokens and is not linear."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(embedding_dim, embedding_dim))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return _branch(z, self.weight)


def _branch(z: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (z @ weight).tanh() + 0.5 * z.roll(1, dims=1)


def _norm(z, scale, bias, eps: float = 1e-6):
    return F.layer_norm(z, z.shape[-1:], scale, bias, eps)


def _pre_norm(z, scale, bias, weight, eps: float = 1e-6):
    return z + _branch(_norm(z, scale, bias, eps), weight)


RESIDUAL_MISTAKES = {
    "that is post-norm, LN(z + f(z)): the norm is applied to the sum. In the ViT it "
    "belongs to the residual branch, and the skip connection passes z on as it is.": (
        lambda z, g, b, w: _norm(z + _branch(z, w), g, b)
    ),
    "the skip connection is missing: the input is not added to the output of `fn`.": (
        lambda z, g, b, w: _branch(_norm(z, g, b), w)
    ),
    "`fn` gets tokens that are not normalised. LN comes before it: f(LN(z)).": (
        lambda z, g, b, w: z + _branch(z, w)
    ),
    "the skip connection is normalised, too: LN(z) + f(LN(z)). It must add z as it "
    "came in; the lesson ends with this mistake.": (
        lambda z, g, b, w: _norm(z, g, b) + _branch(_norm(z, g, b), w)
    ),
    "the norm comes after `fn`: z + LN(f(z)). Equation 2 has it before: z + "
    "f(LN(z)).": (lambda z, g, b, w: z + _norm(_branch(z, w), g, b)),
    "the sum is normalised once more. After the sum nothing follows.": (
        lambda z, g, b, w: _norm(_pre_norm(z, g, b, w), g, b)
    ),
    "`fn` gets the sum z + LN(z). It gets LN(z) alone; z is added to its output.": (
        lambda z, g, b, w: _branch(z + _norm(z, g, b), w)
    ),
    "right but for tokens of small variance: does the LayerNorm have an eps of 1e-6?": (
        lambda z, g, b, w: _pre_norm(z, g, b, w, eps=1e-5)
    ),
}


def check_residual(answer: type) -> None:
    """Checks a wrapper that computes z + f(LN(z)) for any module f.

    Raises:
        Hint: it is not right yet.
    """
    is_a_class(answer, "Residual")
    generator = torch.Generator().manual_seed(9)

    def draw(*shape, scale=1.0):
        return scale * torch.randn(*shape, generator=generator)

    for dim in (4, 7):
        with learners_code():
            module = answer(dim, _Branch(dim))
        names = ("layer_norm.weight", "layer_norm.bias", "fn.weight")
        inputs = [
            (draw(b, n, dim, scale=scale), draw(dim), draw(dim), draw(dim, dim))
            for b, n, scale in ((2, 5, 1.0), (1, 3, 2.0), (3, 6, 1.0), (2, 5, 0.002))
        ]
        compare(
            with_parameters(module, *names),
            _pre_norm,
            inputs,
            RESIDUAL_MISTAKES,
            advice="Read Equation 2 from the inside out: LN first, then fn, then + z.",
        )
    passed("z + f(LN(z)), for any f")


def _random_block(dim: int, heads: int, mlp_size: int) -> TransformerEncoderBlock:
    """Makes a block of the lesson with random weights, in evaluation."""
    block = TransformerEncoderBlock(dim, heads, mlp_size, mlp_dropout=0.0).eval()
    generator = torch.Generator().manual_seed(dim)
    with torch.no_grad():
        for p in block.parameters():
            p.normal_(std=0.4, generator=generator)
    return block


def _with_default_heads(block: TransformerEncoderBlock) -> TransformerEncoderBlock:
    mlp_size, dim = block.mlp_block.mlp.get_parameter("0.weight").shape
    other = TransformerEncoderBlock(dim, 12, mlp_size)
    other.load_state_dict(block.state_dict())
    return other.eval()


def _layer_scale(block: TransformerEncoderBlock):
    def call(z, one, two):
        z = z + one * block.msa_block(z)
        return z + two * block.mlp_block(z)

    return call


def _layer_scale_mistakes(block: TransformerEncoderBlock) -> dict:
    """Hint -> what a block with that mistake computes."""
    msa, mlp, right = block.msa_block, block.mlp_block, _layer_scale(block)

    def no_sums(z, one, two):
        return two * mlp(one * msa(z))

    def sum_scaled(z, one, two):
        z = one * (z + msa(z))
        return two * (z + mlp(z))

    def skip_scaled(z, one, two):
        z = one * z + msa(z)
        return two * z + mlp(z)

    def scaled_before(z, one, two):
        z = z + msa(one * z)
        return z + mlp(two * z)

    def side_by_side(z, one, two):
        return z + one * msa(z) + two * mlp(z)

    def mlp_first(z, one, two):
        z = z + two * mlp(z)
        return z + one * msa(z)

    def sum_of_first(z, one, two):
        return z + two * mlp(z + one * msa(z))

    def attention_only(z, one, two):
        return z + one * msa(z)

    def without_norm(z, one, two):
        z = z + one * msa.attention(z)
        return z + two * mlp.mlp(z)

    def normed(z, one, two):
        z = z + one * msa(msa.layer_norm(z))
        return z + two * mlp(mlp.layer_norm(z))

    def unit(z):
        return torch.ones_like(z[0, 0])

    found = {
        "the residual connections are missing: γ scales the output of a branch, and "
        "then the input is added.": no_sums,
        "γ scales the whole sum. The tokens that came in must pass unchanged: "
        "z + γ · f(z), not γ · (z + f(z)).": sum_scaled,
        "γ scales the skip connection. It belongs to the residual branch: z + γ · "
        "f(z).": skip_scaled,
        "γ stands before the branch, where the LayerNorm undoes most of it. It scales "
        "what comes out: γ · f(z).": scaled_before,
        "both branches read the tokens that came in. The MLP reads z', which includes "
        "the output of attention already.": side_by_side,
        "the MLP comes first. Equation 2 is attention, Equation 3 the MLP.": mlp_first,
        "the second sum adds the block's input. Equation 3 adds z', the result of "
        "Equation 2.": sum_of_first,
        "tokens are normalised twice: `msa_block` and `mlp_block` begin with a "
        "LayerNorm of their own.": normed,
        "the MLP's branch is missing: this is Equation 2 alone.": attention_only,
        "tokens are not normalised. Call `msa_block` and `mlp_block` as a whole; their "
        "LayerNorm is inside.": without_norm,
        "the two γ are swapped: `gamma_msa` scales attention.": (
            lambda z, one, two: right(z, two, one)
        ),
        "`gamma_msa` scales both branches. The MLP has its own: `gamma_mlp`.": (
            lambda z, one, two: right(z, one, one)
        ),
        "`gamma_mlp` scales both branches. Attention has its own: `gamma_msa`.": (
            lambda z, one, two: right(z, two, two)
        ),
        "`gamma_mlp` is not used: the MLP's branch is added in full.": (
            lambda z, one, two: right(z, one, unit(z))
        ),
        "`gamma_msa` is not used: attention's branch is added in full.": (
            lambda z, one, two: right(z, unit(z), two)
        ),
        "neither γ is used: both branches are added in full.": (
            lambda z, one, two: right(z, unit(z), unit(z))
        ),
    }
    if msa.attention.out_proj.in_features % 12 == 0:
        heads = "attention has 12 heads, its default: `num_heads` does not reach it."
        found[heads] = _layer_scale(_with_default_heads(block))
    return found


def _weights_that_do_not_fit(error: Exception) -> str:
    if "size mismatch" in str(error):
        return (
            "`msa_block` or `mlp_block` has another size than asked for: does each of "
            "`embedding_dim`, `num_heads` and `mlp_size` reach them?"
        )
    return ""


def check_layer_scale_block(answer: type) -> None:
    """Checks an encoder block whose branches are scaled by learned factors.

    Raises:
        Hint: it is not right yet.
    """
    is_a_class(answer, "LayerScaleBlock")
    for dim, heads, mlp_size, start in ((24, 3, 20, 0.1), (10, 5, 16, 0.02)):
        with learners_code():
            module = answer(
                embedding_dim=dim, num_heads=heads, mlp_size=mlp_size, start=start
            ).eval()
        block = _random_block(dim, heads, mlp_size)
        _check_gammas(module, dim, start)
        with learners_code(_weights_that_do_not_fit):
            names = module.load_state_dict(block.state_dict(), strict=False)
        _check_names(names, module)
        generator = torch.Generator().manual_seed(dim)
        inputs = [
            (
                torch.randn(b, n, dim, generator=generator),
                torch.randn(dim, generator=generator),
                torch.randn(dim, generator=generator),
            )
            for b, n in ((2, 5), (1, 3), (3, 7))
        ]
        compare(
            with_parameters(module, "gamma_msa", "gamma_mlp"),
            _layer_scale(block),
            inputs,
            _layer_scale_mistakes(block),
            tolerance=1e-4,
            advice="Compare your two sums with the two equations, term by term.",
        )
    passed("LayerScale: a factor for each feature of each branch")


def _check_gammas(module: nn.Module, dim: int, start: float) -> None:
    names = "gamma_msa", "gamma_mlp"
    gammas = [getattr(module, name, None) for name in names]
    hint(
        gammas[0] is None or gammas[0] is not gammas[1],
        "both branches share one γ. Their outputs differ; each needs its own.",
    )
    with_parameters(module, *names)
    gammas = [module.get_parameter(name) for name in names]
    for gamma in gammas:
        hint(
            gamma.numel() > 1,
            "γ is one value for the whole token. LayerScale learns one for each of the "
            "D features.",
        )
        hint(
            tuple(gamma.shape) == (dim,),
            f"γ has shape {tuple(gamma.shape)}, expected (D,) = ({dim},): one vector, "
            "the same for all tokens",
        )
        hint(
            equal(gamma, torch.full((dim,), start)),
            f"γ must be initialised to `start` in all entries, here {start}; found "
            f"{gamma[0].item():.3g} in the first",
        )
    hint(
        gammas[0].data_ptr() != gammas[1].data_ptr(),
        "both γ share memory: when one is trained, the other changes, too. Make a "
        "tensor for each.",
    )


def _check_names(names, module: nn.Module) -> None:
    """Checks that the lesson's block and the learner's have the same parameters."""
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


SIZE, RATE = (2000, 3, 2), 0.3  # images, tokens, features
ONE_DRAW = (
    "all images of a batch are dropped together: there is one draw for the batch. Draw "
    "once per image: a tensor of shape (B, 1, 1)."
)
ONE_VALUE = (
    "your draws do not fit the branch. One value per image, to be multiplied with (B, "
    "N, D), has the shape (B, 1, 1)."
)


def _draw_does_not_fit(error: Exception) -> str:
    return ONE_VALUE if "must match the size" in str(error) else in_place(error)


def _run_drop_path(answer, branch, rate, training, seed: int = 0) -> torch.Tensor:
    """Calls the answer, and checks shape, type and that its input is left alone."""
    given = branch.clone().requires_grad_()
    torch.manual_seed(seed)
    with learners_code(_draw_does_not_fit):
        out = answer(given, rate, training)
    hint(out is not None, NO_RETURN)
    hint(isinstance(out, torch.Tensor), "give back a tensor, the branch")
    hint(
        out.shape == branch.shape,
        f"for a branch of shape {tuple(branch.shape)} it gives {tuple(out.shape)}; the "
        "shape must stay",
    )
    hint(torch.equal(given.detach(), branch), CHANGED)
    if not out.any():
        return out.detach()  # all dropped: zeros need no gradient
    hint(out.requires_grad, CUT)
    (gradient,) = torch.autograd.grad(out.sum(), given, allow_unused=True)
    hint(gradient is not None, CUT)
    hint(
        # The branch holds no zeros, so the factor can be read from the output.
        equal(gradient, out.detach() / branch),
        "the gradient does not fit what comes out: is a part of it cut off?",
    )
    return out.detach()


def _check_evaluation(answer, branch: torch.Tensor) -> None:
    for seed in range(12):
        rate = (0.4, 0.7)[seed % 2]
        out = _run_drop_path(answer, branch, rate, False, seed)
        hint(
            not equal(out, branch * (1 - rate)) and not equal(out, branch / (1 - rate)),
            "evaluation scales the branch. The factor belongs to training, so that "
            "evaluation can use the branch as it is.",
        )
        hint(
            equal(out, branch),
            "in evaluation (training=False) the branch must come back as it is, with "
            "nothing dropped and nothing scaled.",
        )


def _check_whole_images(gone: torch.Tensor) -> None:
    """Checks that all values of an image are dropped, or none: gone is (B, N, D)."""
    if torch.equal(gone.flatten(1).any(1), gone.flatten(1).all(1)):
        return
    hint(
        not torch.equal(gone.any(2), gone.all(2)),
        "tokens are dropped one by one. DropPath drops all tokens of an image or none: "
        "one draw per image.",
    )
    raise Hint(
        "single values are dropped, as nn.Dropout does. DropPath drops the branch of "
        "an image as a whole or not at all."
    )


def _check_factor(out: torch.Tensor, branch: torch.Tensor, rate: float) -> None:
    factor = (out / branch)[out != 0]
    hint(
        not equal(factor, torch.ones_like(factor)),
        "what is kept is not scaled up, so the mean over many draws is too small. What "
        "must it be divided by, so that the expected value stays the same?",
    )
    for wrong, text in (
        (1 - rate, "is multiplied by 1 - rate. It has to grow to keep the mean"),
        (1 / rate, "is divided by rate, the drop probability"),
        (1 + rate, "is multiplied by 1 + rate: close, but the mean is not kept"),
    ):
        hint(
            not equal(factor, torch.full_like(factor, wrong)),
            f"what is kept {text}. What is the probability of keeping an image?",
        )
    hint(
        equal(factor, torch.full_like(factor, 1 / (1 - rate))),
        "what is kept must be the branch divided by 1 - rate, in all images alike.",
    )


def check_mended_drop_path(answer) -> None:
    """Checks DropPath as a function: whole images, same expectation, training only.

    Raises:
        Hint: it is not right yet.
    """
    generator = torch.Generator().manual_seed(0)

    def branch(*size):
        return torch.rand(size, generator=generator) + 1  # no zeros

    _check_evaluation(answer, branch(5, 2, 3))
    small = branch(50, 2, 3)
    counts = set()
    for seed in range(12):
        gone = _run_drop_path(answer, small, 0.4, True, seed) == 0
        _check_whole_images(gone)
        counts.add(int(gone[:, 0, 0].sum()))
    hint(counts != {0}, "in training (training=True) nothing is dropped.")
    hint(not counts <= {0, 50}, ONE_DRAW)

    large = branch(*SIZE)
    for rate in (RATE, 0.8):
        out = _run_drop_path(answer, large, rate, True)
        _check_whole_images(out == 0)
        fraction = (out[:, 0, 0] == 0).float().mean().item()
        hint(
            abs(fraction - 1 + rate) > 0.05,
            "`rate` is the probability of dropping an image; your function keeps it "
            "with that probability.",
        )
        hint(
            abs(fraction - rate) < 0.05,
            f"for rate {rate}, a fraction of {fraction:.2f} of {SIZE[0]} images is "
            "dropped",
        )
        _check_factor(out, large, rate)
    again = _run_drop_path(answer, large, RATE, True, seed=1)
    hint(
        not torch.equal(again == 0, _run_drop_path(answer, large, RATE, True) == 0),
        "each call drops the same images. Draw anew each time, without a seed and "
        "without a fixed choice.",
    )
    _check_draws(answer, branch(1, 3, 4), small)
    hint(
        equal(_run_drop_path(answer, small, 0.0, True), small),
        "with rate 0 the branch must come back as it is.",
    )
    passed("mended: whole images, the same expectation, in training only")


def _check_draws(answer, single: torch.Tensor, several: torch.Tensor) -> None:
    """Checks that each image is drawn for itself, whatever the size of the batch."""
    alone = [
        bool(_run_drop_path(answer, single, RATE, True, seed).any())
        for seed in range(300)
    ]
    kept = sum(alone) / len(alone)
    hint(
        abs(kept - 1 + RATE) < 0.12,
        f"an image that is alone in its batch is kept in a fraction of {kept:.2f} of "
        f"the passes, with rate {RATE}. Draw for each image by itself, not a fixed "
        "number of each batch.",
    )
    counts = {
        int((_run_drop_path(answer, several, RATE, True, seed) == 0)[:, 0, 0].sum())
        for seed in range(12)
    }
    hint(
        len(counts) > 1,
        "the same number of images is dropped in every batch. Draw for each image by "
        "itself.",
    )


class _Step(nn.Module):
    """A simple block for tokens of any size."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        if self.kind == "mean":  # as attention does, a little
            return z + z.mean(dim=1, keepdim=True)
        if self.kind == "lengths":  # changes no angle
            return z * torch.arange(1.0, z.shape[1] + 1)[:, None]
        return (2 * z).sin()


def _unit(z: torch.Tensor) -> torch.Tensor:
    return F.normalize(z, dim=-1)


def _mean_of_pairs(z: torch.Tensor) -> float:
    """Mean cosine similarity of two different tokens of an image, by a loop."""
    n, found = z.shape[1], []
    for image in _unit(z):
        found += [image[i] @ image[j] for i in range(n) for j in range(n) if i != j]
    return torch.stack(found).mean().item()


def _all_images(z: torch.Tensor) -> float:
    return _mean_of_pairs(z.flatten(0, 1)[None])


def _by_layer(blocks, measure=_mean_of_pairs, start: int = 1, chain: bool = True):
    """Gives a function: tokens -> the measure after each block."""

    def call(tokens):
        found, z = [] if start else [measure(tokens)], tokens
        for block in blocks:
            z = block(z if chain else tokens)
            found.append(measure(z))
        return found if start else found[:-1]

    return call


def _similarity_mistakes(blocks) -> dict:
    def table(z):
        return _unit(z) @ _unit(z).mT  # (B, N, N)

    def others(z):
        return ~torch.eye(z.shape[1], dtype=torch.bool)

    measures = {
        "each token's similarity with itself, which is 1, is in the mean. Leave the "
        "diagonal out, also in what you divide by.": lambda z: table(z).mean(),
        "the diagonal is left out of the sum, and not of the count: there are "
        "N · (N - 1) pairs of different tokens, not N².": (
            lambda z: (table(z) * others(z)).mean()
        ),
        "tokens of different images are compared, too. Only pairs within one image "
        "count.": _all_images,
        "these are products, not cosines: divide each token by its length first "
        "(F.normalize over the last axis).": lambda z: (z @ z.mT)[:, others(z)].mean(),
        "lengths are taken over another axis than D. A token is one row of D features: "
        "dim=-1.": (
            lambda z: (F.normalize(z, dim=1) @ F.normalize(z, dim=1).mT)[
                :, others(z)
            ].mean()
        ),
        "only neighbours are compared, token n with n + 1. All pairs count.": (
            lambda z: (_unit(z)[:, 1:] * _unit(z)[:, :-1]).sum(-1).mean()
        ),
        "the sign is lost: cosines may be below zero.": (
            lambda z: table(z)[:, others(z)].abs().mean()
        ),
        "this is the similarity of the D features to each other. Tokens are the rows, "
        "axis 1.": lambda z: torch.tensor(_mean_of_pairs(z.mT)),
        "images are compared with each other. Compare the tokens within each.": (
            lambda z: torch.tensor(_mean_of_pairs(z.transpose(0, 1)))
        ),
        "only the first image is measured. Take the mean over all of them.": (
            lambda z: torch.tensor(_mean_of_pairs(z[:1]))
        ),
        "only pairs with the first token are measured. All pairs count.": (
            lambda z: table(z)[:, 0, 1:].mean()
        ),
        "pairs are left out because their cosine is 1. Two different tokens may be "
        "alike; leave out the diagonal by its place.": (
            lambda z: table(z)[table(z) < 0.9999].mean()
        ),
        "half of the pairs are in the sum, and all in the count.": (
            lambda z: (
                table(z)[:, others(z).triu()].sum() / table(z)[:, others(z)].numel()
            )
        ),
    }
    found = {
        text: _by_layer(blocks, lambda z, m=m: float(m(z)))
        for text, m in measures.items()
    }
    found |= {
        "each block gets the first tokens again. The second block must get what the "
        "first gave back.": _by_layer(blocks, chain=False),
        "the values belong to the tokens before each block. Measure after it.": (
            _by_layer(blocks, start=0)
        ),
        "there is one value more than there are blocks: the tokens that come in are "
        "not to be measured.": (lambda z: [_mean_of_pairs(z), *_by_layer(blocks)(z)]),
        "there is one value, of the last block. Give back one for each block.": (
            lambda z: _by_layer(blocks)(z)[-1:]
        ),
    }
    return found


def check_similarity_by_layer(answer) -> None:
    """Checks the mean cosine similarity of different tokens after each block.

    Raises:
        Hint: it is not right yet.
    """
    generator = torch.Generator().manual_seed(3)
    for kinds in (("mean", "sine", "lengths"), ("sine", "mean", "mean", "sine")):
        blocks = nn.Sequential(*map(_Step, kinds))
        inputs = [
            (torch.randn(*size, generator=generator),)
            for size in ((3, 5, 4), (2, 7, 3), (1, 2, 6), (4, 4, 4))
        ]
        inputs.append((torch.ones(2, 3, 4) + 0.1 * inputs[0][0][:2, :3],))
        inputs.append((inputs[0][0][:, [0, 0, 1, 2]],))  # two are equal
        compare(
            lambda tokens, b=blocks: answer(b, tokens.detach()),
            _by_layer(blocks),
            inputs,
            _similarity_mistakes(blocks),
            gradient=False,
            advice="In steps: cosines of all pairs, those of different tokens, mean.",
        )
    passed("similarity of different tokens, after each block")
