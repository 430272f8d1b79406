"""Appendix A4: masked patch prediction and MAE by value, and the stored runs."""

import json

import pytest
import torch
import without_labels
from PIL import Image
from torch.nn import functional as F
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from going_modular import engine
from going_modular.checkpoint import load_checkpoint
from going_modular.masked_patches import (
    MaskedAutoencoder,
    MaskedPatchPrediction,
    mean_colors,
    pick,
)
from going_modular.patches import patchify, unpatchify
from going_modular.transfer import to_our_names
from going_modular.vit import ViT
from helper_functions import get_foodvision_mini

pytestmark = pytest.mark.usefixtures("one_thread")

NO_DROPOUT = {"mlp_dropout": 0.0, "embedding_dropout": 0.0}
SIZES = {"img_size": 32, "patch_size": 8, "embedding_dim": 24, "mlp_size": 48}
SIZES |= {"num_heads": 3, "num_transformer_layers": 2, "num_classes": 2} | NO_DROPOUT
DECODER = {"decoder_dim": 16, "decoder_layers": 2, "decoder_heads": 2}


def perturbed(model):
    """All parameters random: one that stays 0 or 1 would hide a mistake."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.2)
    return model


@pytest.fixture
def batch():
    """Images in -1 … 1, and a random value for each patch."""
    torch.manual_seed(2)
    return torch.rand(5, 3, 32, 32) * 2 - 1, torch.rand(5, 16)


@pytest.fixture
def mae():
    return perturbed(MaskedAutoencoder(ViT(**SIZES), **DECODER))


# MAE


def by_our_names(theirs):
    """Tensors of ViTMAEForPreTraining under our names, pixels in our order."""
    blocks = "decoder.decoder_layers."  # renamed as if they were the encoder's
    as_encoder = {
        name.replace(f"{blocks}{i}.", f"vit.layers.{100 + i}."): tensor
        for i in range(DECODER["decoder_layers"])
        for name, tensor in theirs.items()
        if name.startswith(("vit.", f"{blocks}{i}."))
    }
    ours = {}
    for name, tensor in to_our_names(as_encoder).items():
        name = name.replace("encoder.10", "decoder.")
        ours[name if name.startswith("decoder.") else f"vit.{name}"] = tensor
    pixels = torch.arange(192).view(8, 8, 3).permute(2, 0, 1).flatten()
    for name in ("weight", "bias"):
        ours[f"to_decoder.{name}"] = theirs[f"decoder.decoder_embed.{name}"]
        ours[f"layer_norm.{name}"] = theirs[f"decoder.decoder_norm.{name}"]
        ours[f"to_pixels.{name}"] = theirs[f"decoder.decoder_pred.{name}"][pixels]
    ours["mask_token"] = theirs["decoder.mask_token"]
    return ours


@pytest.mark.parametrize("norm_pixels", [True, False])
@pytest.mark.parametrize("mask_ratio", [0.75, 0.3])
def test_mae_equals_transformers(batch, norm_pixels, mask_ratio):
    """The loss and all gradients, with the same weights and the same random values."""
    config = ViTMAEConfig(
        image_size=32,
        patch_size=8,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=64,
        layer_norm_eps=1e-6,
        norm_pix_loss=norm_pixels,
        mask_ratio=mask_ratio,
    )
    theirs = perturbed(ViTMAEForPreTraining(config))
    options = {"mask_ratio": mask_ratio, "norm_pixels": norm_pixels} | DECODER
    ours = MaskedAutoencoder(ViT(**SIZES), **options)
    state = by_our_names(theirs.state_dict())
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert set(missing) == {"vit.head.weight", "vit.head.bias"} and not unexpected
    ours.positions.weight.copy_(theirs.decoder.decoder_pos_embed)
    images, noise = batch
    loss, expected = ours(images, noise), theirs(images, noise=noise).loss
    assert loss.item() > 0.1
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    loss.backward()
    expected.backward()
    gradients = {n: p.grad for n, p in theirs.named_parameters()}
    fixed = "embeddings.position_embeddings"  # theirs are not learned
    gradients[f"vit.{fixed}"] = torch.zeros_like(theirs.vit.embeddings.cls_token)
    gradients = by_our_names(gradients)
    compared = 0
    for name, p in ours.named_parameters():
        if "vit.head" not in name and "position_embedding" not in name:
            torch.testing.assert_close(p.grad, gradients[name], atol=1e-5, rtol=1e-4)
            compared += p.grad.abs().max() > 0
    assert compared == len(list(ours.parameters())) - 3


def test_sorted_back_every_token_has_its_place(batch):
    order = batch[1].argsort(dim=1)
    tokens = torch.randn(5, 16, 3)
    assert torch.equal(pick(pick(tokens, order), order.argsort(dim=1)), tokens)
    assert torch.equal(pick(tokens, order)[2, 4], tokens[2, order[2, 4]])


def test_with_nothing_hidden_the_encoder_is_the_vit(mae, batch):
    """Each token comes out as from the ViT itself, in the order of the choice."""
    images, order = batch[0], batch[1].argsort(dim=1)
    mae.num_kept = 16
    z = mae.vit.layer_norm(mae.vit.encoder(mae.vit.embedding(images)))
    encoded = mae.encode(images, order)
    torch.testing.assert_close(encoded[:, 0], z[:, 0], atol=1e-5, rtol=1e-5)
    expected = pick(z[:, 1:], order)
    torch.testing.assert_close(encoded[:, 1:], expected, atol=1e-5, rtol=1e-5)


def test_left_out_is_masked(mae, batch):
    """As if nobody could attend to the hidden patches."""
    images, order = batch[0][:1], batch[1][:1].argsort(dim=1)
    kept = torch.cat([torch.tensor([0]), 1 + order[0, :4]])
    mask = torch.zeros(17, 17, dtype=torch.bool)
    mask[:, kept] = True
    z = mae.vit.layer_norm(mae.vit.encoder(mae.vit.embedding(images), mask))
    encoded = mae.encode(images, order)
    torch.testing.assert_close(encoded, z[:, kept], atol=1e-5, rtol=1e-5)


def test_the_loss_is_on_hidden_patches_alone(mae, batch):
    """Those with the largest values; what they show never reaches the encoder."""
    images, noise = batch
    hidden = noise >= noise.sort(dim=1).values[:, 4:5]  # 12 of 16
    kept = []
    hook = mae.to_pixels.register_forward_hook(
        lambda module, inputs, output: (output.retain_grad(), kept.append(output))[1]
    )
    loss = mae(images, noise)
    loss.backward()
    hook.remove()
    predicted = kept[0][:, 1:]
    assert torch.equal(kept[0].grad[:, 1:].abs().amax(dim=2) > 0, hidden)
    patches = patchify(images, 8)
    mean, std = patches.mean(2, keepdim=True), patches.var(2, keepdim=True) + 1e-6
    errors = (predicted - (patches - mean) / std.sqrt()).square()[hidden]
    torch.testing.assert_close(loss, errors.mean())
    painted = torch.where(hidden[..., None], torch.randn(5, 16, 192), patches)
    order = noise.argsort(dim=1)
    other = mae.encode(unpatchify(painted, 8, 32), order)
    assert torch.equal(other, mae.encode(images, order))


def test_each_image_and_each_call_hides_other_patches(mae, batch, monkeypatch):
    orders, encode = [], mae.encode
    monkeypatch.setattr(mae, "encode", lambda x, o: orders.append(o) or encode(x, o))
    torch.manual_seed(0)
    for _ in range(2):
        mae(batch[0])
    assert len({tuple(row.tolist()) for row in torch.cat(orders)}) == 10


@pytest.mark.parametrize("mask_ratio", [0.0, 1.0, 0.95, -1])
def test_some_patches_are_hidden_and_some_are_not(mask_ratio):
    with pytest.raises(ValueError, match=f"of the 16 patches .*, got {mask_ratio}"):
        MaskedAutoencoder(ViT(**SIZES), mask_ratio)


@pytest.mark.parametrize("task", [MaskedAutoencoder, MaskedPatchPrediction])
def test_a_vit_without_a_class_token_is_refused(task):
    with pytest.raises(ValueError, match="must have pool=\"cls\", got 'mean'"):
        task(ViT(**SIZES | {"pool": "mean"}))


# Masked patch prediction


def test_colours_by_hand():
    """Black, white, and a patch whose levels are 7, 4 and 0."""
    images = torch.empty(1, 3, 8, 24)
    for i, colour in enumerate([(-1, -1, -1), (1, 1, 1), (0.9, 0.1, -0.8)]):
        images[..., 8 * i : 8 * i + 8] = torch.tensor(colour).view(3, 1, 1)
    assert mean_colors(images, 8).tolist() == [[0, 511, 7 * 64 + 4 * 8 + 0]]
    images[0, 0, :, :4] = 1  # red on half of a black patch: its mean is 0
    assert mean_colors(images, 8)[0, 0] == 4 * 64


def test_what_becomes_of_corrupted_patches():
    """32 of 64 in each image: 80 % masked, 10 % from elsewhere, 10 % as they are."""
    task = MaskedPatchPrediction(ViT(**SIZES))
    torch.manual_seed(0)
    x = torch.randn(2000, 64, 24)
    y, chosen = task.corrupt(x)
    assert (chosen.sum(dim=1) == 32).all()
    assert 0.4 < chosen.float().mean(dim=0).min(), "every place is chosen"
    same, masked = (y == x).all(dim=2), (y == task.mask_token).all(dim=2)
    assert same[~chosen].all()
    swapped = chosen & ~same & ~masked
    for which, part in ((masked, 0.8), (swapped, 0.1), (chosen & same, 0.1)):
        assert which.sum() / chosen.sum() == pytest.approx(part, abs=0.01)
    known = {tuple(row) for row in x.flatten(0, 1).tolist()}
    assert {tuple(row) for row in y[swapped].tolist()} <= known


def test_loss_of_the_colours_one_by_one(batch):
    task = perturbed(MaskedPatchPrediction(ViT(**SIZES), corrupted=0.25))
    torch.manual_seed(3)
    loss = task(batch[0])
    torch.manual_seed(3)
    parts = task.vit.embedding
    x, chosen = task.corrupt(parts.patch_embedding(batch[0]))
    z = task.vit.encoder(parts.position_embedding(parts.class_token(x)))
    losses = [
        F.cross_entropy(
            task.to_colors(task.vit.layer_norm(z[i, 1 + j])),
            mean_colors(batch[0], 8)[i, j],
        )
        for i, j in chosen.nonzero().tolist()
    ]
    assert len(losses) == 5 * 4
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    loss.backward()
    assert all(
        p.grad.abs().max() > 0 for p in [task.mask_token, parts.class_token.weight]
    )


@pytest.mark.parametrize("corrupted", [0, -0.1, 1.5])
def test_a_fraction_that_corrupts_nothing(corrupted):
    with pytest.raises(ValueError, match=f"in .0, 1., got {corrupted}"):
        MaskedPatchPrediction(ViT(**SIZES), corrupted)


# The script


@pytest.fixture(scope="module")
def food(tmp_path_factory):
    """Images of one colour each, of two classes and one that is left out."""
    folder = tmp_path_factory.mktemp("food")
    for k, kind in enumerate(("apples", "figs", "pizza")):
        (folder / kind).mkdir()
        for i in range(30):
            colour = (90 * k, 8 * i, 200 - 5 * i)
            Image.new("RGB", (64, 64), colour).save(folder / kind / f"{i:02}.png")
    return folder


def words(food, output, *more):
    given = f"train --data {food} --output {output} --img-size 16 --batch-size 16"
    return [*given.split(), "--epoch-size", "40", "--device", "cpu", *more]


@pytest.mark.parametrize("task", ["mae", "colors"])
def test_a_stopped_run_goes_on_to_the_same_weights(food, tmp_path, monkeypatch, task):
    options = ["--task", task, "--samples", "80"]
    without_labels.main(words(food, tmp_path / "whole", *options))
    save, saved = engine.Run.save, []

    def save_once(run):
        if saved:
            raise KeyboardInterrupt
        saved.append(save(run))

    parts = words(food, tmp_path / "parts", *options)
    with monkeypatch.context() as patch:
        patch.setattr(engine.Run, "save", save_once)
        with pytest.raises(KeyboardInterrupt):
            without_labels.main(parts)
    without_labels.main(parts)
    whole, parts = (
        load_checkpoint(tmp_path / name / "checkpoint.safetensors")
        for name in ("whole", "parts")
    )
    for name, tensor in whole[0].state_dict().items():
        assert torch.equal(tensor, parts[0].state_dict()[name]), name
    facts = whole[1]["facts"]
    assert facts == parts[1]["facts"]
    assert facts["task"] == task and facts["samples_seen"] == 80
    assert facts["train_loss"][1] < facts["train_loss"][0]


def test_pizza_is_left_out_and_labels_are_not_used(food, tmp_path, monkeypatch):
    """With other labels it is the same run."""
    seen = []
    load = without_labels.load_images

    def shuffled(*args):
        images, labels, classes = load(*args)
        seen.append((len(images), classes))
        return images, 1 - labels, classes

    without_labels.main(words(food, tmp_path / "a", "--samples", "40"))
    monkeypatch.setattr(without_labels, "load_images", shuffled)
    without_labels.main(words(food, tmp_path / "b", "--samples", "40"))
    assert seen == [(60, ["apples", "figs"])]
    a, b = (
        load_checkpoint(tmp_path / name / "checkpoint.safetensors")[0].state_dict()
        for name in "ab"
    )
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_probe_separates_what_a_line_separates():
    torch.manual_seed(0)
    x = torch.randn(60, 4)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    x[:, :2] += 3 * torch.stack([x[:, 0].sign(), x[:, 1].sign()], dim=1)
    new, labels = x[40:] + 0.1, y[40:]
    assert torch.equal(without_labels.probe(x[:40], y[:40], 1e-3, new), labels)
    # So strong that nothing but the most frequent class is left.
    most = y[:40].bincount().argmax()
    assert (without_labels.probe(x[:40], y[:40], 1e3, new) == most).all()


def test_neighbours_vote_by_direction():
    """Lesson 12's example: all five say sushi, the nearest three pizza."""
    x = torch.tensor([[3.0, 4], [4.0, 3], [0.0, 2], [1.0, 0], [4.0, -3]])
    y = torch.tensor([0, 0, 1, 1, 1])
    new = torch.tensor([[6.0, 8.0]])
    assert without_labels.nearest(x, y, 3, new).tolist() == [0]
    assert without_labels.nearest(x, y, 5, new).tolist() == [1]


def test_a_seed_draws_as_many_images_of_each_class(monkeypatch):
    labels = torch.tensor([0] * 78 + [1] * 75 + [2] * 72)
    drawn = without_labels.draw(labels, 0)
    assert labels[drawn].bincount().tolist() == [60, 60, 60]
    assert len(set(drawn.tolist())) == 180
    assert not torch.equal(drawn, without_labels.draw(labels, 1))


def test_measured_and_stored(tmp_path, monkeypatch, capsys):
    """On a few drawn images, with few settings: every run is there and printed."""
    source, few = get_foodvision_mini(), tmp_path / "few"
    for split, count in (("train", 10), ("test", 2)):
        for folder in (source / split).iterdir():
            (few / split / folder.name).mkdir(parents=True)
            for path in sorted(folder.iterdir())[:count]:
                copy = few / split / folder.name / path.name
                copy.write_bytes(path.read_bytes())
    monkeypatch.setenv("VIT_COURSE_DATA", "")
    monkeypatch.setattr(without_labels, "SIZES", (64,))
    monkeypatch.setattr(without_labels, "PER_CLASS", 8)
    monkeypatch.setattr(
        without_labels, "SETTINGS", {"k-NN": (1, 3), "linear probe": (0.1,)}
    )
    table = tmp_path / "table.json"
    given = ["measure", "--data", str(few), "--seeds", "2", "--json", str(table)]
    without_labels.main(given)
    stored = json.loads(table.read_text())
    assert len(stored["runs"]) == 2 * 2 * 2
    assert all(len(run["correct"]) == 6 for run in stored["runs"])
    printed = capsys.readouterr().out
    assert (stored["rows"], stored["differences"]) == without_labels.table(stored)
    for row in stored["rows"]:
        assert f"{row['method']:13} {row['name']:12} {row['mean']:.1f} %" in printed


def test_stored_runs_are_whole_and_the_page_says_what_they_say():
    stored = json.loads(without_labels.STORED.read_text())
    rows, differences = without_labels.table(stored)
    assert (stored["rows"], stored["differences"]) == (rows, differences)
    assert len(stored["seeds"]) >= 5 and stored["test_images"] == 300
    text = (without_labels.ROOT / "docs" / "measurements.md").read_text()
    section = text[text.index("## Without labels") :]
    for run in stored["runs"]:
        assert len(run["correct"]) == stored["test_images"]
        assert run["setting"] in without_labels.SETTINGS[run["method"]]
    for row in rows:
        low, high = row["interval"]
        assert f"| {row['mean']:.1f} % ({low:.1f} … {high:.1f}) |" in section, row
    for pair in differences:
        if pair["of"] == "MAE":
            low, high = pair["interval"]
            shown = f"{pair['mean']:+.1f} points ({low:+.1f} … {high:+.1f}; "
            assert f"{shown}p = {pair['p_holm']:.2g})" in section
        else:
            assert pair["p_holm"] < 0.001
    for facts in stored["facts"].values():
        assert f"{facts['samples_seen']:,}" in section
