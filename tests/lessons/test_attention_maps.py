"""Each tool of attention_maps finds a pattern that was planted, and equals a loop."""

import math

import pytest
import torch

from going_modular.attention_maps import (
    attention_distance,
    attention_gradients,
    attention_overlay,
    attention_relevance,
    attention_rollout,
    class_token_map,
    filter_components,
    position_similarity,
)
from going_modular.multihead_attention import record_attention
from going_modular.vit import create_vit

GRID = (3, 4)  # rows, columns: not square, so that a swap shows
PATCHES = GRID[0] * GRID[1]


def random_maps(layers=2, batch=2, heads=3, tokens=PATCHES + 1):
    torch.manual_seed(0)
    shape = (batch, heads, tokens, tokens)
    return [torch.randn(shape).double().softmax(dim=-1) for _ in range(layers)]


def planted(row, column):
    """Weights whose class token looks at one patch; all else looks at itself."""
    weights = torch.eye(PATCHES + 1).double().expand(1, 1, -1, -1).clone()
    weights[0, 0, 0] = 0
    weights[0, 0, 0, 1 + row * GRID[1] + column] = 1
    return weights


@pytest.mark.parametrize("row, column", [(0, 0), (2, 3), (1, 2), (2, 0)])
def test_the_map_and_the_rollout_find_the_patch(row, column):
    expected = torch.zeros(GRID).double()
    expected[row, column] = 1
    weights = planted(row, column)
    assert torch.equal(class_token_map(weights, GRID)[0, 0], expected)
    itself = torch.eye(PATCHES + 1).double()[None, None]
    rollout = attention_rollout([itself, weights, itself])
    assert torch.equal(class_token_map(rollout, GRID)[0, 0], expected / 2)
    light = attention_overlay(torch.ones(3, 24, 32).double(), expected)
    brightest = light[0].argmax().item()
    assert (brightest // 32 // 8, brightest % 32 // 8) == (row, column)


def test_the_map_is_row_0_without_its_first_number():
    (weights,) = random_maps(layers=1)
    found = class_token_map(weights, GRID)
    for i in range(2):
        for head in range(3):
            for row in range(3):
                for column in range(4):
                    expected = weights[i, head, 0, 1 + 4 * row + column]
                    assert found[i, head, row, column] == expected


def test_rollout_of_two_layers_by_hand():
    first, second = random_maps()
    found = attention_rollout([first, second])
    n = PATCHES + 1
    for image in range(2):
        A1, A2 = (m[image].sum(dim=0) / 3 for m in (first, second))
        for i in range(n):
            for j in range(n):
                total = 0.0
                for k in range(n):
                    late = 0.5 * A2[i, k] + 0.5 * (i == k)
                    early = 0.5 * A1[k, j] + 0.5 * (k == j)
                    total += (late * early).item()
                assert math.isclose(found[image, 0, i, j], total, abs_tol=1e-12)


def test_rollout_of_a_model_of_two_layers():
    """The product written out, from the attention that the model recorded."""
    torch.manual_seed(0)
    model = create_vit("vit_mini_8", num_transformer_layers=2, img_size=32).double()
    with torch.no_grad(), record_attention(model.eval()) as maps:
        model(torch.rand(2, 3, 32, 32).double())
    eye = torch.eye(17).double()
    A1, A2 = (m.mean(dim=1) for m in maps)
    expected = (A2 + eye) / 2 @ ((A1 + eye) / 2)
    found = attention_rollout(maps)
    assert (found[:, 0] - expected).abs().max() < 1e-12
    assert (found.sum(dim=-1) - 1).abs().max() < 1e-12
    assert (expected - (A1 + eye) / 2 @ ((A2 + eye) / 2)).abs().max() > 1e-4


@pytest.mark.parametrize("residual", [0.0, 0.25, 0.9])
def test_rows_of_the_rollout_sum_to_one(residual):
    rollout = attention_rollout(random_maps(layers=5), residual)
    assert rollout.shape == (2, 1, PATCHES + 1, PATCHES + 1)
    assert (rollout.sum(dim=-1) - 1).abs().max() < 1e-12
    one = random_maps(layers=1)
    eye = torch.eye(PATCHES + 1).double()
    expected = residual * eye + (1 - residual) * one[0].mean(dim=1)
    assert (attention_rollout(one, residual)[:, 0] - expected).abs().max() < 1e-12


def test_relevance_by_loops():
    """Rules 5 and 6 of Chefer et al., entry by entry, later layers on earlier ones."""
    first, second = random_maps()
    torch.manual_seed(1)
    slopes = [torch.randn_like(first), torch.randn_like(second)]
    found = attention_relevance([first, second], slopes)
    n = PATCHES + 1
    for image in range(2):
        relevance = [[float(i == j) for j in range(n)] for i in range(n)]
        for weights, slope in zip((first, second), slopes, strict=True):
            gain = [[0.0] * n for _ in range(n)]
            for head in range(3):
                product = (weights[image, head] * slope[image, head]).tolist()
                for i in range(n):
                    for j in range(n):
                        gain[i][j] += max(0.0, product[i][j]) / 3
            relevance = [
                [
                    relevance[i][j]
                    + sum(gain[i][k] * relevance[k][j] for k in range(n))
                    for j in range(n)
                ]
                for i in range(n)
            ]
        expected = torch.tensor(relevance, dtype=torch.float64)
        assert (found[image, 0] - expected).abs().max() < 1e-12


@pytest.fixture
def small_vit():
    torch.manual_seed(0)
    model = create_vit(
        "vit_mini_8", num_transformer_layers=2, img_size=(24, 32), num_classes=4
    )
    torch.nn.init.normal_(model.head.weight)
    return model.double().eval()


@pytest.mark.parametrize("classes", [None, [3, 0]])
def test_gradients_are_those_of_the_output_times_the_values(small_vit, classes):
    """Attention is weights times values: so the gradient is that of the output, times
    the values. Hooks read both from a forward pass with the fused kernel."""
    small_vit.requires_grad_(False)
    images = torch.rand(2, 3, 24, 32).double()
    inside = []
    for block in small_vit.encoder:
        layer = block.msa_block.attention
        layer.qkv.register_forward_hook(lambda *found: inside.append(found[2]))
        layer.out_proj.register_forward_pre_hook(lambda _, x: inside.append(x[0]))
    logits = small_vit(images.clone().requires_grad_())
    chosen = logits.argmax(dim=1).tolist() if classes is None else classes
    total = sum(logits[i, c] for i, c in enumerate(chosen))
    of_outputs = torch.autograd.grad(total, inside[1::2])
    asked = None if classes is None else torch.tensor(classes)
    with torch.no_grad():  # must not matter
        maps, found = attention_gradients(small_vit, images, asked)
    with torch.no_grad(), record_attention(small_vit) as recorded:
        small_vit(images)
    for layer in range(2):
        assert (maps[layer] - recorded[layer]).abs().max() < 1e-12
        assert not maps[layer].requires_grad and not found[layer].requires_grad
        heads = of_outputs[layer].unflatten(2, (3, 64)).transpose(1, 2)
        value = inside[2 * layer].detach()[:, :, 2 * 192 :]
        value = value.unflatten(2, (3, 64)).transpose(1, 2)
        assert (found[layer] - heads @ value.mT).abs().max() < 1e-12
        assert found[layer].abs().max() > 1e-4


def test_gradients_leave_the_model_as_it_was(small_vit):
    images = torch.rand(2, 3, 24, 32).double()
    before = small_vit(images)
    attention_gradients(small_vit, images)
    with pytest.raises(ValueError, match="size"):
        attention_gradients(small_vit, images[:, :, :16])
    for block in small_vit.encoder:
        assert "attend" not in vars(block.msa_block.attention)
    assert torch.equal(small_vit(images), before)
    assert all(p.grad is None for p in small_vit.parameters())
    assert not images.requires_grad


@pytest.mark.parametrize("class_token", [True, False])
def test_distance_equals_a_loop(class_token):
    (weights,) = random_maps(layers=1, tokens=PATCHES + class_token)
    found = attention_distance(weights, GRID, 8, class_token)
    places = [(row, column) for row in range(3) for column in range(4)]
    for head in range(3):
        total = 0.0
        for image in range(2):
            for i, here in enumerate(places):
                row = weights[image, head, class_token + i, class_token:]
                distances = [8 * math.dist(here, there) for there in places]
                share = sum(w * d for w, d in zip(row.tolist(), distances, strict=True))
                total += share / row.sum().item()
        assert math.isclose(found[head], total / (2 * PATCHES), rel_tol=1e-6)


def test_distance_of_planted_heads():
    """Head 0 looks at itself, head 1 one row down (cyclic), head 2 at everything."""
    weights = torch.zeros(1, 3, PATCHES + 1, PATCHES + 1)
    for i in range(PATCHES):
        weights[0, 0, 1 + i, 1 + i] = 1
        weights[0, 1, 1 + i, 1 + (i + 4) % PATCHES] = 1
    weights[0, 2] = 1 / (PATCHES + 1)
    itself, below, everywhere = attention_distance(weights, GRID, 16).tolist()
    assert itself == 0
    assert below == pytest.approx((2 * 16 + 32) / 3)  # one down twice, two up once
    assert everywhere > below > itself or everywhere > 16


def test_components_find_planted_directions():
    """Filters made of two pictures in known shares: these two come out, in order."""
    torch.manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(3 * 4 * 4, 2).double())
    amounts = torch.randn(60, 2).double()
    amounts = amounts - amounts.mean(dim=0)
    amounts, _ = torch.linalg.qr(amounts)
    filters = (amounts * torch.tensor([9.0, 3.0])) @ basis.T + 0.5
    found = filter_components(filters.reshape(60, 3, 4, 4), 2)
    assert found.shape == (2, 3, 4, 4)
    for component, expected in zip(found, basis.T.float(), strict=True):
        scaled = component.flatten()
        assert scaled.min() == 0 and scaled.max() == 1
        correlation = torch.corrcoef(torch.stack([scaled, expected]))[0, 1].abs()
        assert correlation > 1 - 1e-5


def test_similarity_finds_planted_rows():
    """Positions that know their row only: 1 within a row, 0 between rows."""
    weight = torch.zeros(1, PATCHES + 1, 8)
    weight[0, 0] = 7.0  # the class token must not matter
    for i in range(PATCHES):
        weight[0, 1 + i, i // 4] = 1.0 + i
    found = position_similarity(weight, GRID)
    assert found.shape == (*GRID, *GRID)
    for row in range(3):
        expected = torch.zeros(GRID)
        expected[row] = 1
        for column in range(4):
            assert torch.allclose(found[row, column], expected)
    without = position_similarity(weight[:, 1:], GRID, num_prefix_tokens=0)
    assert torch.equal(without, found)


def test_overlay_keeps_the_brightest_and_darkens_the_rest():
    torch.manual_seed(0)
    image, attention = torch.rand(3, 8, 8), torch.zeros(2, 2)
    assert torch.allclose(attention_overlay(image, torch.ones(2, 2)), image)
    assert torch.allclose(attention_overlay(image, 0.001 * torch.ones(2, 2)), image)
    assert torch.allclose(attention_overlay(image, attention), 0.2 * image)
    attention[0, 1] = 3.0
    dark = attention_overlay(image, attention)
    assert torch.allclose(dark[:, 0, 7], image[:, 0, 7])
    assert torch.allclose(dark[:, 7, 0], 0.2 * image[:, 7, 0])


def test_classes_of_another_shape(small_vit):
    images = torch.rand(2, 3, 24, 32).double()
    with pytest.raises(ValueError, match=r"classes must be \(2,\)"):
        attention_gradients(small_vit, images, torch.tensor([1]))


def test_bad_arguments():
    (weights,) = random_maps(layers=1)
    for call, words in [
        (lambda: class_token_map(weights, (4, 4)), "needs weights"),
        (lambda: class_token_map(weights[0], GRID), "needs weights"),
        (lambda: attention_distance(weights, GRID, 8, False), "needs weights"),
        (lambda: attention_rollout([]), "maps must be"),
        (lambda: attention_rollout([weights, weights[:1]]), "maps must be"),
        (lambda: attention_rollout([weights[0]]), "maps must be"),
        (lambda: attention_rollout([weights], 1.0), "residual"),
        (lambda: attention_rollout([weights], -0.1), "residual"),
        (lambda: attention_relevance([], []), "gradients must"),
        (lambda: attention_relevance([weights], [weights[:1]]), "gradients must"),
        (lambda: attention_gradients(torch.nn.Linear(2, 2), weights), "holds no"),
        (lambda: filter_components(torch.rand(6, 3, 4, 4), 7), "1 to 6 components"),
        (lambda: filter_components(torch.rand(6, 3, 4, 4), 0), "components"),
        (lambda: filter_components(torch.rand(6, 3, 16)), "components"),
        (lambda: position_similarity(torch.rand(1, 12, 8), GRID), "needs positions"),
        (lambda: position_similarity(torch.rand(13, 8), GRID), "needs positions"),
        (lambda: attention_overlay(torch.rand(8, 8), torch.rand(2, 2)), "expected"),
        (lambda: attention_overlay(torch.rand(3, 8, 8), torch.rand(4)), "expected"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
