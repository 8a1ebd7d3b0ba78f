"""kappa's logits against those of a GPT-2 of transformers, by way of llm.c's checkpoints, in both directions.

The files are written and read here by a few lines of their own, after the format that llm.c's train_gpt2.py writes.
Prints the largest difference of each and ends with 1 at the first that is too large.

  python tests/peers/llmc_equal.py --kappa build/kappa
"""

import argparse
import os
import struct
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

VOCABULARY, PADDED, CONTEXT, LAYERS, HEADS, WIDTH, TOKENS = 97, 128, 48, 3, 4, 32, 40
TOLERANCE = 1e-5
LAYERED = [
    ("ln_1.weight", False), ("ln_1.bias", False), ("attn.c_attn.weight", True), ("attn.c_attn.bias", False),
    ("attn.c_proj.weight", True), ("attn.c_proj.bias", False), ("ln_2.weight", False), ("ln_2.bias", False),
    ("mlp.c_fc.weight", True), ("mlp.c_fc.bias", False), ("mlp.c_proj.weight", True), ("mlp.c_proj.bias", False),
]  # fmt: skip


def names():
    """All tensors in the order of the file, and whether transformers stores them transposed."""
    yield "transformer.wte.weight", False
    yield "transformer.wpe.weight", False
    for name, transposed in LAYERED:
        for layer in range(LAYERS):
            yield f"transformer.h.{layer}.{name}", transposed
    yield "transformer.ln_f.weight", False
    yield "transformer.ln_f.bias", False


def write(path, model, dtype):
    header = [20240326, 3 if dtype == torch.float32 else 5, CONTEXT, VOCABULARY, LAYERS, HEADS, WIDTH, PADDED]
    weights = model.state_dict()
    with open(path, "wb") as file:
        file.write(struct.pack("<256i", *header, *[0] * (256 - len(header))))
        for name, transposed in names():
            tensor = weights[name].t() if transposed else weights[name]
            if name.endswith("wte.weight"):
                tensor = torch.nn.functional.pad(tensor, (0, 0, 0, PADDED - VOCABULARY))
            tensor = tensor.contiguous().to(dtype)
            file.write((tensor.view(torch.int16) if dtype == torch.bfloat16 else tensor).numpy().tobytes())


def read(path, model):
    with open(path, "rb") as file:
        data = file.read()
    header = struct.unpack("<256i", data[:1024])
    if list(header[:8]) != [20240326, 3, CONTEXT, VOCABULARY, LAYERS, HEADS, WIDTH, PADDED]:
        sys.exit(f"the header of {path} is {header[:8]}")
    numbers, at = torch.frombuffer(bytearray(data[1024:]), dtype=torch.float32), 0
    weights = model.state_dict()
    for name, transposed in names():
        shape = list(weights[name].shape)
        rows = [PADDED, WIDTH] if name.endswith("wte.weight") else shape[::-1] if transposed else shape
        count = torch.Size(rows).numel()
        tensor = numbers[at : at + count].reshape(rows)
        weights[name] = (tensor.t() if transposed else tensor)[: shape[0]]
        at += count
    if at != len(numbers):
        sys.exit(f"{path} has {len(numbers)} numbers, not {at}")
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    model.load_state_dict(weights)


def kappa(program, *words):
    result = subprocess.run([program, *words], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"kappa {' '.join(words)}: {result.stderr}")


def compare(name, got, want):
    worst = (got.double() - want.double()).abs().max().item()
    largest = want.abs().max().item()
    print(f"{name:36s} largest difference {worst:.1e} of logits up to {largest:.3g}", flush=True)
    if not worst <= TOLERANCE * max(1, largest):
        sys.exit(f"{name}: more than {TOLERANCE:g}")


def new_model(seed):
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS)
    model = GPT2LMHeadModel(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kappa", required=True)
    program = os.path.abspath(parser.parse_args().kappa)
    tokens = torch.randint(VOCABULARY, (TOKENS,), generator=torch.Generator().manual_seed(1))
    words = " ".join(map(str, tokens.tolist()))
    with tempfile.TemporaryDirectory(prefix="kappa-peers-") as folder, torch.no_grad():
        for dtype in (torch.float32, torch.bfloat16):
            name = str(dtype)[6:]
            source, run, out, back = (os.path.join(folder, name + end) for end in (".bin", "", ".logits", ".back"))
            model = new_model(1)
            write(source, model, dtype)
            if dtype == torch.bfloat16:
                model = model.to(dtype).float()
            want = model(tokens[None]).logits[0]
            kappa(program, "import", source, "--out", run)
            kappa(program, "logits", run, "--tokens", words, "--out", out)
            compare(f"llm.c {name} into kappa", load_file(out)["logits"], want)
            kappa(program, "export", run, "--to", "llmc", "--out", back, "--checkpoint", "last")
            other = new_model(2)
            read(back, other)
            compare(f"kappa to llm.c, after {name}", other(tokens[None]).logits[0], want)
    print("llm.c's checkpoints hold the same models")


if __name__ == "__main__":
    main()
