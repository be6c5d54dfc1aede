"""Runs a program on tensors, layer by layer."""

from __future__ import annotations

from typing import Callable, Mapping, Sequence

import torch.utils.checkpoint
from torch import Tensor

from .modules import GIVEN, Part, Place, Scope, cut, layer_of, tensor_at
from .operations import OPERATIONS, Context, StackedExperts
from .program import Node, Program, ProgramError, Sizes


def check(program: Program) -> None:
    """Raises ProgramError where an operation is not known here."""
    known = {*OPERATIONS, *GIVEN}
    missing = sorted({node.operation for node in program.nodes} - known)
    if missing:
        raise ProgramError(f"{program.name}: PyTorch does not run {', '.join(missing)}")


class Runner:
    """A program that is ready to run, with the parameters of a tree.

    `experts` computes the experts of a layer, whose matrices are stacked in the scope of that name.
    """

    def __init__(
        self,
        program: Program,
        root: Scope,
        places: Mapping[str, Place],
        experts: Callable[[str], StackedExperts],
        recompute: bool = False,
    ) -> None:
        check(program)
        self.program = program
        self.root = root
        self.recompute = recompute
        self.parameters: dict[int, Place] = {}
        #: Inputs that are fed, and their values' numbers.
        self.fed: dict[str, int] = {}
        for node in program.nodes:
            if node.operation == "input":
                name = node.attributes["name"]
                if name in places:
                    self.parameters[node.outputs[0]] = places[name]
                else:
                    self.fed[name] = node.outputs[0]
        self.stacked = {i: experts for i, node in enumerate(program.nodes) if self._is_stacked(node)}
        layers = {layer for name in places if (layer := layer_of(name)) is not None}
        self.parts = cut(program, layers)
        self.last_use = {
            value: at for at, part in enumerate(self.parts) for value in part.inputs
        } | {value: len(self.parts) for value in program.outputs.values()}

    def _is_stacked(self, node: Node) -> bool:
        return node.operation == "experts" and any(
            value in self.parameters and self.parameters[value].index is not None for value in node.inputs[3:]
        )

    def __call__(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The program's outputs, with the graph that gradients need. Raises ProgramError where an input is missing or wrong."""
        missing = sorted(self.fed.keys() - feeds.keys())
        if missing:
            raise ProgramError(f"{self.program.name}: input {', '.join(missing)} is missing")
        given = list(self.fed)
        names = list(self.program.outputs)

        def whole(tensors: list[Tensor]) -> list[Tensor]:
            outputs = self._run(dict(zip(given, tensors)))
            return [outputs[name] for name in names]

        return dict(zip(names, self.root(whole, [feeds[name] for name in given])))

    def _run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        sizes = Sizes()
        values: dict[int, Tensor] = {self.fed[name]: value for name, value in feeds.items()}
        for node in self.program.nodes:
            if node.operation == "input" and node.attributes["name"] in feeds:
                name = node.attributes["name"]
                sizes.bind(node.attributes["shape"], feeds[name].shape, name)
            elif node.operation == "constant":
                values[node.outputs[0]] = self.program.constants[node.attributes["tensor"]]
        for at, part in enumerate(self.parts):
            taken = [value for value in part.inputs if value in values]
            work = self._work(part, taken, sizes)
            scope = self.root.get_submodule(part.layer) if part.layer else None
            inputs = [values[value] for value in taken]
            made = scope(work, inputs) if scope is not None else work(inputs)
            values.update(zip(part.outputs, made))
            for value in taken:
                if self.last_use[value] == at:
                    values.pop(value, None)
        return {name: values[value] for name, value in self.program.outputs.items()}

    def _work(self, part: Part, taken: Sequence[int], sizes: Sizes) -> Callable[[list[Tensor]], list[Tensor]]:
        def compute(*tensors: Tensor) -> list[Tensor]:
            return self._compute(part, dict(zip(taken, tensors)), sizes)

        if self.recompute and part.layer is not None:
            return lambda inputs: torch.utils.checkpoint.checkpoint(compute, *inputs, use_reentrant=False)
        return lambda inputs: compute(*inputs)

    def _compute(self, part: Part, values: dict[int, Tensor], sizes: Sizes) -> list[Tensor]:
        kept = set(part.outputs)
        last = {value: index for index in part.nodes for value in self.program.nodes[index].inputs}
        for index in part.nodes:
            node = self.program.nodes[index]
            try:
                outputs = self._apply(index, node, values, sizes)
            except (RuntimeError, IndexError, KeyError) as error:
                where = f"{self.program.name}, node {index} ({node.scope}/{node.operation})"
                raise ProgramError(f"{where}: {error}") from error
            values.update(zip(node.outputs, outputs))
            for value in node.inputs:
                if last[value] == index and value not in kept:
                    values.pop(value, None)
        return [values[value] for value in part.outputs]

    def _apply(self, index: int, node: Node, values: Mapping[int, Tensor], sizes: Sizes) -> list[Tensor]:
        if index in self.stacked:
            inputs = [self._value(value, values) for value in node.inputs[:3]]
            stack = self.parameters[node.inputs[3]].tensor.rpartition(".")[0]
            return [self.stacked[index](stack)(*inputs)]
        inputs = [self._value(value, values) for value in node.inputs]
        context = Context(sizes, [value in self.program.last_use for value in node.outputs])
        return OPERATIONS[node.operation](inputs, node.attributes, context)

    def _value(self, value: int, values: Mapping[int, Tensor]) -> Tensor:
        if value not in self.parameters:
            return values[value]
        place = self.parameters[value]
        tensor = tensor_at(self.root, place.tensor)
        return tensor if place.index is None else tensor[place.index]
