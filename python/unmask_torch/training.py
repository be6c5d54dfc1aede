"""A model that is trained: its parameters on the processes, AdamW, and checkpoints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Iterator, Mapping

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from .experts import mixed
from .files import Tensors, write_tensors
from .modules import build_tree, places_of, tensor_at
from .operations import StackedExperts
from .program import ProgramError
from .sharding import Layout, Meshes, local, shard, sums, whole_tensors

#: Moments of AdamW, as checkpoints name them.
MOMENTS = ("exp_avg", "exp_avg_sq")

#: Folder of a checkpoint that several processes wrote.
DISTRIBUTED = "distributed"


class Model:
    """Parameters of the given shapes, those in `trained` with moments, spread over the processes of `meshes`."""

    def __init__(
        self, trained: Mapping[str, list[int]], frozen: Mapping[str, list[int]], device: str, meshes: Meshes | None, dtype: str
    ) -> None:
        self.device, self.meshes = device, meshes
        self.shapes = {**frozen, **trained}
        #: Names as checkpoints have them.
        self.names = list(trained)
        self.places = places_of(self.shapes)
        stacks: dict[str, list[int]] = {}
        for name, place in self.places.items():
            shape = self.shapes[name]
            stacks[place.tensor] = shape if place.index is None else [stacks.get(place.tensor, [0])[0] + 1, *shape]
        learned = {self.places[name].tensor for name in trained}
        self.root = build_tree(stacks, learned.__contains__)
        self.layouts = (
            shard(self.root, meshes, dtype) if meshes else {name: Layout(tuple(shape), None, ()) for name, shape in stacks.items()}
        )
        self.learned = [name for name in stacks if name in learned]
        self.moments: dict[str, dict[str, Tensor]] = {}
        self.updates = 0

    def materialise(self) -> None:
        """Gives the parameters memory on this process, and no values yet."""
        self.root.to_empty(device=self.device)

    def parameter(self, name: str) -> Tensor:
        return tensor_at(self.root, name)

    def experts(self, path: str) -> StackedExperts:
        """What computes the experts in the scope of that name."""
        scope = self.root.at(path)
        group = self.meshes.expert_group if self.meshes else None

        def work(inputs: list[Tensor]) -> list[Tensor]:
            x, weights, selected = inputs
            gate, up, down = (scope._parameters[leaf] for leaf in ("gate_proj", "up_proj", "down_proj"))
            return [mixed(x, weights, selected, (gate, up, down), group)]  # type: ignore[arg-type]

        return lambda *inputs: scope(work, list(inputs))[0]

    @torch.no_grad()
    def fill(self, source: Tensors, names: list[str]) -> None:
        """Takes parameters from a file, each process the parts that it holds."""
        for name in names:
            place = self.places[name]
            self._take(local(self.parameter(place.tensor)), source, name, name)

    @torch.no_grad()
    def _take(self, into: Tensor, source: Tensors, name: str, stored: str) -> None:
        place = self.places[name]
        ranges = self.layouts[place.tensor].part()
        if place.index is not None:
            if place.index not in ranges[0]:
                return
            into, ranges = into[place.index - ranges[0].start], ranges[1:]
        part = source.part(stored, ranges)
        if part.shape != into.shape:
            raise ProgramError(f"{source.path}: tensor {stored} has another shape than the model's {self.shapes[name]}")
        into.copy_(part)

    def start_moments(self, source: Tensors | None, updates: int) -> None:
        """The moments of AdamW, from a file or zeros."""
        self.updates = updates
        self.moments = {
            moment: {name: torch.zeros_like(local(self.parameter(name)), requires_grad=False) for name in self.learned}
            for moment in MOMENTS
        }
        if source is None:
            return
        for moment, values in self.moments.items():
            for name in self.names:
                self._take(values[self.places[name].tensor], source, name, f"{moment}.{name}")

    def gradients(self) -> dict[str, Tensor]:
        """What of the gradients lies here."""
        return {name: local(grad) for name in self.learned if (grad := self.parameter(name).grad) is not None}

    def norm(self) -> float:
        """Global norm of the gradients, over all processes."""
        found = torch._foreach_norm(list(self.gradients().values()))
        squares = float(torch.stack(found).double().square().sum()) if found else 0.0
        return math.sqrt(sums([squares], self.device)[0])

    @torch.no_grad()
    def update(self, options: Mapping[str, Any], norm: float, lr: float) -> None:
        """AdamW (Loshchilov and Hutter, 2019), with the gradients scaled down to `max_grad_norm`."""
        self.updates += 1
        found = self.gradients()
        values = {name: local(self.parameter(name)) for name in self.learned}
        gradients = {name: found[name] if name in found else torch.zeros_like(value) for name, value in values.items()}
        if options["max_grad_norm"] > 0:
            torch._foreach_mul_(list(gradients.values()), min(1.0, options["max_grad_norm"] / (norm + 1e-6)))
        decays = {self.places[name].tensor for name in options["decays"]}
        first, second = (self.moments[moment] for moment in MOMENTS)
        for names, decay in (
            ([name for name in values if name in decays], options["weight_decay"]),
            ([name for name in values if name not in decays], 0.0),
        ):
            if not names:
                continue
            # In one pass over the memory, not one for each sum and product.
            torch._fused_adamw_(
                *([of[name] for name in names] for of in (values, gradients, first, second)),
                [],
                [torch.tensor(float(self.updates), device=values[name].device) for name in names],
                lr=lr,
                beta1=options["beta1"],
                beta2=options["beta2"],
                weight_decay=decay,
                eps=options["epsilon"],
                amsgrad=False,
                maximize=False,
            )

    def bytes(self) -> dict[str, int]:
        """Bytes of weights and moments on this process."""
        weights = [local(value) for value in self.root.parameters()]
        moments = [value for values in self.moments.values() for value in values.values()]
        return {"weights": sum(value.nbytes for value in weights), "moments": sum(value.nbytes for value in moments)}

    def release(self) -> None:
        """Gives back what a forward pass without a backward pass has gathered."""
        for module in self.root.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def clear_gradients(self) -> None:
        for name in self.learned:
            self.parameter(name).grad = None

    def _state(self) -> dict[str, Tensor]:
        state = {name: self.layouts[name].distributed(local(self.parameter(name)).detach()) for name in self.learned}
        for moment, values in self.moments.items():
            state |= {f"{moment}.{name}": self.layouts[name].distributed(value) for name, value in values.items()}
        return state

    def _whole(self, values: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Tensors as checkpoints name them, one after the other."""
        by_stack: dict[str, list[str]] = {}
        for name in self.names:
            by_stack.setdefault(self.places[name].tensor, []).append(name)
        for tensor, value in whole_tensors(self.layouts, values):
            for name in by_stack[tensor]:
                index = self.places[name].index
                yield name, value if index is None else value[index]

    def _order(self) -> list[str]:
        return sorted(self.names, key=lambda name: self.learned.index(self.places[name].tensor))

    def write_parameters(self, path: str, extra: Tensors | None = None) -> None:
        """Writes what is trained, and further tensors, as one file; gathered tensor by tensor."""
        shapes: dict[str, Any] = {name: self.shapes[name] for name in self._order()}
        others = list(extra.files) if extra else []
        shapes |= {name: extra.shape(name) for name in others if extra}

        def tensors() -> Iterator[tuple[str, Tensor]]:
            yield from self._whole({name: local(self.parameter(name)).detach() for name in self.learned})
            for name in others:
                assert extra is not None
                yield name, extra.part(name, [])

        write_tensors(path if self._writes() else None, shapes, tensors())

    def write_moments(self, path: str) -> None:
        shapes = {f"{moment}.{name}": self.shapes[name] for moment in MOMENTS for name in self._order()}

        def tensors() -> Iterator[tuple[str, Tensor]]:
            for moment, values in self.moments.items():
                yield from self._whole(values)

        write_tensors(path if self._writes() else None, shapes, tensors())

    def _writes(self) -> bool:
        return self.meshes is None or self.meshes.all.get_rank() == 0

    def save(self, folder: Path, extra: Tensors | None) -> None:
        """Weights as model.safetensors; moments in a file, or of several processes with the weights as a distributed checkpoint."""
        self.write_parameters(str(folder / "model.safetensors"), extra)
        if self.meshes is None:
            self.write_moments(str(folder / "optimizer.safetensors"))
        else:
            dcp.save(self._state(), checkpoint_id=folder / DISTRIBUTED)

    def restore(self, folder: Path, updates: int) -> None:
        """Takes back what `save` wrote, on any number of processes."""
        if (folder / DISTRIBUTED).is_dir():
            self.start_moments(None, updates)
            dcp.load(self._state(), checkpoint_id=folder / DISTRIBUTED, no_dist=self.meshes is None)
            return
        self.fill(Tensors(folder), self.names)
        self.start_moments(Tensors(folder / "optimizer.safetensors"), updates)
