"""Writes livecodebench_prompts.json: prompts as LiveCodeBench's own code makes them.

    python tests/goldens/make_livecodebench_prompts.py [--checkout DIR]

needs nvidia-livecodebench 26.3, the package of LiveCodeBench, with datasets and anthropic 0.42.0
(later ones lack two names that it imports). It has no forms for reasoning models. With a checkout
of github.com/LiveCodeBench/LiveCodeBench they are made anew from its
lcb_runner/prompts/code_generation.py; without one those in the file stay, which were made from a
transcript of that file's two forms. The chat template that the style LLaMa3 fetches is left to the
tests: its messages are those of OpenAIChat.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

OUT = Path(__file__).resolve().parent / "livecodebench_prompts.json"
PACKAGED = {"livecodebench": "OpenAIChat", "livecodebench_qwen": "CodeQwenInstruct"}
IN_CHECKOUT = {"livecodebench_qwq": "QwQ", "livecodebench_deepseek_r1": "DeepSeekR1"}
PROBLEMS = {
    "stdin": {
        "question_content": (
            "Double n.\n\nInput\n\nAn integer n \u2264 10^9.\n\nSample\n\n```\n2\n```\n"
        ),
        "starter_code": "",
    },
    "function": {
        "question_content": "Double the integer n.",
        "starter_code": "class Solution:\n    def double(self, n: int) -> int:\n        ",
    },
}


def made_by(package: str, styles: dict[str, str]) -> dict[str, dict]:
    """Prompts of every problem by the `format_prompt_generation` of a package, by our names."""
    code = importlib.import_module(f"{package}.prompts.code_generation")
    known = importlib.import_module(f"{package}.lm_styles").LMStyle
    return {
        ours: {
            name: code.format_prompt_generation(SimpleNamespace(**problem), known[theirs])
            for name, problem in PROBLEMS.items()
        }
        for ours, theirs in styles.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path)
    checkout = parser.parse_args().checkout
    version = importlib.metadata.version("nvidia-livecodebench")
    prompts = made_by("livecodebench", PACKAGED)
    if checkout is None:
        kept = json.loads(OUT.read_text())["prompts"]
        prompts |= {style: kept[style] for style in IN_CHECKOUT}
    else:
        os.chdir(checkout)  # its examples are opened by a path relative to it
        sys.path.insert(0, str(checkout.resolve()))
        prompts |= made_by("lcb_runner", IN_CHECKOUT)
    golden = {
        "source": {
            **dict.fromkeys(PACKAGED, f"nvidia-livecodebench {version}"),
            **dict.fromkeys(
                IN_CHECKOUT, "LiveCodeBench/LiveCodeBench, lcb_runner/prompts/code_generation.py"
            ),
        },
        "problems": PROBLEMS,
        "prompts": prompts,
    }
    OUT.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
