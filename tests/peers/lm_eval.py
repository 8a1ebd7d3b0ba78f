"""kappa's multiple choice against lm-evaluation-harness on the same model, question by question.

A GPT-2 with random weights and a byte-level BPE, both made here, is scored by lm_eval through transformers, by its
own task definitions on local files, and by kappa after `kappa import`.  The questions are invented, or with --data
those of a folder with ARC's, HellaSwag's, ... files in the layout {query, choices, gold}.

Compared are the log-likelihood of every choice, accuracies and their standard errors.

  python tests/peers/lm_eval.py --kappa build/kappa [--data FOLDER --questions 200]
"""

import argparse
import json
import lzma
import os
import random
import subprocess
import sys
import tempfile

for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ[name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_WAIT_POLICY"] = "passive"
# This file has the name of the package.
sys.path = [p for p in sys.path if os.path.abspath(p or ".") != os.path.dirname(os.path.abspath(__file__))]

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

VOCABULARY, TOLERANCE = 1200, 1e-5
SUBJECTS = ["abstract_algebra", "us_foreign_policy"]
TASKS = os.path.join(os.path.dirname(lm_eval.__file__), "tasks")

# ---- invented questions ----

WORDS = (
    "the a of river stone light runs under Who WHAT bridge, over; don't it's 3.14 1,000 water—air café naïve Ünder "
    "日本 語 😀 x² e.g. (maybe) [title] [step] quick  slowly \tTab energy cell plant"
).split(" ")


def text(draw, low, high):
    return " ".join(draw.choice(WORDS) for _ in range(draw.randint(low, high)))


def choices(draw, count):
    found = []
    while len(found) < count:
        choice = text(draw, 1, 8).strip() or "nothing"
        if choice not in found:
            found.append(choice)
    return found


def invent(task, draw, count):
    """Objects {query, choices, gold} and, of some tasks, more."""
    made = []
    for i in range(count):
        size = {"piqa": 2, "social_iqa": 3, "commonsense_qa": 5}.get(task, 4)
        if task.startswith("arc") and i % 7 == 3:
            size = 3 + 2 * (i % 2)
        one = {"query": (text(draw, 3, 25).strip() or "why") + draw.choice(["", "?", " ", " ?\n"])}
        one["choices"] = choices(draw, size)
        one["gold"] = draw.randrange(size)
        made.append(one)
    return made


def read(folder, name):
    with lzma.open(os.path.join(folder, name + ".jsonl.xz"), "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


FILES = {  # of --data: scored, examples
    "hellaswag": ("hellaswag_val_1k", "hellaswag_val_1k"),
    "arc_easy": ("arc_easy_test", "arc_easy_train"),
    "arc_challenge": ("arc_challenge_test", "arc_challenge_train"),
    "openbookqa": ("openbookqa_test", "openbookqa_train"),
    "piqa": ("piqa_val", "piqa_val"),
    "social_iqa": ("socialiqa_val", "socialiqa_val"),
    "commonsense_qa": ("commonsenseqa_val", "commonsenseqa_train"),
}

# ---- layouts: what lm_eval reads (that of Hugging Face), and what kappa reads (that of publication) ----


def letters(count, digits):
    return [str(i + 1) if digits else "ABCDE"[i] for i in range(count)]


def both_layouts(task, one, draw, index):
    query, options, gold = one["query"], one["choices"], one["gold"]
    if task == "hellaswag":
        words = query.split(" ")
        cut = draw.randint(1, len(words))
        made = {
            "ind": index,
            "activity_label": "Home and Garden",
            "ctx_a": " ".join(words[:cut]),
            "ctx_b": " ".join(words[cut:]),
            "endings": options,
            "label": str(gold),
        }
        return made, made
    if task == "piqa":
        made = {"goal": query.removeprefix("Goal: "), "sol1": options[0], "sol2": options[1], "label": gold}
        return made, {"query": "Goal: " + made["goal"], "choices": options, "gold": gold} if index % 2 else made
    if task == "social_iqa":
        made = {"context": query, "question": "Why?", "label": str(gold + 1)}
        made.update({"answer" + "ABC"[i]: option for i, option in enumerate(options)})
        return made, made
    names = letters(len(options), task.startswith("arc") and index % 5 == 0)
    stem = "question_stem" if task == "openbookqa" else "question"
    theirs = {stem: query, "choices": {"text": options, "label": names}, "answerKey": names[gold]}
    pairs = [{"label": n, "text": o} for n, o in zip(names, options)]
    published = {"id": str(index), "question": {"stem": query, "choices": pairs}, "answerKey": names[gold]}
    return theirs, [theirs, published, one][index % 3]


def write(path, objects):
    with open(path, "w", encoding="utf-8") as out:
        for one in objects:
            out.write(json.dumps(one, ensure_ascii=False) + "\n")
    return path


# ---- the model ----


def make_model(folder, texts, context):
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(5)
    config = transformers.GPT2Config(
        vocab_size=bpe.get_vocab_size(),
        n_positions=context,
        n_embd=48,
        n_layer=2,
        n_head=4,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    model.save_pretrained(folder)
    return model, tokenizer


# ---- the two ----


def task_file(task, name, folder, scored, examples):
    """lm_eval's own definition with local files in place of its data set."""
    splits = {"arc_easy": "test", "arc_challenge": "test", "openbookqa": "test"}
    split = splits.get(task, "validation")
    where = {
        "hellaswag": "hellaswag/hellaswag.yaml",
        "arc_easy": "arc/arc_easy.yaml",
        "arc_challenge": "arc/arc_challenge.yaml",
        "openbookqa": "openbookqa/openbookqa.yaml",
        "piqa": "piqa/piqa.yaml",
        "social_iqa": "siqa/siqa.yaml",
        "commonsense_qa": "commonsense_qa/default.yaml",
    }
    lines = [f"task: {name}", "dataset_path: json", "dataset_name: null"]
    if task in where:
        lines.insert(0, f"include: {os.path.join(TASKS, where[task])}")
        lines += ["training_split: train", f"{split}_split: {split}"]
        lines += ["validation_split: null"] if split == "test" else []
        files = {"train": examples, split: scored}
    else:
        subject = name.removeprefix("kappa_mmlu_")
        lines.insert(0, f"include: {os.path.join(TASKS, 'mmlu/default/_default_template_yaml')}")
        about = subject.replace("_", " ")
        lines.append(
            f'description: "The following are multiple choice questions (with answers) about {about}.\\n\\n"'
        )
        files = {"dev": examples, "test": scored}
    lines.append(f"dataset_kwargs: {{data_files: {json.dumps(files)}}}")
    with open(os.path.join(folder, name + ".yaml"), "w", encoding="utf-8") as out:
        out.write("\n".join(lines) + "\n")


def score_there(lm, folder, name, shots):
    results = lm_eval.simple_evaluate(
        model=lm,
        tasks=[name],
        num_fewshot=shots,
        task_manager=TaskManager(include_path=folder, include_defaults=False),
        log_samples=True,
        bootstrap_iters=100,
        cache_requests=False,
    )
    samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
    return results["results"][name], [[pair[0] for pair in sample["filtered_resps"]] for sample in samples]


def score_here(kappa, run, folder, task, scored, examples, shots):
    details = os.path.join(folder, "details.jsonl")
    words = [kappa, "eval", run, "--task", task, "--data", scored, "--details", details, "--json"]
    words += ["--shots", str(shots), "--examples", examples]
    result = subprocess.run(words, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(words)}: {result.stderr}")
    with open(details, encoding="utf-8") as lines:
        return json.loads(result.stdout), [json.loads(line)["log_likelihoods"] for line in lines]


def compare(name, shots, theirs, here):
    their_result, their_scores = theirs
    result, scores = here
    words = f"{name}, {shots}-shot"
    if len(scores) != len(their_scores):
        sys.exit(f"{words}: {len(scores)} questions, lm_eval has {len(their_scores)}")
    worst = 0
    for number, (a, b) in enumerate(zip(scores, their_scores)):
        if len(a) != len(b):
            sys.exit(f"{words}, question {number + 1}: {len(a)} choices, lm_eval has {len(b)}")
        for x, y in zip(a, b):
            off = abs(x - y) / max(1, abs(y))
            worst = max(worst, off)
            if not off <= TOLERANCE:
                sys.exit(f"{words}, question {number + 1}: log-likelihood {x!r}, lm_eval has {y!r}")
    pairs = [("accuracy", "acc,none"), ("accuracy_error", "acc_stderr,none")]
    if "acc_norm,none" in their_result:
        pairs += [("accuracy_norm", "acc_norm,none"), ("accuracy_norm_error", "acc_norm_stderr,none")]
    for mine, other in pairs:
        if not abs(result[mine] - their_result[other]) <= 1e-9:
            sys.exit(f"{words}: {mine} {result[mine]!r}, lm_eval has {their_result[other]!r}")
    print(
        f"{words:28s} {len(scores):5d} questions, {sum(map(len, scores)):5d} choices: largest relative difference "
        f"{worst:.1e}; accuracy {result['accuracy']:.4f} equal ({result['cut']} cut)",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kappa", required=True)
    parser.add_argument("--data")
    parser.add_argument("--questions", type=int, default=25)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kappa, draw = os.path.abspath(arguments.kappa), random.Random(3)
    folder = tempfile.mkdtemp(prefix="kappa-lm-eval-")
    questions = {}
    for task, (scored, examples) in FILES.items():
        if arguments.data:
            first, second = read(arguments.data, scored), read(arguments.data, examples)
            questions[task] = (first[: arguments.questions], second[-100:])
        else:
            questions[task] = (invent(task, draw, arguments.questions), invent(task, draw, 40))
    for subject in SUBJECTS:
        if arguments.data:
            scored = [q for q in read(arguments.data, "mmlu_test") if q["subject"] == subject]
            examples = [q for q in read(arguments.data, "mmlu_dev") if q["subject"] == subject]
        else:
            scored, examples = invent("mmlu", draw, arguments.questions), invent("mmlu", draw, 5)
            for one in scored + examples:
                one.update(question=one.pop("query"), answer=one.pop("gold"), subject=subject)
        questions["mmlu_" + subject] = (scored[: arguments.questions], examples)
    everything = [q.get("query", q.get("question")) for pair in questions.values() for q in pair[0] + pair[1]]
    everything += [c for pair in questions.values() for q in pair[0] for c in q["choices"]]
    # The invented questions are short, and with examples do not all fit.
    context = 640 if arguments.data else 160
    model, tokenizer = make_model(os.path.join(folder, "model"), everything, context)
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8, device="cpu")
    run = os.path.join(folder, "run")
    subprocess.run([kappa, "import", os.path.join(folder, "model"), "--out", run], check=True, capture_output=True)
    count = 0
    for name, sets in questions.items():
        task = "mmlu" if name.startswith("mmlu") else name
        paths = {}
        for role, objects in zip(("scored", "examples"), sets):
            pairs = [(o, o) if task == "mmlu" else both_layouts(task, o, draw, i) for i, o in enumerate(objects)]
            paths[role] = [
                write(os.path.join(folder, f"{name}.{role}.{side}.jsonl"), [p[i] for p in pairs])
                for i, side in enumerate(("theirs", "ours"))
            ]
        task_file(task, "kappa_" + name, folder, paths["scored"][0], paths["examples"][0])
        for shots in (0, 2, 5):
            theirs = score_there(lm, folder, "kappa_" + name, shots)
            here = score_here(kappa, run, folder, task, paths["scored"][1], paths["examples"][1], shots)
            compare(name, shots, theirs, here)
            count += len(here[1])
    print(f"{count} questions are scored as by lm_eval {lm_eval.__version__}")


if __name__ == "__main__":
    main()
