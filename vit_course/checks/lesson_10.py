"""Tasks of the exercises of lesson 10: the whole model."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from going_modular.encoder import TransformerEncoder, TransformerEncoderBlock
from going_modular.multihead_attention import MultiheadSelfAttention
from going_modular.vit import ViT
from vit_course.checks.hints import NO_RETURN, hint, is_a_class
from vit_course.checks.task import Case, Task

SMALL = {"patch_size": 4, "embedding_dim": 6, "mlp_size": 8}
SMALL |= {"num_heads": 2, "num_classes": 3}
WIDE = {"patch_size": 4, "embedding_dim": 12, "mlp_size": 20}
WIDE |= {"num_heads": 3, "num_classes": 5, "num_transformer_layers": 2}
VITS: dict[str, dict[str, Any]] = {
    "a ViT with 16 patches": SMALL | {"img_size": 16, "num_transformer_layers": 2},
    "90 patches": SMALL | {"img_size": (36, 40), "num_transformer_layers": 11},
    "2 patches": SMALL | {"img_size": (4, 8), "num_transformer_layers": 1},
    "a ViT with 6 patches": WIDE | {"img_size": (8, 12)},
    "a ViT of 3 layers": SMALL | {"img_size": 8, "num_transformer_layers": 3},
    "a ViT with small tokens": WIDE | {"img_size": (8, 12)},  # LayerNorm's eps shows
}


@cache
def _vit(kind: str) -> ViT:
    """Makes a ViT with random weights, in evaluation."""
    vit = ViT(**VITS[kind]).eval()
    generator = torch.Generator().manual_seed(10)
    scale = 0.003 if "small" in kind else 1.0
    for name, p in vit.named_parameters():
        p.data.normal_(std=0.5, generator=generator)
        if any(part in name for part in ("attention.out_proj", "mlp.3", "embedding.")):
            p.data.mul_(scale)
    return vit


# 1. Weights for the other pool

TOKEN, POSITIONS = "embedding.class_token.weight", "embedding.position_embedding.weight"


def _state(change: Callable) -> Callable:
    """The state dict without the class token, and with other positions."""
    return lambda state: {
        name: change(w) if name == POSITIONS else w
        for name, w in state.items()
        if name != TOKEN
    }


STATES = {
    _state(lambda w: w): (
        "the position embedding still has a row for the class token. Without it there "
        "are N tokens."
    ),
    _state(lambda w: w[:, :-1]): (
        "the last row of the position embedding is cut off. Each patch would get the "
        "position of the one before: which row was the class token's?"
    ),
    _state(lambda w: w[0, 1:]): (
        "the position embedding has lost its first axis: (N, D) in place of (1, N, D)."
    ),
    _state(lambda w: w[:, 1:65]): (
        "the example has 64 patches, other models have more: take all rows but one."
    ),
}


def _call_state(answer, state: dict):
    """Looks at the names, of which a state dict has too many for one hint."""
    names = set(state) - {TOKEN}
    found = answer(state)
    if found is None or not isinstance(found, Mapping):
        hint(found is None, "give back a dict: names and tensors")
        return found
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
    missing, more = sorted(names - set(found)), sorted(set(found) - names, key=str)
    hint(not missing, f"`{(missing or [''])[0]}` is missing. Both models have it.")
    hint(not more, f"no model has `{(more or [''])[0]}`: keep the names.")
    return dict(found)


check_mean_state = Task(
    "mean_state",
    "weights for pool='mean': one name less, one row less",
    Case(
        inputs=lambda: [(dict(_vit(kind).state_dict()),) for kind in list(VITS)[:3]],
        call=_call_state,
        right=_state(lambda w: w[:, 1:]),
        mistakes=STATES,
        tolerance=0.0,
        gradient=False,
        advice="Each patch keeps its row, and all else the two models share as it is.",
    ),
)

# 2. PyTorch's encoder

PYTORCH_NAMES = {
    "msa_block.layer_norm": "norm1",
    "msa_block.attention.qkv.": "self_attn.in_proj_",
    "msa_block.attention.out_proj": "self_attn.out_proj",
    "mlp_block.layer_norm": "norm2",
    "mlp_block.mlp.0": "linear1",
    "mlp_block.mlp.3": "linear2",
}


def _built_in(read: Callable = lambda z: z[:, 0], last_eps=1e-6, **changes) -> Callable:
    """Logits through PyTorch's encoder; `read` and `changes` are mistakes."""

    def built_in(kind: str, images: Tensor) -> Tensor:
        vit, sizes = _vit(kind), VITS[kind]
        options: dict[str, Any] = {"activation": "gelu", "layer_norm_eps": 1e-6}
        options |= {"batch_first": True, "norm_first": True} | changes
        dim, layers = sizes["embedding_dim"], sizes["num_transformer_layers"]
        layer = nn.TransformerEncoderLayer(
            dim, sizes["num_heads"], sizes["mlp_size"], **options
        )
        norm = nn.LayerNorm(dim, eps=last_eps)
        encoder = nn.TransformerEncoder(layer, layers, norm, enable_nested_tensor=False)
        state = {f"norm.{name}": w for name, w in vit.layer_norm.state_dict().items()}
        for name, w in vit.encoder.state_dict().items():
            for ours, theirs in PYTORCH_NAMES.items():
                name = name.replace(ours, theirs)
            state[f"layers.{name}"] = w
        encoder.load_state_dict(state)
        return vit.head(read(encoder.eval()(vit.embedding(images))))

    return built_in


def _normed_twice(kind: str, images: Tensor) -> Tensor:
    return _built_in(lambda z: _vit(kind).layer_norm(z[:, 0]))(kind, images)


EPS = "right but for small tokens: {} PyTorch's eps of 1e-5. The paper's code has 1e-6."
BUILT = {
    _built_in(batch_first=False): (
        "batch and tokens are mixed up: without `batch_first=True`, PyTorch takes axis "
        "0 for the tokens, and images attend to each other."
    ),
    _built_in(norm_first=False): (
        "the layers are post-norm, PyTorch's default. The ViT normalises before "
        "attention and MLP."
    ),
    _built_in(activation="relu"): (
        "the MLP has a ReLU, PyTorch's default. The paper has GELU."
    ),
    _built_in(activation=partial(F.gelu, approximate="tanh")): (
        "close, but not equal: GELU in its tanh approximation. Ours uses erf."
    ),
    _built_in(lambda z: z[0]): (
        "the head reads `[0]`: all tokens of the first image. It needs token 0 of each "
        "image."
    ),
    (_built_in(lambda z: z[:, -1]), _built_in(lambda z: z[:, 1])): (
        "the head reads a patch, the last or the first. The class token is token 0."
    ),
    (_built_in(lambda z: z.mean(dim=1)), _built_in(lambda z: z[:, 1:].mean(dim=1))): (
        "the head reads the mean over tokens. Here it is the class token alone."
    ),
    _built_in(lambda z: z): (
        "there is one output for each token. Only the class token goes to the head."
    ),
    lambda kind, images: _vit(kind)(images).softmax(dim=-1): (
        "the outputs are probabilities. The model returns logits; the loss brings its "
        "own softmax."
    ),
    _normed_twice: "the class token is normalised twice. `encoder.norm` has done it.",
    _built_in(layer_norm_eps=1e-5, last_eps=1e-5): EPS.format("all LayerNorms have"),
    _built_in(layer_norm_eps=1e-5): EPS.format("the layers have"),
    _built_in(last_eps=1e-5): EPS.format("the last LayerNorm has"),
}


def _loading(error: Exception) -> str:
    """Hint for weights that do not fit the learner's model."""
    text = str(error)
    first = text.splitlines()[1].strip() if "\n" in text else text
    if "msa_block" in text:
        return (
            "the names of our weights were not translated: is `load_ours` as it was "
            "given, and have the cells above been run?"
        )
    if "size mismatch" in text and "Missing key" not in text:
        return (
            "the weights of a model of other sizes do not fit: does each argument of "
            "`__init__` reach its part?"
        )
    if "Missing key" not in text and "Unexpected key" not in text:
        return ""
    if "encoder.layers.0." in text or "encoder." not in text:
        return (
            "our weights do not find their places. The attributes are `embedding`, "
            f"`encoder` and `head`, as in the table. PyTorch says: {first[:120]}"
        )
    if "encoder.norm." in text:
        return (
            "Equation 4's LayerNorm is missing in `encoder`: nn.TransformerEncoder "
            "takes it as `norm`, and has none otherwise."
        )
    return "`encoder` has another number of layers than `num_transformer_layers`."


def _call_built_in(answer, kind: str, images: Tensor):
    """Makes the model, and gives it our weights."""
    is_a_class(answer, "BuiltInViT")
    model = answer(**VITS[kind])
    parts = list(model.modules())
    hint(
        any(isinstance(m, nn.TransformerEncoder) for m in parts)
        and not any(isinstance(m, TransformerEncoderBlock) for m in parts),
        "the model has no nn.TransformerEncoder, or has still blocks of the lesson. "
        "This task wants PyTorch's encoder in the place of ours.",
    )
    hint(
        hasattr(model, "load_ours"),
        "the method `load_ours` is gone; keep it as it was given.",
    )
    model.load_ours(_vit(kind).state_dict())
    mine, ours = (sum(p.numel() for p in m.parameters()) for m in (model, _vit(kind)))
    hint(
        mine == ours,
        f"the model has {mine} parameters, ours of the same sizes {ours}",
    )
    return model.eval()(images)


def _inputs_of_vits() -> list[tuple]:
    g = torch.Generator().manual_seed(1)
    return [
        (kind, torch.rand(b, 3, *_vit(kind).embedding.img_size, generator=g))
        for kind in list(VITS)[3:]
        for b in (2, 1, 5)
    ]


check_built_in_vit = Task(
    "BuiltInViT",
    "our weights in PyTorch's encoder, our logits out of it",
    Case(
        inputs=_inputs_of_vits,
        call=_call_built_in,
        right=lambda kind, images: _vit(kind)(images),
        mistakes=BUILT,
        explain=_loading,
        advice="Lesson 09 lists the arguments that make PyTorch's layer ours.",
    ),
)

# 3. Find the bug: Equation 4


def _equation_4(read: Callable = lambda z: z[:, 0], eps: float = 1e-6) -> Callable:
    """LN and head of the tokens that `read` takes."""

    def equation_4(z, scale, bias, weight, offset):
        y = F.layer_norm(read(z), z.shape[-1:], scale, bias, eps)
        return F.linear(y, weight, offset)

    return equation_4


def _inputs_of_heads() -> list[tuple]:
    g, inputs = torch.Generator().manual_seed(4), []
    sizes = (5, 5, 1), (2, 7, 1), (1, 3, 1), (6, 2, 1), (3, 4, 0.003)
    for dim, classes in ((8, 3), (6, 4)):
        for b, n, scale in sizes:
            shapes = (b, n, dim), (dim,), (dim,), (classes, dim), (classes,)
            z, *parameters = (torch.randn(shape, generator=g) for shape in shapes)
            inputs.append((scale * z, *parameters))
    return inputs


HEADS = {
    _equation_4(lambda z: z[0]): (
        "`[0]` is still all tokens of the first image. Keep all of axis 0, the images; "
        "of axis 1, the tokens, take the first."
    ),
    _equation_4(lambda z: z[:1, 0].expand(len(z), -1)): (
        "all images get the logits of the first one."
    ),
    _equation_4(lambda z: z[:, -1]): (
        "this is the last token, a patch. The class token is token 0."
    ),
    _equation_4(lambda z: z[:, 1]): (
        "this is the first patch. The class token is token 0."
    ),
    _equation_4(lambda z: z.mean(dim=1)): (
        "this is the mean over tokens. Equation 4 reads the class token."
    ),
    _equation_4(lambda z: z): (
        "there is one output for each token. Equation 4 reads the class token only."
    ),
    _equation_4(lambda z: z[:, :1]): (
        "the class token's axis is still there: (B, 1, K) in place of (B, K). An "
        "index, 0, takes an axis away; a slice, :1, keeps it."
    ),
    _equation_4(lambda z: z[..., 0]): (
        "the first of the D features is taken, not the first token: [:, 0]."
    ),
    lambda z, scale, bias, weight, offset: F.linear(z[:, 0], weight, offset): (
        "LN is missing: the head gets the class token as the last block left it."
    ),
    _equation_4(eps=1e-5): (
        "right but for small tokens: the eps is PyTorch's 1e-5, the paper's code has "
        "1e-6."
    ),
    lambda *given: _equation_4()(*given).softmax(dim=-1): (
        "the outputs are probabilities. The model returns logits; the loss brings its "
        "own softmax."
    ),
}
check_mended_head = Task(
    "MendedHead",
    "mended: token 0 of each image",
    Case(
        sizes=lambda z, scale, bias, weight, offset: (z.shape[-1], len(weight)),
        parameters=("layer_norm.weight", "layer_norm.bias", "head.weight", "head.bias"),
        inputs=_inputs_of_heads,
        right=_equation_4(),
        mistakes=HEADS,
        advice="Equation 4: LN of token 0 of each image; then the head.",
    ),
)

# 4. Where the work goes


def _inputs_of_parts() -> list[tuple]:
    with torch.device("meta"):
        three = TransformerEncoder(*(TransformerEncoderBlock(6, 1, 10) for _ in "123"))
        return [
            (TransformerEncoderBlock(48, 4, 192), 48, 10),
            (TransformerEncoderBlock(12, 3, 20), 12, 5),
            (MultiheadSelfAttention(8, 2), 8, 3),
            (three, 6, 40),
        ]


def _parts(formula: Callable) -> Callable:
    """What `formula(dense, pairs, n, D)` makes of the two parts of a module."""

    def parts(module: nn.Module, dim: int, n: int):
        linear = [m for m in module.modules() if isinstance(m, nn.Linear)]
        layers = sum(isinstance(m, MultiheadSelfAttention) for m in module.modules())
        dense = n * sum(m.weight.numel() for m in linear)
        return formula(dense, 2 * n**2 * dim * layers, n, dim)

    return parts


def _both(formula: Callable) -> Callable:
    values = _parts(formula)
    return lambda *given: dict(zip(("dense", "pairs"), values(*given), strict=True))


def _measured(answer, *given):
    found = answer(*given)
    hint(found is not None, NO_RETURN)
    hint(
        isinstance(found, Mapping) and set(found) == {"dense", "pairs", "half"},
        "give back a dict with the keys 'dense', 'pairs' and 'half'",
    )
    return found


PARTS = {
    _both(lambda dense, pairs, n, _: (pairs, dense)): (
        "'dense' and 'pairs' are swapped: dense layers work on each token alone."
    ),
    _both(lambda dense, pairs, n, _: (2 * dense, 2 * pairs)): (
        "these are FLOPs, two for each multiply-add."
    ),
    _both(lambda dense, pairs, n, _: (dense - pairs, 2 * pairs)): (
        "count(2n) - 2 count(n) is not yet the part of the pairs: doubled tokens make "
        "four times the pairs, and only two times were taken away."
    ),
    _both(lambda dense, pairs, n, _: (dense + pairs, pairs)): (
        "'dense' is the whole count. The pairs are in it, too."
    ),
    _both(lambda dense, pairs, n, _: (dense, pairs / 2)): (
        "a second product is missing in 'pairs': scores, and the average of the values."
    ),
    _both(lambda dense, pairs, n, _: (2 * dense, 4 * pairs)): (
        "both are those of 2n tokens; asked for are n."
    ),
    _both(lambda dense, pairs, n, _: (dense / n, pairs / n**2)): (
        "these are a and b, for one token and one pair; asked for are a n and b n²."
    ),
    _both(lambda dense, pairs, n, _: (-2 * pairs, dense + 3 * pairs)): (
        "count(2n) - count(n) is what n more tokens cost, not the pairs alone."
    ),
    _both(lambda dense, pairs, n, dim: (12 * n * dim**2, 2 * n**2 * dim)): (
        "this is the formula for one block with an MLP of 4 D. Count instead."
    ),
}
HALVES = {
    _parts(lambda dense, pairs, n, _: dense / pairs): (
        "'half' is the ratio of the parts. With how many tokens are they equal? One "
        "grows with n, the other with n²."
    ),
    _parts(lambda dense, pairs, n, _: n * (dense / pairs) ** 0.5): (
        "'half' has a square root too much: a n = b n² has one n on each side to "
        "cancel."
    ),
    _parts(lambda dense, pairs, n, _: n * pairs / dense): (
        "'half' is upside down: the more the dense layers cost, the later it comes."
    ),
    _parts(lambda dense, pairs, n, _: n * dense / pairs - 1): (
        "'half' counts patches. Asked for are tokens, with the class token."
    ),
    _parts(lambda dense, pairs, n, dim: 6 * dim): (
        "6 D is right only for a block with an MLP of 4 D. Take it from your counts."
    ),
}
check_measured_parts = Task(
    "measure_parts",
    "the part that grows with n, the part with n², and where they are equal",
    Case(
        inputs=_inputs_of_parts,
        call=lambda *given: {k: v for k, v in _measured(*given).items() if k != "half"},
        right=_both(lambda dense, pairs, n, _: (dense, pairs)),
        mistakes=PARTS,
        gradient=False,
        advice="The count for n tokens is a n + b n².",
    ),
    Case(
        inputs=_inputs_of_parts,
        call=lambda *given: _measured(*given)["half"],
        right=_parts(lambda dense, pairs, n, _: n * dense / pairs),
        mistakes=HALVES,
        gradient=False,
        advice="With that many tokens, 'half', the parts are not equal.",
    ),
)
