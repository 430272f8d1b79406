"""Tasks of the exercises of lesson 14: from notebook to script."""

import copy
import importlib.util
import io
import os
import re
import runpy
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import (
    chdir,
    contextmanager,
    redirect_stderr,
    redirect_stdout,
    suppress,
)
from functools import partial
from itertools import accumulate
from operator import or_
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.data import TensorDataset
from torch.utils.data.distributed import DistributedSampler

from going_modular.vit import create_vit
from vit_course.checks.hints import hint, learners_code
from vit_course.checks.task import Case, Task

# 1. The ViT as a script

ROOT = Path(__file__).resolve().parents[2]
NAME = "vit_script.py"
GUARD = (
    'Whatever only the script should do stands under `if __name__ == "__main__":`, '
    "or in a function that is called there."
)
STOPS_BY = {
    "is not defined": (
        "The notebook's names do not exist in a file: it must import whatever it uses."
    ),
    "images must be of size": "Give `create_vit` the size: `img_size=32`.",
    "'str'": "Words of the command line are text: `type=int` makes numbers of them.",
}


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
        more = next(
            (text for words, text in STOPS_BY.items() if words in str(error)), ""
        )
        said = f"{type(error).__name__}: {str(error).split(';')[0]}"
        return f"{NAME} stops{where} with {said}. {more}".strip()

    return tell


def _write(answer, folder: Path) -> Path:
    """Lets the learner's function write the script, and looks where it is."""
    with TemporaryDirectory() as here, chdir(here):
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
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, 32, 32, generator=generator)
    changed = images.clone()
    changed[:, :, 8:16, 24:] += 1.0  # one patch
    for classes in (3, 5):
        with learners_code(_line_of(path)), torch.no_grad():
            model, other = create(num_classes=classes), create(num_classes=classes)
            hint(
                isinstance(model, nn.Module),
                "`create_model` should give back a model, an object made from a class "
                "that inherits from nn.Module",
            )
            norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
            hint(
                all((norm.weight == 1).all() for norm in norms),
                "`create_model` gives a model that has been trained already, not a new "
                "one: no LayerNorm begins with such weights.",
            )
            for p in model.eval().parameters():  # a head of zeros sees no image
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
            logits, moved = model(images), model(changed)
        hint(
            model is not other,
            "`create_model` gives the same object each time. Two runs in one program "
            "would train one model: make it inside the function, not on import.",
        )
        shape = tuple(getattr(logits, "shape", ()))
        hint(
            shape == (2, classes),
            f"for 2 images of 32 x 32 pixels and num_classes={classes} the model gives "
            f"{shape or type(logits).__name__}, expected logits (2, {classes})",
        )
        hint(
            logits.min() < 0 or not torch.allclose(logits.sum(dim=1), torch.ones(2)),
            "the model gives probabilities. Logits are wanted: the loss of lesson 11 "
            "and lesson 13's `predict` do the softmax themselves.",
        )
        mine, wanted = _count(model), _parameters(classes)
        hint(
            mine == wanted,
            f"with num_classes={classes} the model has {mine:,} parameters; a "
            f"vit_mini_8 for images of 32 x 32 pixels has {wanted:,}.",
        )
        hint(
            not torch.allclose(moved, logits, atol=1e-6),
            "the logits are the same when a patch of the image changes. Does the "
            "forward pass use the images?",
        )


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _parameters(classes: int) -> int:
    return _count(create_vit("vit_mini_8", img_size=32, num_classes=classes))


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


def _check_options(path: Path) -> None:
    """Checks what the script does when it is run with options and without."""
    for classes, *options in ((3,), (5, "--classes", "5"), (12, "--classes", "12")):
        code, text = _run(path, *options)
        hint(
            text.strip() or options,
            f"`python {NAME}` prints nothing. {GUARD} Is the function called there?",
        )
        wanted = _parameters(classes)
        reaches = " Does the option reach `create_model`?" if options else ""
        hint(
            code == 0 and wanted in _numbers(text),
            f"`{' '.join(['python', NAME, *options])}` should print the number of "
            f"parameters for {classes} classes, {wanted:,}, with exit code 0. It ends "
            f"with exit code {code} and prints: {text.strip()!r:.120}.{reaches}",
        )
    try:
        code, text = _run(path, "--help")
    except AssertionError:
        code, text = 1, ""
    hint(
        code == 0 and "--classes" in text and _parameters(3) not in _numbers(text),
        f"`python {NAME} --help` should explain `--classes` and do nothing else. "
        "argparse does that by itself: `parser.add_argument('--classes', …)`.",
    )
    hint(
        len(text.rpartition("--classes")[2].split()) > 1,
        f"`python {NAME} --help` names `--classes` and does not explain it: "
        "`add_argument('--classes', …, help='…')`.",
    )


def _check_process(path: Path) -> None:
    """Runs the script as a terminal does it: a new process, in another folder."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [sys.executable, str(path), "--classes", "5"],
            capture_output=True,
            text=True,
            cwd=elsewhere,
            env=os.environ | {"PYTHONPATH": paths},
        )
    wanted = _parameters(5)
    printed, aside = _numbers(done.stdout), _numbers(done.stderr)
    hint(
        done.returncode or wanted in printed or wanted not in aside,
        "the number goes to standard error (stderr), as `logging` does it. `print` it, "
        "so that another program can read it.",
    )
    last = (done.stderr.strip().splitlines() or [""])[-1]
    hint(
        done.returncode == 0 and wanted in printed,
        f"here it runs, but not in a process of its own: {last!r:.150}. What does it "
        "need that only the notebook has?",
    )


def _check_file(answer) -> None:
    with TemporaryDirectory() as name:
        path = _write(answer, Path(name))
        _check_model(_import(path), path)
        _check_options(path)
        _check_process(path)


check_vit_script = Task(
    "write_script",
    "a module that can be imported, and a script that can be run",
    also=[_check_file],
)

# 2. Stopping early, and resuming

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
    ties: bool = False,
    reset: bool = True,
    least: float = 0.0,
    mistake: str = "",
) -> list[bool]:
    """What `update` returns after each epoch; the arguments from `best` on mistake."""
    said, waited = [], 0
    for value in values:
        value = -value if mistake == "lower" else value
        if value > best + least or (ties and value == best):
            best, waited = value, 0 if reset else waited
        else:
            waited += 1
            best = value if mistake == "previous" else best
        said.append(waited == patience if mistake == "once" else waited >= patience)
        waited = 0 if mistake == "anew" and said[-1] else waited
    return list(accumulate(said, or_)) if mistake == "for ever" else said


def _words(said: list[bool]) -> str:
    return " ".join(map(str, said))


def _saying(**mistake) -> Callable:
    return lambda values, patience: _words(_decide(values, patience, **mistake))


def _with_patience(more: int) -> Callable:
    return lambda values, patience: _words(_decide(values, patience + more))


STOPS = {
    _saying(best=0.0): (
        "the first epoch is compared with 0. It is the best so far whatever its value: "
        "begin with `float('-inf')`."
    ),
    _saying(ties=True): (
        "an accuracy that is only as good as the best counts as a rise. It has not "
        "risen: `>`, not `>=`."
    ),
    _with_patience(1): (
        "it stops one epoch too late: at the `patience`-th epoch without a rise it "
        "should return True."
    ),
    _with_patience(-1): (
        "it stops one epoch too early: how many epochs without a rise have there been?"
    ),
    (_saying(mistake="for ever"), _saying(mistake="once"), _saying(mistake="anew")): (
        "once it has returned True it always does, or it counts anew. It is True as "
        "long as the best is `patience` or more epochs ago, and False after a new best."
    ),
    _saying(reset=False): (
        "a rise does not set the count back to zero: it is epochs in a row that count."
    ),
    _saying(mistake="previous"): (
        "each accuracy is compared with the one before. Compare it with the best of "
        "all so far."
    ),
    (_saying(least=1e-3), _saying(least=1e-4)): (
        "a small rise is not counted. Every accuracy above the best so far is a new "
        "best: no least difference, no rounding."
    ),
    _saying(mistake="lower"): (
        "it waits for lower values. An accuracy gets better when it rises."
    ),
}


def _updates(stop, values: list[float]) -> list[bool]:
    found = [stop.update(value) for value in values]
    hint(
        None not in found,
        "`update` gives back None. Is a `return` missing in one of its branches?",
    )
    kinds = {type(value).__name__ for value in found}
    hint(kinds <= {"bool"}, f"`update` should give back True or False, not {kinds}")
    return found


def _call_stop(answer, values: list[float], patience: int) -> str:
    stop, other = answer(patience=patience), answer(patience=patience)
    for name in ("update", "state_dict", "load_state_dict"):
        hint(callable(getattr(stop, name, None)), f"EarlyStop has no method `{name}`")
    first = _updates(stop, values)
    hint(
        _updates(other, values) == first,
        "a second object does not begin anew. What `update` learns belongs to `self`, "
        "not to the class or to global variables.",
    )
    return _words(first)


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


def _call_resumed(answer, values: list[float], patience: int, cut: int) -> str:
    """A run that is killed after some epochs and goes on in a new object."""
    stop, untouched = answer(patience), answer(patience)
    _updates(stop, values[:cut])
    state = stop.state_dict()
    stored = _stored(state)
    hint(
        _updates(stop, values[cut:]) == _updates(untouched, values)[cut:],
        "after `state_dict` the object itself returns something else than without it. "
        "Saving must not change what is saved.",
    )
    hint(
        repr(_stored(state)) == repr(stored),
        "the state changes after it was given back: it shares a dict or a list with "
        "the object. Give back a copy.",
    )
    resumed, other = answer(patience), answer(patience)
    loaded = resumed.load_state_dict(stored)
    hint(
        loaded is resumed or not isinstance(loaded, type(resumed)),
        "`load_state_dict` makes a new object. It should change the one that it "
        "belongs to, `self`.",
    )
    other.load_state_dict(stored)
    said = _updates(resumed, values[cut:])
    hint(
        _updates(other, values[cut:]) == said,
        "two objects that loaded the same state disturb each other: they share a dict "
        "or a list. Copy what you load.",
    )
    return _words(said)


def _resumed(values, patience, cut) -> str:
    return _words(_decide(values, patience)[cut:])


def _best_lost(values, patience, cut) -> str:
    return _words(_decide(values[cut:], patience))


def _count_lost(values, patience, cut) -> str:
    best = max(values[:cut], default=float("-inf"))
    return _words(_decide(values[cut:], patience, best=best))


ALL_PARTS = "`state_dict` must hold all that `update` has learned so far."
check_early_stop = Task(
    "EarlyStop",
    "stops when nothing has risen, and a resumed run at the same epoch",
    Case(
        inputs=RUNS,
        call=_call_stop,
        right=_saying(),
        mistakes=STOPS,
        gradient=False,
        advice=(
            f"The accuracies are {RUNS[0][0]}, and these are the values that `update` "
            "gives back."
        ),
    ),
    Case(
        inputs=[(*RUNS[0], 4)]
        + [(*run, cut) for run in RUNS for cut in range(len(run[0]) + 1)],
        call=_call_resumed,
        right=_resumed,
        mistakes={
            _best_lost: (
                "the best accuracy so far is lost on the way: after `load_state_dict` "
                f"the next epoch counts as a rise, whatever it is. {ALL_PARTS}"
            ),
            _count_lost: (
                f"how many epochs it has waited is lost on the way. {ALL_PARTS}"
            ),
        },
        gradient=False,
        advice=f"This is a resumed run. {ALL_PARTS}",
    ),
)

# 3. Find the bug: a gradient in parts


class _Watched(nn.Module):
    """A small classifier that notes its forward and backward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Dropout(), nn.Linear(5, 3)
        )
        self.eval()
        generator = torch.Generator().manual_seed(14)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator)
            p.grad = torch.ones_like(p)
        self.log, self.sizes, self.before = [], [], None

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        if self.before is not None and "backward" in self.log:
            with suppress(RuntimeError):  # what says that a tensor was freed
                self.log += ["kept"] * hasattr(self.before.grad_fn, "_saved_mat1")
        logits = self.layers(images)
        if logits.requires_grad:
            self.log.append("forward")
            self.before = logits
            logits.register_hook(lambda gradient: self.log.append("backward"))
        return logits


LOSS = nn.CrossEntropyLoss(label_smoothing=0.1)  # not the one that the task shows


def _losses(
    images, labels, size, loss_fn: Callable = LOSS
) -> tuple[_Watched, list[Tensor], list[int]]:
    """A model, the mean loss of each part, and its number of images."""
    model, parts = _Watched(), images.split(size)
    pairs = zip(parts, labels.split(size), strict=True)
    losses = [loss_fn(model(x), y) for x, y in pairs]
    return model, losses, [len(x) for x in parts]


def _gradient(
    weight, last_only: bool = False, start: float = 0.0, loss_fn: Callable = LOSS
) -> Callable:
    """The gradients if a part of n images has the weight (n, parts, size, batch)."""

    def gradients(images, labels, size) -> list[Tensor]:
        model, losses, counts = _losses(images, labels, size, loss_fn)
        terms = [
            weight(n, len(counts), size, len(images)) * loss
            for n, loss in zip(counts, losses, strict=True)
        ]
        total = terms[-1] if last_only else torch.stack(terms).sum()
        found = torch.autograd.grad(total, list(model.parameters()))
        return [gradient + start for gradient in found]

    return gradients


def _by_images(n, parts, size, batch) -> float:
    return n / batch


GRADIENTS = {
    _gradient(lambda n, parts, size, batch: 1.0): (
        "the gradient is too long: that of each part is added as if it were alone. "
        "`backward()` adds to `.grad`, and in a mean over B images a part weighs (its "
        "images) / B."
    ),
    _gradient(lambda n, parts, size, batch: 1 / parts): (
        "dividing by the number of parts is right only if all have the same size: in a "
        "smaller last part each image would count more. What fraction of all B images "
        "is a part?"
    ),
    (
        _gradient(lambda n, parts, size, batch: 1 / size),
        _gradient(lambda n, parts, size, batch: size / batch),
        _gradient(lambda n, parts, size, batch: 1 / batch),
        _gradient(lambda n, parts, size, batch: n),
    ): (
        "the weight of a part is another one. Its loss is a mean already, and in the "
        "mean over B images it weighs (its images) / B; the last part may have fewer "
        "than `size`."
    ),
    (
        _gradient(_by_images, last_only=True),
        _gradient(lambda n, parts, size, batch: 1.0, last_only=True),
        _gradient(lambda n, parts, size, batch: 1 / parts, last_only=True),
    ): (
        "only the last part is left. The gradient is cleared inside the loop: "
        "`zero_grad()` belongs before it."
    ),
    (
        _gradient(lambda n, parts, size, batch: (n == size) * n / batch),
        _gradient(lambda n, parts, size, batch: (n == size) / max(batch // size, 1)),
    ): "a last part with fewer than `size` images is left out.",
    _gradient(_by_images, loss_fn=F.cross_entropy): (
        "the loss is cross-entropy, whichever `loss_fn` is given: call `loss_fn`."
    ),
    _gradient(_by_images, start=1.0): (
        "old gradients are still in there. Clear them before the first part: "
        "`model.zero_grad()`."
    ),
}


def _loss(combine: Callable) -> Callable:
    """The loss that is given back, from the losses of the parts and their images."""

    def loss(images, labels, size) -> float:
        _, losses, counts = _losses(images, labels, size)
        return combine(torch.stack(losses), torch.tensor(counts)).item()

    return loss


LOSSES = {
    (_loss(lambda losses, n: losses.sum()), _loss(lambda losses, n: losses.mean())): (
        "the loss given back is the sum or the mean of the parts' means. In the mean "
        "over all images a smaller last part counts less: weigh by its images."
    ),
    (
        _loss(lambda losses, n: losses[-1]),
        _loss(lambda losses, n: losses[-1] * n[-1] / n.sum()),
    ): "the loss given back is that of the last part.",
    _loss(lambda losses, n: (losses * n).sum()): (
        "the loss given back is a sum over the images. Divide by their number."
    ),
}


def _batches() -> list[tuple]:
    g = torch.Generator().manual_seed(4)
    sizes = [(10, 4), (8, 4), (7, 3), (5, 8), (1, 1), (6, 1)]
    return [
        (
            torch.randn(n, 3, 2, 2, generator=g),
            torch.randint(3, (n,), generator=g),
            size,
        )
        for n, size in sizes
    ]


def _call_gradients(answer, images, labels, size) -> list[Tensor]:
    model, untouched = _Watched(), _Watched()
    loss_fn = copy.deepcopy(LOSS)
    answer(model, loss_fn, images, labels, size)
    hint(loss_fn.reduction == "mean", "`loss_fn` is another one than before.")
    hint(
        not model.training,
        "the model was in evaluation mode, and is in training mode now, so that "
        "dropout changes the gradient. Leave the mode to the caller.",
    )
    same = map(torch.equal, untouched.parameters(), model.parameters())
    hint(all(same), "the parameters have changed. Only their `.grad` should.")
    found = [p.grad for p in model.parameters()]
    hint(
        not model.sizes or all(grad is not None for grad in found),
        "a parameter's `.grad` is None afterwards. Is `backward()` called, and nothing "
        "cleared after it?",
    )
    hint(
        min(model.sizes, default=size),
        "the model gets a part without images, and the mean of nothing is NaN. How "
        "many parts are there if `size` divides the batch?",
    )
    pairs = zip(found, model.parameters(), strict=True)
    return [torch.zeros_like(p) if grad is None else grad for grad, p in pairs]


def _call_loss(answer, images, labels, size) -> float:
    """The loss, if one part after the other was done, forwards and backwards."""
    model = _Watched()
    found = answer(model, LOSS, images, labels, size)
    hint(
        "kept" not in model.log,
        "`backward` does not free what a part needed. Leave out `retain_graph=True`.",
    )
    hint(
        max(model.sizes) <= size,
        "the gradient is that of the big batch, but the model got more than `size` "
        "images at once, so that no memory is saved. (`split` cuts into parts of a "
        "size, `chunk` into a number of parts.)",
    )
    # Between two forward passes a backward pass must have freed the first.
    alone = all("backward" in x for x in zip(model.log, model.log[1:], strict=False))
    hint(
        alone,
        "`backward` comes only after several forward passes, so that the activations "
        "of all parts are in memory together. Call it in the loop: that is the point "
        "of accumulation.",
    )
    hint(
        not isinstance(found, Tensor),
        "it gives a tensor for the loss, expected a number: `loss.item()`",
    )
    return found


check_accumulated_gradient = Task(
    "accumulate_gradient",
    "the gradient of the big batch, one part after the other",
    Case(
        inputs=_batches,
        call=_call_gradients,
        right=_gradient(_by_images),
        mistakes=GRADIENTS,
        gradient=False,
        advice="These are the gradients of the parameters, in their order.",
    ),
    Case(
        inputs=_batches,
        call=_call_loss,
        right=_loss(lambda losses, n: (losses * n).sum() / n.sum()),
        mistakes=LOSSES,
        gradient=False,
        advice="This is the loss that is given back.",
    ),
)

# 4. Who sees which images?


def _views(**changes: Callable) -> Callable:
    """The measurement; `changes` are other functions (lists, images) for some keys."""

    def measure(samplers: list, images: int) -> dict:
        lists = [list(sampler) for sampler in samplers]
        together = sum(lists, [])
        right = {
            "per_process": [len(indices) for indices in lists],
            "repeated": sum(together.count(i) > 1 for i in range(images)),
            "missing": images - len(set(together)),
        }
        return right | {key: change(lists, images) for key, change in changes.items()}

    return measure


def _swapped(samplers: list, images: int) -> dict:
    right = _views()(samplers, images)
    return right | {"repeated": right["missing"], "missing": right["repeated"]}


def _total(lists: list[list[int]]) -> int:
    return sum(map(len, lists))


VIEWS = {
    (
        _views(repeated=lambda lists, images: _total(lists) - len(set(sum(lists, [])))),
        _views(repeated=lambda lists, images: _total(lists) - images),
    ): (
        "'repeated' counts views. Count images: one that is seen three times is one "
        "image, and one that nobody sees does not make up for it."
    ),
    _views(
        repeated=lambda lists, images: _total(lists) - sum(len(set(x)) for x in lists)
    ): (
        "'repeated' looks into each process alone. An image may be seen by two of them."
    ),
    _views(
        repeated=lambda lists, images: sum(
            sum(i in indices for indices in lists) > 1 for i in range(images)
        )
    ): "'repeated' leaves out an image that one process sees twice. It counts as well.",
    _views(repeated=lambda lists, images: len(set(sum(lists, [])))): (
        "'repeated' counts an image that is seen once as well: `> 1`, not `>= 1`."
    ),
    (
        _views(missing=lambda lists, images: images - _total(lists)),
        _views(missing=lambda lists, images: max(0, images - _total(lists))),
    ): (
        "'missing' counts views: an image that is seen twice does not make up for one "
        "that no process sees."
    ),
    _views(
        missing=lambda lists, images: 1 + max(sum(lists, [])) - len(set(sum(lists, [])))
    ): "'missing' ends at the highest index that is seen. There are `images` of them.",
    _views(missing=lambda lists, images: len(set(sum(lists, [])))): (
        "'missing' counts the images that are seen. How many are not?"
    ),
    _views(missing=lambda lists, images: images - len(set(lists[0]))): (
        "'missing' looks at one process only. The others see images, too."
    ),
    _views(per_process=lambda lists, images: [len(set(x)) for x in lists]): (
        "'per_process' holds how many different images each process sees. Count all "
        "its indices."
    ),
    _swapped: "'repeated' and 'missing' are swapped",
}


def _call_views(answer, samplers: list, images: int):
    found = answer(samplers, images)
    counts = found.get("per_process") if isinstance(found, dict) else None
    hint(
        not isinstance(counts, list)
        or not any(isinstance(n, list | tuple) for n in counts),
        "'per_process' holds the indices of each process. How many are they? One "
        "number for each.",
    )
    return found


def _samplers() -> list[tuple]:
    inputs: list[tuple] = [
        ([[0, 2, 4], [1, 3, 0]], 5),
        ([[0, 1, 2, 3], [1, 2, 0, 3], [1, 1]], 9),
        ([[2], [0], [2], [0], [2]], 3),
        ([[], [5, 1, 1]], 7),
        ([[1, 0, 2]], 3),
    ]
    for images, processes, drop_last in [(7, 3, False), (7, 3, True), (2, 5, False)]:
        data = TensorDataset(torch.arange(images))
        make = partial(DistributedSampler, data, processes, drop_last=drop_last)
        samplers = [make(rank, shuffle=False) for rank in range(processes)]
        inputs.append((samplers, images))
    return inputs


check_image_views = Task(
    "measure_views",
    "how many images each process sees, and how often each image is seen",
    Case(
        inputs=_samplers,
        call=_call_views,
        right=_views(),
        mistakes=VIEWS,
        gradient=False,
        advice=(
            "'per_process' counts indices; 'repeated' and 'missing' count images, over "
            "all processes together."
        ),
    ),
)
