#!/usr/bin/env python3
"""What graft writes, read by Python: an adapter by PEFT, merged folders by transformers.

Losses of single tokens (logits behind a log-softmax) must agree. Skipped without torch, transformers and peft.
The part on SmolLM2 needs its file in the cache folder.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

GRAFT = pathlib.Path(os.environ["GRAFT_BIN"]) / "graft"
SOURCE = pathlib.Path(os.environ["GRAFT_SOURCE_DIR"])
if not GRAFT.exists():
    print("skipped: the program graft was not built")
    sys.exit(77)
os.environ["HF_HUB_OFFLINE"] = "1"
torch.manual_seed(0)
TEXT = "".join(f"The seventh cat of number {i} sat on the mat, and looked at the moon.\n" for i in range(40))


def graft(*arguments):
    return subprocess.run([GRAFT, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def graft_losses(model, folder, length, *more):
    report = json.loads(graft("evaluate", "--model", model, "--data", folder / "text.txt", "--sequence-length",
                              length, "--limit", 2, "--json", "--losses", *more))
    return torch.tensor(report["adapted" if more else "base"]["losses"], dtype=torch.float64)


def python_losses(model, ids, length):
    losses = []
    for row in range(2):
        part = torch.tensor([ids[row * length:(row + 1) * length]])
        with torch.no_grad():
            scores = torch.log_softmax(model(part).logits[0, :-1].double(), -1)
        losses.append(-scores.gather(1, part[0, 1:, None])[:, 0])
    return torch.cat(losses)


def compare(name, ours, theirs, tolerance):
    assert ours.shape == theirs.shape, (name, ours.shape, theirs.shape)
    error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    print(f"{name}: {len(ours)} token losses, largest difference {error:.1e} of the largest loss")
    assert error < tolerance, f"{name}: {error} is not below {tolerance}"


def tiny(folder):
    model = folder / "model"
    subprocess.run([sys.executable, SOURCE / "tests" / "tiny_model.py", model], check=True)
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer(TEXT)["input_ids"]
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    compare("tiny model", graft_losses(model, folder, 32), python_losses(base, ids, 32), 1e-5)
    variants = {
        "lora": ["--rank", 4, "--init", "gaussian"],
        "rslora": ["--method", "rslora", "--target-modules", r".*\.(q_proj|v_proj)"],
        "pissa": ["--rank", 4, "--init", "pissa", "--alpha", 4],
        "ia3": ["--method", "ia3", "--target-modules", "k_proj,v_proj,down_proj", "--set",
                'feedforward_modules=["down_proj"]'],
    }
    for name, options in variants.items():
        graft("finetune", "--model", model, "--data", folder / "text.txt", "--output", folder / name, "--steps", 20,
              "--sequence-length", 32, "--learning-rate", 0.02, "--json", *options)
        if name != "pissa":  # its adapter goes with a rewritten base, which PEFT recomputes
            base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
            adapted = PeftModel.from_pretrained(base, folder / name)
            ours = graft_losses(model, folder, 32, "--adapter", folder / name)
            compare(f"{name} by PEFT", ours, python_losses(adapted, ids, 32), 1e-5)
        merged = folder / f"{name}_merged"
        graft("merge", "--model", model, "--adapter", folder / name, "--output", merged)
        read = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
        compare(f"{name} merged, by transformers", graft_losses(merged, folder, 32), python_losses(read, ids, 32), 1e-5)
        ours = graft_losses(model, folder, 32, "--adapter", folder / name)
        compare(f"{name} merged and not", ours, graft_losses(merged, folder, 32), 2e-5)
        assert AutoTokenizer.from_pretrained(merged)(TEXT)["input_ids"] == ids


def smollm2(folder):
    cache = os.environ.get("GRAFT_CACHE") or os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")) + "/graft"
    model = pathlib.Path(cache) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not model.exists():
        print(f"without SmolLM2: {model} is not there")
        return
    graft("finetune", "--model", model, "--data", folder / "text.txt", "--output", folder / "smollm2", "--steps", 2,
          "--batch-size", 1, "--sequence-length", 64, "--learning-rate", 1e-3, "--held-out", 0, "--json")
    merged = folder / "smollm2_merged"
    graft("merge", "--model", model, "--adapter", folder / "smollm2", "--output", merged)
    tokenizer = AutoTokenizer.from_pretrained(merged)
    read = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    ids = tokenizer(TEXT)["input_ids"]
    theirs = python_losses(read, ids, 64)
    compare("SmolLM2 merged, by transformers", graft_losses(merged, folder, 64), theirs, 2e-5)
    ours = graft_losses(model, folder, 64, "--adapter", folder / "smollm2")
    compare("SmolLM2 in 4 bits with its adapter", ours, theirs, 2e-5)
    base_folder = folder / "smollm2_base"  # a rank-one adapter of zeros: the base alone
    graft("finetune", "--model", model, "--data", folder / "text.txt", "--output", folder / "zero", "--steps", 1,
          "--batch-size", 1, "--sequence-length", 64, "--learning-rate", 1e-30, "--held-out", 0, "--rank", 1, "--json")
    graft("merge", "--model", model, "--adapter", folder / "zero", "--output", base_folder)
    base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, folder / "smollm2")
    compare("SmolLM2 adapter by PEFT", ours, python_losses(adapted, ids, 64), 2e-5)
    chat = [{"role": "user", "content": "Who was Noah?\n\nIn 2024: 12345 words!"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ours = json.loads(graft("generate", "--model", model, "--chat", chat[0]["content"], "--max-tokens", 1, "--json"))
    assert ours["prompt_tokens"] == len(tokenizer(text)["input_ids"]), text


with tempfile.TemporaryDirectory() as name:
    place = pathlib.Path(name)
    (place / "text.txt").write_text(TEXT, encoding="utf-8")
    tiny(place)
    smollm2(place)
print("ok")
