"""Checks of the exercises of lesson 10: the whole model."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from going_modular.encoder import TransformerEncoder, TransformerEncoderBlock
from going_modular.multihead_attention import MultiheadSelfAttentionBlock
from going_modular.vit import ViT
from vit_course.checks.hints import (
    NO_RETURN,
    SHOWN_ONLY,
    as_number,
    compare,
    equal,
    hint,
    is_a_class,
    learners_code,
    passed,
    with_parameters,
)

TOKEN, POSITIONS = "embedding.class_token.weight", "embedding.position_embedding.weight"


def _random_vit(scale: float = 1.0, **sizes) -> ViT:
    """Makes a ViT with random weights, in evaluation.

    With a small scale all tokens are small, so that LayerNorm's eps is noticed.
    """
    vit = ViT(**sizes).eval()
    generator = torch.Generator().manual_seed(10)
    last = ("attention.out_proj", "mlp.3", "embedding.")
    with torch.no_grad():
        for name, p in vit.named_parameters():
            p.normal_(std=0.5, generator=generator)
            if any(part in name for part in last):
                p.mul_(scale)
    return vit


def check_mean_state(answer) -> None:
    """Checks the way from the weights of pool="cls" to those of pool="mean".

    Raises:
        Hint: it is not right yet.
    """
    small: dict[str, Any] = {"embedding_dim": 6, "mlp_size": 8}
    small |= {"num_heads": 2, "num_classes": 3}
    all_sizes = (
        small | {"img_size": 16, "patch_size": 4, "num_transformer_layers": 2},
        small | {"img_size": (36, 40), "patch_size": 4, "num_transformer_layers": 11},
        small | {"img_size": (4, 8), "patch_size": 4, "num_transformer_layers": 1},
    )
    was_right = 0
    for sizes in all_sizes:
        state = _random_vit(**sizes).state_dict()
        before = {name: w.clone() for name, w in state.items()}
        with learners_code(was_right=was_right):
            found = answer(state)
        hint(found is not None, NO_RETURN)
        hint(
            isinstance(found, Mapping),
            f"give back a dict: names and tensors. It gives {type(found).__name__}.",
        )
        _check_names(set(found), set(before))
        not_tensors = [n for n, w in found.items() if not isinstance(w, torch.Tensor)]
        hint(not not_tensors, f"`{(not_tensors or [''])[0]}` is not a tensor any more")
        _check_positions(found[POSITIONS], before[POSITIONS], was_right)
        for name, w in found.items():
            same = name == POSITIONS or equal(w, before[name], tolerance=0)
            hint(same, f"`{name}` has changed. The two models share it as it is.")
        kept = set(state) == set(before) and all(
            torch.equal(w, before[name]) for name, w in state.items()
        )
        hint(
            kept,
            "the state dict that was given has changed: the model with the class token "
            "can no longer be loaded from it. Copy the dict first: `dict(state)`.",
        )
        with learners_code():
            mean = ViT(pool="mean", **cast(dict[str, Any], sizes))
            mean.load_state_dict(dict(found), strict=True)
        was_right += 1
    passed("weights for pool='mean': one name less, one row less")


def _check_names(found: set[str], given: set[str]) -> None:
    hint(
        TOKEN not in found,
        f"`{TOKEN}` is still there. The other model has no class token, and strict "
        "loading raises an error for an unexpected name.",
    )
    hint(
        POSITIONS in found,
        f"`{POSITIONS}` is gone. The patches need their positions; only the class "
        "token's row must go.",
    )
    missing, more = given - found - {TOKEN}, found - given
    hint(
        not missing,
        f"`{min(missing, default='')}` is missing. Both models have it.",
    )
    hint(not more, f"no model has `{min(more, key=str, default='')}`: keep the names.")


def _check_positions(found: torch.Tensor, given: torch.Tensor, was_right: int) -> None:
    expected = given[:, 1:]
    hint(
        found.shape != given.shape,
        f"the position embedding still has {given.shape[1]} rows, one of them for the "
        "class token. Without it there are N tokens.",
    )
    hint(
        not equal(found, given[:, :-1], 0),
        "the last row of the position embedding is cut off. Each patch would get the "
        "position of the one before: which row was the class token's?",
    )
    hint(
        not equal(found, expected[0], 0),
        "the position embedding has lost its first axis: (N, D) in place of (1, N, D).",
    )
    mine, right = tuple(found.shape), tuple(expected.shape)
    if mine != right:
        hint(not was_right, SHOWN_ONLY)
        hint(False, f"the position embedding has shape {mine}, expected {right}")
    hint(
        equal(found, expected, tolerance=0),
        "the position embedding has the right shape and other values. Each patch keeps "
        "its row as it was.",
    )


PYTORCH_NAMES = (
    ("msa_block.layer_norm", "norm1"),
    ("msa_block.attention.qkv.", "self_attn.in_proj_"),
    ("msa_block.attention.out_proj", "self_attn.out_proj"),
    ("mlp_block.layer_norm", "norm2"),
    ("mlp_block.mlp.0", "linear1"),
    ("mlp_block.mlp.3", "linear2"),
)


def _pytorch_encoder(vit: ViT, last_eps: float, changes: dict) -> nn.TransformerEncoder:
    """Makes PyTorch's encoder with the weights of a ViT; changes are mistakes."""
    block = cast(Any, vit.encoder[0])  # indexing gives a plain Module
    options: dict[str, Any] = {"activation": "gelu", "layer_norm_eps": 1e-6}
    options |= {"batch_first": True, "norm_first": True} | changes
    layer = nn.TransformerEncoderLayer(
        vit.head.in_features,
        block.msa_block.attention.num_heads,
        block.mlp_block.mlp[0].out_features,
        **options,
    )
    norm = nn.LayerNorm(vit.head.in_features, eps=last_eps)
    encoder = nn.TransformerEncoder(
        layer, len(vit.encoder), norm, enable_nested_tensor=False
    )
    state = {f"norm.{name}": w for name, w in vit.layer_norm.state_dict().items()}
    for name, w in vit.encoder.state_dict().items():
        for ours, theirs in PYTORCH_NAMES:
            name = name.replace(ours, theirs)
        state[f"layers.{name}"] = w
    encoder.load_state_dict(state)
    return encoder.eval()


def _first_token(tokens: torch.Tensor) -> torch.Tensor:
    return tokens[:, 0]


def _pytorch_vit(vit, read: Callable = _first_token, last_eps=1e-6, **changes):
    """Gives a function: images -> logits through PyTorch's encoder."""
    encoder = _pytorch_encoder(vit, last_eps, changes)
    return lambda images: vit.head(read(encoder(vit.embedding(images))))


def _built_in_mistakes(vit: ViT) -> dict[str, Callable]:
    make = partial(_pytorch_vit, vit)
    eps = "right but for small tokens: {} of PyTorch's 1e-5. The paper's code has 1e-6."
    return {
        "batch and tokens are mixed up: without `batch_first=True`, PyTorch takes axis "
        "0 for the tokens, and images attend to each other.": make(batch_first=False),
        "the layers are post-norm, PyTorch's default. The ViT normalises before "
        "attention and MLP.": make(norm_first=False),
        "the MLP has a ReLU, PyTorch's default. The paper has GELU.": (
            make(activation="relu")
        ),
        "close, but not equal: GELU in its tanh approximation. Ours uses erf.": (
            make(activation=partial(F.gelu, approximate="tanh"))
        ),
        "the head reads `[0]`: all tokens of the first image. It needs token 0 of each "
        "image.": make(lambda tokens: tokens[0]),
        "the head reads the last patch. The class token is token 0.": (
            make(lambda tokens: tokens[:, -1])
        ),
        "the head reads the first patch. The class token is token 0.": (
            make(lambda tokens: tokens[:, 1])
        ),
        "the head reads the mean over all tokens. Here it is the class token alone.": (
            make(lambda tokens: tokens.mean(dim=1))
        ),
        "the head reads the mean over the patches. Here it is the class token.": (
            make(lambda tokens: tokens[:, 1:].mean(dim=1))
        ),
        "there is one output for each token. Only the class token goes to the head.": (
            make(lambda tokens: tokens)
        ),
        "the outputs are probabilities. The model returns logits; the loss brings its "
        "own softmax.": lambda images: make()(images).softmax(dim=-1),
        "the class token is normalised once more. `encoder.norm` has done it.": (
            make(lambda tokens: vit.layer_norm(tokens[:, 0]))
        ),
        eps.format("all LayerNorms have the eps"): (
            make(layer_norm_eps=1e-5, last_eps=1e-5)
        ),
        eps.format("the layers have the eps"): make(layer_norm_eps=1e-5),
        eps.format("the last LayerNorm has the eps"): make(last_eps=1e-5),
    }


def _loading(error: Exception) -> str:
    """Hint for weights that do not fit the learner's model."""
    text = str(error)
    if "msa_block" in text:
        return (
            "the names of our weights were not translated: is `load_ours` as it was "
            "given, and have the cells above been run?"
        )
    if "Missing key" not in text and "Unexpected key" not in text:
        if "size mismatch" in text:
            return (
                "the weights of a model of other sizes do not fit: does each argument "
                "of `__init__` reach its part?"
            )
        return ""
    if "encoder.norm." in text and "encoder.layers.0." not in text:
        return (
            "Equation 4's LayerNorm is missing in `encoder`: nn.TransformerEncoder "
            "takes it as `norm`, and has none otherwise."
        )
    if "encoder.layers." in text and "encoder.layers.0." not in text:
        return "`encoder` has another number of layers than `num_transformer_layers`."
    first = text.splitlines()[1].strip() if "\n" in text else text
    return (
        "our weights do not find their places. The attributes are `embedding`, "
        f"`encoder` and `head`, as in the table. PyTorch says: {first[:120]}"
    )


def check_built_in_vit(answer: type) -> None:
    """Checks a ViT on nn.TransformerEncoder: our weights, our logits.

    Raises:
        Hint: it is not right yet.
    """
    is_a_class(answer, "BuiltInViT")
    rectangle = dict(img_size=(8, 12), patch_size=4, num_transformer_layers=2)
    rectangle |= dict(embedding_dim=12, mlp_size=20, num_heads=3, num_classes=5)
    square = dict(img_size=9, patch_size=3, num_transformer_layers=3)
    square |= dict(embedding_dim=8, mlp_size=10, num_heads=2, num_classes=2)
    generator = torch.Generator().manual_seed(1)
    for sizes, scale in ((rectangle, 1.0), (square, 1.0), (rectangle, 0.003)):
        vit = _random_vit(scale, **sizes)
        with learners_code():
            model = answer(**sizes)
        _check_parts(model)
        with learners_code(_loading):
            model.load_ours(vit.state_dict())
        counts = [sum(p.numel() for p in m.parameters()) for m in (model, vit)]
        hint(
            counts[0] == counts[1],
            f"the model has {counts[0]} parameters, ours of the same sizes {counts[1]}",
        )
        inputs = [
            (torch.rand(b, 3, *vit.embedding.img_size, generator=generator),)
            for b in (2, 1, 5)
        ]
        compare(
            model.eval(),
            vit,
            inputs,
            _built_in_mistakes(vit),
            advice="Lesson 09 lists the arguments that make PyTorch's layer ours.",
        )
    passed("our weights in PyTorch's encoder, our logits out of it")


def _check_parts(model: nn.Module) -> None:
    parts = list(model.modules())
    hint(
        any(isinstance(m, nn.TransformerEncoder) for m in parts),
        "the model has no nn.TransformerEncoder. This task wants PyTorch's encoder in "
        "the place of ours.",
    )
    hint(
        not any(isinstance(m, TransformerEncoderBlock) for m in parts),
        "the model still has blocks of the lesson. PyTorch's encoder replaces them.",
    )
    hint(
        hasattr(model, "load_ours"),
        "the method `load_ours` is gone; keep it as it was given.",
    )


def _equation_4(z, scale, bias, weight, offset, eps=1e-6, read=_first_token):
    y = F.layer_norm(read(z), z.shape[-1:], scale, bias, eps)
    return F.linear(y, weight, offset)


def _without_norm(z, scale, bias, weight, offset):
    return F.linear(z[:, 0], weight, offset)


def _first_image_for_all(z, *parameters):
    return _equation_4(z[:1].expand_as(z), *parameters)


HEAD_MISTAKES = {
    "`[0]` is still all tokens of the first image. Keep all of axis 0, the images; of "
    "axis 1, the tokens, take the first.": (partial(_equation_4, read=lambda z: z[0])),
    "all images get the logits of the first one.": _first_image_for_all,
    "this is the last token, a patch. The class token is token 0.": (
        partial(_equation_4, read=lambda z: z[:, -1])
    ),
    "this is the first patch. The class token is token 0.": (
        partial(_equation_4, read=lambda z: z[:, 1])
    ),
    "this is the mean over tokens. Equation 4 reads the class token.": (
        partial(_equation_4, read=lambda z: z.mean(dim=1))
    ),
    "there is one output for each token. Equation 4 reads the class token only.": (
        partial(_equation_4, read=lambda z: z)
    ),
    "the class token's axis is still there: (B, 1, K) in place of (B, K). An index, 0, "
    "takes an axis away; a slice, :1, keeps it.": (
        partial(_equation_4, read=lambda z: z[:, :1])
    ),
    "the first of the D features is taken, not the first token: [:, 0].": (
        lambda z, *parameters: _equation_4(z, *parameters, read=lambda z: z[..., 0])
    ),
    "LN is missing: the head gets the class token as the last block left it.": (
        _without_norm
    ),
    "right but for small tokens: the eps is PyTorch's 1e-5, the paper's code has "
    "1e-6.": partial(_equation_4, eps=1e-5),
    "the outputs are probabilities. The model returns logits; the loss brings its own "
    "softmax.": lambda *given: _equation_4(*given).softmax(dim=-1),
}


def check_mended_head(answer: type) -> None:
    """Checks Equation 4 with its head, for batches of every size.

    Raises:
        Hint: it is not right yet.
    """
    is_a_class(answer, "MendedHead")
    generator = torch.Generator().manual_seed(4)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    names = ("layer_norm.weight", "layer_norm.bias", "head.weight", "head.bias")
    for dim, classes in ((8, 3), (6, 4)):
        with learners_code():
            module = answer(dim, classes)
        inputs = [
            (scale * draw(b, n, dim), draw(dim), draw(dim), draw(classes, dim))
            for b, n, scale in (
                (5, 5, 1),
                (2, 7, 1),
                (1, 3, 1),
                (6, 2, 1),
                (3, 4, 0.003),
            )
        ]
        inputs = [(*given, draw(classes)) for given in inputs]
        compare(
            with_parameters(module, *names),
            _equation_4,
            inputs,
            HEAD_MISTAKES,
            advice="Equation 4: LN of token 0 of each image; then the head.",
        )
    passed("mended: token 0 of each image")


def _parts(dim: int, mlp_size: int, layers: int, n: int) -> tuple[int, int]:
    """Multiply-adds of the dense layers and of the pairs, by formula."""
    return layers * n * (4 * dim**2 + 2 * dim * mlp_size), layers * 2 * n**2 * dim


def check_measured_parts(answer) -> None:
    """Checks the multiply-adds that grow with n and with n², told apart by counting.

    Raises:
        Hint: it is not right yet.
    """
    with torch.device("meta"):
        modules = (
            (TransformerEncoderBlock(48, 4, 192), 48, 192, 1, 10),
            (TransformerEncoderBlock(12, 3, 20), 12, 20, 1, 5),
            (MultiheadSelfAttentionBlock(8, 2), 8, 0, 1, 3),
            (
                TransformerEncoder(
                    *(TransformerEncoderBlock(6, 1, 10) for _ in range(3))
                ),
                *(6, 10, 3, 40),
            ),
        )
    for module, dim, mlp_size, layers, n in modules:
        with learners_code():
            found = answer(module, dim, n)
        dense, pairs = _parts(dim, mlp_size, layers, n)
        _check_measured(_numbers(found), dense, pairs, n, dim)
    passed("the part that grows with n, the part with n², and where they are equal")


def _numbers(found) -> dict[str, float]:
    keys = {"dense", "pairs", "half"}
    hint(
        isinstance(found, Mapping) and set(found) == keys,
        "give back a dict with the keys 'dense', 'pairs' and 'half'",
    )
    found = {key: as_number(value) for key, value in found.items()}
    for key, value in found.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        hint(number, f"'{key}' must be a number, got {type(value).__name__}")
    return found


def _check_measured(found, dense: int, pairs: int, n: int, dim: int) -> None:
    mine = found["dense"], found["pairs"]

    def is_near(ours, right) -> bool:
        return all(map(partial(math.isclose, rel_tol=1e-6), ours, right))

    wrong = {
        "'dense' and 'pairs' are swapped: dense layers work on each token alone.": (
            pairs,
            dense,
        ),
        "these are FLOPs, two for each multiply-add.": (2 * dense, 2 * pairs),
        "count(2n) - 2 count(n) is not yet the part of the pairs: doubled tokens make "
        "four times the pairs, and only two times were taken away.": (
            dense - pairs,
            2 * pairs,
        ),
        "'dense' is the whole count. The pairs are in it, too.": (dense + pairs, pairs),
        "a second product is missing in 'pairs': scores, and the average of the "
        "values.": (dense, pairs / 2),
        "both are those of 2n tokens; asked for are n.": (2 * dense, 4 * pairs),
        "these are a and b, for one token and one pair; asked for are a n and b n².": (
            dense / n,
            pairs / n**2,
        ),
        "count(2n) - count(n) is what n more tokens cost, not the pairs alone.": (
            -2 * pairs,
            dense + 3 * pairs,
        ),
    }
    for text, values in wrong.items():
        hint(not is_near(mine, values), text)
    hint(
        is_near(mine, (dense, pairs)),
        f"for D = {dim} and {n} tokens it gives 'dense' {mine[0]:g} and 'pairs' "
        f"{mine[1]:g}; they are {dense} and {pairs}. The count for n is a n + b n².",
    )
    half, right = found["half"], n * dense / pairs
    hint(
        not is_near([half], [dense / pairs]),
        "'half' is the ratio of the parts. With how many tokens are they equal? One "
        "grows with n, the other with n².",
    )
    hint(
        not is_near([half], [n * (dense / pairs) ** 0.5]),
        "'half' has a square root too much: a n = b n² has one n on each side to "
        "cancel.",
    )
    hint(
        not is_near([half], [n * pairs / dense]),
        "'half' is upside down: the more the dense layers cost, the later it comes.",
    )
    hint(
        not is_near([half], [right - 1]),
        "'half' counts patches. Asked for are tokens, with the class token.",
    )
    hint(
        right == 6 * dim or not is_near([half], [6 * dim]),
        "6 D is right only for a block with an MLP of 4 D. Take it from your counts.",
    )
    hint(
        is_near([half], [right]),
        f"for D = {dim} 'half' is {half:g}; with that many tokens the parts are not "
        "equal.",
    )
