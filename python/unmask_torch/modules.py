"""The parameters of a model as a tree of modules by scope, and programs cut into the parts that its layers run.

The modules hold parameters and are what FSDP2 hooks into: a layer is one unit whose parameters are gathered for its part of the
program. What is computed stays in the program.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from .program import Node, Program, ProgramError

Work = Callable[[list[Tensor]], list[Tensor]]

#: Nodes whose values are there before anything runs.
GIVEN = ("input", "constant")

#: A layer: the scope, or the beginning of a parameter's name, up to its first number.
_LAYER = re.compile(r"^model(\.[a-z_]+)+\.\d+(?=\.|$)")
_EXPERT = re.compile(r"^(.+\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj)\.weight$")


class Scope(nn.Module):
    """A scope of the model. It runs the work that it is given, inside its hooks."""

    def forward(self, work: Work, inputs: list[Tensor]) -> list[Tensor]:
        return work(inputs)

    def at(self, path: str) -> "Scope":
        """The scope of that name, which is made where it does not exist."""
        scope = self
        for part in filter(None, path.split(".")):
            if part not in scope._modules:
                scope.add_module(part, Scope())
            scope = scope._modules[part]  # type: ignore[assignment]
        return scope


def layer_of(name: str) -> str | None:
    found = _LAYER.match(name)
    return found.group(0) if found else None


@dataclass(frozen=True)
class Place:
    """Where a parameter of a checkpoint lies: a tensor of the tree, or one of the matrices that it stacks."""

    tensor: str
    index: int | None


def places_of(names: Iterable[str]) -> dict[str, Place]:
    """Experts of a layer become one tensor for each of their three matrices, `....experts.gate_proj` [experts, out, in]."""
    places: dict[str, Place] = {}
    for name in names:
        expert = _EXPERT.match(name)
        places[name] = Place(f"{expert[1]}.{expert[3]}", int(expert[2])) if expert else Place(name, None)
    return places


def build_tree(shapes: Mapping[str, list[int]], trained: Callable[[str], bool]) -> Scope:
    """A tree on the meta device with a parameter for each tensor."""
    root = Scope()
    for name, shape in shapes.items():
        path, _, leaf = name.rpartition(".")
        value = nn.Parameter(torch.empty(shape, device="meta"), requires_grad=trained(name))
        root.at(path).register_parameter(leaf, value)
    return root


def tensor_at(root: Scope, name: str) -> Tensor:
    """The parameter as it is now: FSDP2 puts the gathered one in its place while a unit runs."""
    path, _, leaf = name.rpartition(".")
    return root.get_submodule(path)._parameters[leaf]  # type: ignore[return-value]


@dataclass(frozen=True)
class Part:
    """Nodes that run together: in a layer, or between layers."""

    layer: str | None
    nodes: list[int]
    #: Values that it takes from earlier parts, and those that later ones or the program's outputs need.
    inputs: list[int]
    outputs: list[int]


def cut(program: Program, layers: set[str]) -> list[Part]:
    """The parts of a program in the order in which they run; a layer's nodes are one part. Raises ProgramError where they cannot be."""
    nodes = program.nodes
    maker = {value: index for index, node in enumerate(nodes) for value in node.outputs}
    parents = [sorted({maker[value] for value in node.inputs}) for node in nodes]
    owner: list[str | None] = [_owner(node, layers) for node in nodes]
    own: dict[str, list[int]] = defaultdict(list)
    for index, layer in enumerate(owner):
        if layer is not None:
            own[layer].append(index)

    done = {index for index, node in enumerate(nodes) if node.operation in GIVEN}
    steps: list[tuple[str | None, list[int]]] = []
    for layer, members in own.items():
        needed = _ancestors(parents, members, done)
        # What hangs on the layer and is needed by it is computed inside it.
        inside = set(members)
        for index in needed:
            if any(parent in inside for parent in parents[index]):
                inside.add(index)
        before = [index for index in needed if index not in inside]
        foreign = next((owner[i] for i in [*before, *inside] if owner[i] not in (None, layer)), None)
        if foreign is not None:
            raise ProgramError(f"{program.name}: {layer} needs {foreign}, which comes after it")
        steps += [(None, before), (layer, sorted(inside))]
        done |= {*before, *inside}
    steps.append((None, [index for index in range(len(nodes)) if index not in done]))
    return _with_values(program, [(layer, indices) for layer, indices in steps if indices])


def _owner(node: Node, layers: set[str]) -> str | None:
    layer = None if node.operation in GIVEN else layer_of(node.scope)
    return layer if layer in layers else None


def _ancestors(parents: list[list[int]], members: list[int], done: set[int]) -> list[int]:
    """What has to run before, or between, the members, in order."""
    found: set[int] = set()
    waiting = list(members)
    while waiting:
        for parent in parents[waiting.pop()]:
            if parent not in done and parent not in found:
                found.add(parent)
                waiting.append(parent)
    return sorted(found - set(members))


def _with_values(program: Program, steps: list[tuple[str | None, list[int]]]) -> list[Part]:
    user: dict[int, int] = {value: len(steps) for value in program.outputs.values()}
    for at, (_, indices) in enumerate(steps):
        for index in indices:
            for value in program.nodes[index].inputs:
                user[value] = max(user.get(value, 0), at)
    parts: list[Part] = []
    for at, (layer, indices) in enumerate(steps):
        made = [value for index in indices for value in program.nodes[index].outputs]
        taken = {value for index in indices for value in program.nodes[index].inputs} - set(made)
        parts.append(Part(layer, indices, sorted(taken), [value for value in made if user.get(value, -1) > at]))
    return parts
