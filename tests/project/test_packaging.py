"""A wheel works with what it asks for alone, pictures and checkpoint included."""

import os
import subprocess
import sys
import zipfile
from importlib.metadata import distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import ast
from importlib.util import find_spec
from pathlib import Path

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
here = Path(find_spec("going_modular").origin).parents[1]
modules = [here / "helper_functions.py", *here.glob("going_modular/**/*.py")]
modules += here.glob("vit_course/**/*.py")
for path in modules:  # whatever they import, if only when it is used, is there
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        assert all(find_spec(name.split(".")[0]) for name in names), (path, names)
print(len(modules), "modules in", here)
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
    assert "going_modular/py.typed" in names  # type checkers read the annotations
    modules = [*ROOT.glob("going_modular/**/*.py"), *ROOT.glob("vit_course/**/*.py")]
    modules = {path.relative_to(ROOT).as_posix() for path in modules}
    assert modules | {"helper_functions.py"} <= set(names)
    assert not [
        n for n in names if n.startswith(("tests", "notebooks", "data", "build"))
    ]
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.fixture(scope="module")
def needed(wheel):
    """What pip would install with the wheel, by name, out of this environment."""
    [of_wheel] = distributions(path=[str(wheel)])
    found, wanted = {}, [*of_wheel.requires]
    while wanted:
        requirement = Requirement(wanted.pop())
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if name not in found:
            found[name] = distribution(name)
            wanted += found[name].requires or []
        version = found[name].version
        assert requirement.specifier.contains(version, prereleases=True), requirement
    return found


@pytest.mark.slow
def test_it_works_where_there_is_nothing_else(wheel, needed, tmp_path):
    """Links save the minutes of installing torch again."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    make = [sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"]
    subprocess.run(make, check=True)
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", wheel], check=True)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([python, "-c", code], capture_output=True, text=True)
    packages = Path(packages.stdout.strip())
    for known in needed.values():
        for top in {file.parts[0] for file in known.files} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(known.locate_file(top))
    result = subprocess.run(
        [python, "-c", CODE],
        cwd=tmp_path,  # away from the clone
        env=environment | {"VIT_COURSE_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    modules = [name for name in zipfile.ZipFile(wheel).namelist() if name[-3:] == ".py"]
    assert f"{len(modules)} modules in {packages}\n" in result.stdout
    assert "['pizza', 'steak', 'sushi'] 225 75" in result.stdout
    assert "(8, 65, 192)" in result.stdout
    assert "98 classes in the checkpoint" in result.stdout
    assert "There are 0 directories and 75 images in" in result.stdout
