"""Bytes that tensors take while something runs."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tracker(TorchDispatchMode):
    """Counts the bytes of every tensor that is made inside it, for as long as it lives. Slow: for small runs."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[StorageWeakRef, int] = {}
        self.peak = 0

    def live(self) -> int:
        for reference in [reference for reference in self.sizes if reference.expired()]:
            del self.sizes[reference]
        return sum(self.sizes.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {StorageWeakRef(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                reference = StorageWeakRef(storage)
                # What came in was there before, and is not counted.
                if reference not in before:
                    self.sizes[reference] = storage.nbytes()
        self.peak = max(self.peak, self.live())
        return made
