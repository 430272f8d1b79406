"""A wheel works in an empty environment, pictures and checkpoint included."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import torch
from going_modular.checkpoint import load_checkpoint
from going_modular.data_setup import create_dataloaders, create_transform
from going_modular.position_embedding import ViTEmbedding
from helper_functions import get_foodvision_mini, show_model, walk_through_dir

folder = get_foodvision_mini()
walk_through_dir(folder)
train, test, names = create_dataloaders(
    folder / "train", folder / "test", create_transform(64), batch_size=8
)
images, labels = next(iter(train))
show_model("class token")
print(names, len(train.dataset), len(test.dataset))
print(tuple(ViTEmbedding(64, 3, 8, 192)(images).shape))
print(len(load_checkpoint()[1]["class_names"]), "classes in the checkpoint")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_what_the_wheel_holds(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    pictures = [name for name in names if name.endswith(".jpg")]
    assert len(pictures) == 300
    assert all(n.startswith("going_modular/images/foodvision_mini/") for n in pictures)
    assert "going_modular/models/vit_mini_8_food98.safetensors" in names
    modules = [*ROOT.glob("going_modular/**/*.py"), *ROOT.glob("vit_course/**/*.py")]
    modules = {path.relative_to(ROOT).as_posix() for path in modules}
    assert modules | {"helper_functions.py"} <= set(names)
    assert not [
        n for n in names if n.startswith(("tests", "notebooks", "data", "build"))
    ]
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_it_works_in_an_empty_environment(wheel, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    scripts = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    pip = [scripts / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "-c", ROOT / "constraints.txt", wheel], check=True)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    result = subprocess.run(
        [scripts / "python", "-c", CODE],
        cwd=tmp_path,  # away from the clone
        env=environment | {"VIT_COURSE_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "['pizza', 'steak', 'sushi'] 225 75" in result.stdout
    assert "(8, 65, 192)" in result.stdout
    assert "98 classes in the checkpoint" in result.stdout
    assert "There are 0 directories and 75 images in" in result.stdout
