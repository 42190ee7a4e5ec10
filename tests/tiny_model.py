#!/usr/bin/env python3
"""Writes a tiny random LLaMA with a tokenizer as a Hugging Face folder. Usage: tiny_model.py FOLDER"""
import array
import json
import pathlib
import random
import shutil
import struct
import sys

HIDDEN, INNER, HEADS, KEY_HEADS, LAYERS = 48, 96, 4, 2, 2


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = pathlib.Path(__file__).parent / "cases" / "tokenizer" / "smollm" / "tokenizer.json"
    shutil.copy(tokenizer, folder / "tokenizer.json")
    words = json.loads(tokenizer.read_text(encoding="utf-8"))
    vocabulary = 1 + max([*words["model"]["vocab"].values(), *(token["id"] for token in words["added_tokens"])])

    template = ("{% for message in messages %}<|im_start|>{{ message['role'] }}\\n{{ message['content'] }}<|im_end|>\\n"
                "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\\n{% endif %}")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": template, "eos_token": "<|im_end|>", "bos_token": "<|im_start|>"}), encoding="utf-8")

    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": HIDDEN, "intermediate_size": INNER, "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS, "num_hidden_layers": LAYERS, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "max_position_embeddings": 256, "tie_word_embeddings": True,
        "vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 0, "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")

    shapes = {"model.embed_tokens.weight": (vocabulary, HIDDEN), "model.norm.weight": (HIDDEN,)}
    head = HIDDEN // HEADS
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        shapes[at + "input_layernorm.weight"] = shapes[at + "post_attention_layernorm.weight"] = (HIDDEN,)
        shapes[at + "self_attn.q_proj.weight"] = shapes[at + "self_attn.o_proj.weight"] = (HIDDEN, HIDDEN)
        shapes[at + "self_attn.k_proj.weight"] = shapes[at + "self_attn.v_proj.weight"] = (KEY_HEADS * head, HIDDEN)
        shapes[at + "mlp.gate_proj.weight"] = shapes[at + "mlp.up_proj.weight"] = (INNER, HIDDEN)
        shapes[at + "mlp.down_proj.weight"] = (HIDDEN, INNER)

    rng = random.Random(1)
    header, data = {}, bytearray()
    for name, shape in sorted(shapes.items()):
        count = 1
        for size in shape:
            count *= size
        scale = 0.0 if len(shape) == 1 else shape[-1] ** -0.5
        values = array.array("f", (rng.gauss(0, scale) + (len(shape) == 1) for _ in range(count)))
        if sys.byteorder == "big":
            values.byteswap()
        start = len(data)
        data += values.tobytes()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


if __name__ == "__main__":
    main()
