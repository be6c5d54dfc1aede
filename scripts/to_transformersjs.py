"""Writes a model folder in Hugging Face layout as ONNX for transformers.js, to stand beside unmask in a browser.

python3 scripts/to_transformersjs.py MODEL_FOLDER OUT [--bits 4|8]

The graph is what ONNX Runtime's own model builder makes, with GroupQueryAttention. --bits 4: MatMulNBits in groups of 32 with a
scale each, products of float32; the embedding stays float32, for the build of ONNX Runtime that transformers.js takes has no
kernel for the builder's quantised one. --bits 8: ONNX Runtime's dynamic quantisation, a scale for each output, activations in 8
bits. Needs onnxruntime-genai, onnx, onnx-ir, onnxruntime, torch and transformers.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("--bits", type=int, choices=[4, 8])
options = parser.parse_args()

TEXTS = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
# transformers.js finds the format by the file's name.
NAMES = {None: "model.onnx", 4: "model_q4.onnx", 8: "model_quantized.onnx"}
PRODUCTS_OF_FLOAT32 = 1

FOUR_BITS = {
    "algo_config": "rtn",
    "block_size": 32,
    "is_symmetric": "true",
    "accuracy_level": PRODUCTS_OF_FLOAT32,
    "op_types_to_quantize": "MatMul",
    "shared_embeddings": "false",
}

precision = ["-p", "fp32"]
if options.bits == 4:
    precision = ["-p", "int4", "--extra_options", *(f"{name}={value}" for name, value in FOUR_BITS.items())]
folder = options.out / "onnx"
folder.mkdir(parents=True, exist_ok=True)
with tempfile.TemporaryDirectory() as work:
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-e", "cpu"]
    subprocess.run([*builder, "-i", str(options.model), "-o", work, "-c", work, *precision], check=True)
    built = f"{work}/model.onnx"
    if options.bits == 8:
        built = f"{work}/quantized.onnx"
        signed = {"weight_type": QuantType.QInt8, "per_channel": True}
        quantize_dynamic(f"{work}/model.onnx", built, op_types_to_quantize=["MatMul"], **signed)
    model = onnx.load(built)
# transformers.js makes empty caches by the shapes of the inputs, in which the builder leaves the size of a head open.
config = json.loads((options.model / "config.json").read_text())
size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
for value in [*model.graph.input, *model.graph.output]:
    if value.name.startswith(("past_key_values.", "present.")):
        value.type.tensor_type.shape.dim[3].dim_value = size
onnx.save(model, folder / NAMES[options.bits])
for text in TEXTS:
    if (options.model / text).exists():
        shutil.copy(options.model / text, options.out)
