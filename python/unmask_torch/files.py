"""safetensors files that are read by parts and written tensor by tensor, so that nobody holds all of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Iterator, Sequence

import torch
from safetensors import safe_open
from torch import Tensor

from .program import ProgramError


class Tensors:
    """The tensors of a file, or of files that an index names."""

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            index = path / "model.safetensors.index.json"
            path = index if index.exists() else path / "model.safetensors"
        if path.suffix == ".json":
            files = {name: path.parent / file for name, file in json.loads(path.read_text())["weight_map"].items()}
        else:
            with safe_open(path, "pt") as file:
                files = {name: path for name in file.keys()}
        self.path = path
        self.files: dict[str, Path] = files
        self._open: dict[Path, object] = {}

    def part(self, name: str, ranges: Sequence[range]) -> Tensor:
        """A part of a tensor, copied. Raises ProgramError where it is not there."""
        if name not in self.files:
            raise ProgramError(f"{self.path}: tensor {name} is missing")
        file = self.files[name]
        if file not in self._open:
            self._open[file] = safe_open(file, "pt")
        where = tuple(slice(each.start, each.stop) for each in ranges)
        part = self._open[file].get_slice(name)  # type: ignore[attr-defined]
        return (part[where] if where else part[...]).clone()

    def shape(self, name: str) -> list[int]:
        file = self._open.setdefault(self.files[name], safe_open(self.files[name], "pt"))
        return list(file.get_slice(name).get_shape())  # type: ignore[attr-defined]

    def close(self) -> None:
        self._open.clear()


def write_tensors(path: str | None, shapes: dict[str, Sequence[int]], tensors: Iterator[tuple[str, Tensor]]) -> None:
    """Writes float32 tensors, in the order of `shapes`, as they come. Without a path they are only taken."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        size = 4 * int(torch.Size(shape).numel())
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    if path is None:
        for _ in tensors:
            pass
        return
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, value in tensors:
            file.write(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
