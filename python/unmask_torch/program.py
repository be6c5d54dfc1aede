"""Reads a serialised program: docs/programs.md."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

FORMAT, VERSION = "unmask-program", 1

Dim = Union[int, str]

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "int64": torch.int64,
    "int32": torch.int32,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}


class ProgramError(Exception):
    """A program that cannot be read or run; the message names the node."""


@dataclass(frozen=True)
class Node:
    operation: str
    attributes: dict[str, Any]
    inputs: list[int]
    #: Numbers of the values that it makes.
    outputs: list[int]
    scope: str


@dataclass(frozen=True)
class Program:
    name: str
    nodes: list[Node]
    constants: dict[str, torch.Tensor]
    outputs: dict[str, int]
    #: Index of the last node that uses a value.
    last_use: dict[int, int]


def read_program(program: Path, constants: Path, device: str = "cpu") -> Program:
    """Reads the two files. Raises ProgramError where a file is not what docs/programs.md describes."""
    try:
        data = json.loads(program.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ProgramError(f"{program}: not a program: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != VERSION:
        raise ProgramError(f"{program}: expected {FORMAT} version {VERSION}")
    try:
        nodes, outputs, last_use = _parsed(data)
    except ProgramError as error:
        raise ProgramError(f"{program}: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ProgramError(f"{program}: not a program: {type(error).__name__}: {error}") from error
    try:
        tensors = load_file(constants, device=device)
    except (OSError, SafetensorError) as error:
        raise ProgramError(f"{constants}: not the constants of a program: {error}") from error
    return Program(str(data.get("name")), nodes, tensors, outputs, last_use)


def _parsed(data: dict[str, Any]) -> tuple[list[Node], dict[str, int], dict[int, int]]:
    nodes: list[Node] = []
    last_use: dict[int, int] = {}
    values = 0
    for index, node in enumerate(data["nodes"]):
        inputs = [int(value) for value in node["inputs"]]
        for value in inputs:
            if not 0 <= value < values:
                raise ProgramError(f"node {index} uses value {value}, which no node before it makes")
            last_use[value] = index
        outputs = list(range(values, values + len(node["outputs"])))
        values += len(outputs)
        nodes.append(Node(str(node["operation"]), dict(node["attributes"] or {}), inputs, outputs, str(node["scope"])))
    results = {str(output["name"]): int(output["value"]) for output in data["outputs"]}
    for name, value in results.items():
        if not 0 <= value < values:
            raise ProgramError(f"output {name} is value {value}, which no node makes")
        last_use[value] = len(nodes)
    return nodes, results, last_use


class Sizes:
    """What the names in shapes stand for, once the inputs are known."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def bind(self, shape: list[Dim], actual: torch.Size, what: str) -> None:
        """Takes the sizes of an input. Raises ProgramError where they are not as declared."""
        if len(shape) != len(actual):
            raise ProgramError(f"{what} has shape {list(actual)}, expected {shape}")
        for dim, size in zip(shape, actual):
            expected = self.known.setdefault(dim, size) if isinstance(dim, str) else dim
            if size != expected:
                raise ProgramError(f"{what} has shape {list(actual)}, expected {shape} with {self.known}")

    def resolve(self, shape: list[Dim]) -> list[int]:
        """The shape in numbers; a size that is known from the others alone is -1."""
        return [dim if isinstance(dim, int) else self._value(dim) for dim in shape]

    def _value(self, name: str) -> int:
        if name in self.known:
            return self.known[name]
        try:
            return self._evaluate(ast.parse(name, mode="eval").body)
        except (KeyError, SyntaxError):
            return -1

    def _evaluate(self, node: ast.expr) -> int:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.Name):
            return self.known[node.id]
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mult)):
            left, right = self._evaluate(node.left), self._evaluate(node.right)
            return left + right if isinstance(node.op, ast.Add) else left * right
        raise KeyError(ast.dump(node))
