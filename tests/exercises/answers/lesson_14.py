"""Answers to the exercises of lesson 14."""

from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from answers import right, wrong

SCRIPT = "check_vit_script"
STOP = "check_early_stop"
GRADIENT = "check_accumulated_gradient"
VIEWS = "check_image_views"

GOOD = '''
"""A small ViT, and how many parameters it has."""
import argparse

from going_modular.vit import create_vit


def create_model(num_classes):
    return create_vit("vit_mini_8", img_size=32, num_classes=num_classes)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=3, help="outputs of the head")
    model = create_model(parser.parse_args().classes)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")


if __name__ == "__main__":
    main()
'''


HELP = next(f"{line.strip()}\n" for line in GOOD.splitlines() if "add_arg" in line)


def script(text, *changes):
    """Makes an answer that writes a text, with some of its words exchanged."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)

    def write_script(folder):
        path = folder / "vit_script.py"
        path.write_text(text, encoding="utf-8")
        return path

    return write_script


def writes(hint, name, *changes, text=GOOD):
    """Registers such an answer; the hint "" says that it is right."""
    answer = script(text, *changes)
    answer.__name__ = name
    wrong(SCRIPT, hint)(answer)


writes("", "as_the_solution")
writes(
    "on import it reads the command line",
    "main_on_import",
    ('if __name__ == "__main__":\n    main()', "main()"),
)
writes(
    "on import it reads the command line",
    "known_options_on_import",
    ("def main", "WORDS = argparse.ArgumentParser()\n\n\ndef main"),
    (
        "\n\n\ndef main",
        '\nWORDS.add_argument("--classes", type=int, default=3)\n'
        "CLASSES = WORDS.parse_known_args()[0].classes\n\n\ndef main",
    ),
)
writes(
    "(stderr)",
    "says_it_aside",
    ('parameters")', 'parameters", file=__import__("sys").stderr)'),
)
writes("", "with_an_exit_code", ("    main()\n", "    raise SystemExit(main())\n"))
writes(
    "",
    "own_logger",
    (
        "    model = ",
        "    import logging\n\n    logging.warning('building')\n    model = ",
    ),
)
writes(
    "on import it prints something",
    "prints_on_import",
    ("def main", 'print("a ViT")\n\n\ndef main'),
)
writes(
    "on import a model is run",
    "trains_on_import",
    (
        "def main",
        "import torch\nMODEL = create_model(3)\n"
        "MODEL(torch.zeros(1, 3, 32, 32)).sum().backward()\n\n\ndef main",
    ),
)
writes(
    "must import whatever it uses",
    "nothing_imported",
    ("from going_modular.vit import create_vit", ""),
)
writes("not valid Python", "half_a_line", ("def main():", "def main("))
writes("no function `create_model`", "other_name", ("create_model", "make_model"))
writes(
    "the same object each time",
    "made_once",
    ("import argparse", "import argparse\nfrom functools import cache"),
    ("def create_model", "@cache\ndef create_model"),
)
writes(
    "expected logits (2, 5)",
    "three_classes",
    ("num_classes=num_classes", "num_classes=3"),
)
writes("`img_size=32`", "large_images", (", img_size=32", ""))
writes(
    "the model gives probabilities",
    "with_softmax",
    ("    return create_vit", "    from torch import nn\n    vit = create_vit"),
    (
        "num_classes=num_classes)",
        "num_classes=num_classes)\n    return nn.Sequential(vit, nn.Softmax(1))",
    ),
)
writes(
    "parameters; a vit_mini_8",
    "other_patches",
    ("img_size=32", "img_size=32, patch_size=4"),
)
writes(
    "`python vit_script.py --classes 12`",
    "known_by_heart",
    (
        'f"{sum(p.numel() for p in model.parameters()):,} parameters"',
        "{3: 2710659, 5: 2711045}.get(model.head.out_features)",
    ),
)
writes("prints nothing", "guard_without_call", ("    main()\n", "    main\n"))
writes(
    "Does the option reach `create_model`",
    "option_unused",
    ("parser.parse_args().classes", "parser.parse_args() and 3"),
)
writes(
    "exit code 2",
    "no_option",
    ('"--classes"', '"--num-classes"'),
    ("parse_args().classes", "parse_args().num_classes"),
)
writes(
    "do nothing else",
    "no_help",
    ("    parser = argparse.ArgumentParser(description=__doc__)\n", ""),
    (HELP, "import sys\n"),
    (
        "parser.parse_args().classes",
        "int(sys.argv[2]) if len(sys.argv) > 2 else 3",
    ),
)
writes(
    "does not explain it",
    "nothing_explained",
    (', help="outputs of the head"', ""),
)
writes("`type=int` makes", "words", ("type=int, ", ""))
writes(
    "trained already",
    "pre_trained",
    (
        "    return create_vit",
        "    import torch\n    vit = create_vit",
    ),
    (
        "num_classes=num_classes)",
        "num_classes=num_classes)\n"
        "    torch.nn.init.normal_(vit.layer_norm.weight)\n    return vit",
    ),
)
writes(
    "not in a process of its own",
    "borrows_an_import",
    ("import argparse", "import sys\n\nargparse = sys.modules['argparse']"),
    (
        "from going_modular.vit import create_vit",
        "create_vit = sys.modules['going_modular.vit'].create_vit",
    ),
)
writes(
    "not written yet",
    "script_blank",
    text='raise NotImplementedError("your lines go here")\n',
)


@wrong(SCRIPT, "not the path of the file")
def gives_the_folder(folder):
    return script(GOOD)(folder).parent


@wrong(SCRIPT, "the path of the file, not None")
def gives_nothing(folder):
    script(GOOD)(folder)


@wrong(SCRIPT, "in which the notebook runs")
def writes_here(folder):
    return script(GOOD)(Path())


@wrong(SCRIPT, "in the folder that was given")
def writes_elsewhere(folder):
    return script(GOOD)(Path(mkdtemp()))


writes(
    "",
    "own_layers",
    text="""
import argparse
import sys

import torch
from torch import nn


class Small(nn.Module):
    def __init__(self, num_classes=3, D=192):
        super().__init__()
        self.patches = nn.Conv2d(3, D, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, D))
        self.positions = nn.Parameter(torch.randn(1, 17, D) / 50)
        block = nn.TransformerEncoderLayer(
            D, 3, 768, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(block, 6, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, num_classes)
        nn.init.zeros_(self.head.weight)

    def forward(self, x):
        x = self.patches(x).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.encoder(x)[:, 0]))


create_model = Small


def run(words):
    parser = argparse.ArgumentParser()
    parser.add_argument("-c", "--classes", type=int, default=3, help="how many")
    classes = parser.parse_args(words).classes
    print("classes:", classes)
    print("parameters:", sum(p.numel() for p in create_model(classes).parameters()))
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
""",
)


class Stop:
    """The solution, for the answers to differ from."""

    def __init__(self, patience):
        self.patience, self.best, self.waited = patience, float("-inf"), 0

    def risen(self, accuracy):
        return accuracy > self.best

    def update(self, accuracy):
        if self.risen(accuracy):
            self.best, self.waited = accuracy, 0
        else:
            self.waited += 1
        return self.waited >= self.patience

    def state_dict(self):
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state):
        self.best, self.waited = state["best"], state["waited"]


@wrong(STOP, "Saving must not change")
class ForgetsWhenSaved(Stop):
    def state_dict(self):
        state, self.waited = super().state_dict(), 0
        return state


@wrong(STOP, "True True True False False")
class NoneOfTheLast(Stop):
    def __init__(self, patience):
        super().__init__(patience)
        self.seen = []

    def update(self, accuracy):
        self.seen.append(accuracy)
        return self.seen[-1] <= ([2.0] * self.patience + self.seen)[-self.patience - 1]


@wrong(STOP, "This is a resumed run")
class WaitsLess(Stop):
    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.waited += 1


@wrong(STOP, "gives back None")
class OneBranch(Stop):
    def update(self, accuracy):
        if super().update(accuracy):
            return True


@wrong(STOP, "True or False")
class GivesCount(Stop):
    def update(self, accuracy):
        super().update(accuracy)
        return self.waited


@wrong(STOP, "Give back a copy")
class SharedState(Stop):
    def state_dict(self):
        return self.__dict__

    def load_state_dict(self, state):
        self.__dict__.update(state)


@wrong(STOP, "Copy what you load")
class SharedLoad(Stop):
    def state_dict(self):
        return dict(self.__dict__)

    def load_state_dict(self, state):
        self.__dict__ = state


@wrong(STOP, "weights_only")
class WholeObject(Stop):
    def state_dict(self):
        return {"stop": self}

    def load_state_dict(self, state):
        self.__dict__.update(state["stop"].__dict__)


@wrong(STOP, "give back a dict")
class Pair(Stop):
    def state_dict(self):
        return self.best, self.waited

    def load_state_dict(self, state):
        self.best, self.waited = state


@wrong(STOP, "belongs to the example")
class OfTheExample(Stop):
    def update(self, accuracy):
        super().update(accuracy)
        return self.waited >= 3


@wrong(STOP, "does not begin anew")
class OfTheClass(Stop):
    best, waited = float("-inf"), 0

    def __init__(self, patience):
        self.patience = patience

    def update(self, accuracy):
        kind = type(self)
        if accuracy > kind.best:
            kind.best, kind.waited = accuracy, 0
        else:
            kind.waited += 1
        return kind.waited >= self.patience


@wrong(STOP, "`state_dict` must hold all")
class BestRounded(Stop):
    def state_dict(self):
        best = self.best if self.waited == 0 else round(self.best, 1)
        return {"best": best, "waited": self.waited}


@wrong(STOP, "no method `load_state_dict`")
class NoState:
    def __init__(self, patience):
        self.patience = patience

    def update(self, accuracy):
        return False

    def state_dict(self):
        return {}


@wrong(STOP, "change the one that it belongs to")
class LoadsAnother(Stop):
    def load_state_dict(self, state):
        other = LoadsAnother(self.patience)
        Stop.load_state_dict(other, state)
        return other


@right(STOP)
class ByHistory:
    def __init__(self, patience):
        self.patience, self.seen = patience, []

    def update(self, accuracy):
        self.seen.append(accuracy)
        best = self.seen.index(max(self.seen))
        return len(self.seen) - 1 - best >= self.patience

    def state_dict(self):
        return {"seen": list(self.seen)}

    def load_state_dict(self, state):
        self.seen = list(state["seen"])


@right(STOP)
class ByEpochs:
    def __init__(self, patience):
        self.patience, self.best, self.at, self.epoch = patience, None, 0, 0

    def update(self, accuracy):
        self.epoch += 1
        if self.best is None or accuracy > self.best:
            self.best, self.at = accuracy, self.epoch
        return not self.epoch - self.at < self.patience

    def state_dict(self):
        return vars(self).copy()

    def load_state_dict(self, state):
        vars(self).update(state)


@right(STOP)
class ByTensor(Stop):
    def state_dict(self):
        return {"both": torch.tensor([self.best, self.waited], dtype=torch.float64)}

    def load_state_dict(self, state):
        self.best, self.waited = state["both"].tolist()


@right(STOP)
class ByWindows:
    def __init__(self, patience, min_delta=0.0):
        self.patience, self.seen = patience, []

    def update(self, accuracy):
        self.seen.append(accuracy)
        before, last = self.seen[: -self.patience], self.seen[-self.patience :]
        return bool(before) and max(last) <= max(before)

    def state_dict(self):
        return {"seen": self.seen[:], "patience": self.patience}

    def load_state_dict(self, state):
        self.patience, self.seen = state["patience"], [*state["seen"]]


def parts_of(images, labels, size):
    return list(zip(images.split(size), labels.split(size), strict=True))


def accumulate(weight=lambda x, images: len(x) / len(images)):
    """Makes an answer with a weight for each part."""

    def answer(model, loss_fn, images, labels, size):
        model.zero_grad()
        total = 0.0
        for x, y in parts_of(images, labels, size):
            loss = loss_fn(model(x), y)
            (loss * weight(x, images)).backward()
            total += loss.item() * len(x)
        return total / len(images)

    return answer


@right(GRADIENT)
def as_a_fraction(*given):
    return accumulate()(*given)


@wrong(GRADIENT, "belongs to the example")
def of_ten(*given):
    return accumulate(lambda x, images: len(x) / 10)(*given)


@wrong(GRADIENT, "more than `size` images at once")
def the_big_batch(model, loss_fn, images, labels, size):
    model.zero_grad()
    loss = loss_fn(model(images), labels)
    loss.backward()
    return loss.item()


@wrong(GRADIENT, "more than `size` images at once")
def loss_of_all_at_once(model, loss_fn, images, labels, size):
    loss = accumulate()
    loss(model, loss_fn, images, labels, size)
    with torch.no_grad():
        return loss_fn(model(images), labels).item()


@wrong(GRADIENT, "a part without images")
def one_part_more(model, loss_fn, images, labels, size):
    model.zero_grad()
    total = 0.0
    for i in range(len(images) // size + 1):
        part = slice(i * size, (i + 1) * size)
        share = len(labels[part]) / len(labels)
        loss = loss_fn(model(images[part]), labels[part]) * share
        loss.backward()
        total += loss.item()
    return total


@wrong(GRADIENT, "Call it in the loop")
def one_backward(model, loss_fn, images, labels, size):
    model.zero_grad()
    loss = sum(
        loss_fn(model(x), y) * len(x) / len(images)
        for x, y in parts_of(images, labels, size)
    )
    loss.backward()
    return loss.item()


@wrong(GRADIENT, "expected a number")
def loss_as_tensor(model, loss_fn, images, labels, size):
    share = accumulate()
    return torch.tensor(share(model, loss_fn, images, labels, size))


@wrong(GRADIENT, "parameters have changed")
def takes_a_step(model, loss_fn, images, labels, size):
    loss = accumulate()(model, loss_fn, images, labels, size)
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    return loss


@wrong(GRADIENT, "Leave the mode to the caller")
def for_training(model, *given):
    return accumulate()(model.train(), *given)


@wrong(GRADIENT, "`retain_graph=True`")
def keeps_the_graphs(model, loss_fn, images, labels, size):
    model.zero_grad()
    total = 0.0
    for x, y in parts_of(images, labels, size):
        loss = loss_fn(model(x), y) * len(x) / len(images)
        loss.backward(retain_graph=True)
        total += loss.item()
    return total


@wrong(GRADIENT, "is None afterwards")
def cleared_at_the_end(model, loss_fn, images, labels, size):
    loss = accumulate()(model, loss_fn, images, labels, size)
    model.zero_grad()
    return loss


@right(GRADIENT)
def divided_at_the_end(model, loss_fn, images, labels, size):
    for p in model.parameters():
        p.grad = None
    total = 0.0
    for start in range(0, len(images), size):
        x, y = images[start : start + size], labels[start : start + size]
        loss = loss_fn(model(x), y) * len(x)
        loss.backward()
        total += loss.tolist()
    for p in model.parameters():
        p.grad /= len(images)
    return total / len(images)


@right(GRADIENT)
def by_autograd(model, loss_fn, images, labels, size):
    parameters = list(model.parameters())
    found, total = [torch.zeros_like(p) for p in parameters], 0.0
    for x, y in parts_of(images, labels, size):
        loss = loss_fn(model(x), y) * len(x) / len(images)
        for a, b in zip(found, torch.autograd.grad(loss, parameters), strict=True):
            a += b
        total += loss.item()
    for p, gradient in zip(parameters, found, strict=True):
        p.grad = gradient
    return total


@right(GRADIENT)
def by_a_loader(model, loss_fn, images, labels, size):
    torch.optim.SGD(model.parameters(), lr=0.1).zero_grad()
    losses, counts = [], []
    for x, y in DataLoader(TensorDataset(images, labels), size, shuffle=True):
        loss = loss_fn(model(x), y)
        loss.backward(torch.tensor(len(x) / len(images)))
        losses.append(loss.item())
        counts.append(len(x))
    return np.average(losses, weights=counts)


@right(GRADIENT)
def in_nearly_equal_parts(model, loss_fn, images, labels, size):
    model.zero_grad(set_to_none=False)
    total, count = 0.0, -(-len(images) // size)
    parts = zip(images.tensor_split(count), labels.tensor_split(count), strict=True)
    for x, y in parts:
        loss = loss_fn(model(x), y) * len(x) / len(images)
        loss.backward()
        total += loss.item()
    return total


def counted(samplers, pictures, **other):
    """What is right, with other values for some keys."""
    together = [i for sampler in samplers for i in sampler]
    counts = [together.count(i) for i in range(pictures)]
    found = {
        "per_process": [len(list(sampler)) for sampler in samplers],
        "repeated": sum(count > 1 for count in counts),
        "missing": counts.count(0),
    }
    return found | other


@wrong(VIEWS, "One number for each")
def lists_of_indices(samplers, pictures):
    return counted(samplers, pictures, per_process=[list(s) for s in samplers])


@wrong(VIEWS, "moved or sorted")
def sorts_them(samplers, pictures):
    for sampler in samplers:
        if isinstance(sampler, list):
            sampler.sort(reverse=True)
    return counted(samplers, pictures)


@wrong(VIEWS, "belongs to the example")
def hard_coded(samplers, pictures):
    return (
        counted(samplers, pictures, repeated=4)
        if pictures > 5
        else counted(samplers, pictures)
    )


@right(VIEWS)
def by_counting(samplers, pictures):
    return counted(samplers, pictures)


@right(VIEWS)
def by_bincount(samplers, pictures):
    lists = [torch.tensor(list(sampler), dtype=torch.long) for sampler in samplers]
    counts = torch.cat(lists).bincount(minlength=pictures)
    return {
        "missing": (counts == 0).sum(),
        "repeated": (counts > 1).sum().item(),
        "per_process": tuple(map(len, lists)),
    }


@right(VIEWS)
def by_sets(samplers, pictures):
    once, again, shares = set(), set(), []
    for sampler in samplers:
        indices = list(sampler)
        shares.append(len(indices))
        for i in indices:
            (again if i in once else once).add(i)
    return {
        "per_process": shares,
        "repeated": len(again),
        "missing": pictures - len(once),
    }
