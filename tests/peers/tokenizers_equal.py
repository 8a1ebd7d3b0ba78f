#!/usr/bin/env python3
"""kappa's token ids against Hugging Face's tokenizers and tiktoken, on 10 MB of mixed text and hostile Unicode.

    tests/peers/tokenizers_equal.py --kappa build/kappa [--data DIR] [--text FILE ...] [--bytes N]

Without --data: a vocabulary of 500 tokens of the tests, and ones trained here with several patterns.  With it also GPT-2's
and Llama 3's own, from the folders of DIR, where they are, packed by xz or not:

    DIR/gpt2/encoder.json, DIR/gpt2/vocab.bpe     OpenAI's files
    DIR/gpt2/gpt2.tiktoken                        the same as ranks
    DIR/llama3/tokenizer.model                    Llama 3's ranks
    DIR/known_vectors.json, DIR/llamacpp_vectors  published texts and their ids

The small ones encode 1 MB and more of it.  Each is encoded with and without special tokens and with 1 and 3 threads,
decoded, written by kappa as tokenizer.json, loaded from there by tokenizers, and the ids are compared.  Ends with 1 at the
first difference.

kappa's letters and numbers are those of Unicode 16, as there; other classes, which only the further patterns have, are
those of PCRE2, and characters that Unicode 14 does not know are left out where such patterns are compared.
"""
import argparse
import base64
import glob
import json
import lzma
import os
import random
import struct
import subprocess
import sys
import tempfile
import unicodedata

import tiktoken
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
PROJECT = os.path.normpath(os.path.join(HERE, "..", ".."))
SMALL = os.path.join(PROJECT, "tests", "data", "tokenizers", "small")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
# Patterns that only PCRE2 cuts by: Qwen 2's, one with \w and \d, GPT-4o's, and DeepSeek's sequence.
OTHERS = [
    [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    [r"\d+|\w+|[^\w\s]+|\s+"],
    [r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
     r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
     r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    [r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+",
     r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
     r"\s*[\r\n]+|\s+(?!\S)|\s+"],
]


# ---- text ----

# Behind it come planes without characters, tags and private use.
LAST = 0x32400


def is_known(character):
    """In Unicode 14, which Python 3.11 and PCRE2 10.42 have."""
    return unicodedata.category(character) != "Cn"


def every_character():
    """Every character beside what the patterns tell apart."""
    return "".join(f"a{c} {c}1{c}\n'{c}\t" for c in map(chr, range(1, LAST)) if unicodedata.category(c) not in ("Cs", "Co"))


def hostile_text(r, count):
    frequent = list("  \n\r\t'sStTdDmMaeZ19.,!?-_()") + ["'re", "'LL", "'ve", "ſ", "'ſ", " ", "　", "\u0085", "\u2028",
                "\u180e", "\u200b", "\u0301", "é", "e\u0301", "²", "½", "Ⅷ", "٣", "你好", "한국어", "हिन्दी", "😀", "👩\u200d👩\u200d👧", "\ufeff", "\ufffd",
                "\x00", "\x7f", "ﬁ", "İ", "K", "<|endoftext|>", "<|eot_id|>", "<|", "|>", "\U000e0041", "\U0010ffff"]
    others = [chr(c) for c in range(1, LAST) if not 0xD800 <= c < 0xE000]
    parts = []
    for _ in range(count):
        draw = r.random()
        if draw < 0.7:
            parts.append(r.choice(frequent))
        elif draw < 0.72:
            parts.append(r.choice(frequent) * r.randint(2, 60))
        else:
            parts.append(r.choice(others))
    return "".join(parts)


def mixed_text(paths, size):
    """Hostile Unicode, and for the rest of `size` bytes text of the files or of the project, its words and numbers."""
    r = random.Random(1)
    hostile = every_character() + hostile_text(r, 300_000)
    if not paths:
        for pattern in ("README.md", "docs/*.md", "src/*/*.[ch]", "tests/*/*.[ch]", "tests/data/bpe_training/*.en"):
            paths = paths + sorted(glob.glob(os.path.join(PROJECT, pattern)))
    parts = []
    for path in paths:
        with open_packed(path) as file:
            parts.append(file.read().decode("utf-8", errors="replace"))
    words, left = [p[:100_000].split() or ["x"] for p in parts], size - len(hostile.encode())
    while sum(len(p) for p in parts) < left:
        chosen = (r.choice(r.choice(words)) for _ in range(5000))
        parts.append(" ".join(w if r.random() < 0.9 else str(r.randint(0, 10**r.randint(1, 12))) for w in chosen))
    return "".join(parts).encode()[:max(left, 1_000_000)].decode(errors="ignore") + hostile


# ---- files ----

def open_packed(path):
    return lzma.open(path) if path.endswith(".xz") else open(path, "rb")


def unpack(data, name, folder):
    """Copies DIR/name or DIR/name.xz into the folder; None when there is neither."""
    for path in (os.path.join(data, name), os.path.join(data, name + ".xz")):
        if not os.path.exists(path):
            continue
        target = os.path.join(folder, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open_packed(path) as source, open(target, "wb") as file:
            file.write(source.read())
        return target
    return None


def read_ranks(path):
    with open(path, "rb") as file:
        return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in file if line.strip())}


# ---- the tokenizers ----

def fail(case, words):
    print(f"different: {case}: {words}")
    sys.exit(1)


def split_by(patterns):
    splits = [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]
    return pre_tokenizers.Sequence(splits + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def there_from_files(vocabulary, merges):
    tokenizer = Tokenizer(models.BPE.from_file(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def trained(patterns, text, specials=("<|endoftext|>", "<|begin_of_text|>"), added=()):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split_by(patterns)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator([text], trainers.BpeTrainer(vocab_size=3000, special_tokens=list(specials), show_progress=False,
                                                              initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if added:
        tokenizer.add_tokens([AddedToken(word, normalized=False) for word in added])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))])
    return tokenizer


def llama3_specials():
    names = ["begin_of_text", "end_of_text", *(f"reserved_special_token_{i}" for i in range(4)), "start_header_id",
             "end_header_id", "reserved_special_token_4", "eot_id", *(f"reserved_special_token_{i}" for i in range(5, 251))]
    return [f"<|{name}|>" for name in names]


# ---- kappa ----

def read_shard(path):
    """The ids of a token file: a header of 256 numbers of 32 bits, then ids of 16 or 32."""
    with open(path, "rb") as file:
        data = file.read()
    magic, _, count = struct.unpack_from("<3i", data)
    kind = "H" if magic == 20240520 else "I"
    ids = memoryview(data)[1024:].cast(kind).tolist()
    assert len(ids) == count, (magic, len(ids), count)
    return ids


class Kappa:
    def __init__(self, program, folder):
        self.program, self.folder = os.path.abspath(program), folder

    def run(self, *words, **options):
        return subprocess.run([self.program, "tokenizer", *words], check=True, stdout=subprocess.PIPE, **options).stdout

    def encode(self, tokenizer, path, specials, threads):
        out = os.path.join(self.folder, "ids.bin")
        words = ["--specials"] if specials else []
        self.run("encode", tokenizer, "--file", path, "--out", out, "--threads", str(threads), *words)
        return read_shard(out)

    def decode(self, tokenizer):
        return self.run("decode", tokenizer, "--file", os.path.join(self.folder, "ids.bin"))


# ---- the comparison ----

def compare(case, ours, theirs, decode):
    for i, (a, b) in enumerate(zip(ours, theirs)):
        if a != b:
            fail(case, f"token {i} is {a} in kappa and {b} there; before: {decode(theirs[max(0, i - 5):i])!r}, "
                       f"kappa {decode(ours[i:i + 5])!r}, there {decode(theirs[i:i + 5])!r}")
    if len(ours) != len(theirs):
        fail(case, f"{len(ours)} tokens in kappa and {len(theirs)} there")


def check_one(kappa, case, path, text, there, rank_encoding=None):
    """`path` is what kappa opens, `there` a Tokenizer of the same, or None."""
    source = os.path.join(kappa.folder, "text")
    with open(source, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    for specials in (False, True):
        ours = kappa.encode(path, source, specials, 1)
        if kappa.encode(path, source, specials, 3) != ours:
            fail(case, "one thread and three give different ids")
        if kappa.decode(path) != text.encode():
            fail(case, "the decoded ids are not the text")
        if there is not None:
            there.encode_special_tokens = not specials
            compare(f"{case}, tokenizers", ours, there.encode(text, add_special_tokens=False).ids,
                    lambda ids: there.decode(ids, skip_special_tokens=False))
        if rank_encoding is not None:
            allowed = "all" if specials else set()
            theirs = rank_encoding.encode(text, allowed_special=allowed, disallowed_special=())
            compare(f"{case}, tiktoken", ours, theirs, rank_encoding.decode)
    print(f"equal: {case}: {len(text.encode())} bytes, {len(ours)} tokens")
    return ours


def check(kappa, case, path, text, there=None, rank_encoding=None):
    ours = check_one(kappa, case, path, text, there, rank_encoding)
    saved = os.path.join(kappa.folder, "saved.json")
    kappa.run("convert", path, "--out", saved)
    again = Tokenizer.from_file(saved)
    again.encode_special_tokens = False
    if again.encode(text, add_special_tokens=False).ids != ours:
        fail(case, "tokenizers gives other ids with the file that kappa wrote")
    here, there = (json.loads(kappa.run("info", p, "--json")) for p in (path, saved))
    if here != there:
        fail(case, f"saved and opened again it is another tokenizer: {here} and {there}")


def check_data(kappa, data, text):
    folder = kappa.folder
    vocabulary, merges = unpack(data, "gpt2/encoder.json", folder), unpack(data, "gpt2/vocab.bpe", folder)
    paths = {}
    if vocabulary and merges:
        paths["gpt2"] = vocabulary
        check(kappa, "GPT-2, encoder.json and vocab.bpe", vocabulary, text, there_from_files(vocabulary, merges))
    ranks = unpack(data, "gpt2/gpt2.tiktoken", folder)
    if ranks:
        encoding = tiktoken.Encoding("gpt2", pat_str=GPT2, mergeable_ranks=read_ranks(ranks),
                                     special_tokens={"<|endoftext|>": 50256})
        check(kappa, "GPT-2, ranks", ranks, text, rank_encoding=encoding)
    ranks = unpack(data, "llama3/tokenizer.model", folder)
    if ranks:
        paths["llama3"] = ranks
        encoding = tiktoken.Encoding("llama3", pat_str=LLAMA3, mergeable_ranks=read_ranks(ranks),
                                     special_tokens={name: 128000 + i for i, name in enumerate(llama3_specials())})
        check(kappa, "Llama 3, ranks", ranks, text, rank_encoding=encoding)
    if os.path.exists(os.path.join(data, "known_vectors.json")):
        check_known(kappa, data, paths)
    for name, path in paths.items():
        check_llamacpp(kappa, data, {"gpt2": "gpt-2", "llama3": "llama-bpe"}[name], path)


def encode_text(kappa, path, text):
    source = os.path.join(kappa.folder, "text")
    with open(source, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    return json.loads(kappa.run("encode", path, "--file", source, "--specials", "--json"))["ids"]


def check_known(kappa, data, paths):
    """Published vectors: of tiktoken's and Llama's own tests."""
    with open(os.path.join(data, "known_vectors.json"), encoding="utf-8") as file:
        vectors = [v for v in json.load(file) if v["tokenizer"] in paths]
    for vector in vectors:
        path = paths[vector["tokenizer"]]
        text = vector.get("text", "")
        for turn in vector.get("chat", []):
            text += f"<|start_header_id|>{turn['role']}<|end_header_id|>\n\n{turn['content']}<|eot_id|>"
        about = json.loads(kappa.run("info", path, "--json"))
        begin = [about["begin"]] if vector.get("bos") else []
        end = [about["end"]] if vector.get("eos") else []
        ours = begin + encode_text(kappa, path, text) + end
        if ours != vector["ids"]:
            fail(f"known vector {text!r} of {vector['tokenizer']}", f"{ours} in kappa, {vector['ids']} published")
    print(f"equal: {len(vectors)} known vectors")


def check_llamacpp(kappa, data, name, path):
    """The vectors of llama.cpp: texts with a line between them, the ids of each on a line."""
    stem = os.path.join(data, "llamacpp_vectors", f"ggml-vocab-{name}.gguf")
    if not os.path.exists(stem + ".inp"):
        return
    with open(stem + ".inp", encoding="utf-8", newline="") as file:
        texts = file.read().split("\n__ggml_vocab_test__\n")
    with open(stem + ".out", encoding="utf-8") as file:
        lines = [[int(word) for word in line.split()] for line in file]
    for text, expected in zip(texts, lines):
        ours = encode_text(kappa, path, text)
        if ours != expected:
            fail(f"{name}, {text!r}", f"{ours} in kappa, {expected} in llama.cpp")
    print(f"equal: {len(lines)} vectors of llama.cpp for {name}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kappa", default="build/kappa")
    parser.add_argument("--data", help="a folder with gpt2/ and llama3/")
    parser.add_argument("--text", action="append", default=[], help="texts to encode, for those of the project; may be .xz")
    parser.add_argument("--bytes", type=int, default=10_000_000, help="how much to encode with those of --data")
    arguments = parser.parse_args()
    text = mixed_text(arguments.text, arguments.bytes)
    some = "".join(filter(is_known, text[-1_000_000:]))
    with tempfile.TemporaryDirectory() as folder:
        kappa = Kappa(arguments.kappa, folder)
        vocabulary, merges = os.path.join(SMALL, "vocab.json"), os.path.join(SMALL, "merges.txt")
        if arguments.data:
            check_data(kappa, arguments.data, text)
        check(kappa, "500 tokens", vocabulary, some, there_from_files(vocabulary, merges))
        for patterns in [[GPT2], [LLAMA3], *OTHERS]:
            there = trained(patterns, some, added=[] if patterns == [GPT2] else ["the  ", "\n\n", "你"])
            path = os.path.join(folder, "trained.json")
            there.save(path)
            check(kappa, f"trained here, {patterns[0][:24]} ...", path, some, there)


if __name__ == "__main__":
    main()
