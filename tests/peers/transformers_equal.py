"""kappa's logits against those of transformers, in both directions.

  in    tiny models with random weights, saved by transformers, become runs: `kappa import`, `kappa logits`
  out   tiny runs, trained for a few steps, become models of transformers: `kappa export`, and back again
        (curved families through trust_remote_code)

Prints the largest difference of each case and ends with 1 at the first that is too large.

  python tests/peers/transformers_equal.py --kappa build/kappa [--only WORDS]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

VOCABULARY, CONTEXT, TOKENS = 97, 48, 40
# Of float32 numbers; what passes through bfloat16 weights is equal after the same rounding.
TOLERANCE = 1e-5


class Peer:
    def __init__(self, arguments):
        self.kappa, self.only = os.path.abspath(arguments.kappa), arguments.only
        self.folder = tempfile.mkdtemp(prefix="kappa-peers-")
        self.count = 0

    def path(self, *words):
        return os.path.join(self.folder, *words)

    def run(self, *words):
        result = subprocess.run([self.kappa, *words], capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit(f"kappa {' '.join(words)}: {result.stderr}")
        return result.stdout

    def kappa_logits(self, run, tokens, device="cpu"):
        out = self.path("logits.safetensors")
        self.run("logits", run, "--tokens", " ".join(map(str, tokens)), "--out", out, "--device", device)
        return load_file(out)["logits"]

    def compare(self, name, kappa, theirs, tolerance=TOLERANCE):
        kappa, theirs = kappa.double(), theirs.double()
        worst = (kappa - theirs).abs().max().item()
        largest = theirs.abs().max().item()
        self.count += 1
        print(f"{name:46s} largest difference {worst:.1e} of logits up to {largest:.3g}", flush=True)
        if not worst <= tolerance * max(1, largest):
            sys.exit(f"{name}: more than {tolerance:g}")


def tokens_below(vocabulary, seed=1):
    return torch.randint(0, vocabulary, (TOKENS,), generator=torch.Generator().manual_seed(seed)).tolist()


def model_logits(folder, tokens, dtype=torch.float32):
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=dtype).eval()
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0]


# ---- from transformers ----

GPT2 = dict(n_layer=2, n_head=4, n_embd=32, vocab_size=VOCABULARY, n_positions=CONTEXT, bos_token_id=0, eos_token_id=0)
LLAMA = dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, hidden_size=32, intermediate_size=56,
             vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, bos_token_id=0, eos_token_id=0)
ROPE = dict(rope_type="default", rope_theta=500.0)

# name, kind of config, what differs from the above, how it is saved
IN = [
    ("gpt2", transformers.GPT2Config, GPT2, {}, {}),
    ("gpt2, untied, gelu, inner 40, epsilon 1e-3", transformers.GPT2Config, GPT2,
     dict(tie_word_embeddings=False, activation_function="gelu", n_inner=40, layer_norm_epsilon=1e-3), {}),
    ("gpt2, sharded, silu", transformers.GPT2Config, GPT2, dict(activation_function="silu"), dict(max_shard_size="20KB")),
    ("gpt2, bfloat16", transformers.GPT2Config, GPT2, {}, dict(dtype=torch.bfloat16)),
    ("gpt2, float16", transformers.GPT2Config, GPT2, {}, dict(dtype=torch.float16)),
    ("gpt2, pickled", transformers.GPT2Config, GPT2, {}, dict(pickled=True)),
    ("gpt2, base model without a head", transformers.GPT2Config, GPT2, {}, dict(base=True)),
    ("llama", transformers.LlamaConfig, LLAMA, {}, {}),
    ("llama, grouped queries, tied", transformers.LlamaConfig, LLAMA,
     dict(num_key_value_heads=2, tie_word_embeddings=True), {}),
    ("llama, one key head, sharded, theta 500", transformers.LlamaConfig, LLAMA,
     dict(num_key_value_heads=1, rope_parameters=ROPE, rms_norm_eps=1e-3), dict(max_shard_size="20KB")),
    ("llama, bfloat16", transformers.LlamaConfig, LLAMA, dict(num_key_value_heads=2), dict(dtype=torch.bfloat16)),
    ("llama, heads of 12 channels, gelu", transformers.LlamaConfig, LLAMA, dict(head_dim=12, hidden_act="gelu"), {}),
    ("llama, biases", transformers.LlamaConfig, LLAMA, dict(attention_bias=True, mlp_bias=True), {}),
    ("llama, biases in attention", transformers.LlamaConfig, LLAMA, dict(attention_bias=True), {}),
    ("llama, rotation of Llama 3.1", transformers.LlamaConfig, LLAMA, dict(rope_parameters=dict(
        rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=16)), {}),
    ("llama, rotation slowed down by 3", transformers.LlamaConfig, LLAMA, dict(rope_parameters=dict(
        rope_type="linear", rope_theta=500.0, factor=3.0)), {}),
    ("llama, YaRN", transformers.LlamaConfig, LLAMA, dict(rope_parameters=dict(
        rope_type="yarn", rope_theta=500.0, factor=4.0, original_max_position_embeddings=12, beta_fast=8.0)), {}),
    ("mistral without a window", transformers.MistralConfig, LLAMA, dict(num_key_value_heads=2, sliding_window=None), {}),
    ("qwen2", transformers.Qwen2Config, LLAMA, dict(num_key_value_heads=2), {}),
]


def randomise(model):
    """Initial weights are too small, biases zero and norms one, to show a fault: numbers of ordinary size."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = 0.15 if parameter.dim() == 2 else 0.3
        parameter.data = (parameter.data + scale * noise).to(parameter.dtype)


def save_model(kind, settings, save, folder):
    model = AutoModelForCausalLM.from_config(kind(**settings))
    randomise(model)
    model = model.to(save.get("dtype", torch.float32))
    if save.get("base"):
        model.base_model.save_pretrained(folder)
    elif save.get("pickled"):
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), os.path.join(folder, "pytorch_model.bin"))
    else:
        model.save_pretrained(folder, max_shard_size=save.get("max_shard_size", "5GB"))


def check_in(peer):
    for name, kind, common, settings, save in IN:
        if peer.only not in name:
            continue
        folder, run, again = (peer.path(word) for word in ("theirs", "run", "again"))
        for path in (folder, run, again):
            shutil.rmtree(path, ignore_errors=True)
        save_model(kind, {**common, **settings}, save, folder)
        tokens = tokens_below(VOCABULARY)
        theirs = model_logits(folder, tokens)
        peer.run("import", folder, "--out", run)
        peer.compare("in: " + name, peer.kappa_logits(run, tokens), theirs)
        peer.run("export", run, "--out", again)
        peer.compare("in and out: " + name, theirs, model_logits(again, tokens), 1e-6)


def train_bpe(text):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.train_from_iterator([text], tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def check_tokenizer(peer):
    """A tokenizer of byte pairs comes with its model, and goes with it again."""
    name = "gpt2, with its tokenizer"
    if peer.only not in name:
        return
    folder, run, again = (peer.path(word) for word in ("with_bpe", "bpe_run", "bpe_again"))
    text = "How much wood would a woodchuck chuck, if a woodchuck could chuck wood? Größe, 数, \n\t 1234!" * 3
    theirs = train_bpe(text)
    save_model(transformers.GPT2Config, {**GPT2, "vocab_size": len(theirs) + 4}, {}, folder)
    theirs.save_pretrained(folder)
    report = json.loads(peer.run("import", folder, "--out", run, "--json"))
    peer.run("export", run, "--out", again)
    back = AutoTokenizer.from_pretrained(again)
    for line in (text, "unseen wörds<|endoftext|>", "  spaces  \n"):
        if theirs(line)["input_ids"] != back(line)["input_ids"] or back.decode(back(line)["input_ids"]) != line:
            sys.exit(f"{name}: other ids of '{line}'")
    if report["tokenizer_vocabulary"] != len(theirs) or back.eos_token_id != theirs.eos_token_id:
        sys.exit(f"{name}: other sizes or special tokens")
    peer.run("sample", run, "--prompt", "wood", "--tokens", "5")
    peer.count += 1
    print(f"in and out: {name}: the same ids", flush=True)


# ---- to transformers ----

SMALL = ["model.layers=2", "model.heads=2", "model.width=16", f"model.context={CONTEXT}", "train.batch=4"]
ROTARY = ["model.positions=rotary"]
YARN = ["model.rotary.original_context=12", "model.rotary.factor=4", "model.rotary.beta_fast=8"]
MIXED = ["model.family=mixed", "model.curvature.mode=parametric"]
HELM = ["model.family=helm_d"]
MICE = ["model.family=helm_mice", "model.layers=3", "model.latent.rank=12", "model.latent.plain=6",
        "model.latent.rotary=4", "model.latent.value=8"]
DEEPSEEK = ["model.family=deepseek"] + MICE[1:]

OUT = [
    ("gpt", []),
    ("gpt, untied, no biases, gelu_tanh", ["model.head=untied", "model.bias=false", "model.activation=gelu_tanh"]),
    ("llama", ["model.family=llama"]),
    ("llama, grouped queries, tied", ["model.family=llama", "model.heads=4", "model.attention.kv_heads=2",
                                      "model.head=tied"]),
    ("llama, biases", ["model.family=llama", "model.bias=true"]),
    ("llama, stretched (YaRN)", ["model.family=llama"] + YARN),
    ("llama, upstream rotation", ["model.family=llama", "model.variant=upstream"]),
    ("gpt, rotary", ROTARY),
    ("gpt, rotary as in Llama 3.1", ROTARY + YARN + ["model.rotary.stretching=llama3"]),
    ("gpt, token difference", ["model.token_difference=true"]),
    ("gpt, bounded", ["model.residual=bounded", "model.curvature.value=[-0.5]"]),
    ("ngpt", ["model.family=ngpt", "train.weight_decay=0"]),
    ("ngpt, slerp", ["model.family=ngpt", "model.residual=slerp"]),
    ("ngpt, upstream", ["model.family=ngpt", "model.variant=upstream"]),
    ("ngpt, biases, grouped", ["model.family=ngpt", "model.bias=true", "model.heads=4", "model.attention.kv_heads=2"]),
    ("geometric", ["model.family=geometric"]),
    ("geometric, distance, fixed signs", ["model.family=geometric", "model.attention.score=distance",
                                          "model.attention.curvature.mode=fixed",
                                          "model.attention.curvature.value=[-1.5, 1.5]"]),
    ("geometric, midpoint values, unit queries", ["model.family=geometric", "model.attention.values=midpoint",
                                                  "model.attention.query_norm=unit"]),
    ("geometric, tied curvature, plain queries", ["model.family=geometric", "model.attention.curvature.mode=tied",
                                                  "model.attention.query_norm=plain"] + ROTARY),
    ("mixed, e3", MIXED),
    ("mixed, e1", MIXED + ["model.wiring=e1"]),
    ("mixed, e2", MIXED + ["model.wiring=e2"]),
    ("mixed, spherical", MIXED + ["model.curvature.value=[0.3]"]),
    ("mixed, e2, spherical", MIXED + ["model.curvature.value=[0.3]", "model.wiring=e2"]),
    ("mixed, e1, flat limit", ["model.family=mixed", "model.curvature.value=[0]", "model.wiring=e1"]),
    ("mixed, strongly curved", ["model.family=mixed", "model.curvature.value=[-1.5]"]),
    ("mixed, a κ a head", MIXED + ["model.curvature.per_head=true", "model.curvature.value=[-0.5, 0.5]"]),
    ("mixed, product of four", MIXED + ["model.curvature.per_head=true", "model.curvature.groups=4"]),
    ("mixed, tied, softplus", ["model.family=mixed", "model.curvature.mode=tied", "model.curvature.map=softplus"]),
    ("mixed, dynamic", ["model.family=mixed", "model.curvature.dynamic=true"]),
    ("mixed, curved embedding", MIXED + ["model.curvature.embedding=true"]),
    ("mixed, reference origin", MIXED + ["model.reference=origin"]),
    ("mixed, reference mean", MIXED + ["model.reference=mean"]),
    ("mixed, reference midpoint", MIXED + ["model.reference=midpoint", "model.window=3"]),
    ("mixed, midpoint, dynamic, rms", ["model.family=mixed", "model.reference=midpoint", "model.curvature.dynamic=true",
                                       "model.norm=rms"]),
    ("helm_d", HELM),
    ("helm_d, curvature -0.4, no norm", HELM + ["model.curvature.value=[-0.4]", "model.norm=none"]),
    ("helm_d, stretched (YaRN)", HELM + YARN),
    ("helm_d, table, mlr head, learned heads", HELM + ["model.embedding=table", "model.head=lorentz_mlr",
                                                       "model.attention.curvature.mode=parametric",
                                                       "model.attention.curvature.map=softplus"]),
    ("helm_d, flat attention", HELM + ["model.attention.score=dot", "model.attention.values=mean", "model.positions=rotary"]),
    ("helm_d, upstream", HELM + ["model.variant=upstream"]),
    ("helm_mice", MICE),
    ("helm_mice, low-rank queries, κ a expert", MICE + ["model.latent.query_rank=6", "model.curvature.value=[-0.7]",
                                                        "model.experts.curvature.value=[-0.5, -1, -2, -3]"]),
    ("helm_mice, groups, sigmoid, no shared", MICE + ["model.experts.groups=2", "model.experts.score=sigmoid",
                                                      "model.experts.shared=0", "model.experts.limited_groups=1",
                                                      "model.experts.active=2"]),
    ("helm_mice, two shared, fixed κ", MICE + ["model.experts.shared=2", "model.experts.curvature.mode=fixed"]),
    ("deepseek", DEEPSEEK),
    ("deepseek, low-rank queries, biases", DEEPSEEK + ["model.latent.query_rank=6", "model.bias=true"]),
    ("deepseek, sigmoid, scale, stretched (YaRN)", DEEPSEEK + ["model.experts.score=sigmoid",
                                                              "model.experts.route_scale=2.5"] + YARN),
    ("ngpt with experts", ["model.family=ngpt", "model.feed_forward=moe"]),
    ("mixed stream, geometric heads, gated", MIXED + ["model.attention.score=distance_squared",
                                                      "model.attention.query_norm=scaled", "model.feed_forward=gated",
                                                      "model.head=untied"]),
]


def prepare_data(peer):
    text = "".join(f"line {i * i % 83} of {i * 7 % 29}: the cat {'sat' if i % 3 else 'ran'}.\n" for i in range(900))
    with open(peer.path("text.txt"), "w") as file:
        file.write(text)
    peer.run("data", "prepare", peer.path("text.txt"), "--data", peer.folder, "--name", "data")
    return text


def train(peer, sets, run):
    config = peer.path("config.yaml")
    with open(config, "w") as file:
        file.write("train: {steps: 12, learning_rate: 2e-2, warmup: 2, evaluate_every: 12, evaluate_batches: 1}\n")
    words = [word for value in [f"data.path={peer.path('data')}"] + SMALL + sets for word in ("--set", value)]
    peer.run("train", config, "--out", run, *words)


def disturb(run):
    """A few steps leave biases near zero and norms near one: noise in all parameters shows every fault."""
    checkpoints = os.path.join(run, "checkpoints")
    path = os.path.join(checkpoints, sorted(os.listdir(checkpoints))[-1], "model.safetensors")
    parameters, generator = load_file(path), torch.Generator().manual_seed(5)
    for name, value in parameters.items():
        if name.endswith((".points", ".temperature")):
            continue  # points of a manifold; a divisor
        noise = torch.randn(value.shape, generator=generator)
        matrix = value.dim() >= 2 and not name.endswith((".bias", ".time"))
        size = 0.25 if matrix else 0.3 * value.abs().mean() if name.endswith((".rate", "scale", "gain")) else 0.2
        if "curvature_predictor" in name:
            size = 0.03  # a κ near the antipode of a token magnifies every rounding
        parameters[name] = (value + size * noise).contiguous()
    save_file(parameters, path, metadata={"format": "pt"})


def check_text(peer, run, folder, text):
    """The exported tokenizer gives kappa's ids: its loss is that of the ids."""
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    line = text[:60]
    ids = tokenizer(line)["input_ids"]
    with open(os.path.join(run, "tokenizer.json")) as file:
        characters = json.load(file)["characters"]
    if ids != [characters.index(c) for c in line] or tokenizer.decode(ids) != line:
        sys.exit("the exported tokenizer gives other ids")


def check_out(peer):
    text = prepare_data(peer)
    for name, sets in OUT:
        if peer.only not in name:
            continue
        run, folder, again = (peer.path(word) for word in ("run", "exported", "again"))
        for path in (run, folder, again):
            shutil.rmtree(path, ignore_errors=True)
        train(peer, sets, run)
        disturb(run)
        kind = json.loads(peer.run("export", run, "--out", folder, "--json"))["model_type"]
        with open(os.path.join(folder, "config.json")) as file:
            tokens = tokens_below(json.load(file)["vocab_size"])
        kappa, theirs = peer.kappa_logits(run, tokens), model_logits(folder, tokens)
        peer.compare(f"out: {name} ({kind})", kappa, theirs)
        exact = peer.kappa_logits(run, tokens, "ref")
        peer.compare(f"out, double: {name}", exact, model_logits(folder, tokens, torch.float64), 1e-6)
        peer.run("import", folder, "--out", again)
        peer.compare(f"out and in: {name}", kappa, peer.kappa_logits(again, tokens), 1e-7)
        check_text(peer, run, folder, text)


def check_use(peer):
    """Training and generation of an exported curved model run in PyTorch."""
    if peer.only not in "use":
        return
    run, folder = peer.path("run"), peer.path("exported")
    for sets in (MIXED, MICE, ["model.family=ngpt"], ["model.family=geometric"]):
        for path in (run, folder):
            shutil.rmtree(path, ignore_errors=True)
        train(peer, sets, run)
        peer.run("export", run, "--out", folder)
        model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32)
        tokens = torch.tensor([tokens_below(20)])
        model(tokens, labels=tokens).loss.backward()
        for key, parameter in model.named_parameters():
            if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
                sys.exit(f"{sets[0]}: the gradient of {key} is not finite")
        model.generate(tokens[:, :4], max_new_tokens=3, do_sample=False, pad_token_id=0)
        print(f"use: {sets[0]}: gradients are finite, generation runs", flush=True)
        peer.count += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kappa", default="build/kappa")
    parser.add_argument("--only", default="", help="only cases whose name holds these words")
    peer = Peer(parser.parse_args())
    torch.manual_seed(0)
    torch.set_num_threads(2)
    transformers.logging.set_verbosity_error()
    try:
        check_in(peer)
        check_tokenizer(peer)
        check_out(peer)
        check_use(peer)
    finally:
        shutil.rmtree(peer.folder, ignore_errors=True)
    print(f"{peer.count} comparisons are within their tolerances")


main()
