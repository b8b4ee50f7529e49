#!/usr/bin/env python3
"""Measures drover on synthetic models, each speed as a share of what this card
copies (decode) or multiplies (prompts), both measured by PyTorch in this run;
with --peer beside llama.cpp's llama-bench on the same file, in turns.

  speed.py --drover ./drover --out DIR [--seconds 540] [--tests "SHAPE:TYPE ..."] [--peer llama-bench]

Full records: DIR/speed.json or DIR/peer.json. The last line sums up.
"""
import argparse, json, os, statistics, subprocess, sys, time

ap = argparse.ArgumentParser()
ap.add_argument("--drover", required=True)
ap.add_argument("--out", required=True)
ap.add_argument("--device", default="cuda")
ap.add_argument("--seconds", type=float, default=540)
ap.add_argument("--tests", default="")
ap.add_argument("--prompts", default="512,4096")
ap.add_argument("--gen", default="128")
ap.add_argument("--repeats", default="3")
ap.add_argument("--peer", default="")
ap.add_argument("--pairs", type=int, default=3)
ap.add_argument("--rates", default="", help="copy GB/s and matrix TFLOP/s instead of measuring them: 4300,790")
a = ap.parse_args()
end = time.time() + a.seconds

# the most telling first: what the time does not suffice for is left out, and said
MODELS = ("llama3-8b:F16 llama3-8b:Q8_0 llama3-8b:Q4_0 llama3-8b:Q4_K_M tinyllama-1.1b:Q4_0 tinyllama-1.1b:Q8_0 tinyllama-1.1b:F16 llama3-8b:Q6_K "
          "llama-13b:Q4_0 llama-13b:F16 llama-65b:Q4_0 llama-33b:Q8_0 mixtral-8x7b:Q4_K_M llama3-8b:Q5_K_M llama3-8b:BF16 llama3-8b:IQ4_XS llama3-8b:MXFP4 "
          "llama3-8b:Q3_K llama3-8b:Q2_K llama-33b:F16 llama-65b:Q8_0 llama2-70b:Q4_K_M")
PEER = "llama3-8b:Q4_0 llama3-8b:Q4_K_M llama3-8b:Q8_0 llama3-8b:F16 tinyllama-1.1b:Q4_0"
models = (a.tests or (PEER if a.peer else MODELS)).split()

# dim, layers, heads, kv heads, ffn, vocabulary, experts in use
SHAPES = {
    "tinyllama-1.1b": (2048, 22, 32, 4, 5632, 32000, 1), "llama3-8b": (4096, 32, 32, 8, 14336, 128256, 1), "llama-7b": (4096, 32, 32, 32, 11008, 32000, 1),
    "llama-13b": (5120, 40, 40, 40, 13824, 32000, 1), "llama-33b": (6656, 60, 52, 52, 17920, 32000, 1), "llama-65b": (8192, 80, 64, 64, 22016, 32000, 1),
    "llama2-70b": (8192, 80, 64, 8, 28672, 32000, 1), "mixtral-8x7b": (4096, 32, 32, 8, 14336, 32000, 2),
}


def prompt_ops(shape, n):
    """of a prompt of n tokens, a multiply and an add being two; the head for the last row only"""
    if shape not in SHAPES:
        return 0
    dim, layers, heads, kv, ffn, vocab, used = SHAPES[shape]
    row = 2 * dim * dim + 2 * dim * (dim // heads * kv) + 3 * dim * ffn * used
    return 2 * n * layers * row + 4 * layers * dim * n * (n + 1) // 2 + 2 * dim * vocab


def card_rates():
    """bytes/s of a copy (read and written both counted) and operations/s of a bf16 product"""
    if a.rates:
        copy, matrix = (float(x) for x in a.rates.split(","))
        return copy * 1e9, matrix * 1e12
    try:
        import torch
    except ImportError:
        sys.exit("PyTorch is missing, and --rates names no rates: nothing to compare with")

    def best(f, n):
        times = []
        for _ in range(n + 3):
            t0, t1 = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            t0.record(); f(); t1.record()
            torch.cuda.synchronize()
            times.append(t0.elapsed_time(t1) / 1e3)
        return min(times[3:])

    x = torch.empty(1 << 31, dtype=torch.uint8, device="cuda").random_()
    y = torch.empty_like(x)
    copy = 2 * x.numel() / best(lambda: y.copy_(x), 20)
    del x, y
    n = 8192
    p, q = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    matrix = 2 * n ** 3 / best(lambda: p @ q, 20)
    del p, q
    torch.cuda.empty_cache()
    return copy, matrix


def command(cmd):
    """standard output as JSON, or None and why"""
    left = end - time.time()
    if left < 20:
        return None, "no time left"
    print("+", " ".join(cmd), file=sys.stderr, flush=True)
    try:
        r = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=left)
    except subprocess.TimeoutExpired:
        return None, "no time left"
    print(r.stderr.decode(errors="replace")[-3000:], file=sys.stderr, flush=True)
    if r.returncode:
        text = (r.stdout + b" " + r.stderr).decode(errors="replace").split("\n")
        return None, f"exit {r.returncode}: " + " ".join(text)[-160:]
    try:
        return json.loads(r.stdout), ""
    except ValueError as e:
        return None, f"no JSON: {e}"


def bench(model):
    doc, why = command([a.drover, "bench", "-m", model, "--device", a.device, "-p", a.prompts, "-n", a.gen, "-r", a.repeats, "-o", "json"])
    return (doc["records"], "") if doc else ([], why)


def save(name, doc):
    with open(os.path.join(a.out, name), "w") as f:
        json.dump(doc, f, indent=1)


def label(r):
    return f"prompt {r['n_prompt']}" if r["n_prompt"] else f"decode {r['n_gen']}"


def shares():
    copy, matrix = card_rates()
    print(f"this card copies {copy / 1e9:.0f} GB/s and multiplies bf16 at {matrix / 1e12:.0f} TFLOP/s; shares are of these, limit is drover's own measure")
    print(f"{'model':<24}{'test':<14}{'tokens/s':>12}{'share':>8}{'limit':>8}{'GB/s, TFLOP/s':>15}")
    records, left_out = [], []
    for model in models:
        found, why = bench("synthetic:" + model)
        if not found:
            left_out.append(f"{model}: {why}")
            continue
        for r in found:
            if r["n_prompt"]:
                rate = r["avg_ts"] / r["n_prompt"] * prompt_ops(model.split(":")[0], r["n_prompt"])
                share, shown = rate / matrix, rate / 1e12
            else:
                rate = r["avg_ts"] * r["bytes_per_token"]
                share, shown = rate / copy, rate / 1e9
            own = f"{100 * r['limit_share']:.0f} %" if r.get("limit_share") else "-"
            print(f"{model:<24}{label(r):<14}{r['avg_ts']:>12.1f}{100 * share:>6.1f} %{own:>8}{shown:>15.1f}", flush=True)
            records.append({**r, "share": share})
        save("speed.json", {"copy": copy, "matrix": matrix, "records": records})
    for line in left_out:
        print("left out:", line)
    print(f"{len(records)} tests of {len(models) - len(left_out)} models, {len(left_out)} models left out")
    return bool(records)


def peers():
    print(f"{'model':<24}{'test':<14}{'drover':>12}{'llama.cpp':>12}{'ratio':>8}   of {a.pairs} pairs in turns: the median of their ratios")
    rows, left_out = [], []
    for model in models:
        file = os.path.join(a.out, "peer.gguf")
        r = subprocess.run([a.drover, "convert", "-m", "synthetic:" + model, "-o", file], stdout=sys.stderr)
        pairs, why = {}, f"convert: exit {r.returncode}" if r.returncode else ""
        for turn in range(a.pairs if not why else 0):
            ours = theirs = None
            for who in ("ours", "theirs") if turn % 2 == 0 else ("theirs", "ours"):
                if who == "ours":
                    ours, why = bench(file)
                else:
                    theirs, why = command([a.peer, "-m", file, "-p", a.prompts, "-n", a.gen, "-r", a.repeats, "-ngl", "99", "-fa", "1", "-o", "json"])
                if why:
                    break
            for o in ours or []:
                for t in theirs or []:
                    if (o["n_prompt"], o["n_gen"]) == (t["n_prompt"], t["n_gen"]):
                        pairs.setdefault(label(o), []).append((o["avg_ts"], t["avg_ts"]))
        if os.path.exists(file):
            os.remove(file)
        if why:
            left_out.append(f"{model}: {why}")
        for test, found in pairs.items():
            ratio = statistics.median(o / t for o, t in found)
            print(f"{model:<24}{test:<14}{statistics.median(o for o, _ in found):>12.1f}{statistics.median(t for _, t in found):>12.1f}{ratio:>8.2f}   {len(found)} pairs", flush=True)
            rows.append({"model": model, "test": test, "pairs": found, "ratio": ratio})
        save("peer.json", rows)
    for line in left_out:
        print("left out:", line)
    print(f"{len(rows)} ratios, {len(left_out)} models left out")
    return bool(rows)


sys.exit(0 if (peers() if a.peer else shares()) else 1)
