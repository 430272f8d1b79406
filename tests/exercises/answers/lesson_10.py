"""Answers to the exercises of lesson 10."""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from answers import right, wrong
from going_modular.multihead_attention import MultiheadSelfAttention
from going_modular.position_embedding import ViTEmbedding
from going_modular.vit import ViT

STATE = "check_mean_state"
BUILT = "check_built_in_vit"
HEAD = "check_mended_head"
PARTS = "check_measured_parts"
TOKEN, POSITIONS = "embedding.class_token.weight", "embedding.position_embedding.weight"


@wrong(STATE, "is still there")
def keeps_the_token(state):
    return dict(state) | {POSITIONS: state[POSITIONS][:, 1:]}


@wrong(STATE, "still has")
def keeps_all_rows(state):
    return {name: w for name, w in state.items() if name != TOKEN}


@wrong(STATE, "is gone")
def without_positions(state):
    return {n: w for n, w in state.items() if n not in (TOKEN, POSITIONS)}


@wrong(STATE, "the list or the dict")
def pops(state):
    del state[TOKEN]
    state[POSITIONS] = state[POSITIONS][:, 1:]
    return state


@wrong(STATE, "is missing")
def body_only(state):
    found = drops_a_row(state)
    return {name: w for name, w in found.items() if not name.startswith("head")}


@wrong(STATE, "expected (1, 16, 6)")
def another_axis(state):
    return keeps_all_rows(state) | {POSITIONS: state[POSITIONS][..., 1:]}


@wrong(STATE, "Each patch keeps its row")
def row_moved_to_patches(state):
    positions = state[POSITIONS]
    return keeps_all_rows(state) | {POSITIONS: positions[:, 1:] + positions[:, :1]}


@wrong(STATE, "no model has")
def renames(state):
    found = {f"model.{name}": w for name, w in drops_a_row(state).items()}
    return found | drops_a_row(state)


@wrong(STATE, "share as it is")
def rescales_the_head(state):
    return drops_a_row(state) | {"head.weight": 2 * state["head.weight"]}


@wrong(STATE, "give back a dict")
def gives_a_list(state):
    return list(drops_a_row(state).items())


@right(STATE)
def drops_a_row(state):
    found = copy.deepcopy(state)
    found.pop(TOKEN)
    found[POSITIONS] = torch.stack([row[1:] for row in found[POSITIONS]])
    return found


@right(STATE)
def name_by_name(state):
    found = {}
    for name, w in state.items():
        if name.endswith("class_token.weight"):
            continue
        found[name] = w.split([1, w.shape[1] - 1], 1)[1] if name == POSITIONS else w
    return found


NAMES = {
    "encoder.": "encoder.layers.",
    "msa_block.layer_norm": "norm1",
    "msa_block.attention.qkv.": "self_attn.in_proj_",
    "msa_block.attention.out_proj": "self_attn.out_proj",
    "mlp_block.layer_norm": "norm2",
    "mlp_block.mlp.0": "linear1",
    "mlp_block.mlp.3": "linear2",
    "layer_norm": "encoder.norm",
}


def built_in_name(name):
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name


class BuiltIn(nn.Module):
    """What the answers to the second task share."""

    changes = {}

    def __init__(
        self,
        img_size,
        patch_size,
        num_transformer_layers,
        embedding_dim,
        mlp_size,
        num_heads,
        num_classes,
    ):
        super().__init__()
        options = dict(activation="gelu", layer_norm_eps=1e-6, dropout=0.1)
        options |= dict(batch_first=True, norm_first=True) | self.changes
        last_eps = options.pop("last_eps", 1e-6)
        self.embedding = ViTEmbedding(img_size, 3, patch_size, embedding_dim)
        layer = nn.TransformerEncoderLayer(
            embedding_dim, num_heads, mlp_size, **options
        )
        norm = nn.LayerNorm(embedding_dim, last_eps) if last_eps else None
        self.encoder = nn.TransformerEncoder(
            layer, num_transformer_layers, norm, enable_nested_tensor=False
        )
        self.head = nn.Linear(embedding_dim, num_classes)

    def read(self, tokens):
        return tokens[:, 0]

    def forward(self, images):
        return self.head(self.read(self.encoder(self.embedding(images))))

    def load_ours(self, state):
        self.load_state_dict({built_in_name(name): w for name, w in state.items()})


@wrong(BUILT, "LayerNorm is missing in `encoder`")
class LastNormOutside(BuiltIn):
    changes = {"last_eps": None}

    def __init__(self, **sizes):
        super().__init__(**sizes)
        self.layer_norm = nn.LayerNorm(sizes["embedding_dim"], eps=1e-6)

    def read(self, tokens):
        return self.layer_norm(tokens[:, 0])


@wrong(BUILT, "no gradient arrives")
class WithoutGradient(BuiltIn):
    @torch.no_grad()
    def forward(self, images):
        return super().forward(images)


@wrong(BUILT, "of other sizes")
class ForMini(BuiltIn):
    def __init__(self, **sizes):
        super().__init__(**sizes | {"embedding_dim": 192, "num_heads": 3})


@wrong(BUILT, "another number of layers")
class SixLayers(BuiltIn):
    def __init__(self, **sizes):
        super().__init__(**sizes | {"num_transformer_layers": 6})


@wrong(BUILT, "do not find their places")
class OtherNames(BuiltIn):
    def __init__(self, **sizes):
        super().__init__(**sizes)
        self.patches = self.embedding
        del self.embedding


@wrong(BUILT, "no nn.TransformerEncoder")
class OursAgain(nn.Module):
    def __init__(self, **sizes):
        super().__init__()
        self.vit = ViT(**sizes)

    def forward(self, images):
        return self.vit(images)

    def load_ours(self, state):
        self.vit.load_state_dict(state)


@wrong(BUILT, "parameters, ours")
class LoadsWhatFits(BuiltIn):
    def __init__(self, **sizes):
        super().__init__(**sizes)
        self.more = nn.Linear(3, 3)

    def load_ours(self, state):
        weights = {built_in_name(name): w for name, w in state.items()}
        self.load_state_dict(weights, strict=False)


@right(BUILT)
class NormAfterIndex(BuiltIn):
    def forward(self, images):
        z = self.embedding(images)
        for layer in self.encoder.layers:
            z = layer(z)
        return self.head(self.encoder.norm(z[:, 0]))


@right(BUILT)
class TokensFirst(BuiltIn):
    """PyTorch's order of axes, with both transpositions; no dropout."""

    changes = {"batch_first": False, "activation": F.gelu, "dropout": 0.0}

    def forward(self, images):
        z = self.embedding(images).transpose(0, 1)
        return self.head(self.encoder(z)[0])


class Head(nn.Module):
    """What the answers to the third task share."""

    eps = 1e-6

    def __init__(self, embedding_dim, num_classes):
        super().__init__()
        self.layer_norm = nn.LayerNorm(embedding_dim, eps=self.eps)
        self.head = nn.Linear(embedding_dim, num_classes)

    def read(self, z):
        return z[:, 0]

    def forward(self, z):
        return self.head(self.layer_norm(self.read(z)))


@wrong(HEAD, "no parameter `head.bias`")
class WithoutBias(Head):
    def __init__(self, embedding_dim, num_classes):
        super().__init__(embedding_dim, num_classes)
        self.head = nn.Linear(embedding_dim, num_classes, bias=False)


@wrong(HEAD, "no gradient arrives")
class HeadDetached(Head):
    def read(self, z):
        return z[:, 0].detach()


@wrong(HEAD, "belongs to the example")
class FivePictures(Head):
    def read(self, z):
        return torch.stack([z[i, 0] for i in range(5)])


@right(HEAD)
class NormOfAll(Head):
    def forward(self, z):
        return self.head(self.layer_norm(z))[:, 0]


@right(HEAD)
class ByUnbind(Head):
    def read(self, z):
        return torch.stack([image[0] for image in z.unbind()])


def count(module, embedding_dim, num_tokens):
    with FlopCounterMode(display=False) as counter:
        module(torch.empty(1, num_tokens, embedding_dim, device="meta"))
    return counter.get_total_flops() // 2


def as_dict(dense, pairs, half):
    return {"dense": dense, "pairs": pairs, "half": half}


def solved(module, embedding_dim, num_tokens, count=count):
    once = count(module, embedding_dim, num_tokens)
    twice = count(module, embedding_dim, 2 * num_tokens)
    pairs = (twice - 2 * once) / 2
    return once - pairs, pairs


@wrong(PARTS, "AttributeError")
def formula_for_blocks(module, embedding_dim, num_tokens):
    mlp_size = module.mlp_block.mlp[0].out_features
    dense = num_tokens * (4 * embedding_dim**2 + 2 * embedding_dim * mlp_size)
    pairs = 2 * num_tokens**2 * embedding_dim
    return as_dict(dense, pairs, 2 * embedding_dim + mlp_size)


@wrong(PARTS, "with the keys")
def a_tuple(module, embedding_dim, num_tokens):
    return solved(module, embedding_dim, num_tokens)


@right(PARTS)
def by_one_and_two(module, embedding_dim, num_tokens):
    one, two = (count(module, embedding_dim, n) for n in (1, 2))
    b = (two - 2 * one) // 2
    a = one - b
    return as_dict(a * num_tokens, b * num_tokens**2, a / b)


@right(PARTS)
def by_linear_algebra(module, embedding_dim, num_tokens):
    sizes = torch.tensor([num_tokens, 3 * num_tokens], dtype=torch.float64)
    counts = [count(module, embedding_dim, int(n)) for n in sizes]
    matrix = torch.stack([sizes, sizes**2], dim=1)
    a, b = torch.linalg.solve(matrix, torch.tensor(counts).double()).tolist()
    return as_dict(a * num_tokens, b * num_tokens**2, a / b)


@right(PARTS)
def in_numpy(module, embedding_dim, num_tokens):
    counts = np.array([count(module, embedding_dim, k * num_tokens) for k in (1, 2)])
    pairs = (counts[1] - 2 * counts[0]) // 2
    dense = counts[0] - pairs
    return as_dict(dense, pairs, num_tokens * dense / pairs)


@right(PARTS)
def in_tensors(module, embedding_dim, num_tokens):
    once = torch.tensor(count(module, embedding_dim, num_tokens))
    twice = torch.tensor(count(module, embedding_dim, 2 * num_tokens))
    dense = 2 * once - twice // 2
    return as_dict(dense, once - dense, num_tokens * dense.double() / (once - dense))


@right(PARTS)
def by_the_modules(module, embedding_dim, num_tokens):
    a = sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))
    layers = sum(isinstance(m, MultiheadSelfAttention) for m in module.modules())
    b = 2 * embedding_dim * layers
    return as_dict(a * num_tokens, b * num_tokens**2, a / b)
