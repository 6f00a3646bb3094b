"""A very small Llama with a byte-level tokenizer, written as a real .gguf file, and problems.

Everything that reads, samples, trains and saves runs on it as on a real model, in seconds.
"""

import json
from pathlib import Path

import gguf
import numpy as np
from transformers.convert_slow_tokenizer import bytes_to_unicode

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
D, F, L, H, K, A = 32, 64, 2, 4, 2, 8
MERGED = ("ĠĠ", "in")
V = 256 + len(SPECIALS) + len(MERGED)


def write_tiny_gguf(path: Path, seed: int = 0) -> Path:
    """Write the model; weights are normal(0, 0.15), so that its distributions are far from flat."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.15, shape).astype(np.float32)

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(L)
    writer.add_context_length(1024)
    writer.add_embedding_length(D)
    writer.add_feed_forward_length(F)
    writer.add_head_count(H)
    writer.add_head_count_kv(K)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*SPECIALS, *bytes_to_unicode().values(), *MERGED])
    writer.add_token_types([3] * len(SPECIALS) + [1] * (256 + len(MERGED)))
    writer.add_token_merges([" ".join(pair) for pair in MERGED])
    writer.add_eos_token_id(2)
    writer.add_bos_token_id(1)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    writer.add_tensor("token_embd.weight", normal(V, D))
    writer.add_tensor("output_norm.weight", np.ones(D, np.float32))
    for i in range(L):
        for name, shape in {
            "attn_q": (H * A, D),
            "attn_k": (K * A, D),
            "attn_v": (K * A, D),
            "attn_output": (D, H * A),
            "ffn_gate": (F, D),
            "ffn_up": (F, D),
            "ffn_down": (D, F),
        }.items():
            writer.add_tensor(f"blk.{i}.{name}.weight", normal(*shape))
        writer.add_tensor(f"blk.{i}.attn_norm.weight", np.ones(D, np.float32))
        writer.add_tensor(f"blk.{i}.ffn_norm.weight", np.ones(D, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_problems(path: Path, **changes) -> Path:
    """Ten training and two held-out problems: add a constant."""
    with path.open("w") as file:
        for i in range(12):
            tests = [
                {"input": str(n), "output": str(n + i), "testtype": "functional"} for n in (0, 5)
            ]
            row = {
                "question_title": f"Add {i}",
                "question_content": f"f(x) adds {i}.",
                "platform": "example",
                "question_id": f"add{i}",
                "contest_id": "c",
                "contest_date": "2025-01-01T00:00:00",
                "starter_code": "def f(x):",
                "difficulty": "easy",
                "public_test_cases": json.dumps(tests[:1]),
                "private_test_cases": json.dumps(tests[1:]),
                "metadata": json.dumps({"func_name": "f"}),
                "split": "train" if i < 10 else "validation",
            }
            file.write(json.dumps({**row, **changes}) + "\n")
    return path
