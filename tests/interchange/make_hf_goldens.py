"""Writes tests/interchange/data/hf_*: tiny models as transformers saves them, with their logits.

  python tests/interchange/make_hf_goldens.py     (needs torch, transformers and safetensors)
"""

import json
import os
import shutil

import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]


def write(name, model, **save):
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    model = model.to(save.pop("dtype", torch.float32))
    folder = os.path.join(DATA, name)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, **save)
    os.remove(os.path.join(folder, "generation_config.json"))
    with torch.no_grad():
        # Opened again: a cast to bfloat16 has rounded the angles too.
        again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
        logits = again(torch.tensor([TOKENS])).logits[0]
    with open(os.path.join(folder, "logits.json"), "w") as file:
        json.dump({"tokens": TOKENS, "logits": [[round(x, 9) for x in row] for row in logits.tolist()]}, file)


torch.manual_seed(0)
write("hf_gpt2", GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=8, vocab_size=11, n_positions=12,
                                            bos_token_id=0, eos_token_id=0)))
write("hf_llama", LlamaForCausalLM(LlamaConfig(
    num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_size=16, intermediate_size=20,
    vocab_size=11, max_position_embeddings=12, bos_token_id=0, eos_token_id=0,
    rope_parameters=dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                         original_max_position_embeddings=6))), dtype=torch.bfloat16, max_shard_size="4KB")
