"""Scaled rotary frequencies, with transformers 5 and the weights of tiny/llama. Run: make_rope.py, in this folder.

rope/cases.json has of each case what replaces `rope_scaling` and `rope_parameters` of tiny/llama; rope/expected.safetensors per case: `inv_freq` as transformers has
it (f32), `frequencies` of the same formula in f64 with plain loops, `attention` (what cosines and sines are multiplied by),
and of tiny/llama so configured `logits` of one row of ids [256] (f32) and `grad` of the mean cross entropy with respect to layer 0's q_proj."""
import copy, json, math, os
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

YARN = dict(factor=4.0, original_max_position_embeddings=64)
CASES = {
    "linear": dict(rope_type="linear", factor=4.0),
    "yarn": dict(rope_type="yarn", **YARN),
    "yarn_without_original": dict(rope_type="yarn", factor=2.5),
    "yarn_betas": dict(rope_type="yarn", **YARN, beta_fast=2.0, beta_slow=0.25),
    "yarn_exact_ends": dict(rope_type="yarn", **YARN, beta_fast=8.0, truncate=False),
    "yarn_attention": dict(rope_type="yarn", **YARN, attention_factor=1.25),
    "yarn_mscale": dict(rope_type="yarn", **YARN, mscale=0.707, mscale_all_dim=1.5),
}


def frequencies(p, context, dim=16, theta=10000.0):
    plain = [theta ** (-2 * i / dim) for i in range(dim // 2)]
    s = p["factor"]
    if p["rope_type"] == "linear":
        return [f / s for f in plain], 1.0
    original = p.get("original_max_position_embeddings", context)
    pair = lambda turns: dim * math.log(original / (2 * math.pi * turns)) / (2 * math.log(theta))
    low, high = pair(p.get("beta_fast", 32)), pair(p.get("beta_slow", 1))
    if p.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    high += 0.001 if low == high else 0
    ramp = [min(max((i - low) / (high - low), 0), 1) for i in range(dim // 2)]
    m = lambda by: 1 + 0.1 * by * math.log(s)
    attention = p.get("attention_factor") or (m(p["mscale"]) / m(p["mscale_all_dim"]) if "mscale" in p else m(1))
    return [f / s * r + f * (1 - r) for f, r in zip(plain, ramp)], attention


def main():
    os.makedirs("rope", exist_ok=True)
    v5 = json.load(open("tiny/llama/config_v5.json"))
    ids = (torch.arange(96) * 37 % 253)[None]
    cases, out = {}, {"ids": ids[0]}
    for name, p in CASES.items():
        new = dict(copy.deepcopy(v5), rope_parameters=dict(rope_theta=10000.0, **p))
        old = {k if k != "rope_type" else "type": v for k, v in p.items()}
        cases[name] = dict(rope_scaling=old, rope_parameters=new["rope_parameters"])
        config = LlamaConfig(**{k: v for k, v in copy.deepcopy(new).items() if k not in ("model_type", "architectures", "transformers_version")})
        config._attn_implementation = "eager"
        model = LlamaForCausalLM(config).float().eval()
        model.load_state_dict(load_file("tiny/llama/model.safetensors"))
        rope = model.model.rotary_emb
        plain, attention = frequencies(p, new["max_position_embeddings"])
        assert torch.allclose(rope.inv_freq.double(), torch.tensor(plain).double(), rtol=2e-6, atol=0), (name, rope.inv_freq, plain)
        assert abs(rope.attention_scaling - attention) < 1e-6, (name, rope.attention_scaling, attention)
        logits = model(input_ids=ids, use_cache=False).logits[0]
        loss = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:])
        grad, = torch.autograd.grad(loss, model.model.layers[0].self_attn.q_proj.weight)
        out |= {f"{name}.inv_freq": rope.inv_freq.float(), f"{name}.frequencies": torch.tensor(plain, dtype=torch.float64),
                f"{name}.attention": torch.tensor([attention], dtype=torch.float64), f"{name}.logits": logits[-1].detach(), f"{name}.grad": grad}
        print(name, float(loss.detach()), attention)
    save_file({k: v.contiguous().clone() for k, v in out.items()}, "rope/expected.safetensors")
    json.dump(cases, open("rope/cases.json", "w"), indent=1)


main()
