"""Each small mistake in an exported cell must make a test of values fail."""

import json

import pytest
from export_modules import export
from project_copy import copy_project, pytest_in

# Stops at the first failure, and leaves out what takes long.
FAST = ["-x", "-m", "not slow"]
LAYER_NORM_OF_TOKENS = "self.layer_norm(tokens)"
# The same weight and bias, with the mean over the tokens instead of over D.
WRONG_AXIS = (
    "nn.functional.layer_norm(tokens.mT, tokens.shape[1:2], eps=1e-6).mT"
    " * self.layer_norm.weight + self.layer_norm.bias"
)
NO_NORM = "tokens"

# notebook -> test files, and mistakes: what, then texts to replace and replacements.
MISTAKES = {
    "02_patch_visualization": (
        "lessons/test_patches.py",
        [("rows and columns swapped", "x.permute(0, 2, 4, 1", "x.permute(0, 4, 2, 1")],
    ),
    "03_conv2d_patchify": (
        "lessons/test_patch_embedding.py",
        [
            ("a sign", "maps.flatten(2).tr", "-maps.flatten(2).tr"),
            ("norm_layer ignored", "return self.norm(tokens)", "return tokens"),
        ],
    ),
    "04_class_token": (
        "lessons/test_class_token.py",
        [("a sign", "[class_token, patch_emb", "[-class_token, patch_emb")],
    ),
    "05_position_embedding": (
        "lessons/test_position_embedding.py",
        [("a sign", "return tokens + self.weight", "return tokens - self.weight")],
    ),
    "05b_larger_images": (
        "lessons/test_position_embedding.py",
        [("rows and columns swapped", "-1, *old_grid)", "-1, *old_grid[::-1])")],
    ),
    "05c_sinusoidal_positions": (
        "lessons/test_position_embedding.py",
        [("columns before rows", "[of_rows, of_columns]", "[of_columns, of_rows]")],
    ),
    "06_self_attention": (
        "lessons/test_self_attention.py",
        [
            ("no scaling", "head_dim**-0.5", "1.0"),
            ("divided by d, not its square root", "head_dim**-0.5", "head_dim**-1"),
            (
                "square root of the number of queries",
                "head_dim = query.shape[-1]",
                "head_dim = query.shape[-2]",
            ),
            (
                "softmax over the queries",
                "softmax(dim=-1)  # over the keys",
                "softmax(dim=-2)",
            ),
            (
                "queries and keys swapped",
                "(query * scale) @ key.transpose(-2, -1)",
                "key @ (query * scale).transpose(-2, -1)",
            ),
            (
                "mask inverted",
                "    head_dim = query.shape[-1]",
                "    mask = None if mask is None else ~mask\n"
                "    head_dim = query.shape[-1]",
            ),
            (
                "mask ignored",
                "    head_dim = query.shape[-1]",
                "    mask = None\n    head_dim = query.shape[-1]",
            ),
            (
                "NaN where nothing may be seen",
                "torch.finfo(scores.dtype).min",
                "-torch.inf",
            ),
            ("an average where nothing may be seen", ".masked_fill(~mask, 0.0)", ""),
            ("no dropout", "F.dropout(weights, dropout) @", "weights @"),
            (
                "weights returned after dropout",
                "output = F.dropout(weights, dropout) @",
                "weights = F.dropout(weights, dropout)\n    output = weights @",
            ),
        ],
    ),
    "07a_one_matrix_and_the_block": (
        "lessons/test_multihead_attention.py",
        [
            (
                "heads by reshape alone",
                "x.reshape(split_shape).transpose(1, 2)",
                "x.reshape(batch, self.num_heads, n, self.head_dim)",
            ),
            (
                "heads before q, k, v in the projection",
                ".chunk(3, dim=-1)",
                ".unflatten(2, (self.num_heads, 3, -1)).unbind(3)",
            ),
            (
                "features before heads",
                "x.reshape(split_shape).transpose(1, 2)",
                "x.reshape(batch, n, self.head_dim, -1).permute(0, 3, 1, 2)",
            ),
            (
                "attention among heads, not tokens",
                "x.reshape(split_shape).transpose(1, 2)",
                "x.reshape(split_shape)",
                "heads.transpose(1, 2).flatten(2)",
                "heads.flatten(2)",
            ),
            (
                "heads joined without the transpose",
                "heads.transpose(1, 2).flatten(2)",
                "heads.reshape(*tokens.shape)",
            ),
            (
                "queries and keys swapped",
                "query, key, value = (x",
                "key, query, value = (x",
            ),
            (
                "keys and values swapped",
                "query, key, value = (x",
                "query, value, key = (x",
            ),
            (
                "scaled by D, not by the head's dimension",
                "self.head_dim**-0.5",
                "embedding_dim**-0.5",
            ),
            (
                "attn_dropout not forwarded to the kernel",
                "query, key, value, mask, dropout, scale",
                "query, key, value, mask, scale",
            ),
            (
                "attn_dropout not forwarded where weights are recorded",
                "attention(query, key, value, mask, dropout)",
                "attention(query, key, value, mask)",
            ),
            ("attn_dropout in evaluation", " if self.training else 0.0", ""),
            (
                "attn_dropout forgotten by the block",
                "MultiheadSelfAttention(embedding_dim, num_heads, attn_dropout)",
                "MultiheadSelfAttention(embedding_dim, num_heads)",
            ),
            (
                "mask ignored by the kernel",
                "query, key, value, mask, dropout, scale",
                "query, key, value, None, dropout, scale",
            ),
            (
                "mask inverted for the kernel",
                "key, value, mask, dropout, scale",
                "key, value, None if mask is None else ~mask, dropout, scale",
            ),
            (
                "mask ignored where weights are recorded",
                "attention(query, key, value, mask, dropout)",
                "attention(query, key, value, None, dropout)",
            ),
            (
                "mask forgotten by the block",
                "self.attention(self.layer_norm(tokens), mask)",
                "self.attention(self.layer_norm(tokens))",
            ),
            ("LayerNorm over the wrong axis", LAYER_NORM_OF_TOKENS, WRONG_AXIS),
            ("no LayerNorm", LAYER_NORM_OF_TOKENS, NO_NORM),
            ("epsilon 1e-5", "eps=1e-6", "eps=1e-5"),
            (
                "no dropout after the projection",
                "self.dropout(self.attention(",
                "(self.attention(",
            ),
            (
                "a residual in the block",
                "return self.dropout(",
                "return tokens + self.dropout(",
            ),
            ("no output projection", "return self.out_proj(", "return ("),
            (
                "q, k, v initialised as one matrix",
                "(*self.qkv.weight.chunk(3), self",
                "(self.qkv.weight, self",
            ),
        ],
    ),
    "08_mlp": (
        "lessons/test_mlp.py",
        [
            ("GELU by the tanh", "nn.GELU()", 'nn.GELU("tanh")'),
            ("ReLU", "nn.GELU()", "nn.ReLU()"),
            ("epsilon 1e-5", "eps=1e-6", "eps=1e-5"),
            ("LayerNorm over the wrong axis", LAYER_NORM_OF_TOKENS, WRONG_AXIS),
            ("no LayerNorm", LAYER_NORM_OF_TOKENS, NO_NORM),
            (
                "no dropout after the first layer",
                "nn.GELU(),\n            nn.Dropout(dropout)",
                "nn.GELU(),\n            nn.Dropout(0.0)",
            ),
            (
                "no dropout after the second layer",
                "narrow,\n            nn.Dropout(dropout)",
                "narrow,\n            nn.Dropout(0.0)",
            ),
            (
                "a residual in the block",
                "return self.mlp(",
                "return tokens + self.mlp(",
            ),
        ],
    ),
    "09_transformer_encoder": (
        "lessons/test_encoder.py",
        [
            (
                "no residual of Equation 2",
                "tokens = tokens + self.drop_path(",
                "tokens = self.drop_path(",
            ),
            (
                "no residual of Equation 3",
                "return tokens + self.drop_path(",
                "return self.drop_path(",
            ),
            (
                "the MLP reads what the attention read",
                "tokens = tokens + self.drop_path(self.msa_block(tokens, mask))",
                "z = tokens + self.drop_path(self.msa_block(tokens, mask))",
                "return tokens + self.drop_path(",
                "return z + self.drop_path(",
            ),
            (
                "mask forgotten by the block",
                "self.msa_block(tokens, mask)",
                "self.msa_block(tokens)",
            ),
            (
                "mask forgotten by the encoder",
                "tokens = block(tokens, mask)",
                "tokens = block(tokens)",
            ),
            (
                "mask for the first block only",
                "tokens = block(tokens, mask)",
                "tokens, mask = block(tokens, mask), None",
            ),
            (
                "attn_dropout not forwarded",
                "attn_dropout=attn_dropout, dropout=mlp_dropout",
                "dropout=mlp_dropout",
            ),
            (
                "mlp_dropout not after the projection of the attention",
                "attn_dropout=attn_dropout, dropout=mlp_dropout",
                "attn_dropout=attn_dropout",
            ),
            (
                "the two dropouts swapped",
                "attn_dropout=attn_dropout, dropout=mlp_dropout",
                "attn_dropout=mlp_dropout, dropout=attn_dropout",
            ),
            (
                "mlp_dropout not in the MLP",
                "mlp_size, dropout=mlp_dropout",
                "mlp_size, dropout=0.0",
            ),
            ("no drop path", "DropPath(drop_path)", "DropPath()"),
            (
                "drop path for the attention only",
                "self.drop_path(self.mlp_block(tokens))",
                "self.mlp_block(tokens)",
            ),
            (
                "drop path for tokens, not images",
                "(branch.shape[0],) + (1,) * (branch.ndim - 1)",
                "branch.shape[:2] + (1,) * (branch.ndim - 2)",
            ),
            ("drop path loses the expectation", "(keep / (1 - self.rate))", "keep"),
            ("drop path in evaluation", "not self.training or self.rate", "self.rate"),
            (
                "drop path keeps what it should drop",
                "bernoulli_(1 - self.rate)",
                "bernoulli_(self.rate)",
            ),
        ],
    ),
    "10_vision_transformer": (
        "lessons/test_vit.py",
        [
            ("an image's tokens, not the class token", "z[:, 0]", "z[0]"),
            ("the first patch, not the class token", "z[:, 0]", "z[:, 1]"),
            ("the mean, not the class token", "z[:, 0]", "z.mean(1)"),
            ("no LayerNorm in Equation 4", "self.layer_norm(z[:, 0])", "z[:, 0]"),
            (
                "the mean before LayerNorm",
                "self.layer_norm(z).mean(dim=1)",
                "self.layer_norm(z.mean(dim=1))",
            ),
            ("mask forgotten", "self.encoder(z, mask)", "self.encoder(z)"),
            (
                "mask inverted",
                "self.encoder(z, mask)",
                "self.encoder(z, None if mask is None else ~mask)",
            ),
            (
                "attn_dropout not forwarded",
                "attn_dropout=attn_dropout",
                "attn_dropout=0.0",
            ),
            ("mlp_dropout not forwarded", "mlp_dropout=mlp_dropout", "mlp_dropout=0.0"),
            (
                "the two dropouts swapped",
                "mlp_dropout=mlp_dropout",
                "mlp_dropout=attn_dropout",
                "attn_dropout=attn_dropout",
                "attn_dropout=mlp_dropout",
            ),
            (
                "embedding_dropout not forwarded",
                "embedding_dropout,\n            position,",
                "0.0,\n            position,",
            ),
            ("the same drop path everywhere", "drop_path * i / last", "drop_path * 1"),
            (
                "drop path falls",
                "drop_path * i / last",
                "drop_path * (last - i) / last",
            ),
            ("epsilon 1e-5", "eps=1e-6", "eps=1e-5"),
            (
                "a head of zeros",
                "nn.init.trunc_normal_(self.head.weight, std=0.02)",
                "nn.init.zeros_(self.head.weight)",
            ),
            (
                "a class token with mean pooling",
                'class_token=pool == "cls"',
                "class_token=True",
            ),
        ],
    ),
    "11_training": (
        "training/test_engine.py training/test_optimization.py",
        [
            ("a batch counts once", "loss.item() * len(labels)", "loss.item()"),
            ("a group divided by batches", "len(labels) / count", "1 / len(group)"),
            ("no clipping", "nn.utils.clip_grad_norm_(trained, clip_norm)", "pass"),
            (
                "gradients left over",
                "optimizer step\n        optimizer.zero_grad()",
                "optimizer step",
            ),
            (
                "the last group forgotten",
                "while group := list(islice(batches, accumulate)):",
                "while len(group := list(islice(batches, accumulate))) == accumulate:",
            ),
            ("a schedule that stands still", "scheduler.step()", "scheduler"),
            ("decay on gains", "if p.ndim <= 1 or exempt", "if exempt"),
            ("decay on positions", ' or "position_embedding" in name', ""),
            (
                "a first step of nothing",
                "return (step + 1) / warm",
                "return step / warm",
            ),
            (
                "a quarter of a cosine",
                "(1 + math.cos(math.pi * done)) / 2",
                "math.cos(math.pi * done / 2)",
            ),
            (
                "tested as in training",
                "model.eval()\n    with torch.inf",
                "model.train()\n    with torch.inf",
            ),
            (
                "the best epoch of the test",
                'history["val_acc"][-1] == max(history["val_acc"])',
                'history["test_acc"][-1] == max(history["test_acc"])',
            ),
        ],
    ),
    "12_transfer_learning": (
        "lessons/test_transfer.py",
        [
            (
                "a head that is not zero",
                "zeros_(model.head.weight",
                "ones_(model.head.weight",
            ),
            ("features behind the head", "model.head = nn.Identity()", "pass"),
            ("nothing frozen", "p.requires_grad_(name.startswith(but))", "pass"),
        ],
    ),
    "12b_loading_weights": (
        "lessons/test_transfer.py lessons/test_utils.py",
        [
            (
                "kernels of JAX not turned",
                'raw[f"{attention}{part}/kernel"].flatten(1).T',
                'raw[f"{attention}{part}/kernel"].flatten(1)',
            ),
            (
                "queries and keys swapped",
                '("query", "key", "val',
                '("key", "query", "val',
            ),
            (
                "code in a file is run",
                'location="cpu", weights_only=True',
                'location="cpu", weights_only=False',
            ),
            (
                "positions as a list",
                "state[POSITIONS], (side, side), new_grid, prefix",
                "state[POSITIONS], (side, side), new_grid, 0",
            ),
            (
                "shapes not compared",
                "if state[name].shape != own[name].shape",
                "if state[name].ndim != own[name].ndim",
            ),
        ],
    ),
    "13_predictions_and_attention": (
        "lessons/test_predictions.py",
        [
            ("logits for probabilities", "logits.softmax(dim=1).cpu()", "logits.cpu()"),
            (
                "the model's transform ignored",
                "if preprocessing is not None",
                "if False",
            ),
        ],
    ),
    "13b_attention_maps": (
        "lessons/test_attention_maps.py",
        [
            ("averaged over the keys", "weights[:, :, 0, 1:]", "weights[:, :, 1:, 0]"),
            ("layers in the wrong order", "layer @ rollout", "rollout @ layer"),
            (
                "no way around",
                "weights.mean(dim=1) + residual * identity",
                "weights.mean(dim=1)",
            ),
            ("distance in patches", "patch_size * torch.cdist", "torch.cdist"),
            (
                "the class token has a place",
                "patches / patches.sum(dim=-1, keepdim=True)",
                "patches",
            ),
            ("filters not centred", "filters - filters.mean(dim=0)", "filters"),
        ],
    ),
    "13c_relevance": (
        "lessons/test_attention_maps.py",
        [
            (
                "relevance with its sign",
                "(gradient * weights).clamp(min=0)",
                "(gradient * weights)",
            ),
            (
                "relevance without the skip connection",
                "relevance = relevance + positive @ relevance",
                "relevance = positive @ relevance",
            ),
            (
                "gradient of the largest logit only",
                "logits.argmax(dim=1) if classes is None else classes",
                "logits.argmax(dim=1)",
            ),
        ],
    ),
    "15_what_changed_since": (
        "lessons/test_modern.py",
        [
            ("halves exchanged", "gate, values = hidden", "values, gate = hidden"),
            ("no residual", "(pooled + self.mlp_block(pooled))", "(pooled)"),
        ],
    ),
    "15b_rotary_positions": (
        "lessons/test_modern.py",
        [("turned back", "(a * cos - b * sin, a", "(a * cos + b * sin, a")],
    ),
    "15c_todays_backbones": (
        "lessons/test_modern.py",
        [
            ("keys not normed", "self.rope(self.k_norm(key))", "self.rope(key)"),
            ("registers in the mean", "z[:, self.num_prefix_tokens :]", "z[:, 1:]"),
            (
                "registers before the class token",
                "tokens = self.registers(tokens)",
                "tokens = self.embedding.class_token(tokens)",
                "return self.embedding.class_token(tokens)",
                "return self.registers(tokens)",
            ),
        ],
    ),
    "A4_without_labels": (
        "lessons/test_masked_patches.py",
        [
            ("not sorted back", "order.argsort(dim=1))  # each", "order)  # each"),
            ("loss on the visible", "order[:, self.num_kept :]", "order[:, :3]"),
            ("channels exchanged", "levels[..., 0] * 64", "levels[..., 2] * 64"),
        ],
    ),
}
CASES = [
    pytest.param(notebook, tests, pairs, id=f"{notebook[:2]} {what}")
    for notebook, (tests, mistakes) in MISTAKES.items()
    for what, *pairs in mistakes
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("mutations"))


@pytest.fixture(scope="module")
def first_failure(copy):
    """Runs pytest in the copy: the id of the test that failed, or ""."""
    with pytest_in(copy) as run:

        def first(*tests):
            _, failed = run(*FAST, *(f"tests/{name}" for name in tests))
            return failed.removeprefix("tests/")

        yield first


@pytest.fixture(scope="module")
def finders():
    """Tests that noticed a mistake and pass without it, by what they were chosen of."""
    return {tests: [] for tests, _ in MISTAKES.values()}


def change_exported(notebook, old, new):
    """Replaces a text in the one exported cell that has it."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    found = 0
    for cell in content["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and "#| export" in source:
            found += source.count(old)
            cell["source"] = source.replace(old, new).splitlines(keepends=True)
    assert found == 1, f"{notebook.name} exports {old!r} {found} times"
    notebook.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("notebook, tests, pairs", CASES)
def test_a_mistake_fails_a_value_test(
    copy, first_failure, finders, notebook, tests, pairs
):
    path = copy / "notebooks" / f"{notebook}.ipynb"
    as_it_was = path.read_text(encoding="utf-8")
    try:
        for old, new in zip(pairs[::2], pairs[1::2], strict=True):
            change_exported(path, old, new)
        export(path, copy / "going_modular")
        known = finders[tests]  # likely to notice this one, too: so they come first
        failed = known and first_failure(*known) or first_failure(*tests.split())
        assert failed
    finally:
        path.write_text(as_it_was, encoding="utf-8")
        export(path, copy / "going_modular")
    if failed not in known:
        assert not first_failure(failed), "fails without the mistake, too"
        known.insert(0, failed)


def test_every_mistake_has_its_own_name():
    names = [case.id for case in CASES]
    assert len(set(names)) == len(names) == 121
