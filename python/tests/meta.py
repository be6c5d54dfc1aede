"""Builds a model on the meta device as one of many processes, and says how it is divided. Used by src/cluster/plan.test.ts.

python -m tests.meta FOLDER PROCESSES EXPERT_PARALLEL RANK: FOLDER has shapes.json, program.json and constants.
"""

import json
import math
import sys
from pathlib import Path

import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from unmask_torch.executor import Runner
from unmask_torch.program import read_program
from unmask_torch.sharding import local, make_meshes
from unmask_torch.training import Model


def main(folder: Path, processes: int, expert_parallel: int, rank: int) -> None:
    dist.init_process_group("fake", rank=rank, world_size=processes, store=FakeStore())
    shapes = json.loads((folder / "shapes.json").read_text())
    model = Model(shapes, {}, "cpu", make_meshes("cpu", expert_parallel), "bfloat16")
    values = dict(model.root.named_parameters())
    runner = Runner(read_program(folder / "program.json", folder / "constants"), model.root, model.places, model.experts)
    print(
        json.dumps(
            {
                "tensors": len(values),
                "sharded": sum(isinstance(value, DTensor) for value in values.values()),
                "meta": all(value.is_meta for value in values.values()),
                "bytes": sum(4 * local(value).numel() for value in values.values()),
                "read": 4 * sum(math.prod(map(len, model.layouts[name].part())) for name in values),
                "units": sum(isinstance(module, FSDPModule) for module in model.root.modules()),
                "layers": [part.layer for part in runner.parts if part.layer],
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
