"""PyTorch and PEFT on the shapes of `temper bench hardware`, on the same card: one JSON line a part.

    python native/demo/torch_hardware.py [--device cuda] [--repeat 3]

Needs torch, transformers and peft; no network: the models get random weights. The base is bf16, the adapter has rank 16 on all
linear layers, the loss is EAFT's, and a step is 512 tokens with gradient checkpointing off, as `temper bench step` has it.
"""

import argparse
import json
import statistics
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen3Config, Qwen3ForCausalLM

PRODUCTS = [(512, 2560, 6144), (512, 2560, 19456), (512, 9728, 2560), (4096, 4096, 4096)]
# hidden, layers, heads, intermediate, tied: as published in each model's config.json.
MODELS = {
    "qwen3-0.6b": (1024, 28, 16, 3072, True),
    "qwen3-1.7b": (2048, 28, 16, 6144, True),
    "qwen3-4b": (2560, 36, 32, 9728, True),
    "qwen3-8b": (4096, 36, 32, 12288, False),
}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def median(body, device, repeat):
    body()
    wait(device)
    seconds = []
    for _ in range(repeat):
        begin = time.perf_counter()
        body()
        wait(device)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def product(m, k, n, dtype, device, repeat):
    a, b = (torch.randn(shape, device=device, dtype=dtype) for shape in [(m, k), (n, k)])
    times = 20
    seconds = median(lambda: [a @ b.T for _ in range(times)], device, repeat) / times
    return {"bench": "torch product", "shape": f"{m}x{k}x{n}", "dtype": str(dtype), "median_s": seconds,
            "gflops": 2 * m * k * n / seconds / 1e9}


def eaft(logits, labels):
    """Cross entropy times the entropy of the 20 largest logits' softmax over ln 20, which is not differentiated."""
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    with torch.no_grad():
        p = torch.softmax(torch.topk(logits, 20, -1).values, -1)
        gate = -(p * p.log()).sum(-1) / torch.log(torch.tensor(20.0))
    return (loss * gate).mean()


def step(name, device, repeat):
    hidden, layers, heads, intermediate, tied = MODELS[name]
    config = Qwen3Config(vocab_size=151936, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
                         num_attention_heads=heads, num_key_value_heads=8, head_dim=128, tie_word_embeddings=tied)
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        model = Qwen3ForCausalLM(config)
        torch.set_default_dtype(torch.float32)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=LINEAR))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4)
    tokens = torch.randint(0, 151936, (1, 512), device=device)

    def once():
        logits = model(tokens).logits[0, :-1].float()
        eaft(logits, tokens[0, 1:]).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = median(once, device, repeat)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    return {"bench": "torch step", "model": name, "median_s": seconds, "tokens_per_second": 512 / seconds, "peak_bytes": peak}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--device", default="cuda")
    arguments.add_argument("--repeat", type=int, default=3)
    arguments.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    given = arguments.parse_args()
    device = torch.device(given.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else str(device)
    print(json.dumps({"bench": "torch", "device": name, "torch": torch.__version__}), flush=True)
    for shape in PRODUCTS:
        for dtype in [torch.bfloat16, torch.float16, torch.float32]:
            print(json.dumps(product(*shape, dtype, device, given.repeat)), flush=True)
    for model in given.models:
        print(json.dumps(step(model, device, given.repeat)), flush=True)


if __name__ == "__main__":
    main()
