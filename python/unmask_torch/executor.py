"""Runs a program on tensors."""

from __future__ import annotations

from typing import Mapping

import torch
from torch import Tensor

from .operations import OPERATIONS, Context
from .program import Program, ProgramError, Sizes


def check(program: Program) -> None:
    """Raises ProgramError where an operation is not known here."""
    known = {*OPERATIONS, "input", "constant"}
    missing = sorted({node.operation for node in program.nodes} - known)
    if missing:
        raise ProgramError(f"{program.name}: PyTorch does not run {', '.join(missing)}")


def run(program: Program, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The program's outputs, with the graph that gradients need. Raises ProgramError where an input is missing or wrong."""
    sizes = Sizes()
    values: dict[int, Tensor] = {}
    for index, node in enumerate(program.nodes):
        if node.operation == "input":
            name = node.attributes["name"]
            if name not in feeds:
                raise ProgramError(f"{program.name}: input {name} is missing")
            sizes.bind(node.attributes["shape"], feeds[name].shape, name)
            outputs = [feeds[name]]
        elif node.operation == "constant":
            outputs = [program.constants[node.attributes["tensor"]]]
        else:
            inputs = [values[value] for value in node.inputs]
            context = Context(sizes, [value in program.last_use for value in node.outputs])
            try:
                outputs = OPERATIONS[node.operation](inputs, node.attributes, context)
            except (RuntimeError, IndexError, KeyError) as error:
                raise ProgramError(f"{program.name}, node {index} ({node.scope}/{node.operation}): {error}") from error
        values.update(zip(node.outputs, outputs))
        for value in node.inputs:
            if program.last_use[value] == index:
                values.pop(value, None)
    return {name: values[value] for name, value in program.outputs.items()}
