"""Programs are foreign bytes until they are read."""

import json
import random
import tempfile
import unittest
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from unmask_torch.executor import Runner
from unmask_torch.experts import mixed
from unmask_torch.files import Tensors, write_tensors
from unmask_torch.modules import Scope, build_tree, cut, places_of
from unmask_torch.program import Program, ProgramError, read_program
from unmask_torch.sharding import Layout

FLOAT = {"dtype": "float32", "shape": ["N", 3]}


def node(operation: str, inputs: list[int], scope: str = "", **attributes: Any) -> dict[str, Any]:
    return {"operation": operation, "attributes": attributes or None, "inputs": inputs, "outputs": [FLOAT], "scope": scope}


def given(name: str, shape: list[Any]) -> dict[str, Any]:
    return node("input", [], name=name, dtype="float32", shape=shape)


#: x goes through two layers; what lies between the nodes of the first has no scope.
NODES = [
    given("x", ["N", 3]),
    given("model.layers.0.w.weight", [3, 3]),
    given("model.layers.1.w.weight", [3, 3]),
    node("linear", [0, 1], "model.layers.0"),
    node("exp", [3]),
    node("mul", [3, 4], "model.layers.0"),
    node("neg", [5]),
    node("linear", [6, 2], "model.layers.1.mlp"),
    node("add", [7, 0]),
]
OUTPUTS = [{"name": "y", "value": 8}]


class Programs(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        save_file({}, self.folder / "constants")

    def read(self, data: Any) -> Program:
        path = self.folder / "program.json"
        path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
        return read_program(path, self.folder / "constants")

    def whole(self, nodes: Any = NODES, outputs: Any = OUTPUTS) -> dict[str, Any]:
        return {"format": "unmask-program", "version": 1, "name": "test", "nodes": nodes, "outputs": outputs}

    def test_layers_run_as_units(self) -> None:
        program = self.read(self.whole())
        parts = cut(program, {"model.layers.0", "model.layers.1"})
        self.assertEqual(
            [(part.layer, part.nodes) for part in parts],
            [("model.layers.0", [3, 4, 5]), (None, [6]), ("model.layers.1", [7]), (None, [8])],
        )
        torch.manual_seed(0)
        weights = {f"model.layers.{i}.w.weight": torch.randn(3, 3) for i in range(2)}
        tree = build_tree({name: [3, 3] for name in weights}, lambda name: True)
        tree.to_empty(device="cpu")
        with torch.no_grad():
            for name, value in weights.items():
                tree.get_parameter(name).copy_(value)
        x = torch.randn(4, 3)
        h = x @ weights["model.layers.0.w.weight"].T
        expected = -(h * h.exp()) @ weights["model.layers.1.w.weight"].T + x
        for recompute in (False, True):
            runner = Runner(program, tree, places_of(weights), lambda path: self.fail(path), recompute)
            y = runner({"x": x})["y"]
            torch.testing.assert_close(y, expected)
            y.sum().backward()
            self.assertTrue(all(value.grad is not None for value in tree.parameters()))

    def test_says_what_is_wrong(self) -> None:
        runner = Runner(self.read(self.whole()), Scope(), {}, lambda path: self.fail(path))
        with self.assertRaisesRegex(ProgramError, "input model.layers.0.w.weight, model.layers.1.w.weight is missing"):
            runner({"x": torch.zeros(2, 3)})
        with self.assertRaisesRegex(ProgramError, "does not run nonsense"):
            Runner(self.read(self.whole([*NODES, node("nonsense", [])])), Scope(), {}, lambda path: self.fail(path))
        with self.assertRaisesRegex(ProgramError, "uses value 20"):
            self.read(self.whole([*NODES, node("exp", [20])]))
        with self.assertRaisesRegex(ProgramError, "expected unmask-program version 1"):
            self.read({**self.whole(), "version": 2})
        # The second layer comes before the first in the first's own ancestors, and needs it.
        loop = [*NODES[:3], node("exp", [0], "model.layers.0"), node("exp", [3], "model.layers.1"), node("exp", [4], "model.layers.0")]
        with self.assertRaisesRegex(ProgramError, "model.layers.0 needs model.layers.1"):
            cut(self.read(self.whole(loop, [{"name": "y", "value": 5}])), {"model.layers.0", "model.layers.1"})

    def test_damaged_files_raise_nothing_else(self) -> None:
        text = json.dumps(self.whole()).encode()
        draw = random.Random(1)
        for _ in range(500):
            damaged = bytearray(text)
            for _ in range(draw.randint(1, 4)):
                at = draw.randrange(len(damaged))
                if draw.random() < 0.5:
                    damaged[at] = draw.choice(b'0123456789"[]{}:,-.enx\x00\xff')
                else:
                    del damaged[at : at + draw.randint(1, 40)]
            try:
                self.read(bytes(damaged))
            except ProgramError:
                pass
        for wrong in (b"", b"[]", b"null", b"[" * 100_000, b'{"format":"unmask-program","version":1}'):
            self.assertRaises(ProgramError, self.read, wrong)
        (self.folder / "constants").write_bytes(b"\xff" * 20)
        self.assertRaises(ProgramError, self.read, self.whole())


class Files(unittest.TestCase):
    def test_parts_of_tensors(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        values = {"a": torch.arange(12.0).view(4, 3), "b": torch.ones(2)}
        write_tensors(str(folder / "model.safetensors"), {name: list(v.shape) for name, v in values.items()}, iter(values.items()))
        file = Tensors(folder)
        self.assertTrue(file.part("a", [range(1, 3), range(0, 2)]).equal(values["a"][1:3, :2]))
        self.assertTrue(file.part("b", [range(2)]).equal(values["b"]))
        self.assertRaisesRegex(ProgramError, "tensor c is missing", file.part, "c", [])
        self.assertEqual(Layout((4, 3), None, ()).part(), [range(4), range(3)])


class Experts(unittest.TestCase):
    def test_stacked_experts_are_a_weighted_sum(self) -> None:
        torch.manual_seed(0)
        x, weights = torch.randn(5, 2, 4), torch.rand(5, 2, 3)
        selected = (torch.rand(5, 2, 3) > 0.5).float()
        selected[..., 1] = 0
        gate, up, down = torch.randn(3, 6, 4), torch.randn(3, 6, 4), torch.randn(3, 4, 6)
        expected = sum(
            (weights * selected)[..., e : e + 1] * ((torch.nn.functional.silu(x @ gate[e].T) * (x @ up[e].T)) @ down[e].T)
            for e in range(3)
        )
        torch.testing.assert_close(mixed(x, weights, selected, (gate, up, down), None), expected)


if __name__ == "__main__":
    unittest.main()
