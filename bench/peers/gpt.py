#!/usr/bin/env python3
"""A GPT-2 model in plain PyTorch, and a timer for its training step.

The model is the one that kappa's flat GPT preset trains: learned positions, LayerNorm with bias,
pre-norm blocks, exact (erf) GELU, linear layers with bias, the head tied to the token embedding,
float32 throughout. One step is: clear gradients, forward, cross-entropy over all positions,
backward, clip the gradients' norm to 1, AdamW with weight decay on matrices only.

Shapes in the comments: B batch, T context, C width, H heads, D = C / H, V vocabulary.
"""

import argparse
import json
import math
import resource
import statistics
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

HAS_SDPA = hasattr(F, "scaled_dot_product_attention")


class Attention(nn.Module):
    def __init__(self, width, heads, context, attention):
        super().__init__()
        self.heads = heads
        self.fused = attention == "sdpa"
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        if not self.fused:
            future = torch.ones(context, context, dtype=torch.bool).triu(1)
            self.register_buffer("future", future, persistent=False)  # (T, T), true above the diagonal

    def forward(self, x, cache=None):
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)  # (B, H, T, D)
        if cache is not None:
            k, v = cache.append(k, v)
        # A single new token sees the whole cache, so only a longer run of tokens needs the mask.
        causal = T > 1
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        else:
            scores = (q * (1.0 / math.sqrt(q.size(-1)))) @ k.transpose(-2, -1)  # (B, H, T, T)
            if causal:
                scores = scores.masked_fill(self.future[:T, :T], float("-inf"))
            y = torch.softmax(scores, dim=-1) @ v
        return self.project(y.transpose(1, 2).reshape(B, T, C))


class Block(nn.Module):
    def __init__(self, width, heads, context, attention):
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads, context, attention)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.project = nn.Linear(4 * width, width)

    def forward(self, x, cache=None):
        x = x + self.attention(self.norm_attention(x), cache)
        return x + self.project(F.gelu(self.expand(self.norm_feed_forward(x))))


class GPT(nn.Module):
    def __init__(self, layers, heads, width, context, vocabulary, attention):
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads, context, attention) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.initialise(layers)

    def initialise(self, layers):
        """GPT-2's: normal with 0.02, projections into the residual stream smaller by sqrt(2 layers)."""
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                into_residual = name.endswith("project.weight")
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if into_residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def embed(self, tokens, start=0):
        return self.token(tokens) + self.position.weight[start : start + tokens.size(1)]  # (B, T, C)

    def forward(self, tokens, targets):
        """The mean cross-entropy of targets (B, T) given tokens (B, T)."""
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.token.weight)  # (B, T, V)
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))


def make_optimizer(model):
    """AdamW as GPT-2 trainings use it; the fastest kernel for the CPU that this torch has."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    options = {"lr": 1e-3, "betas": (0.9, 0.99), "eps": 1e-8}
    for kernel in ("fused", "foreach"):
        try:
            optimizer = torch.optim.AdamW(groups, **options, **{kernel: True})
            # Older versions accept the keyword and refuse at the first step on a CPU.
            probe = nn.Parameter(torch.zeros(1))
            probe.grad = torch.zeros(1)
            torch.optim.AdamW([probe], **{kernel: True}).step()
            return optimizer, kernel
        except (TypeError, RuntimeError, AssertionError):
            continue
    return torch.optim.AdamW(groups, **options), "loop"


def clip_function():
    """clip_grad_norm_ with the grouped kernels where this torch takes the keyword."""
    clip = torch.nn.utils.clip_grad_norm_
    if "foreach" in clip.__code__.co_varnames or "foreach" in getattr(clip, "__wrapped__", clip).__code__.co_varnames:
        return lambda parameters: clip(parameters, 1.0, foreach=True)
    return lambda parameters: clip(parameters, 1.0)


def time_steps(options):
    """Trains on rotating random batches and returns (seconds per step, first loss, last loss, kernel)."""
    model = GPT(options.layers, options.heads, options.width, options.context, options.vocabulary, options.attention)
    optimizer, kernel = make_optimizer(model)
    parameters = list(model.parameters())
    clip = clip_function()
    compute_loss = torch.compile(model) if options.compile else model
    shape = (options.batch, options.context)
    batches = [[torch.randint(options.vocabulary, shape) for _ in range(2)] for _ in range(4)]

    seconds, first, loss = [], None, None
    for step in range(options.warmup + options.steps):
        tokens, targets = batches[step % len(batches)]
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = compute_loss(tokens, targets)
        loss.backward()
        clip(parameters)
        optimizer.step()
        if step >= options.warmup:
            seconds.append(time.perf_counter() - start)
        if step == 0:
            first = loss.detach()
    return seconds, float(first), float(loss.detach()), kernel


def add_model_options(parser, layers, heads, width, context, vocabulary):
    parser.add_argument("--layers", type=int, default=layers)
    parser.add_argument("--heads", type=int, default=heads)
    parser.add_argument("--width", type=int, default=width)
    parser.add_argument("--context", type=int, default=context)
    parser.add_argument("--vocabulary", type=int, default=vocabulary)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--attention", choices=("sdpa", "plain"), default="sdpa" if HAS_SDPA else "plain",
                        help="the fused kernel (torch 2) or explicit masked softmax")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def prepare(parser, options):
    """Checks what this torch and this shape allow, sets threads and seed."""
    if options.attention == "sdpa" and not HAS_SDPA:
        parser.error("torch %s has no scaled_dot_product_attention; use --attention plain" % torch.__version__)
    if options.width % options.heads:
        parser.error("--width must be a multiple of --heads")
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)


def peak_rss_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def show(result, as_json):
    if as_json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print("%-22s %s" % (key, "%.3f" % value if isinstance(value, float) else value))


def main():
    rss_after_import = peak_rss_bytes()
    parser = argparse.ArgumentParser(description="Time the training step of a GPT in plain PyTorch on the CPU.")
    add_model_options(parser, layers=4, heads=4, width=128, context=64, vocabulary=65)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--steps", type=int, default=50, help="steps that are timed")
    parser.add_argument("--warmup", type=int, default=10, help="steps before the timed ones")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model (torch 2)")
    options = parser.parse_args()
    if options.steps < 1:
        parser.error("--steps must be at least 1")
    if options.compile and not hasattr(torch, "compile"):
        parser.error("torch %s has no torch.compile" % torch.__version__)
    prepare(parser, options)

    seconds, first_loss, last_loss, kernel = time_steps(options)
    median = statistics.median(seconds)
    show({
        "engine": "pytorch",
        "step_ms": 1e3 * median,
        "step_ms_best": 1e3 * min(seconds),
        "tokens_per_s": options.batch * options.context / median,
        "peak_rss_bytes": peak_rss_bytes(),
        "rss_after_import_bytes": rss_after_import,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "attention": options.attention,
        "compiled": options.compile,
        "optimizer": kernel,
        "steps": options.steps,
        "first_loss": first_loss,
        "last_loss": last_loss,
    }, options.json)


if __name__ == "__main__":
    main()
