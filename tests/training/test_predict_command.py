"""Lesson 14: `python -m going_modular.predict` answers each picture, or says why."""

import json
import shutil
import subprocess
import weakref

import numpy as np
import pytest
import torch
from commands import command, environment, run
from PIL import Image

from going_modular.checkpoint import load_checkpoint, shipped_checkpoint
from going_modular.predict import (
    draw_attention,
    list_sources,
    main,
    parse,
    predict_each,
)
from going_modular.predictions import predict, transform_of

MODULE = ("-m", "going_modular.predict")


def draw(path, seed=0, side=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Seven pictures in folders, two broken ones, and two files of other kinds."""
    folder = tmp_path_factory.mktemp("mixed")
    for i in range(7):
        draw(folder / f"part {i % 2}" / f"{i}.png", i)
    (folder / "part 0" / "broken.jpg").write_bytes(b"no picture")
    (folder / "part 1" / "cut.png").write_bytes(
        (folder / "part 1" / "1.png").read_bytes()[:200]
    )
    (folder / "notes.txt").write_text("text")
    (folder / "table.csv").write_text("a,b")
    return folder


def test_folders_are_listed_in_order_and_the_rest_is_counted(mixed, capsys):
    listed = list(list_sources(["http://server/x.jpg", str(mixed), "other.jpg"]))
    assert listed[0] == "http://server/x.jpg" and listed[-1] == "other.jpg"
    names = [path.split("/")[-1] for path in listed[1:-1]]
    assert names == [
        *("0.png", "2.png", "4.png", "6.png", "broken.jpg"),
        *("1.png", "3.png", "5.png", "cut.png"),
    ]
    assert "2 files that are no images" in capsys.readouterr().err


@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
def test_each_picture_gets_its_answer(mixed, batch_size):
    """Equal to lesson 13's `predict`, whatever stands beside it in the batch."""
    model, _ = load_checkpoint()
    transform = transform_of(model, (64, 64))
    sources = list(list_sources([str(mixed)]))
    answers = list(predict_each(model, sources, transform, batch_size))
    assert [source for source, *_ in answers] == sources
    for source, shares, problem in answers:
        if "broken" in source or "cut" in source:
            assert shares is None and source in problem
        else:
            assert problem == ""
            expected = predict(model, [source])[0]
            torch.testing.assert_close(shares, expected, atol=1e-5, rtol=0)


def test_one_batch_is_in_memory(tmp_path):
    """Of 100 pictures no more than a batch, and the answers to one, are alive."""
    path = draw(tmp_path / "one.png")
    model, _ = load_checkpoint()
    transform, alive = transform_of(model, (64, 64)), weakref.WeakSet()
    most = 0

    def watched(picture):
        nonlocal most
        image = transform(picture)
        alive.add(image)
        most = max(most, len(alive))
        return image

    answers = predict_each(model, [str(path)] * 100, watched, 8)
    assert sum(shares is not None for _, shares, _ in answers) == 100
    assert most <= 16


def test_sources_are_asked_for_batch_by_batch(mixed):
    model, _ = load_checkpoint()
    asked = []

    def sources():
        for path in list_sources([str(mixed)]):
            asked.append(path)
            yield path

    answers = predict_each(model, sources(), transform_of(model, (64, 64)), 2)
    next(answers)
    assert len(asked) == 2


def test_json_lines(mixed, capsys):
    assert main([str(mixed), "--json", "--top", "2"]) == 1  # two could not be read
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert len(lines) == 9
    assert sum("error" in line for line in lines) == 2
    assert {len(line["classes"]) for line in lines if "classes" in line} == {2}
    assert captured.err.count("error: ") == 2


def test_plain_lines(tmp_path, capsys):
    path = draw(tmp_path / "one.png")
    assert main([str(path), "--top", "1"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{path}: ") and captured.out.count("%") == 1
    assert "98 classes" in captured.err


def test_without_arguments_it_shows_test_pictures(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("VIT_COURSE_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)  # where nobody has trained
    assert main([]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "%" in line]
    assert len(lines) == 3


def test_the_last_run_is_the_default(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "train" / "model.safetensors"
    run.parent.mkdir(parents=True)
    run.write_bytes(b"damaged")
    assert main([str(draw(tmp_path / "one.png"))]) == 1
    assert "runs/train/model.safetensors is no checkpoint" in capsys.readouterr().err


def test_the_folder_of_a_run_is_enough(tmp_path, capsys):
    shutil.copy(shipped_checkpoint(), tmp_path / "model.safetensors")
    picture = str(draw(tmp_path / "one.png"))
    assert main([picture, "--checkpoint", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert f"{tmp_path}/model.safetensors: 98 classes" in said.err
    assert main([picture]) == 0
    assert capsys.readouterr().out == said.out
    (tmp_path / "model.safetensors").unlink()
    assert main([picture, "--checkpoint", str(tmp_path)]) == 1
    assert f"{tmp_path}/model.safetensors is not a file" in capsys.readouterr().err


def test_attention_of_one_and_of_several(mixed, tmp_path, capsys):
    picture = mixed / "part 0" / "0.png"
    assert main([str(picture), "--attention", str(tmp_path / "map.png")]) == 0
    assert f"{tmp_path / 'map.png'}: the brighter" in capsys.readouterr().err
    with Image.open(tmp_path / "map.png") as drawn:
        assert drawn.size == (512, 256)
    main([str(mixed / "part 0"), "--attention", str(tmp_path / "all.png")])
    assert len(list(tmp_path.glob("all-*.png"))) == 4
    model, _ = load_checkpoint()
    draw_attention(model, str(picture), tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "map.png").read_bytes()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--top", "99"], "--top must be 1 to 98"),
        (["--batch-size", "0"], "--batch-size at least 1"),
        (["--checkpoint", "nowhere.safetensors"], "nowhere.safetensors is not a file"),
    ],
)
def test_refused(tmp_path, capsys, options, message):
    assert main([str(draw(tmp_path / "one.png")), *options]) == 1
    assert message in capsys.readouterr().err


def test_an_empty_folder(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "no images found" in capsys.readouterr().err


def test_help_names_every_default(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        parse(["--help"])
    said = capsys.readouterr().out
    assert said.count("(default: ") >= len(vars(parse([]))) - 1


@pytest.mark.slow
def test_a_thousand_pictures(tmp_path):
    """Every one gets a line; the reader may stop early."""
    for i in range(1000):
        draw(tmp_path / f"{i:03}.png", i)
    (tmp_path / "500.png").write_bytes(b"")
    done = run(*MODULE, tmp_path, "--json")
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({line["source"] for line in lines}) == 1000
    assert [line["source"] for line in lines if "error" in line] == [
        str(tmp_path / "500.png")
    ]
    with subprocess.Popen(
        command(*MODULE, tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    ) as process:
        assert "%" in process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert "Traceback" not in errors
