"""Times prompt processing and generation of llama-cpp-python as bench_generate does; prints one JSON object.

Arguments: MODEL PROMPT TOKENS ROUNDS THREADS.
"""
import json
import random
import statistics
import sys
import time

from llama_cpp import Llama

model, prompt, tokens, rounds, threads = sys.argv[1], *map(int, sys.argv[2:6])
llama = Llama(model, n_ctx=prompt + tokens + 8, n_threads=threads, n_threads_batch=threads, n_batch=max(prompt, 512),
              n_ubatch=512, logits_all=False, verbose=False)
random.seed(1)
prompt_times, token_times = [], []
for _ in range(rounds):
    llama.reset()
    begin = time.perf_counter()
    llama.eval([random.randrange(llama.n_vocab()) for _ in range(prompt)])
    prompt_times.append(time.perf_counter() - begin)
    times = []
    for _ in range(tokens):
        begin = time.perf_counter()
        llama.eval([llama.sample(temp=0.0)])
        times.append(time.perf_counter() - begin)
    token_times.append(statistics.median(times))
print(json.dumps({"prompt_tokens_per_second": prompt / statistics.median(prompt_times),
                  "tokens_per_second": 1 / statistics.median(token_times)}))
