"""Appendix A5: a ViT as an ONNX file says what the model says."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

from going_modular.export import WithInsides, export_onnx, export_vit, halve, main
from going_modular.vit import ViT

SIZES = {"patch_size": 8, "embedding_dim": 24, "mlp_size": 48, "num_heads": 3}

pytestmark = pytest.mark.usefixtures("one_thread")


def small_vit(**options):
    torch.manual_seed(0)
    vit = ViT(num_transformer_layers=2, num_classes=5, **SIZES | options)
    for parameter in vit.parameters():  # zeros would hide a missing term
        parameter.data += 0.1 * torch.randn_like(parameter)
    return vit


def run(path, **inputs):
    session = onnxruntime.InferenceSession(path)
    found = session.run(None, {name: t.numpy() for name, t in inputs.items()})
    return [torch.from_numpy(array) for array in found]


@pytest.mark.parametrize("pool", ["cls", "mean"])
@pytest.mark.parametrize("img_size, channels", [(16, 3), ((16, 32), 1)])
def test_the_file_says_what_the_model_says(tmp_path, pool, img_size, channels):
    vit = small_vit(pool=pool, img_size=img_size, in_channels=channels)
    path = export_vit(vit.train(), tmp_path / "vit.onnx")  # dropout is switched off
    for batch in (1, 8):
        images = torch.randn(batch, channels, *vit.embedding.img_size)
        with torch.no_grad():
            wanted = [vit(images), *WithInsides(vit)(images)[1:]]
        for ours, theirs in zip(run(path, images=images), wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_half_of_the_bytes_and_no_other_logits_where_16_bits_hold_the_weights(tmp_path):
    vit = small_vit(img_size=16)
    vit.load_state_dict({k: t.half().float() for k, t in vit.state_dict().items()})
    full = export_vit(vit, tmp_path / "full.onnx")
    half = export_vit(vit, tmp_path / "half.onnx", half=True)
    weights = {w.name: w for w in onnx.load(half).graph.initializer}
    kinds = {w.data_type for w in weights.values()}
    assert TensorProto.FLOAT16 in kinds and TensorProto.FLOAT not in kinds
    images = torch.randn(2, 3, 16, 16)
    for ours, theirs in zip(
        run(half, images=images), run(full, images=images), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_halving_rounds_weights_and_leaves_indices(tmp_path):
    weights = [
        numpy_helper.from_array(np.float32([1 / 3]), "third"),
        numpy_helper.from_array(np.int64([2**40]), "index"),
    ]
    graph = onnx.helper.make_graph([], "g", [], [], weights)
    halve(graph)
    kept = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
    assert kept["third.half"] == np.float16(1 / 3) and kept["index"] == 2**40
    assert [(n.op_type, [*n.output]) for n in graph.node] == [("Cast", ["third"])]


def test_other_inputs_and_open_axes(tmp_path):
    class Sum(torch.nn.Module):
        def forward(self, x, factor):
            return (x * factor).sum(dim=1)

    inputs = {"x": torch.ones(2, 3), "factor": torch.ones(1)}
    path = export_onnx(Sum(), tmp_path / "sum.onnx", inputs, ["y"], {"x": {1: "width"}})
    x = torch.arange(10.0).reshape(2, 5)
    assert run(path, x=x, factor=torch.tensor([2.0]))[0].tolist() == [20.0, 70.0]
    with pytest.raises(Exception, match="invalid dimensions"):
        run(path, x=torch.ones(3, 3), factor=torch.ones(1))


def test_the_command_writes_the_courses_checkpoint(tmp_path, capsys):
    path = tmp_path / "vit.onnx"
    assert main(["--output", str(path), "--half"]) == 0
    assert str(path) in capsys.readouterr().out and path.stat().st_size < 6e6
    session = onnxruntime.InferenceSession(path)
    texts = session.get_modelmeta().custom_metadata_map
    assert len(json.loads(texts["class_names"])) == 98
    assert json.loads(texts["preprocessing"])["crop_pct"] == 0.8


@pytest.mark.parametrize("missing", ["checkpoint", "folder"])
def test_the_command_names_what_it_cannot_use(tmp_path, capsys, missing):
    words = ["--output", str(tmp_path / "vit.onnx")]
    if missing == "checkpoint":
        words += ["--checkpoint", str(tmp_path / "none.safetensors")]
    else:
        words[1] = str(tmp_path / "none" / "vit.onnx")
    assert main(words) == 1
    assert "none" in capsys.readouterr().err
