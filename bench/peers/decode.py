#!/usr/bin/env python3
"""Greedy decoding of a GPT-2-sized model with a KV cache in plain PyTorch, timed on the CPU.

The weights are random: the arithmetic and the bytes moved for a token do not depend on them. The
prompt runs through the model in one pass that fills the cache; then every new token is one pass
over one position that reads all weights and the cache so far.

Some BLAS libraries read a matrix much faster through their matrix-vector product than through a
matrix product with one row, others do not. Unless --product says otherwise both are tried first and
the faster one is timed.
"""

import argparse
import statistics
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

from gpt import GPT, add_model_options, peak_rss_bytes, prepare, show


class LayerCache:
    """Keys and values of one layer, (1, H, capacity, D), of which the first `length` rows are filled."""

    def __init__(self, heads, capacity, head_width, dtype):
        self.keys = torch.zeros(1, heads, capacity, head_width, dtype=dtype)
        self.values = torch.zeros_like(self.keys)
        self.length = 0

    def append(self, keys, values):
        """Stores the new rows (1, H, T, D) and returns views of all rows so far."""
        start, self.length = self.length, self.length + keys.size(2)
        self.keys[:, :, start : self.length] = keys
        self.values[:, :, start : self.length] = values
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


class RowLinear(nn.Linear):
    """A linear layer that treats a single row as a vector."""

    def forward(self, x):
        if x.numel() != self.in_features:
            return super().forward(x)
        return torch.addmv(self.bias, self.weight, x.view(-1)).view(*x.shape[:-1], self.out_features)


def set_product(model, product):
    """Makes every linear layer of the model use the named product for a single row."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.__class__ = RowLinear if product == "matvec" else nn.Linear
    model.product = product


def next_token(model, caches, tokens):
    """Runs tokens (1, T) at the cache's end and returns the most likely next token, (1, 1)."""
    x = model.embed(tokens, caches[0].length)
    for block, cache in zip(model.blocks, caches):
        x = block(x, cache)
    last = model.norm(x[:, -1])  # (1, C): only the last position's logits are needed
    if model.product == "matvec":
        return torch.mv(model.token.weight, last[0]).argmax().view(1, 1)
    return F.linear(last, model.token.weight).argmax(dim=-1, keepdim=True)


@torch.inference_mode()
def decode(model, options, dtype):
    """Returns (seconds of the prompt's pass, seconds of each further token, the tokens)."""
    capacity = options.prompt + options.tokens
    head_width = options.width // options.heads
    caches = [LayerCache(options.heads, capacity, head_width, dtype) for _ in range(options.layers)]
    prompt = torch.randint(options.vocabulary, (1, options.prompt))
    start = time.perf_counter()
    token = next_token(model, caches, prompt)
    prompt_seconds = time.perf_counter() - start
    seconds, generated = [], [int(token)]
    for _ in range(options.tokens - 1):
        start = time.perf_counter()
        token = next_token(model, caches, token)
        generated.append(int(token))
        seconds.append(time.perf_counter() - start)
    return prompt_seconds, seconds, generated


def faster_product(model, options, dtype):
    """Tries both products and returns the name of the one whose tokens took less time."""
    best = {}
    for product in ("linear", "matvec"):
        set_product(model, product)
        decode(model, options, dtype)
        best[product] = min(decode(model, options, dtype)[1])
    return min(best, key=best.get)


def main():
    parser = argparse.ArgumentParser(description="Time greedy decoding with a KV cache in plain PyTorch on the CPU.")
    add_model_options(parser, layers=12, heads=12, width=768, context=1024, vocabulary=50257)
    parser.add_argument("--prompt", type=int, default=16, help="tokens in the prompt")
    parser.add_argument("--tokens", type=int, default=64, help="new tokens a run")
    parser.add_argument("--runs", type=int, default=3, help="timed runs, after one that warms up")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--product", choices=("auto", "linear", "matvec"), default="auto",
                        help="how a single row meets a weight matrix")
    options = parser.parse_args()
    if min(options.prompt, options.runs) < 1 or options.tokens < 2:
        parser.error("--prompt and --runs must be at least 1 and --tokens at least 2")
    if options.prompt + options.tokens > options.context:
        parser.error("--prompt and --tokens together must fit --context")
    prepare(parser, options)
    dtype = getattr(torch, options.dtype)
    model = GPT(options.layers, options.heads, options.width, options.context, options.vocabulary, options.attention)
    model = model.to(dtype).eval()

    set_product(model, faster_product(model, options, dtype) if options.product == "auto" else options.product)
    decode(model, options, dtype)
    runs = [decode(model, options, dtype)[:2] for _ in range(options.runs)]
    seconds = [second for _, run in runs for second in run]
    median = statistics.median(seconds)
    show({
        "engine": "pytorch",
        "token_ms": 1e3 * median,
        "token_ms_best": 1e3 * min(seconds),
        "tokens_per_s": 1.0 / median,
        "prompt_ms": 1e3 * statistics.median(prompt for prompt, _ in runs),
        "prompt": options.prompt,
        "tokens": options.tokens,
        "parameters": sum(p.numel() for p in model.parameters()),
        "peak_rss_bytes": peak_rss_bytes(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "attention": options.attention,
        "dtype": options.dtype,
        "product": model.product,
        "compiled": False,
    }, options.json)


if __name__ == "__main__":
    main()
