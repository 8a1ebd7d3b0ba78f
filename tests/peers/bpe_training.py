#!/usr/bin/env python3
"""Byte-level BPE as `kappa tokenizer train` learns it, against Hugging Face's BpeTrainer on the same texts.

Both learn from the same bytes as one text: the merges must be the same in the same order, the vocabularies must have
the same ids, and the file that kappa writes must encode in `tokenizers` as the tokenizer trained there does.

    tests/peers/bpe_training.py --kappa build/kappa [--text FILE ...]
    tests/peers/bpe_training.py --vectors tests/data/bpe_training    writes what the tests of `make test` compare with
"""
import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import unicodedata

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
CORPUS = os.path.join(HERE, "..", "data", "bpe_training", "corpus.en")
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")


def pretokenizer(pattern):
    if pattern == "gpt2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def train_there(texts, pattern, vocabulary, minimum, specials):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pretokenizer(pattern)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, min_frequency=minimum, special_tokens=specials,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def merges_of(document):
    """Pairs, whether they are written as "a b" or as ["a", "b"]."""
    return [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in document["model"]["merges"]]


def train_here(kappa, paths, out, pattern, vocabulary, minimum, specials, threads):
    command = [kappa, "tokenizer", "train", *paths, "--out", out, "--pattern", pattern, "--vocabulary", str(vocabulary),
               "--minimum", str(max(minimum, 1)), "--threads", str(threads)]
    for text in specials:
        command += ["--special", text]
    if not specials:
        command.append("--no-specials")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open(out, encoding="utf-8") as file:
        return json.load(file)


def fail(case, words):
    print(f"{case}: {words}")
    sys.exit(1)


def compare(case, ours, theirs):
    """Merges and vocabulary of the two documents; ends the program at the first difference."""
    mine, other = merges_of(ours), merges_of(theirs)
    for i in range(max(len(mine), len(other))):
        a = mine[i] if i < len(mine) else None
        b = other[i] if i < len(other) else None
        if a != b:
            fail(case, f"merge {i} is {a} in kappa and {b} in tokenizers")
    if ours["model"]["vocab"] != theirs["model"]["vocab"]:
        fail(case, "the vocabularies differ")


def check(kappa, folder, name, text, pattern, vocabulary, minimum, specials=("<|endoftext|>",), threads=2):
    path = os.path.join(folder, "text")
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    case = f"{name}, {pattern}, vocabulary {vocabulary}, minimum {minimum}"
    begun = time.time()
    ours = train_here(kappa, [path], os.path.join(folder, "tokenizer.json"), pattern, vocabulary, minimum,
                      list(specials), threads)
    middle = time.time()
    # A special token ends a text here; there it would be learned from, so the texts are cut beforehand.
    texts = re.split("|".join(map(re.escape, specials)), text) if specials else [text]
    there = train_there(texts, pattern, vocabulary, minimum, list(specials))
    ended = time.time()
    compare(case, ours, json.loads(there.to_str()))
    loaded = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    sample = text[:200_000]
    if loaded.encode(sample).ids != there.encode(sample).ids:
        fail(case, "the loaded file encodes differently")
    if loaded.decode(loaded.encode(sample).ids) != re.sub("|".join(map(re.escape, specials)) or r"(?!)", "", sample):
        fail(case, "the loaded file does not decode to the text")
    print(f"equal: {case}: {len(ours['model']['merges'])} merges of {len(text.encode())} bytes "
          f"(kappa {middle - begun:.1f} s, tokenizers {ended - middle:.1f} s)")


def is_old(character):
    """Whether the character has a class in the Unicode of this Python: of newer ones the two may think differently."""
    return unicodedata.category(character) not in ("Cn", "Cs")


def random_text(seed):
    """Few letters in long runs, many ties; now and then any character of Unicode, and special tokens."""
    r = random.Random(seed)
    letters = "abcd"[:r.randint(1, 4)]
    words = []
    for _ in range(r.randint(1, 200)):
        word = "".join(r.choice(letters) * r.choice([1, 1, 1, 7]) for _ in range(r.randint(1, 12)))
        if r.random() < 0.1:
            word += "".join(c for c in (chr(r.randint(1, 0x10FFFF)) for _ in range(20)) if is_old(c))
        words += [word] * r.choice([1, 1, 2, 9])
    r.shuffle(words)
    return "".join(w + r.choice([" ", " ", "\n", "  ", "\r\n", "", "<|endoftext|>"]) for w in words)


def write_vectors(folder):
    with open(os.path.join(folder, "corpus.en"), encoding="utf-8", newline="") as file:
        text = file.read()
    for pattern, vocabulary in (("gpt2", 1000), ("llama3", 700)):
        document = json.loads(train_there([text], pattern, vocabulary, 2, ["<|endoftext|>"]).to_str())
        with open(os.path.join(folder, f"{pattern}_merges.txt"), "w", encoding="utf-8") as file:
            file.writelines(f"{a} {b}\n" for a, b in merges_of(document))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kappa", default="build/kappa")
    parser.add_argument("--text", action="append", default=[], help="a text to learn 32768 tokens from")
    parser.add_argument("--vectors", help="write the vectors to this folder and end")
    arguments = parser.parse_args()
    if arguments.vectors:
        write_vectors(arguments.vectors)
        return
    with open(CORPUS, encoding="utf-8", newline="") as file:
        corpus = file.read()
    with tempfile.TemporaryDirectory() as folder:
        for pattern in ("gpt2", "llama3"):
            check(arguments.kappa, folder, "corpus.en", corpus, pattern, 8000, 2)
            check(arguments.kappa, folder, "corpus.en", corpus, pattern, 100_000, 1, specials=())
            for seed in range(40):
                check(arguments.kappa, folder, f"random text {seed}", random_text(seed), pattern,
                      random.Random(seed).choice([300, 400, 5000]), seed % 3, threads=1 + seed % 3)
            for path in arguments.text:
                with open(path, encoding="utf-8", newline="") as file:
                    check(arguments.kappa, folder, path, file.read(), pattern, 32768, 2)


if __name__ == "__main__":
    main()
