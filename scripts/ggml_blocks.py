"""Reference data for GGUF's block formats, from llama.cpp's Python package gguf (0.19) and numpy:

    python scripts/ggml_blocks.py blocks > test/checkpoint/ggml-blocks.json
    python scripts/ggml_blocks.py grids  > src/checkpoint/gguf-grids.ts

`blocks`: random blocks of every type that gguf dequantises, and their float32 values, little-endian, as hex.
`grids`: the code books of the IQ types, packed.
"""

import base64
import json
import math
import sys
import warnings

import numpy as np
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

# NVFP4 has further scales in tensors of their own, so its blocks alone say nothing.
LEFT_OUT = {"NVFP4"}
GRIDS = ["IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"]


def blocks() -> dict:
    random = np.random.default_rng(7)
    out = {}
    for kind in GGMLQuantizationType:
        size, length = GGML_QUANT_SIZES[kind]
        if kind.name in LEFT_OUT or kind.name == "F32" or kind not in {*quants._type_traits, GGMLQuantizationType.F16}:
            continue
        count = 8 if size == 1 else 2 if size == 32 else 1
        while True:
            data = random.integers(0, 256, [1, count * length], dtype=np.uint8)
            values = quants.dequantize(data, kind)
            # Scales that are a number, as in files.
            if np.isfinite(values).all():
                break
        out[kind.name] = {"blocks": data.tobytes().hex(), "values": values.astype("<f4").tobytes().hex()}
    return out


def grids() -> str:
    lines = [
        "// Code books of ggml's IQ types (ggml-common.h), made by scripts/ggml_blocks.py: values as numbers of `bits` bits, the",
        "// first in the lowest, which stand for those of `values`.",
        "",
        "export interface PackedGrid {",
        "  bits: number",
        "  values: readonly number[]",
        "  /** Base64. */",
        "  packed: string",
        "}",
    ]
    for name in GRIDS:
        kind = getattr(quants, name)
        bits = math.ceil(math.log2(len(kind.grid_map)))
        bits = 4 if bits == 3 else bits
        packed = base64.b64encode(bytes.fromhex(bytes(kind.grid_hex).decode())).decode()
        values = ", ".join(str(int(value)) for value in kind.grid_map)
        lines += [
            "",
            f"export const {name.lower()}: PackedGrid = {{",
            f"  bits: {bits},",
            f"  values: [{values}],",
            "  packed:",
            f"    '{packed}',",
            "}",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(blocks(), indent=2) if sys.argv[1] == "blocks" else grids())
