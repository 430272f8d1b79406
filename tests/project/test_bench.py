"""`make bench` compares like with like, counts right, and writes what it measured."""

import json
import sys

import pytest
import results
import speed
import time_to_accuracy
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from going_modular.vit import create_vit

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", ["vit_mini_8", "vit_base_16"])
def test_all_peers_have_the_same_sizes(name):
    """Equal but for vit-pytorch, which has LayerNorms around its patch embedding."""
    with torch.device("meta"):
        counts = {
            peer: sum(p.numel() for p in speed.build(peer, name).parameters())
            for peer in speed.PEERS
        }
    others = counts.pop("vit-pytorch")
    assert len(set(counts.values())) == 1, counts
    assert others == pytest.approx(counts["ours"], rel=0.01)


@pytest.mark.parametrize("peer", speed.PEERS)
def test_no_peer_has_dropout(peer):
    model = speed.build(peer, "vit_mini_8").train()
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(model(images), model(images))
    assert model(images).shape == (2, 1000)


def test_the_built_in_one_computes_what_ours_does():
    """With our weights copied: the ViT of many tutorials is a ViT."""
    torch.manual_seed(0)
    ours = create_vit("vit_mini_8", mlp_dropout=0.0, embedding_dropout=0.0).eval()
    theirs = speed.build("nn.TransformerEncoder", "vit_mini_8").eval()
    theirs.embedding.load_state_dict(ours.embedding.state_dict())
    for block, layer in zip(ours.encoder, theirs.encoder.layers, strict=True):
        attention = block.msa_block.attention
        layer.self_attn.in_proj_weight.data = attention.qkv.weight.data
        layer.self_attn.in_proj_bias.data = attention.qkv.bias.data
        layer.self_attn.out_proj.load_state_dict(attention.out_proj.state_dict())
        layer.norm1.load_state_dict(block.msa_block.layer_norm.state_dict())
        layer.norm2.load_state_dict(block.mlp_block.layer_norm.state_dict())
        layer.linear1.load_state_dict(block.mlp_block.mlp[0].state_dict())
        layer.linear2.load_state_dict(block.mlp_block.mlp[3].state_dict())
    theirs.encoder.norm.load_state_dict(ours.layer_norm.state_dict())
    theirs.head.load_state_dict(ours.head.state_dict())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(theirs(images), ours(images), atol=1e-5, rtol=1e-5)


def test_flops_are_those_that_pytorch_counts():
    model = create_vit("vit_mini_8").eval()
    # The counter knows no formula for the CPU's fused kernel, and would leave it out.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 64, 64))
    assert speed.flops_of("vit_mini_8") == pytest.approx(
        counter.get_total_flops(), rel=0.01
    )


def test_a_training_step_trains_and_a_forward_pass_does_not():
    for mode in ("forward", "training"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
        before = model[1].weight.clone()
        step = speed.make_step(model, torch.randn(4, 3, 2, 2), mode, amp=False)
        assert step() > 0
        assert torch.equal(model[1].weight, before) == (mode == "forward")


def test_ratios_are_to_torchvision_in_the_same_round(monkeypatch):
    monkeypatch.setitem(speed.BATCH, "cpu", {"vit_mini_8": 1})
    found = speed.measure("vit_mini_8", "forward", "cpu", 3, compiled=False)
    assert set(found) == {*speed.PEERS, "ours, bfloat16"}
    assert found["torchvision"]["ratio"] == 1 and found["torchvision"]["spread"] == [
        1,
        1,
    ]
    for row in found.values():
        low, high = row["spread"]
        assert 0 < low <= row["ratio"] <= high


@pytest.mark.slow
def test_training_takes_more_memory_than_a_forward_pass():
    forward, training = (
        speed.memory_apart("ours", "vit_mini_8", mode, "cpu") for mode in results.MODES
    )
    weights = 4e-6 * sum(
        p.numel() for p in speed.build("ours", "vit_mini_8").parameters()
    )
    assert training > forward + 3 * weights  # gradients, and two means in AdamW
    assert forward > weights


def test_reached():
    points = [(1.0, 0.4), (2.5, 0.61), (3.0, 0.55)]
    assert time_to_accuracy.reached(points, 0.5) == 2.5
    assert time_to_accuracy.reached(points, 0.7) is None


def test_results_are_written_from_what_was_stored(tmp_path, monkeypatch):
    line = {"images_per_s": 12.34, "ratio": 0.987, "spread": [0.9, 1.1]}
    rows = {"torchvision": line | {"megabytes": 1234.5}, "ours": line}
    stored = {
        f"{name} {mode}": rows for name in speed.BATCH["cpu"] for mode in results.MODES
    }
    stored["about"] = {"cpu": "a processor", "threads": 2, "torch": "9.9"}
    stored["batch"] = speed.BATCH["cpu"]
    stored["sizes"] = {name: {"img_size": 64} for name in speed.BATCH["cpu"]}
    stored["tokens"] = [
        {"patches": n, "ms": n / 10, "work": n * n} for n in speed.TOKENS
    ]
    method = {"reached": {"0.5": 3.2, "0.6": None}, "curve": [[1, 0.3], [9.4, 0.55]]}
    method["end"] = {"seconds": 9.4, "accuracy": 0.55}
    taken = {"methods": {"naive": method}, "baseline": 1 / 3, "targets": [0.5, 0.6]}
    taken |= {"train_pictures": 225, "test_pictures": 300}
    (tmp_path / "speed.json").write_text(json.dumps(stored))
    (tmp_path / "time.json").write_text(json.dumps(taken))
    words = ["--speed", tmp_path / "speed.json", "--time", tmp_path / "time.json"]
    words += ["--output", tmp_path / "RESULTS.md"]
    monkeypatch.setattr(sys, "argv", ["results.py", *map(str, words)])
    results.main()
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| ours | 12.3 | 0.99 | 0.90 … 1.10 |  |" in text
    assert "| naive | 3.2 s | not in 9 s | 55.0% after 9 s |" in text
    for name in ("speed", "tokens", "time"):
        assert (tmp_path / "plots" / f"{name}.png").stat().st_size > 5000
