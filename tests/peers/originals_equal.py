"""kappa's logits against those of the original projects' code, by way of torch.

The weights of every reference case of a model (tests/goldens) are saved with torch.save, as the projects' own
training does, and with safetensors, become runs (`kappa import`), and `kappa logits` must give the numbers that
the original code gave.  Prints the largest difference of each and ends with 1 at the first that is too large.

  python tests/peers/originals_equal.py --kappa build/kappa
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

GOLDENS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "goldens")
ARGUMENTS = ["n_layer", "n_head", "n_embd", "block_size", "bias", "vocab_size", "dropout", "base_scale"]
TOLERANCE = 5e-6  # of the largest logit, in float32


def settings(case, config):
    """What the files do not say."""
    if case["family"].startswith("helm"):
        return [f"model.context={config['max_seq_len']}"]
    if case["family"] in ("ngpt", "gpt-rope"):
        sets = [f"model.heads={config['n_head']}", f"model.context={config['block_size']}"]
        return sets + ["model.variant=" + case.get("rope", "upstream")]
    sets = [f"model.heads={config['n_head']}"]
    if config.get("curvature_mode") == "fixed":
        sets.append(f"model.curvature.value=[{-config['curvature']}]")
    return sets


def save(case, config, weights, folder):
    """The same weights as both kinds of files."""
    paths = [os.path.join(folder, "model.safetensors"), os.path.join(folder, "ckpt.pt")]
    for path in paths:
        if os.path.exists(path):
            os.remove(path)
    save_file(weights, paths[0])
    arguments = {name: config[name] for name in ARGUMENTS if name in config}
    prefixed = {"_orig_mod." + name: tensor for name, tensor in weights.items()}
    torch.save({"model": prefixed, "model_args": arguments, "iter_num": 5} if arguments else prefixed, paths[1])
    return paths


def kappa_logits(kappa, run, tokens, folder):
    out = os.path.join(folder, "logits.safetensors")
    words = " ".join(map(str, tokens))
    subprocess.run([kappa, "logits", run, "--tokens", words, "--out", out], check=True, stdout=subprocess.DEVNULL)
    return load_file(out)["logits"].double()


def first_documents(tensors):
    """The tokens of each row before its second document, of which `kappa logits` knows nothing."""
    tokens, documents = tensors["in/tokens"], tensors.get("in/documents")
    for row in range(tokens.shape[0]):
        length = tokens.shape[1]
        if documents is not None:
            length = int((documents[row] == documents[row, 0]).cumprod(0).sum())
        yield row, tokens[row, :length].tolist()


def compare(kappa, path, case, tensors, sets, folder):
    run = os.path.join(folder, "run")
    subprocess.run(["rm", "-rf", run], check=True)
    words = [kappa, "import", path, "--out", run]
    if case["family"] == "mixed":
        words += ["--format", "mixed"]
    for value in sets:
        words += ["--set", value]
    result = subprocess.run(words, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(" ".join(words) + "\n" + result.stderr)
    want = tensors["out/logits"].double()
    worst = 0
    for row, tokens in first_documents(tensors):
        got = kappa_logits(kappa, run, tokens, folder)
        worst = max(worst, (got - want[row, : len(tokens)]).abs().max().item() / want.abs().max().item())
    print(f"{case['case']:36s} {os.path.basename(path):18s} largest difference {worst:.1e}", flush=True)
    if not worst <= TOLERANCE:
        sys.exit(f"{case['case']}: more than {TOLERANCE:g}")


def cases():
    for area in ("mixed", "ngpt", "helm"):
        for name in sorted(os.listdir(os.path.join(GOLDENS, area))):
            folder = os.path.join(GOLDENS, area, name)
            with open(os.path.join(folder, "case.json")) as file:
                case = json.load(file)
            # The exact variants are kappa's own, without a published counterpart.
            if case["kind"] == "model" and not name.startswith("exact_"):
                yield case, load_file(os.path.join(folder, "tensors.safetensors"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kappa", required=True)
    kappa = os.path.abspath(parser.parse_args().kappa)
    count = 0
    with tempfile.TemporaryDirectory(prefix="kappa-peers-") as folder:
        for case, tensors in cases():
            weights = {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("param/")}
            for path in save(case, case["config"], weights, folder):
                compare(kappa, path, case, tensors, settings(case, case["config"]), folder)
                count += 1
    print(f"{count} imports give the original logits")


if __name__ == "__main__":
    main()
