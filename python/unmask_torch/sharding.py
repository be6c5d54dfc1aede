"""How the parameters of a model are spread over processes: FSDP2 by layers, experts also by expert."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Iterator

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Placement, Shard

from .modules import Scope, layer_of
from .program import ProgramError


@dataclass(frozen=True)
class Meshes:
    """All processes in a row, and as [expert parallelism, rest]."""

    all: DeviceMesh
    experts: DeviceMesh

    @property
    def expert_group(self) -> dist.ProcessGroup | None:
        return self.experts.get_group("ep") if self.experts.size(0) > 1 else None


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def make_meshes(device: str, expert_parallel: int) -> Meshes:
    """Raises ProgramError where the processes cannot be divided so."""
    size = dist.get_world_size()
    if size % expert_parallel != 0:
        raise ProgramError(f"expert_parallel {expert_parallel} does not divide {size} processes")
    return Meshes(
        init_device_mesh(device, (size,), mesh_dim_names=("dp",)),
        init_device_mesh(device, (expert_parallel, size // expert_parallel), mesh_dim_names=("ep", "fsdp")),
    )


@dataclass(frozen=True)
class Layout:
    """How a tensor of the tree lies on the processes."""

    shape: tuple[int, ...]
    mesh: DeviceMesh | None
    #: The dimension of the tensor that each dimension of the mesh divides.
    dims: tuple[int, ...]

    def part(self) -> list[range]:
        """What this process holds, as a range of every dimension. As `torch.chunk` divides."""
        ranges = [range(size) for size in self.shape]
        for at, dim in enumerate(self.dims):
            assert self.mesh is not None
            whole, count, rank = ranges[dim], self.mesh.size(at), self.mesh.get_local_rank(at)
            size = -(-len(whole) // count)
            ranges[dim] = whole[min(len(whole), rank * size) : min(len(whole), (rank + 1) * size)]
        return ranges

    def distributed(self, local: Tensor) -> Tensor:
        """A tensor that knows its place among all processes, as checkpoints need it."""
        if self.mesh is None:
            return local
        placements: list[Placement] = [Shard(dim) for dim in self.dims]
        stride = torch.empty(self.shape, device="meta").stride()
        return DTensor.from_local(
            local, self.mesh, placements, run_check=False, shape=torch.Size(self.shape), stride=stride
        )


def is_experts(name: str) -> bool:
    return ".experts." in name and not name.endswith(".weight")


def shard(root: Scope, meshes: Meshes, dtype: str) -> dict[str, Layout]:
    """Shards a tree on the meta device: experts, layers, then the rest. Raises ProgramError where experts cannot be divided."""
    shapes = {name: tuple(value.shape) for name, value in root.named_parameters()}
    policy = MixedPrecisionPolicy()
    if dtype == "bfloat16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    ep, rest = meshes.experts.size(0), meshes.experts.size(1)
    scopes = {name.rpartition(".")[0] for name in shapes if is_experts(name)}
    for path in sorted(scopes):
        scope = root.at(path)
        for leaf, value in list(scope._parameters.items()):
            count, out = value.shape[:2]
            if count % ep != 0 or out % rest != 0:
                raise ProgramError(
                    f"{path}: {count} experts of {out} rows cannot be divided over {ep} x {rest} processes; "
                    "choose expert_parallel so that the first divides the experts and the second their rows"
                )
            own = torch.empty(count // ep, *value.shape[1:], device="meta")
            scope.register_parameter(leaf, torch.nn.Parameter(own, requires_grad=value.requires_grad))
        fully_shard(scope, mesh=meshes.experts["fsdp"], mp_policy=policy, shard_placement_fn=lambda _: Shard(1))
    for path in sorted({layer for name in shapes if (layer := layer_of(name)) is not None}):
        fully_shard(root.at(path), mesh=meshes.all, mp_policy=policy)
    fully_shard(root, mesh=meshes.all, mp_policy=policy)
    for module in root.modules():
        if isinstance(module, FSDPModule):
            # Losses are parts of a mean over all processes: gradients are sums. Gloo cannot scale while it sums.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return {
        name: Layout(shape, meshes.experts, (0, 1)) if is_experts(name) else Layout(shape, meshes.all, (0,))
        for name, shape in shapes.items()
    }


def local(value: Tensor) -> Tensor:
    """What of a tensor lies on this process."""
    return value.to_local() if isinstance(value, DTensor) else value


def sums(values: list[float], device: str) -> list[float]:
    """Each of the values summed over all processes, in float64."""
    if world_size() == 1:
        return values
    # On a GPU, NCCL sums what lies there.
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return total.tolist()


def whole_tensors(layouts: dict[str, Layout], values: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """One tensor after the other, gathered from all processes."""
    for name, value in values.items():
        placed = layouts[name].distributed(value)
        yield name, placed.full_tensor() if isinstance(placed, DTensor) else placed


def start_processes(device: str) -> None:
    """Joins the other processes that torchrun has started."""
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
