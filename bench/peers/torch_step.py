"""Times training steps of PyTorch + PEFT with random weights of SmolLM2-135M's sizes; prints one JSON object.

Arguments: BATCH TOKENS STEPS f32|bf16|autocast THREADS.
"""
import json
import statistics
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

batch, tokens, steps = map(int, sys.argv[1:4])
kind, threads = sys.argv[4], int(sys.argv[5])
torch.set_num_threads(threads)
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(
    hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
    vocab_size=49152, tie_word_embeddings=True, max_position_embeddings=8192, use_cache=False))
if kind == "bf16":
    model = model.to(torch.bfloat16)
model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
model.train()
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=1e-4)
ids = torch.randint(0, model.config.vocab_size, (batch, tokens))
times = []
for step in range(steps):
    begin = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "autocast"):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    times.append(time.perf_counter() - begin)
times = times[1:] or times
with open("/proc/self/status", encoding="ascii") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024
print(json.dumps({"tokens_per_second": batch * tokens / statistics.median(times), "peak_rss_mib": peak,
                  "step_ms": 1000 * statistics.median(times), "trainable": sum(p.numel() for p in trained)}))
