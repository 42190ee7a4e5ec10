"""Times y = x W' of the oneDNN inside PyTorch, as gemm_peer.cpp does. Arguments: THREADS SECONDS f32|bf16."""
import statistics
import sys
import time

import torch

threads, budget, kind = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
torch.set_num_threads(threads)
dtype = torch.bfloat16 if kind == "bf16" else torch.float32
weights = {}
with torch.no_grad():
    for line in sys.stdin:
        rows, columns, out = map(int, line.split())
        x = torch.rand(rows, columns) * 2 - 1
        if (columns, out) not in weights:
            weights = {(columns, out): torch.rand(out, columns) * 2 - 1}
        w = weights[columns, out]
        packed = torch.ops.mkldnn._reorder_linear_weight(w.to(dtype), rows)
        given = x.to(dtype)
        run = lambda: torch.ops.mkldnn._linear_pointwise(given, packed, None, "none", [], "")
        y = run()
        error = ((y.float() - x @ w.T).abs().max() / y.float().abs().max()).item()
        times = []
        begin = time.perf_counter()
        while len(times) < 3 or time.perf_counter() - begin < budget:
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        print(min(times), statistics.median(times), error, flush=True)
