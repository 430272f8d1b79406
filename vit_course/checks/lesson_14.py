"""Checks of the exercises of lesson 14: from notebook to script."""

import importlib.util
import inspect
import io
import os
import re
import runpy
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import accumulate
from operator import or_
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.data import TensorDataset
from torch.utils.data.distributed import DistributedSampler

from going_modular.vit import create_vit
from vit_course.checks.hints import (
    NO_RETURN,
    compare,
    hint,
    learners_code,
    passed,
)

ROOT = Path(__file__).resolve().parents[2]
NAME = "vit_script.py"
GUARD = (
    'Whatever only the script should do stands under `if __name__ == "__main__":`, '
    "or in a function that is called there."
)
OWN_IMPORTS = (
    "The notebook's names do not exist in a file: it must import whatever it uses."
)


@contextmanager
def _started_with(*words: str) -> Iterator[io.StringIO]:
    """Other arguments on the command line, and all output captured."""
    before, said = sys.argv, io.StringIO()
    sys.argv = list(words)
    try:
        with redirect_stdout(said), redirect_stderr(said):
            yield said
    finally:
        sys.argv = before


def _line_of(path: Path) -> Callable[[Exception], str]:
    """Names the line of the script in which it stopped."""

    def tell(error: Exception) -> str:
        if isinstance(error, SyntaxError):
            return f"{NAME} is not valid Python, in line {error.lineno}: {error.msg}"
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if Path(f.filename).name == path.name]
        where = f" in line {lines[-1]}" if lines else ""
        more = f" {OWN_IMPORTS}" if isinstance(error, NameError) else ""
        return f"{NAME} stops{where} with {type(error).__name__}: {error}.{more}"

    return tell


def _write(answer, folder: Path) -> Path:
    """Lets the learner's function write the script, and looks where it is."""
    with TemporaryDirectory() as here, chdir(here):
        with learners_code():
            path = answer(folder)
        hint(
            isinstance(path, str | Path),
            f"`write_script` should give back the path of the file, not {path!r:.60}",
        )
        hint(
            not Path(NAME).exists(),
            "the file is written into the folder in which the notebook runs. Put it "
            f"into the folder that is given: `folder / '{NAME}'`.",
        )
    wanted = folder / NAME
    there = wanted.is_file()
    hint(there, f"after the call there is no {NAME} in the folder that was given")
    same = Path(path).is_file() and wanted.samefile(path)
    hint(same, f"`write_script` gives back {str(path)!r:.60}, not the path of the file")
    return wanted


def _import(path: Path):
    """Imports the script as a module; nothing may happen by it."""
    spec = importlib.util.spec_from_file_location("vit_script", path)
    assert spec and spec.loader  # a .py file has both
    module = importlib.util.module_from_spec(spec)
    calls = []
    hook = register_module_forward_pre_hook(lambda *given: calls.append(1))
    before, sys.modules["vit_script"] = sys.modules.get("vit_script"), module
    try:
        with (
            learners_code(_line_of(path)),
            _started_with("notebook", "--of=others", "--classes", "many") as said,
        ):
            spec.loader.exec_module(module)
    except SystemExit:
        hint(
            False,
            "on import it reads the command line, which belongs to the program that "
            f"imports it (a notebook's, say), and ends that program. {GUARD}",
        )
    finally:
        hook.remove()
        sys.modules.pop("vit_script")
        if before is not None:
            sys.modules["vit_script"] = before
    hint(
        not calls,
        "on import a model is run. Whoever imports the file wants the model, not to "
        f"wait for a training run. {GUARD}",
    )
    hint(not said.getvalue(), f"on import it prints something. {GUARD}")
    return module


def _check_model(module, path: Path) -> None:
    """Checks what `create_model` of the script gives."""
    create = cast(Any, getattr(module, "create_model", None))
    hint(callable(create), f"{NAME} has no function `create_model`")
    for classes in (3, 5):
        with learners_code(_line_of(path)):
            model = create(num_classes=classes)
            other = create(num_classes=classes)
        hint(
            isinstance(model, nn.Module),
            "`create_model` should give back a model, an object made from a class that "
            "inherits from nn.Module",
        )
        hint(
            model is not other,
            "`create_model` gives the same object each time. Two runs in one program "
            "would train one model: make it inside the function, not on import.",
        )
        images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        _stir(model.eval())
        with learners_code(_line_of(path)), torch.no_grad():
            logits = model(images)
        shape = tuple(getattr(logits, "shape", ()))
        hint(
            shape == (2, classes),
            f"for 2 images of 32 x 32 pixels and num_classes={classes} the model gives "
            f"{shape or type(logits).__name__}, expected logits (2, {classes})",
        )
        sums = logits.sum(dim=1)
        hint(
            logits.min() < 0 or not torch.allclose(sums, torch.ones(2), atol=1e-4),
            "the model gives probabilities. Logits are wanted: the loss of lesson 11 "
            "and lesson 13's `predict` do the softmax themselves.",
        )
        mine, wanted = _count(model), _count(_reference(classes))
        hint(
            mine == wanted,
            f"with num_classes={classes} the model has {mine:,} parameters; a "
            f"vit_mini_8 for images of 32 x 32 pixels has {wanted:,}.",
        )
        with torch.no_grad():
            changed = images.clone()
            changed[:, :, 8:16, 24:] += 1.0  # one patch
            hint(
                not torch.allclose(model(changed), logits, atol=1e-6),
                "the logits are the same when a patch of the image changes. Does the "
                "forward pass use the images?",
            )


def _stir(model: nn.Module) -> None:
    """Adds noise to the parameters: a head of zeros gives the same for all images."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))


def _reference(classes: int) -> nn.Module:
    return create_vit("vit_mini_8", img_size=32, num_classes=classes)


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _numbers(text: str) -> set[int]:
    """All whole numbers in a text, with or without marks between thousands."""
    plain = re.findall(r"\d+", text)
    marked = re.findall(r"\d{1,3}(?:[,_.' ]\d{3})+(?!\d)", text)
    return {int(re.sub(r"\D", "", number)) for number in plain + marked}


def _run(path: Path, *words: str) -> tuple[int, str]:
    """Runs the script in this process; returns its exit code and all that it prints."""
    code = 0
    with learners_code(_line_of(path)), _started_with(str(path), *words) as said:
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return code, said.getvalue()


def _check_script(path: Path) -> None:
    """Checks what the script does when it is run with options and without."""
    command = f"python {NAME}"
    three, five = _count(_reference(3)), _count(_reference(5))
    code, text = _run(path)
    hint(
        text.strip(),
        f"`{command}` prints nothing. {GUARD} Is the function called there?",
    )
    hint(
        code == 0 and three in _numbers(text),
        f"`{command}` should print the number of parameters for 3 classes, {three:,}, "
        f"and end with exit code 0. It ends with {code} and prints: "
        f"{text.strip()!r:.90}",
    )
    for classes in (5, 12):
        options = f"--classes {classes}"
        code, text = _run(path, *options.split())
        hint(
            code == 0,
            f"`{command} {options}` ends with exit code {code} and prints: "
            f"{text.strip()!r:.120}",
        )
        wanted = _count(_reference(classes))
        hint(
            wanted in _numbers(text),
            f"`{command} {options}` should print {wanted:,}, and prints: "
            f"{text.strip()!r:.90}. Does the option reach `create_model`?",
        )
    try:
        code, text = _run(path, "--help")
    except AssertionError:
        code, text = 1, ""
    hint(
        code == 0 and "--classes" in text and three not in _numbers(text),
        f"`{command} --help` should explain `--classes` and do nothing else. argparse "
        "does that by itself: `parser.add_argument('--classes', …)`.",
    )
    # And as a terminal does it: a new process, in another folder.
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [sys.executable, str(path), "--classes", "5"],
            capture_output=True,
            text=True,
            cwd=elsewhere,
            env=os.environ | {"PYTHONPATH": paths},
        )
    hint(
        done.returncode
        or five in _numbers(done.stdout)
        or five not in _numbers(done.stderr),
        "the number goes to standard error (stderr), as `logging` does it. `print` it, "
        "so that another program can read it.",
    )
    last = (done.stderr.strip().splitlines() or [""])[-1]
    hint(
        done.returncode == 0 and five in _numbers(done.stdout),
        f"here it runs, but not in a process of its own: {last!r:.150}. What does it "
        "need that only the notebook has?",
    )


def check_vit_script(answer) -> None:
    """Checks a ViT in a file: imported as a module, and run as a script.

    Raises:
        Hint: it is not right yet.
    """
    hint(
        callable(answer) and not inspect.isclass(answer),
        "hand over the function `write_script` itself, without calling it",
    )
    with TemporaryDirectory() as name:
        path = _write(answer, Path(name))
        _check_model(_import(path), path)
        _check_script(path)
    passed("a module that can be imported, and a script that can be run")


ALL_PARTS = "`state_dict` must hold all that `update` has learned so far."
RUNS = [
    ([0.5, 0.6, 0.7, 0.65, 0.66, 0.6, 0.7, 0.6, 0.6, 0.6], 3),
    ([0.3, 0.2, 0.1, 0.4, 0.1, 0.2, 0.1], 3),
    ([0.5, 0.45, 0.4, 0.42, 0.3, 0.41, 0.2], 5),
    ([0.4, 0.3, 0.35, 0.38, 0.39, 0.45, 0.41], 3),
    ([0.0, 0.0, 0.0, 0.1], 2),
    ([0.3, 0.2, 0.1, 0.4, 0.1, 0.2, 0.3], 2),
    ([0.3, 0.3, 0.6, 0.5], 1),
    ([0.7112, 0.7118, 0.7115, 0.7117, 0.7121, 0.7119, 0.712, 0.7118], 3),
    ([0.9, 0.90002, 0.90001, 0.90003, 0.9], 2),
    ([0.2, 0.5, 0.4, 0.5, 0.3, 0.51, 0.2, 0.4, 0.45, 0.1], 4),
]


def _decide(
    values: list[float],
    patience: int,
    best: float = float("-inf"),
    waited: int = 0,
    *,
    ties: bool = False,
    reset: bool = True,
    previous: bool = False,
    lower: bool = False,
    least: float = 0.0,
    again: bool = False,
) -> list[bool]:
    """What `update` returns after each epoch, with some mistakes that can be made."""
    said = []
    for value in values:
        if lower:
            value = -value
        if value > best + least or (ties and value == best):
            best, waited = value, 0 if reset else waited
        else:
            waited += 1
            best = value if previous else best
        said.append(waited >= patience)
        waited = 0 if again and said[-1] else waited
    return said


STOPS = {
    "the first epoch is compared with 0. It is the best so far whatever its value: "
    "begin with `float('-inf')`.": lambda v, p: _decide(v, p, best=0.0),
    "an accuracy that is only as good as the best counts as a rise. It has not risen: "
    "`>`, not `>=`.": lambda v, p: _decide(v, p, ties=True),
    "it stops one epoch too late: at the `patience`-th epoch without a rise it should "
    "return True.": lambda v, p: _decide(v, p + 1),
    "it stops one epoch too early: how many epochs without a rise have there been?": (
        lambda v, p: _decide(v, p - 1)
    ),
    "once it has returned True it always does. After a new best it is False again.": (
        lambda v, p: list(accumulate(_decide(v, p), or_))
    ),
    "a rise does not set the count back to zero: it is epochs in a row that count.": (
        lambda v, p: _decide(v, p, reset=False)
    ),
    "each accuracy is compared with the one before. Compare it with the best of all "
    "so far.": lambda v, p: _decide(v, p, previous=True),
    "a small rise is not counted. Every accuracy above the best so far is a new best: "
    "no least difference, no rounding.": lambda v, p: _decide(v, p, least=1e-3),
    "a small rise is not counted. Every accuracy above the best so far is a new best: "
    "no least difference, no rounding. ": lambda v, p: _decide(v, p, least=1e-4),
    "it waits for lower values. An accuracy gets better when it rises.": (
        lambda v, p: _decide(v, p, lower=True)
    ),
    "after it has returned True it begins to count anew. As long as the best is "
    "`patience` or more epochs ago, it is "
    "True.": lambda v, p: _decide(v, p, again=True),
    "it returns True once, and False again although there was no rise. As long as the "
    "best is `patience` or more epochs ago, it is True.": (
        lambda v, p: [
            a and not b
            for a, b in zip(_decide(v, p), [False, *_decide(v, p)[:-1]], strict=True)
        ]
    ),
}


def _updates(stop, values: list[float]) -> list[bool]:
    with learners_code():
        found = [stop.update(value) for value in values]
    hint(
        None not in found,
        "`update` gives back None. Is a `return` missing in one of its branches?",
    )
    kinds = {type(value).__name__ for value in found}
    hint(kinds <= {"bool"}, f"`update` should give back True or False, not {kinds}")
    return found


def _first_stop(said: list[bool]) -> str:
    return f"in epoch {said.index(True) + 1}" if True in said else "in none"


def _stored(state):
    """What is left of a state when it was saved and loaded, as lesson 11 does it."""
    hint(
        isinstance(state, dict),
        f"`state_dict` should give back a dict, not {type(state).__name__}",
    )
    file = io.BytesIO()
    try:
        torch.save(state, file)
        file.seek(0)
        return torch.load(file, weights_only=True)
    except Exception as error:
        hint(
            False,
            "the state cannot be saved and loaded with `weights_only=True`, as runs "
            "are: let it hold numbers and lists of numbers only. The message was: "
            f"{str(error).splitlines()[0]:.90}",
        )


def _check_resumed(answer, values: list[float], patience: int, cut: int) -> None:
    """Checks a run that is killed after some epochs and goes on in a new object."""
    expected = _decide(values, patience)[cut:]
    with learners_code():
        stop = answer(patience)
    _updates(stop, values[:cut])
    with learners_code():
        state = stop.state_dict()
    stored = _stored(state)
    hint(
        _updates(stop, values[cut:]) == expected,
        "after `state_dict` the object itself returns something else than without it. "
        "Saving must not change what is saved.",
    )
    hint(
        repr(_stored(state)) == repr(stored),
        "the state changes after it was given back: it shares a dict or a list with "
        "the object. Give back a copy.",
    )
    with learners_code():
        resumed, other = answer(patience), answer(patience)
        resumed.load_state_dict(stored)
        other.load_state_dict(stored)
    said = _updates(resumed, values[cut:])
    best, waited = float("-inf"), 0
    for value in values[:cut]:
        best, waited = (value, 0) if value > best else (best, waited + 1)
    lost = {
        "the best accuracy so far is lost on the way: after `load_state_dict` the next "
        "epoch counts as a rise, whatever it is. " + ALL_PARTS: (
            _decide(values[cut:], patience)
        ),
        "how many epochs it has waited is lost on the way. " + ALL_PARTS: (
            _decide(values[cut:], patience, best)
        ),
    }
    for text, mistaken in lost.items():
        hint(said == expected or said != mistaken, text)
    hint(
        said == expected,
        f"killed after epoch {cut} of {values} with patience {patience}, the resumed "
        f"run returns {said} and not {expected}. {ALL_PARTS}",
    )
    hint(
        _updates(other, values[cut:]) == expected,
        "two objects that loaded the same state disturb each other: they share a dict "
        "or a list. Copy what you load.",
    )


def _values_of_class(kind: type) -> str:
    """The values that belong to a class and to all its objects, as text."""
    return repr({k: v for k, v in vars(kind).items() if not callable(v)})


def check_early_stop(answer) -> None:
    """Checks when a run stops, and that a resumed one stops at the same epoch.

    Raises:
        Hint: it is not right yet.
    """
    hint(inspect.isclass(answer), "hand over the class `EarlyStop` itself")
    for name in ("update", "state_dict", "load_state_dict"):
        hint(callable(getattr(answer, name, None)), f"EarlyStop has no method `{name}`")
    values, patience = RUNS[0]
    expected = _decide(values, patience)
    with learners_code():
        first, second = answer(patience=patience), answer(patience=patience)
    before = _values_of_class(answer)
    said, again = _updates(first, values), _updates(second, values)
    hint(
        _values_of_class(answer) == before and (said != expected or again == expected),
        "a second object does not begin anew. What `update` learns belongs to `self`, "
        "not to the class or to global variables.",
    )
    for values, patience in RUNS:
        with learners_code():
            stop = answer(patience=patience)
        said, expected = _updates(stop, values), _decide(values, patience)
        for text, mistake in STOPS.items():
            hint(said == expected or said != mistake(values, patience), text)
        hint(
            said == expected,
            f"for the accuracies {values} and patience {patience} it first returns "
            f"True {_first_stop(said)}, expected {_first_stop(expected)}. In all it "
            f"returns {said}, expected {expected}",
        )
    for values, patience in RUNS:
        for cut in range(len(values) + 1):
            _check_resumed(answer, values, patience, cut)
    passed("stops when nothing has risen, and a resumed run at the same epoch")


class _Watched(nn.Module):
    """A small classifier that notes its forward and backward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3)
        )
        generator = torch.Generator().manual_seed(14)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator)
        self.log, self.largest, self.smallest = [], 0, 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.largest = max(self.largest, len(images))
        self.smallest = min(self.smallest, len(images))
        logits = self.layers(images)
        if logits.requires_grad:
            self.log.append(len(images))
            logits.register_hook(lambda gradient: self.log.append("backward"))
        return logits


@dataclass(frozen=True)
class _Part:
    """One part of a batch: its number from 1, its images, and what is around it."""

    number: int
    images: int
    parts: int
    batch: int
    size: int


def _added_up(weight: Callable[[_Part], float], more: float = 0.0) -> Callable:
    """Makes a function that adds up the gradients of the parts' mean losses.

    Args:
        weight: of a part; 0 leaves it out.
        more: what was in `.grad` before.
    """

    def gradients(images, labels, size) -> list[torch.Tensor]:
        model, parts = _Watched(), images.split(size)
        found = [torch.full_like(p, more) for p in model.parameters()]
        pairs = zip(parts, labels.split(size), strict=True)
        for number, (x, y) in enumerate(pairs, start=1):
            part = _Part(number, len(x), len(parts), len(images), size)
            with torch.enable_grad():
                loss = weight(part) * F.cross_entropy(model(x), y)
                new = torch.autograd.grad(loss, list(model.parameters()))
            found = [a + b for a, b in zip(found, new, strict=True)]
        return found

    return gradients


def _right(part: _Part) -> float:
    return part.images / part.batch


def _of_last(weight: Callable[[_Part], float]) -> Callable:
    return _added_up(lambda part: weight(part) * (part.number == part.parts))


ONLY_LAST = (
    "only the last part is left. The gradient is cleared inside the loop: "
    "`zero_grad()` belongs before it."
)
GRADIENTS = {
    "the gradient is too long: that of each part is added as if it were alone. "
    "`backward()` adds to `.grad`, and in a mean over B images a part weighs (its "
    "images) / B.": _added_up(lambda part: 1.0),
    "dividing by the number of parts is right only if all have the same size: in a "
    "smaller last part each image would count more. What fraction of all B images is a "
    "part?": _added_up(lambda part: 1 / part.parts),
    "the loss of a part is divided by `size`. It is a mean already; its weight is (its "
    "images) / B.": _added_up(lambda part: 1 / part.size),
    "the last part is weighed as if it had `size` images. It may have fewer.": (
        _added_up(lambda part: part.size / part.batch)
    ),
    "the losses of the parts are divided by B. Each is a mean already: multiply it by "
    "the images of its part first.": _added_up(lambda part: 1 / part.batch),
    "the gradients of all images are added up. Divide by B, the number of images.": (
        _added_up(lambda part: part.images)
    ),
    ONLY_LAST: _of_last(_right),
    ONLY_LAST + " ": _of_last(lambda part: 1.0),
    ONLY_LAST + "  ": _of_last(lambda part: 1 / part.parts),
    "only the first part is used.": (
        _added_up(lambda part: _right(part) * (part.number == 1))
    ),
    "a last part with fewer than `size` images is left out.": (
        _added_up(lambda part: _right(part) * (part.images == part.size))
    ),
    "old gradients are still in there. Clear them before the first part: "
    "`model.zero_grad()`.": _added_up(_right, 1.0),
}


def _part_losses(images, labels, size) -> tuple[torch.Tensor, torch.Tensor]:
    model, losses = _Watched(), []
    parts = list(zip(images.split(size), labels.split(size), strict=True))
    with torch.no_grad():
        for x, y in parts:
            losses.append(F.cross_entropy(model(x), y))
    return torch.stack(losses), torch.tensor([float(len(x)) for x, _ in parts])


def _mean_loss(images, labels, size) -> float:
    losses, counts = _part_losses(images, labels, size)
    return ((losses * counts).sum() / counts.sum()).item()


LOSSES = {
    "the loss given back is the sum of the parts' means. It should be the mean over "
    "all images.": lambda x, y, s: _part_losses(x, y, s)[0].sum().item(),
    "the loss given back is the mean of the parts' means. The smaller last part must "
    "count less: weigh by its images.": (
        lambda x, y, s: _part_losses(x, y, s)[0].mean().item()
    ),
    "the loss given back is that of the last part.": (
        lambda x, y, s: _part_losses(x, y, s)[0][-1].item()
    ),
    "the loss given back is that of the last part. ": (
        lambda x, y, s: (
            _part_losses(x, y, s)[0][-1] * _part_losses(x, y, s)[1][-1] / len(x)
        ).item()
    ),
    "the loss given back is a sum over the images. Divide by their number.": (
        lambda x, y, s: _mean_loss(x, y, s) * len(x)
    ),
}


def _check_passes(model: _Watched, size: int) -> None:
    """Checks that one part after the other was done, forwards and backwards."""
    log = model.log
    hint(
        model.largest <= size,
        "the gradient is that of the big batch, but the model got more than `size` "
        "images at once, so that no memory is saved. (`split` cuts into parts of a "
        "size, `chunk` into a number of parts.)",
    )
    # Between two forward passes a backward pass must have freed the first.
    alone = all("backward" in pair for pair in zip(log, log[1:], strict=False))
    hint(
        alone,
        "`backward` comes only after several forward passes, so that the activations "
        "of all parts are in memory together. Call it in the loop: that is the point "
        "of accumulation.",
    )


def check_accumulated_gradient(answer) -> None:
    """Checks a gradient that is accumulated part by part against that of one batch.

    Raises:
        Hint: it is not right yet.
    """
    generator = torch.Generator().manual_seed(4)
    inputs, losses, passes = [], [], []
    for count, size in [(10, 4), (8, 4), (7, 3), (5, 8), (1, 1), (6, 1)]:
        images = torch.randn(count, 3, 2, 2, generator=generator)
        labels = torch.randint(3, (count,), generator=generator)
        inputs.append((images, labels, size))

    def gradients(images, labels, size):
        model = _Watched()
        before = [p.detach().clone() for p in model.parameters()]
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        loss_fn = nn.CrossEntropyLoss()
        losses.append(answer(model, loss_fn, images.detach(), labels, size))
        hint(loss_fn.reduction == "mean", "`loss_fn` is another one than before.")
        same = map(torch.equal, before, model.parameters())
        hint(all(same), "the parameters have changed. Only their `.grad` should.")
        found = [p.grad for p in model.parameters()]
        hint(
            all(g is not None for g in found),
            "a parameter's `.grad` is None afterwards. Is `backward()` called, and "
            "nothing cleared after it?",
        )
        hint(
            model.smallest,
            "the model gets a part without images, and the mean of nothing is NaN. How "
            "many parts are there if `size` divides the batch?",
        )
        passes.append((model, size))
        return [g.clone() for g in found if g is not None]

    def of_one_batch(images, labels, size):
        return _added_up(_right)(images, labels, len(images))

    compare(
        gradients,
        of_one_batch,
        inputs,
        GRADIENTS,
        gradient=False,
        advice="These are the gradients of the parameters, in their order.",
    )
    for model, size in passes:
        _check_passes(model, size)
    given = iter(losses)
    compare(lambda x, y, size: next(given), _mean_loss, inputs, LOSSES, gradient=False)
    passed("the gradient of the big batch, one part after the other")


VIEWS = ("per_process", "repeated", "missing")


def _views(samplers: list, images: int) -> dict:
    """What the measurement should find, counted image by image."""
    seen = [0] * images
    for sampler in samplers:
        for i in sampler:
            seen[i] += 1
    return {
        "per_process": [len(list(sampler)) for sampler in samplers],
        "repeated": sum(count > 1 for count in seen),
        "missing": seen.count(0),
    }


def _view_mistakes(samplers: list, images: int) -> dict[str, dict[str, object]]:
    """Hint -> the value that a mistake gives for one key."""
    lists = [list(sampler) for sampler in samplers]
    together = [i for indices in lists for i in indices]
    different = len(set(together))
    return {
        "'repeated' counts views. Count images: one that is seen three times is one "
        "image.": {"repeated": len(together) - different},
        "'repeated' compares the number of views with the number of images. If some "
        "are missing and others seen twice, the two cancel: count for each image.": {
            "repeated": len(together) - images
        },
        "'repeated' looks into each process alone. An image may be seen by two of "
        "them.": {"repeated": sum(len(x) - len(set(x)) for x in lists)},
        "'missing' counts views: an image that is seen twice does not make up for one "
        "that no process sees.": {"missing": images - len(together)},
        "'missing' counts views: an image that is seen twice does not make up for one "
        "that no process sees. ": {"missing": max(images - len(together), 0)},
        "'missing' counts the images that are seen. How many are not?": {
            "missing": different
        },
        "'missing' looks at one process only. The others see images, too.": {
            "missing": images - len(set(lists[0]))
        },
        "'per_process' holds how many different images each process sees. Count all "
        "its "
        "indices.": {"per_process": [len(set(x)) for x in lists]},
        "'per_process' is one number. A list is wanted, with a number for each "
        "process.": {"per_process": len(together)},
        "'per_process' holds the indices. How many are they?": {"per_process": lists},
        "'per_process' holds fractions. Counts of images are wanted.": {
            "per_process": [len(x) / max(len(together), 1) for x in lists]
        },
    }


def check_image_views(answer) -> None:
    """Checks how often the processes see each image, as measured by the learner.

    Raises:
        Hint: it is not right yet.
    """
    cases = [
        ([[0, 2, 4], [1, 3, 0]], 5),
        ([[0, 1, 2, 3], [1, 2, 0, 3], [1, 1]], 9),
        ([[2], [0], [2], [0], [2]], 3),
        ([[], [5, 1, 1]], 7),
        ([[1, 0, 2]], 3),
    ]
    for images, processes, drop_last in [(7, 3, False), (7, 3, True), (2, 5, False)]:
        samplers = [
            DistributedSampler(
                TensorDataset(torch.arange(images)),
                processes,
                rank,
                shuffle=False,
                drop_last=drop_last,
            )
            for rank in range(processes)
        ]
        cases.append((samplers, images))
    answers = []
    for samplers, images in cases:
        expected, lists = _views(samplers, images), [list(s) for s in samplers]
        with learners_code():
            found = answer(samplers, images)
        hint(found is not None, NO_RETURN)
        keys = isinstance(found, dict) and set(found) == set(VIEWS)
        hint(
            keys,
            "give back a dict with the keys 'per_process', 'repeated' and 'missing'",
        )
        hint(
            [list(s) for s in samplers] == lists,
            "your code changes the lists that it was given. The caller still needs "
            "them.",
        )
        found = {key: _plain(value) for key, value in found.items()}
        swapped = (found["repeated"], found["missing"]) == (
            expected["missing"],
            expected["repeated"],
        )
        hint(
            found == expected
            or not swapped
            or found["per_process"] != expected["per_process"],
            "'repeated' and 'missing' are swapped",
        )
        answers.append((found, expected, _view_mistakes(samplers, images)))
    for text, mistaken in answers[0][2].items():
        for key in mistaken:  # the mistake of all cases, not by chance of one
            same = all(found[key] == wrong[text][key] for found, _, wrong in answers)
            right = all(found[key] == expected[key] for found, expected, _ in answers)
            hint(right or not same, text)
    for (found, expected, _), (samplers, images) in zip(answers, cases, strict=True):
        lists = [list(s) for s in samplers]
        for key in VIEWS:
            hint(
                found[key] == expected[key],
                f"for the indices {lists} and {images} images {key!r} is "
                f"{found[key]!r:.60}, expected {expected[key]}",
            )
    passed("how many images each process sees, and how often each image is seen")


def _plain(value):
    """Scalars of torch and numpy as Python's, tuples as lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
