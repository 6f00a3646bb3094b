"""Writes smollm2.npz and smollm2_tokens.json: SmolLM2's GGUF file as torch transformers reads it.

    python tests/goldens/make_smollm2.py PATH/SmolLM2-135M-Instruct.Q4_1.gguf

needs torch, transformers and gguf. transformers 5.23 reads vocabulary, merges and template from the
file but not `tokenizer.ggml.pre`; the model's published tokenizer (tokenizer.json of
HuggingFaceTB/SmolLM2-135M-Instruct) cuts digits one by one before the byte-level split, so that cut
is set here.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = (
    "Write a function that returns the larger of two integers.",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return ",
)
GREEDY = (
    *PROMPTS,
    "import math\n\n\ndef is_prime(n):\n",
    "The three largest cities of France are",
    "# Sort a list of words by length, then alphabetically\nwords = ",
)
STRINGS = (
    "",
    " ",
    "Hello, world!",
    "  leading and trailing  ",
    "tabs\tand\n\nnewlines\r\n",
    "1234567890 3.14159 x2 2x",
    "x = [ 10,  20,   300 ]\n        y = 4",
    "naïve café — “quotes” … €",
    "日本語のテキスト と 한국어",
    "emoji 👩‍🚀🎉 done",
    "don't we'll I'M THEY'RE",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>",
    "<|im_start |> not special <|im_end",
    "def f(a: int) -> str:\n    return f'{a!r}'  # comment\n",
    "a\u0301 \u00e1 \x00\x7f \ufeff",
)
CHATS = (
    [{"role": "user", "content": "What is 12 + 30?"}],
    [
        {"role": "system", "content": "You write Python."},
        {"role": "user", "content": "Reverse a list."},
        {"role": "assistant", "content": "xs[::-1]"},
        {"role": "user", "content": "In place?"},
    ],
)
TOP, STRIDED = 32, 64


def greedy(model, tokenizer) -> dict[str, np.ndarray]:
    """The likeliest 64 tokens after each of GREEDY's prompts, on beyond an end of sequence."""
    model.generation_config.eos_token_id = None
    out = {}
    for i, prompt in enumerate(GREEDY):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        made = model.generate(ids, do_sample=False, max_new_tokens=64)
        out[f"greedy_ids_{i}"] = ids[0].numpy().astype(np.int32)
        out[f"greedy_{i}"] = made[0, ids.shape[1] :].numpy().astype(np.int32)
    return out


def main(gguf: Path) -> None:
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32).eval()
    out = {}
    for i, prompt in enumerate(PROMPTS):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            logits = model(ids).logits[0].float().numpy()
        where = np.array([0, len(logits) // 2, len(logits) - 1])
        top = np.argsort(-logits[where], axis=-1)[:, :TOP]
        stride = logits.shape[-1] // STRIDED
        out |= {
            f"ids_{i}": ids[0].numpy().astype(np.int32),
            f"where_{i}": where,
            f"top_ids_{i}": top.astype(np.int32),
            f"top_{i}": np.take_along_axis(logits[where], top, axis=-1),
            f"strided_{i}": logits[where][:, ::stride],
            f"logsumexp_{i}": torch.logsumexp(torch.tensor(logits), -1).numpy(),
        }
    out |= greedy(model, tokenizer)
    text = {
        "strings": {s: tokenizer(s).input_ids for s in STRINGS},
        "chats": [
            {
                "messages": chat,
                "text": tokenizer.apply_chat_template(
                    chat, tokenize=False, add_generation_prompt=True
                ),
                "ids": tokenizer.apply_chat_template(
                    chat, add_generation_prompt=True, return_dict=False
                ),
            }
            for chat in CHATS
        ],
        "decoded": {s: tokenizer.decode(tokenizer(s).input_ids) for s in STRINGS},
        "special": {
            name: getattr(tokenizer, name) for name in ("bos_token", "eos_token", "unk_token")
        },
    }
    folder = Path(__file__).parent
    np.savez_compressed(folder / "smollm2.npz", **out)
    (folder / "smollm2_tokens.json").write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
