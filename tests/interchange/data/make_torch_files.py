"""Makes the PyTorch files of this folder and the seeds of the fuzz target torch, with torch, numpy and safetensors:

    python tests/interchange/data/make_torch_files.py

The files here were written by torch 2.15; any version since 1.6 makes such files.
"""

import argparse
import collections
import io
import json
import os
import zipfile

import numpy
import torch
from safetensors.torch import load_file

GOLDENS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "goldens")
HERE = os.path.dirname(os.path.abspath(__file__))
SEEDS = os.path.join(HERE, "..", "..", "fuzz", "corpus", "torch")


def save(value, name, **options):
    torch.save(value, os.path.join(HERE, name), **options)


def save_types():
    small = [torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.bool]
    types = {str(t)[6:]: torch.tensor([0, 1, 2, 100]).to(t) for t in small}
    types["float64"] = torch.tensor([0.1, -1e300, 5, 1e-310], dtype=torch.float64)
    types["float32"] = torch.tensor([0.5, -1.25, 3e38, 1e-40])
    types["float16"] = torch.tensor([0.5, -2.5, 6e-8, 65504.0]).half()
    types["bfloat16"] = torch.tensor([0.5, -2.5, 1.0, 100.0]).bfloat16()
    types["int64"] = torch.tensor([-1, 2**40, 7, -(2**62)])
    save(types, "types.pt")
    save({"w": torch.zeros(2).to(torch.float8_e4m3fn)}, "float8.pt")
    save({"w": torch.zeros(2, dtype=torch.complex64)}, "complex.pt")


def save_views():
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    views = collections.OrderedDict(
        whole=whole,
        transposed=whole.t(),
        column=whole[:, 2],
        inner=whole[1:3, 1:5],
        every=whole[::2, ::3],
        cube=whole.reshape(2, 2, 6).permute(2, 0, 1),
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(whole[1]),
        buffer=torch.nn.Buffer(whole[2].clone()),
    )
    save(views, "views.pt")
    save(views, "views_protocol4.pt", pickle_protocol=4)
    save({"w": torch.zeros(2, 1).expand(2, 4)}, "expanded.pt")


def save_checkpoint():
    """What nanoGPT writes with torch.compile, and more that others put beside it."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    for i, parameter in enumerate(model.parameters()):
        parameter.data = torch.arange(parameter.numel()).reshape(parameter.shape).float() + 10 * i
    save(
        {
            "model": collections.OrderedDict(("_orig_mod." + k, v) for k, v in model.state_dict().items()),
            "optimizer": optimizer.state_dict(),
            "model_args": dict(n_layer=2, n_head=2, n_embd=8, block_size=16, bias=False, vocab_size=None, dropout=0.1),
            "iter_num": 70000,
            "best_val_loss": torch.tensor(1.5),
            "config": {"out_dir": "out", "betas": (0.9, -1), "big": 1 << 70},
            "rng": numpy.random.RandomState(1).get_state()[1][:3],
            "raw": b"abc",
            "device": torch.device("cpu"),
            "args": argparse.Namespace(lr=0.25, name="x"),
            "set": {1},
        },
        "checkpoint.pt",
    )
    save(model, "module.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), os.path.join(HERE, "script.pt"))


class Command:
    """Loading it the usual way runs a command."""

    def __reduce__(self):
        return (os.system, ("echo owned > /tmp/kappa-owned",))


def save_odd():
    inside = {"a": torch.ones(2), "list": {0: torch.zeros(1), 1: torch.ones(1)}}
    save({"encoder": inside, "decoder": {"a": torch.ones(3)}, "optimizer_state": {"m": torch.ones(1)}, "epoch": 3},
         "nested.pt")
    save(torch.zeros(2), "bare_tensor.pt")
    save({"a": 1}, "no_tensors.pt")
    save([torch.zeros(1)], "list.pt")
    save({"w": torch.zeros(2), "x": Command()}, "code.pt")
    save({"w": torch.zeros(2)}, "legacy.pt", _use_new_zipfile_serialization=False)


def save_archives():
    """The same file packed again: plainly, compressed, and as a big-endian machine's."""
    file = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, file)
    source = zipfile.ZipFile(file)
    for name, method in (("repacked", 0), ("compressed", zipfile.ZIP_DEFLATED), ("big_endian", 0)):
        with zipfile.ZipFile(os.path.join(HERE, name + ".pt"), "w", method) as target:
            target.comment = b"packed again"
            for entry in source.infolist():
                order = name == "big_endian" and entry.filename.endswith("byteorder")
                target.writestr(entry.filename, b"big" if order else source.read(entry))


def save_originals():
    """Checkpoints as the original projects write them, with the weights of reference cases."""
    for case, prefix in (("mixed/random_perhead", "_orig_mod."), ("mixed/baseline", ""), ("ngpt/ngpt_upstream_rope", "")):
        with open(os.path.join(GOLDENS, case, "case.json")) as file:
            config = json.load(file)["config"]
        tensors = load_file(os.path.join(GOLDENS, case, "tensors.safetensors"))
        model = {prefix + name[6:]: tensor for name, tensor in tensors.items() if name.startswith("param/")}
        if "lm_head.weight" not in model:
            model[prefix + "lm_head.weight"] = model[prefix + "transformer.wte.weight"]
        names = ["n_layer", "n_head", "n_embd", "block_size", "bias", "vocab_size", "dropout", "base_scale"]
        arguments = {name: config[name] for name in names if name in config}
        optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
        checkpoint = {"model": model, "optimizer": optimizer, "model_args": arguments, "iter_num": 5,
                      "best_val_loss": torch.tensor(2.5), "config": {"dataset": "shakespeare_char"}}
        save(checkpoint, "original_" + case.replace("/", "_") + ".pt")


def copy_seeds():
    os.makedirs(SEEDS, exist_ok=True)
    for name in os.listdir(HERE):
        if name.endswith(".pt") and not name.startswith("original_"):
            with open(os.path.join(HERE, name), "rb") as source:
                with open(os.path.join(SEEDS, name[:-3]), "wb") as seed:
                    seed.write(source.read())


if __name__ == "__main__":
    save_types()
    save_views()
    save_checkpoint()
    save_odd()
    save_archives()
    save_originals()
    copy_seeds()
