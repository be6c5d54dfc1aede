"""Writes a model in Hugging Face layout (Llama) as a GGUF file with Q8_0 matrices, for llama.cpp beside unmask.

python3 scripts/to_gguf.py MODEL_FOLDER TEMPLATE.gguf OUT.gguf

Tokenizer and hyper-parameters are those of the template, a GGUF file of the model that was trained. Needs gguf, numpy and
safetensors.
"""
import sys

import numpy
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, quants
from safetensors.numpy import load_file

folder, template, out = sys.argv[1:]
reader = GGUFReader(template)
weights = load_file(f"{folder}/model.safetensors")
field = lambda name: reader.fields[name].contents()
heads, kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")

NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def source(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{NAMES[parts[2]]}.weight"
    return f"{WHOLE[parts[0]]}.weight"


def reordered(values: numpy.ndarray, count: int) -> numpy.ndarray:
    """llama.cpp turns neighbouring pairs, Hugging Face the two halves of a head."""
    rows, columns = values.shape
    return values.reshape(count, 2, rows // count // 2, columns).swapaxes(1, 2).reshape(rows, columns)


writer = GGUFWriter(out, "llama")
for name, item in reader.fields.items():
    if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
        continue
    kind, *parts = item.types
    writer.add_key_value(name, item.contents(), kind, parts[-1] if kind == GGUFValueType.ARRAY else None)
writer.add_file_type(7)
for tensor in reader.tensors:
    values = weights[source(tensor.name)].astype(numpy.float32)
    if ".attn_q." in tensor.name:
        values = reordered(values, heads)
    if ".attn_k." in tensor.name:
        values = reordered(values, kv_heads)
    if values.ndim == 1:
        writer.add_tensor(tensor.name, values)
    else:
        kind = GGMLQuantizationType.Q8_0
        writer.add_tensor(tensor.name, quants.quantize(values, kind), raw_dtype=kind)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
