"""Checks that Python's peft reads an adapter of unmask's as unmask does, and that unmask reads what peft writes.

usage: python scripts/check_peft.py BASE ADAPTER MERGED
       python scripts/check_peft.py --write BASE FOLDER [--dora]
       python scripts/check_peft.py --lines

BASE is a model in Hugging Face layout in float32, ADAPTER the folder of an adapter for it, MERGED the folder that `unmask merge
ADAPTER --out MERGED` wrote. Names and shapes must be those that peft gives an adapter of these settings, and the logits of the
base with the adapter, of that after peft's own merge, and of MERGED the same, in float32. Prints the largest differences as
JSON; ends with 1 where one is too large. The second form makes an adapter of random values with peft, in FOLDER. The third reads
the arguments of one of these from each line of standard input, a list in JSON, and answers with a line. Needs torch, transformers,
peft and safetensors.
"""

import argparse
import json
import sys
from pathlib import Path

import peft
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

# Of the largest logit: sums in another order, in float32.
TOLERANCE = 1e-4


def base_model(path: str):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def logits(model, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids).logits


def write(base: str, folder: str, dora: bool) -> None:
    torch.manual_seed(5)
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "o_proj", "up_proj"], use_dora=dora, task_type="CAUSAL_LM")
    model = get_peft_model(base_model(base), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
        elif "lora_magnitude" in name:
            parameter.data.mul_(1 + 0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)


def names_and_shapes(adapter: str, base: str) -> None:
    """Throws where the file does not hold exactly what peft would write."""
    config = LoraConfig.from_pretrained(adapter)
    expected = {
        name: tuple(tensor.shape)
        for name, tensor in get_peft_model_state_dict(get_peft_model(base_model(base), config)).items()
    }
    found = {
        name: tuple(tensor.shape) for name, tensor in load_file(Path(adapter) / "adapter_model.safetensors").items()
    }
    if found != expected:
        differing = sorted(set(found.items()) ^ set(expected.items()))
        sys.exit(f"{adapter}: names or shapes are not those of peft: {differing[:6]}")


def run(args: list[str]) -> dict[str, float]:
    parser = argparse.ArgumentParser()
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--dora", action="store_true")
    arguments = parser.parse_args(args)
    if arguments.write:
        base, folder = arguments.paths
        write(base, folder, arguments.dora)
        return {}
    return check(*arguments.paths)


def check(base: str, adapter: str, merged: str) -> dict[str, float]:
    names_and_shapes(adapter, base)
    plain = base_model(base)
    ids = torch.randint(0, 200, (2, 24), generator=torch.Generator().manual_seed(1))
    before = logits(plain, ids)
    adapted = PeftModel.from_pretrained(plain, adapter).eval()
    with_adapter = logits(adapted, ids)
    after_merge = logits(adapted.merge_and_unload(), ids)
    size = with_adapter.abs().max().item()
    difference = lambda a, b: (a - b).abs().max().item() / size
    result = {
        "changed": difference(with_adapter, before),
        "merged_by_peft": difference(after_merge, with_adapter),
        "merged_by_unmask": difference(logits(base_model(merged), ids), with_adapter),
        "tolerance": TOLERANCE,
    }
    if max(result["merged_by_peft"], result["merged_by_unmask"]) > TOLERANCE or result["changed"] < TOLERANCE:
        sys.exit(json.dumps(result))
    return result


if sys.argv[1:] == ["--lines"]:
    print(json.dumps({"name": f"peft {peft.__version__}"}), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
else:
    print(json.dumps(run(sys.argv[1:])))
