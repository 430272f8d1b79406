"""Answers to the exercises of lesson 04."""

import einops
import torch
from torch import nn

from answers import right, wrong
from going_modular.class_token import ClassToken

ONE = "check_repeated_class_token"
SEVERAL = "check_class_tokens"
MENDED = "check_mended_class_token"
BYTES = "check_class_token_memory"


class Token(nn.Module):
    """What the answers share: one learned vector."""

    def __init__(self, embedding_dim):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1, embedding_dim))


@wrong(ONE, "no gradient arrives")
class Detached(Token):
    def forward(self, patches):
        return torch.cat([self.weight.data.repeat(len(patches), 1, 1), patches], 1)


@wrong(ONE, "belongs to the example")
class ForTwoImages(Token):
    def forward(self, patches):
        return torch.cat([self.weight.repeat(2, 1, 1), patches], dim=1)


@wrong(ONE, "changes the tensor")
class InPlace(Token):
    def forward(self, patches):
        out = torch.cat([self.weight.repeat(len(patches), 1, 1), patches], dim=1)
        patches.data.zero_()
        return out


@wrong(ONE, "the values are not")
class RandomToken(Token):
    def forward(self, patches):
        return torch.cat([torch.randn_like(patches[:, :1]), patches], dim=1)


@wrong(ONE, "no parameter `weight`")
class NoParameter(nn.Module):
    def __init__(self, embedding_dim):
        super().__init__()
        self.weight = torch.zeros(1, 1, embedding_dim)

    def forward(self, patches):
        return torch.cat([self.weight.repeat(len(patches), 1, 1), patches], dim=1)


@wrong(ONE, "missing")
class NoReturn(Token):
    def forward(self, patches):
        torch.cat([self.weight.repeat(len(patches), 1, 1), patches], dim=1)


@wrong(ONE, "not written yet")
class Blank(Token):
    def forward(self, patches):
        raise NotImplementedError("your lines go here")


@wrong(ONE, "a view again")
class ByExpand(Token):
    def forward(self, patches):
        return torch.cat((self.weight.expand(patches.size(0), -1, -1), patches), 1)


@right(ONE)
class ByEinops(Token):
    def forward(self, patches):
        first = einops.repeat(self.weight, "1 1 d -> b 1 d", b=len(patches))
        return torch.cat([first, patches], dim=1)


@right(ONE)
class ImageByImage(Token):
    def forward(self, patches):
        return torch.stack([torch.cat([self.weight[0], p]) for p in patches])


@right(ONE)
class ByPadding(Token):
    def forward(self, patches):
        out = nn.functional.pad(patches, (0, 0, 1, 0))
        return torch.cat([out[:, :1] + self.weight, out[:, 1:]], dim=1)


class Tokens(nn.Module):
    """What the answers to the second task share."""

    def __init__(self, embedding_dim, count):
        super().__init__()
        self.count = count
        self.weight = nn.Parameter(0.02 * torch.randn(1, count, embedding_dim))

    def forward(self, patches):
        return torch.cat([self.weight.expand(len(patches), -1, -1), patches], dim=1)

    def split(self, tokens):
        return tokens[:, : self.count], tokens[:, self.count :]


@wrong(SEVERAL, "a row of its own")
class OneVector(Tokens):
    def __init__(self, embedding_dim, count):
        super().__init__(embedding_dim, count)
        self.weight = nn.Parameter(torch.zeros(1, 1, embedding_dim))

    def forward(self, patches):
        token = self.weight.expand(len(patches), self.count, -1)
        return torch.cat([token, patches], dim=1)


@wrong(SEVERAL, "has shape")
class SizesSwapped(Tokens):
    def __init__(self, embedding_dim, count):
        super().__init__(embedding_dim, count)
        self.weight = nn.Parameter(torch.zeros(1, embedding_dim, count))


@wrong(SEVERAL, "no gradient arrives")
class SplitsDetached(Tokens):
    def split(self, tokens):
        return tokens[:, : self.count].detach(), tokens[:, self.count :].detach()


@wrong(SEVERAL, "initialised to the same values")
class FromZeros(Tokens):
    def __init__(self, embedding_dim, count):
        super().__init__(embedding_dim, count)
        nn.init.zeros_(self.weight)


@wrong(SEVERAL, "initialised to the same values")
class RepeatedStart(Tokens):
    def __init__(self, embedding_dim, count):
        super().__init__(embedding_dim, count)
        start = 0.02 * torch.randn(1, 1, embedding_dim)
        self.weight = nn.Parameter(start.repeat(1, count, 1))


@wrong(SEVERAL, "two objects get the same")
class SeededStart(Tokens):
    def __init__(self, embedding_dim, count):
        torch.manual_seed(42)
        super().__init__(embedding_dim, count)


@wrong(SEVERAL, "overwrites its own parameter `weight`")
class DrawnInForward(Tokens):
    def forward(self, patches):
        self.weight.data = 0.02 * torch.randn_like(self.weight)
        return super().forward(patches)


@wrong(SEVERAL, "asks for 0.02")
class LargeStart(Tokens):
    def __init__(self, embedding_dim, count):
        super().__init__(embedding_dim, count)
        self.weight = nn.Parameter(torch.randn(1, count, embedding_dim))


@wrong(SEVERAL, "no parameter `weight`")
class AnEmbedding(nn.Module):
    def __init__(self, embedding_dim, count):
        super().__init__()
        self.weight = nn.Embedding(count, embedding_dim)


@wrong(SEVERAL, "no parameter `weight`")
class OtherName(nn.Module):
    def __init__(self, embedding_dim, count):
        super().__init__()
        self.tokens = nn.Parameter(0.02 * torch.randn(1, count, embedding_dim))


@wrong(SEVERAL, "expected (1, 3, 4)")
class Squeezed(Tokens):
    def split(self, tokens):
        tokens = tokens.squeeze()
        return tokens[:, : self.count], tokens[:, self.count :]


@wrong(SEVERAL, "gives a tensor of shape")
class InHalves(Tokens):
    def split(self, tokens):
        return tokens.chunk(2, dim=1)


@right(SEVERAL)
class BySplit(Tokens):
    def split(self, tokens):
        rest = tokens.shape[1] - self.weight.shape[1]
        return torch.split(tokens, [self.weight.shape[1], rest], dim=1)


@right(SEVERAL)
class FromTheLesson(ClassToken):
    def __init__(self, embedding_dim, count=1, std=0.02):
        super().__init__(embedding_dim)
        weight = torch.empty(1, count, embedding_dim)
        self.weight = nn.Parameter(nn.init.trunc_normal_(weight, std=std))

    def split(self, tokens):
        return torch.tensor_split(tokens, [self.weight.shape[1]], dim=1)


@right(SEVERAL)
class RowByRow(Tokens):
    def forward(self, patches):
        rows = [row.expand(len(patches), 1, -1) for row in self.weight[0]]
        return torch.cat([*rows, patches], dim=1)

    def split(self, tokens):
        images = [(t[: self.count], t[self.count :]) for t in tokens]
        return [torch.stack(part) for part in zip(*images, strict=True)]


@wrong(MENDED, "must be enough")
class StillSized(nn.Module):
    def __init__(self, batch_size, embedding_dim):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(batch_size, 1, embedding_dim))

    def forward(self, patches):
        return torch.cat([self.weight, patches], dim=1)


@wrong(MENDED, "one vector")
class LargestBatch(nn.Module):
    def __init__(self, embedding_dim):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(32, 1, embedding_dim))

    def forward(self, patches):
        return torch.cat([self.weight[: len(patches)], patches], dim=1)


@wrong(MENDED, "must be enough")
class WithoutArguments(Token):
    def __init__(self):
        super().__init__(4)


@wrong(MENDED, "stops with TypeError: zeros()")
class SizeInQuotes(nn.Module):
    def __init__(self, embedding_dim):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1, "embedding_dim"))


@wrong(MENDED, "`weight` has shape (4,)")
class OneAxis(nn.Module):
    def __init__(self, embedding_dim):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(embedding_dim))

    def forward(self, patches):
        return torch.cat([self.weight.expand(len(patches), 1, -1), patches], dim=1)


@wrong(MENDED, "one vector")
class MeanOfMany(nn.Module):
    def __init__(self, embedding_dim, batch_size=32):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(batch_size, 1, embedding_dim))

    def forward(self, patches):
        token = self.weight.mean(dim=0, keepdim=True)
        return torch.cat([token.expand(len(patches), -1, -1), patches], dim=1)


@wrong(MENDED, "made in `forward`")
class NewParameterEachTime(Token):
    def forward(self, patches):
        token = nn.Parameter(self.weight.repeat(len(patches), 1, 1))
        return torch.cat([token, patches], dim=1)


@wrong(MENDED, "requires_grad=False")
class Frozen(Token):
    def __init__(self, embedding_dim):
        super().__init__(embedding_dim)
        self.weight.requires_grad_(False)

    def forward(self, patches):
        return torch.cat([self.weight.expand(len(patches), -1, -1), patches], dim=1)


@right(MENDED)
class MendedByExpand(Token):
    def forward(self, patches):
        return torch.cat([self.weight.expand(len(patches), -1, -1), patches], dim=1)


@right(MENDED)
class MendedByFilling(Token):
    def forward(self, patches):
        out = patches.new_empty(len(patches), patches.shape[1] + 1, patches.shape[2])
        out[:, 0], out[:, 1:] = self.weight, patches
        return out


@right(MENDED)
class MendedByLoop(Token):
    def forward(self, patches):
        rows = [torch.cat([self.weight[0], image]) for image in patches.unbind()]
        return torch.stack(rows)


def both(weight, batch):
    return weight.expand(batch, -1, -1), weight.repeat(batch, 1, 1)


@wrong(BYTES, "expected a number")
def tensors(weight, batch):
    return dict(zip(("expand", "repeat"), both(weight, batch), strict=True))


@wrong(BYTES, "Is it called")
def not_called(weight, batch):
    sizes = [t.untyped_storage().nbytes for t in both(weight, batch)]
    return dict(zip(("expand", "repeat"), sizes, strict=True))


@wrong(BYTES, "`return`")
def printed(weight, batch):
    print([t.untyped_storage().nbytes() for t in both(weight, batch)])


@wrong(BYTES, "keys")
def a_pair(weight, batch):
    return weight.nbytes, weight.nbytes * batch


@wrong(BYTES, "belongs to the example")
def hard_coded(weight, batch):
    return {"expand": 768, "repeat": 393216}


@right(BYTES)
def by_storage(weight, batch):
    sizes = [t.untyped_storage().nbytes() for t in both(weight, batch)]
    return dict(zip(("expand", "repeat"), sizes, strict=True))


@right(BYTES)
def by_other_names(weight, batch):
    expanded = weight.broadcast_to(batch, 1, weight.shape[-1])
    repeated = torch.cat([weight] * batch)
    sizes = [len(bytes(t.untyped_storage())) for t in (expanded, repeated)]
    return {"repeat": torch.tensor(sizes[1]), "expand": torch.tensor(sizes[0])}


@right(BYTES)
def by_addresses(weight, batch):
    found = {}
    for name, tensor in zip(("expand", "repeat"), both(weight, batch), strict=True):
        rows = {row.data_ptr() for row in tensor}
        found[name] = len(rows) * weight.nbytes
    return found
