"""Trains the parameters of programs: requests as JSON lines on standard input, answers on standard output.

Tensors come and go in safetensors files whose paths the requests name. The first line that it writes says which versions run.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ContextManager

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .executor import check, run
from .program import Program, ProgramError, read_program

#: Moments of AdamW, as checkpoints name them.
MOMENTS = ("exp_avg", "exp_avg_sq")


class Worker:
    def __init__(self) -> None:
        self.programs: dict[str, Program] = {}
        #: Trained and frozen parameters by name, float32.
        self.trained: dict[str, Tensor] = {}
        self.frozen: dict[str, Tensor] = {}
        self.moments: dict[str, list[Tensor]] = {}
        self.updates = 0
        self.options: dict[str, Any] = {}

    def start(self, request: dict[str, Any]) -> None:
        """Takes the parameters. `trained` is a file; `frozen` a file, or null; `options` those of AdamW and the type to compute in."""
        self.options = request["options"]
        if self.options["threads"] > 0:
            torch.set_num_threads(self.options["threads"])
        self.frozen = _taken(request["frozen"]) if request["frozen"] else {}
        self.fill(request)

    def fill(self, request: dict[str, Any]) -> None:
        """Replaces the trained parameters, and the moments: by zeros without a file."""
        self.trained = {name: value.requires_grad_() for name, value in _taken(request["trained"]).items()}
        self.updates = request.get("updates", 0)
        state = _taken(request["moments"]) if request.get("moments") else {}
        self.moments = {
            moment: [
                state[f"{moment}.{name}"].clone() if state else torch.zeros_like(value, requires_grad=False)
                for name, value in self.trained.items()
            ]
            for moment in MOMENTS
        }

    def load(self, request: dict[str, Any]) -> None:
        program = read_program(Path(request["program"]), Path(request["constants"]))
        check(program)
        self.programs = {request["id"]: program}

    def run(self, request: dict[str, Any]) -> None:
        """Runs a program on feeds alone, and writes its outputs; with the name of a scalar output also its gradients."""
        feeds = load_file(request["feeds"])
        wanted = request["gradients_of"]
        with torch.set_grad_enabled(wanted is not None):
            inputs = {name: value.requires_grad_(wanted is not None and value.is_floating_point()) for name, value in feeds.items()}
            outputs = run(self._program(request), inputs)
        if wanted is not None:
            outputs[wanted].backward()
            outputs |= {f"grad.{name}": value.grad for name, value in inputs.items() if value.grad is not None}
        save_file({name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in outputs.items()}, request["out"])

    def _program(self, request: dict[str, Any]) -> Program:
        if request["id"] not in self.programs:
            raise ProgramError(f"program {request['id']!r} is not loaded")
        return self.programs[request["id"]]

    def gradients(self, request: dict[str, Any]) -> dict[str, Any]:
        """Runs a micro-batch, and adds its gradients to those of the step so far. Returns all outputs but the negative log-likelihoods."""
        if request["first"]:
            for value in self.trained.values():
                value.grad = None
        outputs = self._run(request)
        outputs["objective"].backward()
        reported = {name: value for name, value in outputs.items() if name not in ("objective", "nll")}
        return {"outputs": {name: value.detach().double().flatten().tolist() for name, value in reported.items()}}

    def nll(self, request: dict[str, Any]) -> None:
        with torch.no_grad():
            save_file({"nll": self._run(request)["nll"].float().contiguous()}, request["out"])

    def _run(self, request: dict[str, Any]) -> dict[str, Tensor]:
        feeds = load_file(request["feeds"])
        computing: ContextManager[Any] = nullcontext()
        if self.options["dtype"] == "bfloat16":
            computing = torch.autocast("cpu", torch.bfloat16)
        with computing:
            return run(self._program(request), {**self.frozen, **self.trained, **feeds})

    def norm(self, request: dict[str, Any]) -> dict[str, Any]:
        norms = torch._foreach_norm([value.grad for value in self.trained.values() if value.grad is not None])
        return {"norm": float(torch.stack(norms).double().square().sum().sqrt()) if norms else 0.0}

    @torch.no_grad()
    def update(self, request: dict[str, Any]) -> None:
        """AdamW (Loshchilov and Hutter, 2019), with the gradients scaled down to `max_grad_norm`."""
        options = self.options
        self.updates += 1
        norm, lr = request["norm"], request["learning_rate"]
        clip = min(1.0, options["max_grad_norm"] / (norm + 1e-6)) if options["max_grad_norm"] > 0 else 1.0
        beta1, beta2 = options["beta1"], options["beta2"]
        correction = math.sqrt(1 - beta2**self.updates)
        values = list(self.trained.values())
        gradients = [torch.zeros_like(value) if value.grad is None else value.grad for value in values]
        torch._foreach_mul_(gradients, clip)
        first, second = (self.moments[moment] for moment in MOMENTS)
        torch._foreach_mul_(first, beta1)
        torch._foreach_add_(first, gradients, alpha=1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        decays = set(options["decays"])
        decayed = [value for name, value in self.trained.items() if name in decays]
        if decayed and options["weight_decay"] > 0:
            torch._foreach_mul_(decayed, 1 - lr * options["weight_decay"])
        denominators = torch._foreach_sqrt(second)
        torch._foreach_add_(denominators, options["epsilon"] * correction)
        step = lr * correction / (1 - beta1**self.updates)
        torch._foreach_addcdiv_(values, first, denominators, -step)

    def parameters(self, request: dict[str, Any]) -> None:
        save_file({name: value.detach().contiguous() for name, value in self.trained.items()}, request["out"])

    def state(self, request: dict[str, Any]) -> dict[str, Any]:
        tensors = {
            f"{moment}.{name}": value
            for moment, values in self.moments.items()
            for name, value in zip(self.trained, values)
        }
        save_file(tensors, request["out"])
        return {"updates": self.updates}


def _taken(path: str) -> dict[str, Tensor]:
    """The tensors of a file that is only there to bring them."""
    tensors = load_file(path)
    os.unlink(path)
    return tensors


REQUESTS = ("start", "fill", "load", "run", "gradients", "nll", "norm", "update", "parameters", "state")


def main() -> None:
    # Signals to the group are for whoever started it, who finishes the step and then closes standard input.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    worker = Worker()
    answers = os.fdopen(os.dup(1), "w")
    # Whatever else prints must not stand between the answers.
    sys.stdout = sys.stderr

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    answer({"python": sys.version.split()[0], "torch": torch.__version__})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["kind"] not in REQUESTS:
                raise ProgramError(f"no request {request['kind']!r}")
            result = getattr(worker, request["kind"])(request) or {}
            answer({"id": request["request"], **result})
        except ProgramError as error:
            answer({"id": request["request"], "error": str(error)})
        except (RuntimeError, MemoryError, OSError, SafetensorError) as error:
            answer({"id": request["request"], "error": f"{request['kind']}: {error}"})


if __name__ == "__main__":
    main()
