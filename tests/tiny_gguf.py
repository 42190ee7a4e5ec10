#!/usr/bin/env python3
"""Writes what tiny_model.py made of a LLaMA as a GGUF file. Usage: tiny_gguf.py FOLDER FILE"""
import json
import pathlib
import struct
import sys

NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "model.layers": "blk",
}


def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def value(item):
    """Type and bytes of a piece of metadata."""
    if isinstance(item, str):
        return 8, text(item)
    if isinstance(item, float):
        return 6, struct.pack("<f", item)
    if isinstance(item, list):
        kind = value(item[0])[0]
        return 9, struct.pack("<IQ", kind, len(item)) + b"".join(value(one)[1] for one in item)
    return 4, struct.pack("<I", item)


def interleaved(data, rows, head):
    """Rows of q and k in the order that the rotation of these files wants."""
    size = len(data) // rows
    order = [row - row % head + (row % head) // 2 + (row % 2) * (head // 2) for row in range(rows)]
    return b"".join(data[row * size:(row + 1) * size] for row in order)


def main():
    folder, target = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    words = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary, added = words["model"]["vocab"], {token["id"] for token in words["added_tokens"]}
    tokens = [token for token, _ in sorted(vocabulary.items(), key=lambda item: item[1])]
    metadata = {
        "general.architecture": "llama", "llama.embedding_length": config["hidden_size"],
        "llama.feed_forward_length": config["intermediate_size"], "llama.block_count": config["num_hidden_layers"],
        "llama.attention.head_count": config["num_attention_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.attention.layer_norm_rms_epsilon": config["rms_norm_eps"], "llama.rope.freq_base": config["rope_theta"],
        "llama.context_length": config["max_position_embeddings"], "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if i in added else 1 for i in range(len(tokens))],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in words["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
    }
    data = (folder / "model.safetensors").read_bytes()
    begin = 8 + struct.unpack("<Q", data[:8])[0]
    head = config["hidden_size"] // config["num_attention_heads"]
    infos, body = b"", b""
    tensors = json.loads(data[8:begin])
    for name, info in tensors.items():
        first, last = info["data_offsets"]
        values = data[begin + first:begin + last]
        if "q_proj" in name or "k_proj" in name:
            values = interleaved(values, info["shape"][0], head)
        for old, new in NAMES.items():
            name = name.replace(old, new)
        body += b"\0" * (-len(body) % 32)
        shape = info["shape"][::-1]
        infos += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(body))
        body += values
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, item in metadata.items():
        kind, packed = value(item)
        header += text(key) + struct.pack("<I", kind) + packed
    header += infos
    target.write_bytes(header + b"\0" * (-len(header) % 32) + body)


if __name__ == "__main__":
    main()
