"""Losses that ask the untouched model, by PyTorch's autograd in f64: `python make_divergence.py` writes divergence.safetensors.

Rows of hidden states and a vocabulary matrix, and those of the untouched model; the loss is a mean over all rows. SFT-KL:
cross entropy plus beta times `F.kl_div` to the untouched model, in either direction. ASFT: as LLaMA-Factory's and the ASFT
repository's loss, the label's probability (detached) times cross entropy, plus lambda times KL(untouched || model) or its
reverse. FLOW: sample weights exp(-L / tau), L the sample's mean loss under the untouched model, tau their median, as its
repository's loss: sum of the weighted token losses over the count of tokens.
"""

import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.manual_seed(20260127)
ROWS, VOCAB, WIDTH, SAMPLES = 30, 70, 8, 5
made = {
    "hidden": torch.randn(ROWS, WIDTH) * 1.2,
    "weight": torch.randn(VOCAB, WIDTH),
    "untouched.hidden": torch.randn(ROWS, WIDTH) * 1.2,
    "untouched.weight": torch.randn(VOCAB, WIDTH),
    "labels": torch.randint(0, VOCAB, (ROWS,)),
    # Six rows a sample.
    "samples": torch.arange(ROWS) // (ROWS // SAMPLES),
}
labels = made["labels"]
with torch.no_grad():
    ref = F.log_softmax(made["untouched.hidden"].double() @ made["untouched.weight"].double().T, -1)


def kl(log_p, reverse):
    # F.kl_div(input, target) is KL(target || input).
    pair = (ref, log_p) if reverse else (log_p, ref)
    return F.kl_div(pair[0], pair[1], reduction="none", log_target=True).sum(-1)


def put(name, of):
    hidden = made["hidden"].double().requires_grad_()
    weight = made["weight"].double().requires_grad_()
    log_p = F.log_softmax(hidden @ weight.T, -1)
    ce = F.nll_loss(log_p, labels, reduction="none")
    loss, divergence = of(log_p, ce)
    loss.backward()
    made[f"{name}.loss"] = loss.detach().reshape(1)
    made[f"{name}.dhidden"] = hidden.grad
    made[f"{name}.dweight"] = weight.grad
    if divergence is not None:
        made[f"{name}.divergence"] = divergence.detach()


for reverse in (False, True):
    which = "reverse" if reverse else "forward"

    def sft_kl(log_p, ce):
        d = kl(log_p, reverse)
        return (ce + 0.5 * d).mean(), d

    def asft(log_p, ce):
        d = kl(log_p, reverse)
        return (ce * torch.exp(-ce.detach()) + 0.1 * d).mean(), d

    put(f"sft_kl.{which}", sft_kl)
    put(f"asft.{which}", asft)


def flow(log_p, ce):
    before = F.nll_loss(ref, labels, reduction="none").reshape(SAMPLES, -1).mean(-1)
    weights = torch.exp(-before / before.quantile(0.5))
    made["flow.losses"], made["flow.weights"] = before, weights
    return (weights[made["samples"]] * ce).sum() / ROWS, None


put("flow", flow)
out = pathlib.Path(__file__).parent / "divergence.safetensors"
save_file({name: value.contiguous() for name, value in made.items()}, str(out))
print(out, out.stat().st_size)
