#!/usr/bin/env python3
"""Writes a tiny random model with a tokenizer as a Hugging Face folder. Usage: tiny_model.py FOLDER [llama | bert | vit | t5] [LAYERS]"""
import array
import json
import pathlib
import random
import shutil
import struct
import sys

HIDDEN, INNER, HEADS, KEY_HEADS = 48, 96, 4, 2
LAYERS = int(sys.argv[3]) if len(sys.argv) > 3 else 2


def copy_tokenizer(folder, name):
    """Returns the size of the vocabulary."""
    tokenizer = pathlib.Path(__file__).parent / "cases" / "tokenizer" / name / "tokenizer.json"
    shutil.copy(tokenizer, folder / "tokenizer.json")
    words = json.loads(tokenizer.read_text(encoding="utf-8"))
    own = words["model"]["vocab"]
    ids = own.values() if isinstance(own, dict) else range(len(own))
    return 1 + max([*ids, *(token["id"] for token in words["added_tokens"])])


def llama(folder):
    vocabulary = copy_tokenizer(folder, "smollm")
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
    shapes = {"model.embed_tokens.weight": (vocabulary, HIDDEN), "model.norm.weight": (HIDDEN,)}
    head = HIDDEN // HEADS
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        shapes[at + "input_layernorm.weight"] = shapes[at + "post_attention_layernorm.weight"] = (HIDDEN,)
        shapes[at + "self_attn.q_proj.weight"] = shapes[at + "self_attn.o_proj.weight"] = (HIDDEN, HIDDEN)
        shapes[at + "self_attn.k_proj.weight"] = shapes[at + "self_attn.v_proj.weight"] = (KEY_HEADS * head, HIDDEN)
        shapes[at + "mlp.gate_proj.weight"] = shapes[at + "mlp.up_proj.weight"] = (INNER, HIDDEN)
        shapes[at + "mlp.down_proj.weight"] = (HIDDEN, INNER)
    return config, shapes


def bert(folder):
    vocabulary = copy_tokenizer(folder, "bert")
    config = {
        "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu",
        "hidden_size": HIDDEN, "intermediate_size": INNER, "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS, "layer_norm_eps": 1e-12, "max_position_embeddings": 64,
        "type_vocab_size": 2, "vocab_size": vocabulary, "pad_token_id": 0, "dtype": "float32",
    }
    shapes = {}

    def linear(name, out, inside):
        shapes[name + ".weight"] = (out, inside)
        shapes[name + ".bias"] = (out,)

    def norm(name):
        shapes[name + ".weight"] = shapes[name + ".bias"] = (HIDDEN,)

    for name, rows in (("word", vocabulary), ("position", 64), ("token_type", 2)):
        shapes[f"embeddings.{name}_embeddings.weight"] = (rows, HIDDEN)
    norm("embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        for name in ("query", "key", "value"):
            linear(at + "attention.self." + name, HIDDEN, HIDDEN)
        linear(at + "attention.output.dense", HIDDEN, HIDDEN)
        norm(at + "attention.output.LayerNorm")
        linear(at + "intermediate.dense", INNER, HIDDEN)
        linear(at + "output.dense", HIDDEN, INNER)
        norm(at + "output.LayerNorm")
    linear("pooler.dense", HIDDEN, HIDDEN)
    return config, shapes


def vit(folder):
    """For images of 8 x 8 grey pixels from 0 to 16: those of scikit-learn's digits."""
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"rescale_factor": 1 / 16, "image_mean": [0.5], "image_std": [0.5]}), encoding="utf-8")
    config = {
        "architectures": ["ViTModel"], "model_type": "vit", "hidden_act": "gelu", "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS,
        "layer_norm_eps": 1e-12, "image_size": 8, "patch_size": 2, "num_channels": 1, "dtype": "float32",
    }
    shapes = {
        "vit.embeddings.cls_token": (1, 1, HIDDEN), "vit.embeddings.position_embeddings": (1, 17, HIDDEN),
        "vit.embeddings.patch_embeddings.projection.weight": (HIDDEN, 1, 2, 2),
        "vit.embeddings.patch_embeddings.projection.bias": (HIDDEN,),
        "vit.layernorm.weight": (HIDDEN,), "vit.layernorm.bias": (HIDDEN,),
    }
    for layer in range(LAYERS):
        at = f"vit.encoder.layer.{layer}."
        for name, out, inside in (("attention.attention.query", HIDDEN, HIDDEN), ("attention.attention.key", HIDDEN, HIDDEN),
                                  ("attention.attention.value", HIDDEN, HIDDEN), ("attention.output.dense", HIDDEN, HIDDEN),
                                  ("intermediate.dense", INNER, HIDDEN), ("output.dense", HIDDEN, INNER)):
            shapes[at + name + ".weight"] = (out, inside)
            shapes[at + name + ".bias"] = (out,)
        for name in ("layernorm_before", "layernorm_after"):
            shapes[at + name + ".weight"] = shapes[at + name + ".bias"] = (HIDDEN,)
    return config, shapes


def t5(folder):
    vocabulary = copy_tokenizer(folder, "t5")
    config = {
        "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": HIDDEN, "d_ff": INNER,
        "d_kv": HIDDEN // HEADS, "num_heads": HEADS, "num_layers": LAYERS, "num_decoder_layers": LAYERS,
        "feed_forward_proj": "gated-gelu", "is_encoder_decoder": True, "tie_word_embeddings": False,
        "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 2, "vocab_size": vocabulary, "dtype": "float32",
    }
    shapes = {"shared.weight": (vocabulary, HIDDEN), "lm_head.weight": (vocabulary, HIDDEN)}
    for stack, attentions in (("encoder", ("SelfAttention",)), ("decoder", ("SelfAttention", "EncDecAttention"))):
        shapes[stack + ".final_layer_norm.weight"] = (HIDDEN,)
        shapes[stack + ".block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (32, HEADS)
        for block in range(LAYERS):
            for layer, name in enumerate((*attentions, "DenseReluDense")):
                at = f"{stack}.block.{block}.layer.{layer}."
                shapes[at + "layer_norm.weight"] = (HIDDEN,)
                parts = ("wi_0", "wi_1", "wo") if name == "DenseReluDense" else "qkvo"
                for part in parts:
                    shapes[f"{at}{name}.{part}.weight"] = {"wo": (HIDDEN, INNER)}.get(
                        part, (INNER if part in parts[:2] and len(parts) == 3 else HIDDEN, HIDDEN))
    return config, shapes


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    config, shapes = {"llama": llama, "bert": bert, "vit": vit, "t5": t5}[sys.argv[2] if len(sys.argv) > 2 else "llama"](folder)
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")

    rng = random.Random(1)
    header, data = {}, bytearray()
    for name, shape in sorted(shapes.items()):
        count = 1
        for size in shape:
            count *= size
        # Vectors are weights of norms, all ones, and biases, all zeros.
        scale = 0.0 if len(shape) == 1 else shape[-1] ** -0.5
        middle = 1 if len(shape) == 1 and not name.endswith("bias") else 0
        values = array.array("f", (rng.gauss(0, scale) + middle for _ in range(count)))
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
