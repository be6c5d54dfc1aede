"""Trains the parameters of programs: requests as JSON lines on standard input, answers on standard output.

Tensors come and go in safetensors files whose paths the requests name. The first line that it writes says which versions run.
Under torchrun the first process reads, passes every request on to the others, and answers; files must lie where all can read them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, ContextManager, Iterator, TextIO

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .executor import Runner
from .files import Tensors
from .memory import Tracker
from .modules import Scope
from .program import Program, ProgramError, read_program
from .sharding import make_meshes, start_processes, sums, world_size
from .training import Model

#: Between requests, the other processes wait for as long as it takes.
PATIENCE = timedelta(days=30)


class Worker:
    def __init__(self, device: str) -> None:
        self.device = device
        self.rank = dist.get_rank() if world_size() > 1 else 0
        self.programs: dict[str, Program] = {}
        self.runners: dict[str, Runner] = {}
        self.model: Model | None = None
        self.options: dict[str, Any] = {}

    @property
    def trained(self) -> Model:
        if self.model is None:
            raise ProgramError("there are no parameters yet")
        return self.model

    def start(self, request: dict[str, Any]) -> None:
        """Takes the parameters. `trained` is a file; `frozen` a file, or null; `options` those of AdamW, the type to compute in,
        and how the work is divided."""
        self.options = options = request["options"]
        if options["threads"] > 0:
            torch.set_num_threads(options["threads"])
        meshes = make_meshes(self.device, options["expert_parallel"]) if world_size() > 1 else None
        trained = Tensors(Path(request["trained"]))
        frozen = Tensors(Path(request["frozen"])) if request["frozen"] else None
        shapes = [{name: file.shape(name) for name in file.files} if file else {} for file in (trained, frozen)]
        self.model = Model(shapes[0], shapes[1], self.device, meshes, options["dtype"])
        self.model.materialise()
        if frozen:
            self.model.fill(frozen, list(frozen.files))
        self.fill(request)

    def fill(self, request: dict[str, Any]) -> None:
        """Replaces the trained parameters, and the moments: by zeros without a file."""
        self.trained.fill(Tensors(Path(request["trained"])), self.trained.names)
        moments = request.get("moments")
        self.trained.start_moments(Tensors(Path(moments)) if moments else None, request.get("updates", 0))

    def load(self, request: dict[str, Any]) -> None:
        program = read_program(Path(request["program"]), Path(request["constants"]), self.device)
        if request["alone"]:
            self.programs, self.runners = {}, {}
        self.programs[request["id"]] = program
        # Checked now, though a run of weights that are fed has no model.
        model = self.model
        self.runners[request["id"]] = Runner(
            program,
            model.root if model else Scope(),
            model.places if model else {},
            model.experts if model else _no_experts,
            self.options.get("recompute", False),
        )

    def run(self, request: dict[str, Any]) -> None:
        """Runs a program on feeds alone, and writes its outputs; with the name of a scalar output also its gradients."""
        feeds = self._feeds(request["feeds"])
        wanted = request["gradients_of"]
        runner = Runner(self._program(request["id"]), Scope(), {}, _no_experts)
        with torch.set_grad_enabled(wanted is not None):
            inputs = {
                name: value.requires_grad_(wanted is not None and value.is_floating_point())
                for name, value in feeds.items()
            }
            outputs = runner(inputs)
        if wanted is not None:
            outputs[wanted].backward()
            outputs |= {f"grad.{name}": value.grad for name, value in inputs.items() if value.grad is not None}
        save_file(
            {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in outputs.items()},
            request["out"],
        )

    def gradients(self, request: dict[str, Any]) -> dict[str, Any]:
        """Each process runs its micro-batch of `batches`, and adds its gradients to those of the step so far. Returns the sums of all
        outputs but the negative log-likelihoods."""
        if request["first"]:
            self.trained.clear_gradients()
        batch = request["batches"][self.rank]
        outputs = self._run(batch)
        outputs["objective"].backward()
        reported = sorted(name for name in outputs if name not in ("objective", "nll"))
        lists = {name: outputs[name].detach().double().flatten().tolist() for name in reported}
        total = iter(sums([value for name in reported for value in lists[name]], self.device))
        return {"outputs": {name: [next(total) for _ in lists[name]] for name in reported}}

    def measure(self, request: dict[str, Any]) -> dict[str, Any]:
        """Bytes of a micro-batch's gradients on this process: what lives when the forward pass is done, and at most."""
        self.trained.clear_gradients()
        with Tracker() as tracker:
            outputs = self._run(request)
            after_forward = tracker.live()
            outputs["objective"].backward()
        gradients = sum(value.nbytes for value in self.trained.gradients().values())
        self.trained.clear_gradients()
        return {"activations": after_forward, "peak": tracker.peak, "gradients": gradients, **self.trained.bytes()}

    def nll(self, request: dict[str, Any]) -> None:
        with torch.no_grad():
            nll = self._run(request)["nll"].float().cpu().contiguous()
        # No backward pass gives back what was gathered.
        self.trained.release()
        if self.rank == 0:
            save_file({"nll": nll}, request["out"])

    def _program(self, name: str) -> Program:
        if name not in self.programs:
            raise ProgramError(f"program {name!r} is not loaded")
        return self.programs[name]

    def _feeds(self, path: str) -> dict[str, Tensor]:
        return load_file(path, device=self.device)

    def _run(self, request: dict[str, Any]) -> dict[str, Tensor]:
        self._program(request["id"])
        computing: ContextManager[Any] = nullcontext()
        if self.options["dtype"] == "bfloat16":
            computing = torch.autocast(self.device, torch.bfloat16)
        with computing:
            return self.runners[request["id"]](self._feeds(request["feeds"]))

    def norm(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"norm": self.trained.norm()}

    def update(self, request: dict[str, Any]) -> None:
        self.trained.update(self.options, request["norm"], request["learning_rate"])

    def parameters(self, request: dict[str, Any]) -> None:
        self.trained.write_parameters(request["out"])

    def state(self, request: dict[str, Any]) -> dict[str, Any]:
        self.trained.write_moments(request["out"])
        return {"updates": self.trained.updates}

    def save(self, request: dict[str, Any]) -> dict[str, Any]:
        """Writes a checkpoint into a folder, with the tensors of the file `extra` beside those that are trained."""
        self.trained.save(Path(request["folder"]), Tensors(Path(request["extra"])) if request["extra"] else None)
        return {"updates": self.trained.updates}

    def restore(self, request: dict[str, Any]) -> None:
        self.trained.restore(Path(request["folder"]), request["updates"])


def _no_experts(path: str) -> Any:
    raise ProgramError(f"{path}: the experts are not there")


REQUESTS = (
    *("start", "fill", "load", "run", "gradients", "measure", "nll", "norm", "update"),
    *("parameters", "state", "save", "restore"),
)


class Conversation:
    """Requests of standard input on every process, and the answers of the first."""

    def __init__(self, answers: TextIO) -> None:
        self.answers = answers
        self.several = world_size() > 1
        self.rank = dist.get_rank() if self.several else 0
        self.group = dist.new_group(backend="gloo", timeout=PATIENCE) if self.several else None

    def requests(self) -> Iterator[dict[str, Any]]:
        lines = iter(sys.stdin) if self.rank == 0 else None
        while True:
            passed = [next(lines, None) if lines else None]
            if self.several:
                dist.broadcast_object_list(passed, src=0, group=self.group)
            if passed[0] is None:
                return
            yield json.loads(passed[0])

    def answer(self, value: dict[str, Any]) -> None:
        """Answers when every process is done, so that files may go."""
        if self.several:
            dist.barrier(self.group)
        if self.rank == 0:
            self.answers.write(json.dumps(value) + "\n")
            self.answers.flush()

    def fail(self, request: int, error: str) -> None:
        """Answers with an error. Of several processes the others may be in the middle of a sum: all end."""
        if not self.several:
            self.answer({"id": request, "error": error})
            return
        print(f"unmask: process {self.rank}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def main() -> None:
    # Signals to the group are for whoever started it, who finishes the step and then closes standard input.
    # torchrun has a group of its own, and ends its processes by SIGTERM.
    for each in (signal.SIGINT,) if world_size() > 1 else (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")
    # Whatever else prints must not stand between the answers.
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = world_size()
    if size > 1:
        start_processes(device)
    worker = Worker(device)
    conversation = Conversation(answers)
    conversation.answer({"python": sys.version.split()[0], "torch": torch.__version__, "processes": size})
    for request in conversation.requests():
        try:
            if request["kind"] not in REQUESTS:
                raise ProgramError(f"no request {request['kind']!r}")
            result = getattr(worker, request["kind"])(request) or {}
        except ProgramError as error:
            conversation.fail(request["request"], str(error))
        except (RuntimeError, MemoryError, OSError, SafetensorError) as error:
            conversation.fail(request["request"], f"{request['kind']}: {error or type(error).__name__}")
        else:
            conversation.answer({"id": request["request"], **result})


if __name__ == "__main__":
    main()
