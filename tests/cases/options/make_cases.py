"""Makes the model cases of this folder: settings of config.json and of adapters that the shared cases leave at
their defaults.

    pip install torch transformers==5.23.0 peft==0.21.2 safetensors && python3 make_cases.py

Each case is a tiny model with random weights, two batches and what transformers computes for them in single
precision, or an adapter on such a model with logits, gradients and a few steps of AdamW. Files as in the shared
cases of models.
"""

import json
import math
import pathlib
import shutil

import peft
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent
DECODER = dict(
    vocab_size=31, hidden_size=16, intermediate_size=20, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=1, head_dim=8, max_position_embeddings=32, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    tie_word_embeddings=True)
ENCODER = dict(
    vocab_size=31, hidden_size=16, intermediate_size=20, num_hidden_layers=1, num_attention_heads=2,
    max_position_embeddings=16, pad_token_id=0, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
VIT = dict(
    hidden_size=16, intermediate_size=20, num_hidden_layers=1, num_attention_heads=2, patch_size=4, num_channels=2,
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def rope(**settings):
    return {"rope_parameters": {"rope_theta": 10000.0, **settings}}


def llama(**settings):
    return hf.LlamaForCausalLM(hf.LlamaConfig(**{**DECODER, **settings}))


def gemma3(**settings):
    base = {**DECODER, "num_hidden_layers": 2, "query_pre_attn_scalar": 12, "sliding_window": 3,
            "layer_types": ["sliding_attention", "full_attention"]}
    return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**{**base, **settings}))


def gpt2(**settings):
    return hf.GPT2LMHeadModel(hf.GPT2Config(
        vocab_size=31, n_embd=16, n_head=2, n_layer=2, n_inner=20, n_positions=16, attn_pdrop=0, embd_pdrop=0,
        resid_pdrop=0, bos_token_id=1, eos_token_id=2, **settings))


def bert(**settings):
    return hf.BertForSequenceClassification(hf.BertConfig(**ENCODER, **settings))


def t5(**settings):
    return hf.T5ForConditionalGeneration(hf.T5Config(
        vocab_size=31, d_model=16, d_kv=6, d_ff=20, num_layers=1, num_heads=2, dropout_rate=0.0,
        decoder_start_token_id=3, pad_token_id=0, eos_token_id=1, **settings))


def vit(**settings):
    return hf.ViTForImageClassification(hf.ViTConfig(**VIT, **settings))


CASES = {
    "llama_yarn": lambda: llama(**rope(rope_type="yarn", factor=4.0, beta_fast=8.0, original_max_position_embeddings=8)),
    "llama_yarn_scales": lambda: llama(**rope(
        rope_type="yarn", factor=4.0, mscale=0.8, mscale_all_dim=0.5, truncate=False,
        original_max_position_embeddings=24)),
    "llama_dynamic": lambda: llama(**{"max_position_embeddings": 6, **rope(rope_type="dynamic", factor=2.0)}),
    "llama_longrope": lambda: llama(**rope(
        rope_type="longrope", factor=4.0, short_factor=[1.0, 1.1, 1.3, 1.7], long_factor=[2.0, 2.5, 3.0, 4.0],
        original_max_position_embeddings=8)),
    "qwen3_windows": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**{
        **DECODER, "num_hidden_layers": 2, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1})),
    "gemma3_capped": lambda: gemma3(final_logit_softcapping=3.0),
    "gemma3_untied": lambda: gemma3(tie_word_embeddings=False, rope_parameters={
        "full_attention": dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                               original_max_position_embeddings=16, rope_theta=5000.0),
        "sliding_attention": dict(rope_type="default", rope_theta=300.0)}),
    "gpt2_scales": lambda: gpt2(scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True),
    "bert_labels": lambda: bert(num_labels=3, problem_type="multi_label_classification"),
    "bert_values": lambda: bert(num_labels=3, problem_type="regression"),
    "t5_gelu_new": lambda: t5(feed_forward_proj="gated-gelu_new"),
    "roberta": lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(
        **{**ENCODER, "pad_token_id": 1, "max_position_embeddings": 20, "num_labels": 3})),
    "vit_uneven": lambda: vit(image_size=10, num_labels=3),
    "bert_masked": lambda: hf.BertForMaskedLM(hf.BertConfig(**ENCODER, hidden_act="gelu_new")),
    "bert_masked_untied": lambda: hf.BertForMaskedLM(hf.BertConfig(**ENCODER, tie_word_embeddings=False)),
    "roberta_masked": lambda: hf.RobertaForMaskedLM(hf.RobertaConfig(
        **{**ENCODER, "pad_token_id": 1, "max_position_embeddings": 20, "hidden_act": "relu", "layer_norm_eps": 1e-5})),
    "distilbert_masked": lambda: hf.DistilBertForMaskedLM(hf.DistilBertConfig(
        vocab_size=31, dim=16, hidden_dim=20, n_layers=1, n_heads=2, max_position_embeddings=16, dropout=0.0,
        attention_dropout=0.0, activation="relu")),
}
LORA = dict(r=2, lora_alpha=3)
# Case: base, adapter. Paddings of roberta are on the left.
ADAPTERS = {
    "bert_labels_bias_all": ("bert_labels", peft.LoraConfig(
        target_modules=["query", "classifier"], bias="all", task_type="SEQ_CLS", **LORA)),
    "gpt2_scales_tokens": ("gpt2_scales", peft.TrainableTokensConfig(
        token_indices=[3, 8, 30], target_modules=["wte"], task_type="CAUSAL_LM")),
    "llama_yarn_norms": ("llama_yarn", peft.LoraConfig(
        target_modules=["q_proj"], modules_to_save=["norm"], task_type="CAUSAL_LM", **LORA)),
    "roberta_prompt": ("roberta", peft.PromptTuningConfig(num_virtual_tokens=3, task_type="SEQ_CLS")),
    "roberta_positions": ("roberta", peft.LoraConfig(
        target_modules=["position_embeddings", "value"], task_type="SEQ_CLS", **LORA)),
    "bert_masked_lora": ("bert_masked", peft.LoraConfig(target_modules="all-linear", **LORA)),
    "bert_masked_decoder": ("bert_masked_untied", peft.LoraConfig(target_modules=["query", "decoder"], **LORA)),
    "roberta_masked_head": ("roberta_masked", peft.LoraConfig(
        target_modules=["value"], modules_to_save=["lm_head.dense", "lm_head.layer_norm"], **LORA)),
    "distilbert_masked_lora": ("distilbert_masked", peft.LoraConfig(
        target_modules=["q_lin", "vocab_transform"], bias="all", **LORA)),
    "bert_masked_bias": ("bert_masked", peft.LoraConfig(target_modules=["query", "decoder"], bias="all", **LORA)),
    "bert_masked_untied_bias": ("bert_masked_untied", peft.LoraConfig(target_modules=["query"], bias="all", **LORA)),
    "roberta_masked_bias": ("roberta_masked", peft.LoraConfig(target_modules=["value"], bias="all", **LORA)),
}


def redraw(model, generator):
    with torch.no_grad():
        for name, p in model.named_parameters():
            drawn = torch.randn(p.shape, generator=generator)
            if p.dim() > 1:
                p.copy_(drawn / (2 if "embed" in name or "wte" in name or "wpe" in name else math.sqrt(p[0].numel())))
            elif name.endswith("weight") and "Gemma" not in type(model).__name__:
                p.copy_(1 + 0.1 * drawn)
            else:
                p.copy_(0.1 * drawn)


def batch(model, generator, rows=2, tokens=9):
    config = model.config
    if isinstance(model, hf.ViTForImageClassification):
        pixels = torch.randn(rows, config.num_channels, config.image_size, config.image_size, generator=generator)
        return {"pixel_values": pixels, "labels": torch.randint(0, config.num_labels, (rows,), generator=generator)}
    ids = torch.randint(3, config.vocab_size, (rows, tokens), generator=generator)
    mask = torch.ones_like(ids)
    if model.config.model_type == "roberta":
        mask[1, :2] = 0
    else:
        mask[1, tokens - 2:] = 0
    inputs = {"input_ids": ids.masked_fill(mask == 0, config.pad_token_id or 0), "attention_mask": mask}
    if isinstance(model, hf.RobertaForSequenceClassification):
        labels = torch.randint(0, config.num_labels, (rows,), generator=generator)
    elif isinstance(model, hf.BertForSequenceClassification):
        labels = torch.randn(rows, config.num_labels, generator=generator)
        if config.problem_type != "regression":
            labels = (labels > 0).float()
    else:
        labels = ids.masked_fill(mask == 0, -100)
    if type(model).__name__.endswith("ForMaskedLM"):
        chosen = (torch.rand(ids.shape, generator=generator) < 0.4) & (mask == 1)
        labels = labels.masked_fill(~chosen, -100)
        inputs["input_ids"] = inputs["input_ids"].masked_fill(chosen, 4)
    return {**inputs, "labels": labels}


def save(model, folder):
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": ""}
    path.write_text(json.dumps(config, separators=(",", ":")) + "\n", encoding="utf-8")


def keys_of(model):
    """Names of trained parameters and their keys in the checkpoint."""
    state = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    keys = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            keys[name] = next(k for k, v in state.items() if v.shape == p.shape and torch.equal(v, p)
                              and ".modules_to_save." not in k)
    return keys


def make_adapter(name, base, config, generator, steps=6, lr=1e-2):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    data = load_file(HERE / base / "inputs.safetensors")
    batches = [{key[7:]: value for key, value in data.items() if key.startswith(f"batch{i}.") and "logits" not in key}
               for i in range(2)]
    kind = json.loads((HERE / base / "case.json").read_text(encoding="utf-8"))["class"]
    model = getattr(hf, kind).from_pretrained(HERE / base / "base", attn_implementation="eager")
    model = peft.get_peft_model(model, config).train()
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.2 * torch.randn(p.shape, generator=generator))
    save(model, folder)
    out = model(**batches[0])
    out.loss.backward()
    keys = keys_of(model)
    tensors = {"logits": out.logits.detach().contiguous()}
    trained = {n: p for n, p in model.named_parameters() if n in keys}
    # The bias of keys adds the same to all scores of a query: its gradient is rounding alone.
    tensors.update({"grad." + keys[n]: p.grad.clone() for n, p in trained.items()
                    if p.grad is not None and not n.endswith(("key.bias", "k_lin.bias"))})
    optimizer = torch.optim.AdamW(trained.values(), lr=lr)
    optimizer.zero_grad()
    losses = []
    for step in range(steps):
        loss = model(**batches[step % 2]).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    save_file(tensors, folder / "case.safetensors")
    training = {"optimizer": "AdamW", "lr": lr, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01,
                "steps": steps, "losses": losses}
    case = {"name": name, "kind": "model", "arch": base, "base": f"{base}/base", "inputs": f"{base}/inputs.safetensors",
            "tuner": config.peft_type.value, "loss": losses[0], "tolerance": 2e-5, "training": training}
    (folder / "case.json").write_text(json.dumps(case) + "\n", encoding="utf-8")


def main():
    for number, (name, make) in enumerate(CASES.items()):
        generator = torch.Generator().manual_seed(number + 1)
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        model = make().train()
        model.set_attn_implementation("eager")
        redraw(model, generator)
        model.save_pretrained(folder / "base")
        (folder / "base" / "generation_config.json").unlink(missing_ok=True)
        config = json.loads((folder / "base" / "config.json").read_text(encoding="utf-8"))
        (folder / "base" / "config.json").write_text(json.dumps(config, separators=(",", ":")) + "\n", encoding="utf-8")
        tensors, losses = {}, []
        for i in range(2):
            inputs = batch(model, generator)
            out = model(**inputs, use_cache=False) if "pixel_values" not in inputs else model(**inputs)
            tensors.update({f"batch{i}.{key}": value.contiguous() for key, value in inputs.items()})
            tensors[f"batch{i}.base_logits"] = out.logits.detach().contiguous()
            losses.append(out.loss.item())
        save_file(tensors, folder / "inputs.safetensors")
        case = {"name": name, "kind": "base", "class": type(model).__name__, "base_loss": losses, "tolerance": 1e-5}
        (folder / "case.json").write_text(json.dumps(case) + "\n", encoding="utf-8")
    for number, (name, (base, config)) in enumerate(ADAPTERS.items()):
        make_adapter(name, base, config, torch.Generator().manual_seed(100 + number))


if __name__ == "__main__":
    main()
