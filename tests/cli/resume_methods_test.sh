#!/bin/sh
# Every method on a tiny decoder and a tiny masked language model: a run that was stopped after its first two
# steps ends with the bits of one that was not, and with its configuration, curves and figures.
set -eu
. "${GRAFT_SOURCE_DIR:?}/tests/cli/common.sh"
for kind in llama bert vit; do python3 "$GRAFT_SOURCE_DIR/tests/tiny_model.py" $kind $kind; done
for i in $(seq 24); do echo "the sun and the rain, a road and a cake of number $i"; done >lines.txt
GRAFT="$graft" python3 - <<'PYTHON'
import concurrent.futures, csv, json, os, pathlib, random, subprocess, sys

with open("images.csv", "w", newline="") as out:
    rows, rng = csv.writer(out), random.Random(2)
    rows.writerow([f"p{i}" for i in range(64)] + ["label"])
    rows.writerows([rng.randint(0, 16) for _ in range(64)] + [f"c{i % 2}"] for i in range(12))
STEPS = 5
TEXT = "--data lines.txt --documents line --no-packing --sequence-length 16"
BASES = {
    "language": f"--model llama {TEXT}",
    "masked-language": f"--task masked-language --mask-rate 0.5 --model bert {TEXT}",
    "images": "--task image-classification --model vit --data images.csv",
}
# Sizes that fit a tiny model, and what a method does as it learns within few steps.
SETTINGS = {
    "ADALORA": [f"total_step={STEPS}", "tinit=1", "tfinal=1", "deltaT=1"],
    "ADAMSS": ["use_asa=true", "asa_target_subspaces=2", "init_warmup=0", "final_warmup=4", "mask_interval=1"],
    "ASLORA": ["merge_start=1", "merge_interval=1"], "C3A": ["block_size=8"],
    "CPT": ["cpt_token_ids=[5,6,7,8]", "cpt_tokens_type_mask=[1,2,3,4]"], "EFFICIENT_QAT": ["group_size=8"],
    "ID3": [f"max_steps={STEPS}"], "INCRELORA": ["init_warmup=1", "incre_interval=1"],
    "INTRINSIC_DIMENSION": ["d=20"], "IST": ["update_importance_interval_steps=2"], "KADAPTATION": ["phm_dim=4"],
    "L4Q": ["group_size=8"], "LOSIA": ["period=2"], "LST": ["reduction_factor=2"],
    "MOKA": ["a_shapes=[[12,12],[8,8]]"], "MOS": ["r=2"], "PASTA": ["special_token_ids=[260,5,7]"],
    "PYRA": ["merge_schedule=[2,0]"], "QA_LORA": ["qalora_group_size=8"], "QST": ["reduction_factor=2"],
    "ROAD": ["group_size=8"], "SEMANTIC_PROXY_PROMPTS": ["num_classes=2"],
    "SPIEL": ["reselection_steps=2", "selection_accumulation_steps=1"],
    "SPT": ['structured_modules=["q_proj","query"]', 'sparse_modules=["v_proj","value"]', "tau=20"],
    "TRAINABLE_TOKENS": ["token_indices=[5,7]"], "VBLORA": ["vector_length=8"], "WAVEFT": ["n_frequency=64"],
}
# What needs more than the program can give it.
REFUSED = {
    "DETRIS": "expected a grid", "LT_SFT": "trains nothing: a run of full fine-tuning comes first",
    "PORTLLM": "trains nothing: its patches are trained as LoRA", "XLORA": "adapters is empty",
}


def finetune(*arguments):
    return subprocess.run([os.environ["GRAFT"], "finetune", *arguments, "--json"], capture_output=True, text=True)


def compare(method, base):
    """What went wrong; None if the base does not take the method."""
    options = ["--method", method.lower(), *BASES[base].split(), "--steps", str(STEPS), "--batch-size", "2",
               "--held-out", "0.25", "--seed", "3", "--learning-rate", "1e-2"]
    if method == "FULL":
        options += ["--target-modules", "all"]
    for setting in SETTINGS.get(method, []):
        options += ["--set", setting]
    whole, parts = f"{method}-{base}", f"{method}-{base}-parts"
    run = finetune(*options, "--output", whole)
    if run.returncode:
        return None if run.returncode == 2 else f"exit code {run.returncode}: {run.stderr}", run.stderr
    run = finetune(*options, "--output", parts, "--time-limit", "1e-9")
    for limit in ("1e-9", "0"):
        if not pathlib.Path(parts, "checkpoints").is_dir():
            return f"it was not stopped: {run.stderr}", ""
        run = finetune("--resume", "--output", parts, "--time-limit", limit)
        if run.returncode:
            return f"it does not go on: {run.stderr}", ""
    files = [pathlib.Path(folder, "adapter_model.safetensors").read_bytes() for folder in (whole, parts)]
    if files[0] != files[1]:
        return "other bits", ""
    for name in ("adapter_config.json", "result.json"):
        one, other = (json.loads(pathlib.Path(folder, name).read_text()) for folder in (whole, parts))
        for key in ("adapter", "seconds", "tokens_per_second", "peak_rss_mib", "step_ms"):
            one.pop(key, None), other.pop(key, None)
        if one != other:
            return f"another {name}: {one} {other}", ""
    return "", ""


def check(method):
    found = {base: compare(method, base) for base in ("language", "masked-language")}
    if all(problem is None for problem, _ in found.values()):
        found["images"] = compare(method, "images")
    wrong = [f"{method}, {base}: {problem}" for base, (problem, _) in found.items() if problem]
    taken = any(problem == "" for problem, _ in found.values())
    said = " ".join(words for _, words in found.values())
    if method in REFUSED and (taken or REFUSED[method] not in said):
        wrong.append(f"{method}: expected '{REFUSED[method]}', found: {said}")
    if method not in REFUSED and not taken and not wrong:
        wrong.append(f"{method}: nothing takes it: {said}")
    return wrong, sum(problem == "" for problem, _ in found.values())


listed = subprocess.run([os.environ["GRAFT"], "methods", "--json"], capture_output=True, text=True, check=True)
methods = [m["peft_type"] for m in json.loads(listed.stdout)]
with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    results = list(pool.map(check, methods))
wrong = [line for lines, _ in results for line in lines]
print("\n".join(wrong) or f"ok: {sum(count for _, count in results)} runs of {len(methods)} methods")
sys.exit(bool(wrong))
PYTHON
