"""What a model has in memory; use it through `helper_functions`."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["bytes_at_once", "bytes_kept"]


def bytes_kept(module: torch.nn.Module, *inputs: torch.Tensor) -> int:
    """Counts the bytes that a forward pass keeps for the backward pass.

    Parameters are left out, and tensors that share memory count once. Not for the
    `meta` device, where no tensor has an address.
    """
    parameters = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = module(*inputs)  # held until the end: freed memory would be used again
    del out
    return sum(size for at, size in kept.items() if at not in parameters)


def bytes_at_once(module: torch.nn.Module, *inputs: torch.Tensor) -> int:
    """Counts the bytes in memory at the fullest moment of a forward pass.

    It runs without gradients. Parameters, buffers and inputs are left out, and so is
    what an operation needs for itself while it runs.
    """
    given = (*module.parameters(), *module.buffers(), *inputs)
    seen = {tensor.untyped_storage()._cdata for tensor in given}
    alive: dict[int, int] = {}  # bytes of each tensor's memory until it is freed
    fullest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            nonlocal fullest
            out = operation(*args, **(kwargs or {}))
            for tensor in tree_leaves(out):
                if not isinstance(tensor, torch.Tensor):
                    continue
                storage = tensor.untyped_storage()
                at = storage._cdata
                if at not in seen and at not in alive:
                    alive[at] = storage.nbytes()
                    weakref.finalize(storage, alive.pop, at)
            fullest = max(fullest, sum(alive.values()))
            return out

    with torch.no_grad(), Watch():
        module(*inputs)
    return fullest
