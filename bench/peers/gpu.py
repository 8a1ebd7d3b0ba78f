#!/usr/bin/env python3
"""Times the training step of plain PyTorch models on a GPU, for comparison with kappa.

    gpu.py --model gpt --mode compile --batch 16 --steps 30

One step is: clear gradients, forward, backward in bfloat16 autocast, clip the gradients' norm to 1, fused
AdamW, and what the model does after a step (nGPT and HELM only).  Tokens are random, in four batches that
take turns.  The result is the median over the steps after the warm-up, by CUDA events, as one JSON line.

The models follow the papers' formulas: gpu_models.py and gpu_helm.py.
"""

import argparse
import json
import statistics
import time

import torch

import gpu_helm
import gpu_models

# What each model is at full size and, with --tiny, for trying the code on a CPU; its batch by default.
GPT = {"layers": 12, "heads": 12, "width": 768, "context": 1024, "vocabulary": 50304}
HELM = {"layers": 6, "heads": 6, "width": 390, "context": 2048, "vocabulary": 128256}
MODELS = {
    "gpt": (gpu_models.GPT, GPT, 16),
    "mixed": (gpu_models.Mixed, dict(GPT, dynamic=False), 16),
    "mixed_dynamic": (gpu_models.Mixed, dict(GPT, dynamic=True), 16),
    "geometric": (gpu_models.Geometric, GPT, 16),  # 48 GiB compiled; eager needs --batch 8
    "ngpt": (gpu_models.NGPT, GPT, 16),
    "llama": (gpu_models.Llama, dict(HELM, width=384, hidden=1536), 4),
    "helm_d": (gpu_helm.HelmD, HELM, 4),
    "helm_mice": (gpu_helm.HelmMice, HELM, 4),
}
TINY = {"layers": 2, "heads": 2, "context": 24, "vocabulary": 96}
TINY_WIDTHS = {"helm_d": 26, "helm_mice": 26}
BATCHES = 4


def build(name, tiny, device):
    kind, sizes, batch = MODELS[name]
    sizes = dict(sizes)
    if tiny:
        sizes.update(TINY, width=TINY_WIDTHS.get(name, 32))
        if "hidden" in sizes:
            sizes["hidden"] = 64
        batch = 2
    torch.manual_seed(1)
    return kind(**sizes).to(device), sizes, batch


def make_optimizers(model):
    """Fused AdamW with decay on matrices only; a table of points on the hyperboloid has an optimizer of its own."""
    points = [p for p in model.parameters() if getattr(p, "on_hyperboloid", False)]
    rest = [p for p in model.parameters() if not getattr(p, "on_hyperboloid", False)]
    groups = [{"params": [p for p in rest if p.dim() >= 2], "weight_decay": 0.1},
              {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0}]
    optimizers = [torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), fused=True)]
    return optimizers + ([gpu_helm.RiemannianAdam(points, lr=3e-4)] if points else [])


class Clock:
    """The times between its ticks, by CUDA events where there is a GPU."""

    def __init__(self, device):
        self.on_gpu = device == "cuda"
        self.ticks = []

    def tick(self):
        if self.on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.ticks.append(event)
        else:
            self.ticks.append(time.perf_counter())

    def milliseconds(self):
        if self.on_gpu:
            torch.cuda.synchronize()
        pairs = zip(self.ticks, self.ticks[1:])
        return [a.elapsed_time(b) if self.on_gpu else 1e3 * (b - a) for a, b in pairs]


def train(model, optimizers, batches, steps, mode, device):
    """Runs the steps; returns milliseconds of each and the last loss."""
    loss_of = torch.compile(model) if mode == "compile" else model
    parameters = [p for p in model.parameters() if p.requires_grad]
    after_step = getattr(model, "after_step", lambda: None)
    clock = Clock(device)
    clock.tick()
    for step in range(steps):
        tokens, targets = batches[step % len(batches)]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = loss_of(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        after_step()
        clock.tick()
    return clock.milliseconds(), float(loss.detach())


def main():
    parser = argparse.ArgumentParser(description="Time the training step of a plain PyTorch model on a GPU.")
    parser.add_argument("--model", choices=sorted(MODELS), default="gpt")
    parser.add_argument("--mode", choices=("eager", "compile"), default="eager")
    parser.add_argument("--batch", type=int, help="sequences a step (default: the model's)")
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed")
    parser.add_argument("--warmup", type=int, default=5, help="steps before the timed ones")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a toy size, to try the code")
    options = parser.parse_args()
    if options.steps < 1 or options.warmup < 1:
        parser.error("--steps and --warmup must be at least 1")
    if options.model == "helm_mice" and options.mode == "compile":
        parser.error("helm_mice runs in eager mode only: its experts get another number of rows at every step")
    if options.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True

    model, sizes, batch = build(options.model, options.tiny, options.device)
    batch = options.batch or batch
    shape = (batch, sizes["context"])
    batches = [[torch.randint(sizes["vocabulary"], shape, device=options.device) for _ in range(2)]
               for _ in range(BATCHES)]
    milliseconds, loss = train(model, make_optimizers(model), batches, options.warmup + options.steps, options.mode,
                               options.device)
    step = statistics.median(milliseconds[options.warmup:])
    peak = torch.cuda.max_memory_allocated() / 2**30 if options.device == "cuda" else None
    print(json.dumps({
        "model": options.model,
        "mode": options.mode,
        "batch": batch,
        "step_ms": round(step, 3),
        "tokens_per_s": round(1e3 * batch * sizes["context"] / step),
        "peak_gib": None if peak is None else round(peak, 2),
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": options.steps,
        "loss": round(loss, 4),
        "torch": torch.__version__,
    }))


if __name__ == "__main__":
    main()
