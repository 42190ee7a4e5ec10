"""Trains a text classifier with PyTorch + PEFT from an adapter folder that graft wrote; prints one JSON object.

Argument: a JSON file with model, start (the folder), kind (peft; or full, bitfit, probe: transformers alone), train and test
(CSV files), labels, sequence_length, order (rows of train in the order in which they are taken), batch_size, steps,
learning_rate, weight_decay, max_grad_norm and threads. The settings are those of graft finetune: AdamW, clipping by the global
norm, a learning rate that falls linearly to zero, no dropout.
"""
import csv
import json
import pathlib
import statistics
import sys
import time

import peft
import torch
import transformers
from safetensors.torch import load_file

spec = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
start = pathlib.Path(spec["start"])
torch.set_num_threads(spec["threads"])
torch.manual_seed(0)
tokenizer = transformers.AutoTokenizer.from_pretrained(spec["model"])
model = transformers.AutoModelForSequenceClassification.from_pretrained(
    spec["model"], num_labels=len(spec["labels"]), dtype=torch.float32, hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0, classifier_dropout=0.0)


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return [(row["text"], spec["labels"].index(row["label"])) for row in csv.DictReader(file)]


def batch(rows):
    texts = tokenizer([text for text, _ in rows], padding=True, truncation=True, max_length=spec["sequence_length"],
                      return_tensors="pt")
    return texts, torch.tensor([label for _, label in rows])


def start_without_peft():
    """Weights by their names below base_model.model; BitFit's are what is added to a bias, zero at the start."""
    own = dict(model.named_parameters())
    with torch.no_grad():
        for key, value in load_file(start / "adapter_model.safetensors").items():
            name = key.removeprefix("base_model.model.")
            if name.endswith(".bitfit_bias"):
                own[name.replace(".bitfit_bias", ".bias")].add_(value)
            else:
                own[name].copy_(value)
    for name, parameter in own.items():
        parameter.requires_grad = (spec["kind"] == "full" or name.startswith("classifier.")
                                   or spec["kind"] == "bitfit" and name.endswith(".bias"))


if spec["kind"] != "peft":
    start_without_peft()
else:
    config = peft.PeftConfig.from_pretrained(start)
    if config.is_prompt_learning:  # PEFT loads these for inference only
        config.inference_mode = False
        model = peft.get_peft_model(model, config)
        peft.set_peft_model_state_dict(model, load_file(start / "adapter_model.safetensors"))
    else:
        model = peft.PeftModel.from_pretrained(model, start, is_trainable=True)
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=spec["learning_rate"], weight_decay=spec["weight_decay"])
train, test = read(spec["train"]), read(spec["test"])
allocate = getattr(getattr(model, "base_model", None), "update_and_allocate", None)

model.train()
begun = time.perf_counter()
losses, times = [], []
for step in range(spec["steps"]):
    rows = spec["order"][step * spec["batch_size"]:(step + 1) * spec["batch_size"]]
    texts, labels = batch([train[i] for i in rows])
    begin = time.perf_counter()
    for group in optimizer.param_groups:
        group["lr"] = spec["learning_rate"] * (1 - step / spec["steps"])
    output = model(**texts, labels=labels)
    output.loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, spec["max_grad_norm"])
    optimizer.step()
    if allocate:
        allocate(step + 1)
    optimizer.zero_grad()
    times.append(1000 * (time.perf_counter() - begin))
    # The loss of the output has AdaLoRA's regulariser in it.
    losses.append(torch.nn.functional.cross_entropy(output.logits.detach(), labels).item())
seconds = time.perf_counter() - begun

model.eval()
right = 0
with torch.no_grad():
    for i in range(0, len(test), spec["batch_size"]):
        texts, labels = batch(test[i:i + spec["batch_size"]])
        right += (model(**texts).logits.argmax(-1) == labels).sum().item()
print(json.dumps({"right": right, "rows": len(test), "trained": sum(p.numel() for p in trained), "losses": losses,
                  "step_ms": statistics.median(times), "seconds": seconds,
                  "version": f"PyTorch {torch.__version__}, PEFT {peft.__version__}, transformers {transformers.__version__}"}))
