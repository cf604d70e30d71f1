"""Time and memory of extracting a training step, each model in a process of its own.

    python tools/bench_extract.py

Models of transformers are built from a config; no weights are loaded or made.
"""

import argparse
import resource
import subprocess
import sys
import time

MODELS = ("inception_v3", "gpt2", "llama-70b", "transformer", "gnmt")


def extract(name: str) -> None:
    """Extract one model here and print a row."""
    import torch

    from baechi.frontends.pytorch import build_meta, capture
    from baechi.models.base import names

    if name in names():
        from baechi.target import load_target

        target = load_target(f"models:{name}")
        assert target.job is not None
        start = time.perf_counter()
        program = target.program
    else:
        from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

        configs = {
            "gpt2": (GPT2Config(use_cache=False), 128),
            "llama-70b": (
                LlamaConfig(
                    hidden_size=8192,
                    num_hidden_layers=80,
                    num_attention_heads=64,
                    num_key_value_heads=8,
                    intermediate_size=28672,
                    vocab_size=128256,
                    max_position_embeddings=4096,
                    use_cache=False,
                ),
                4096,
            ),
        }
        config, length = configs[name]
        ids = torch.zeros(1, length, dtype=torch.int64)
        start = time.perf_counter()
        model = build_meta(lambda: AutoModelForCausalLM.from_config(config))
        program = capture(model, (ids,), {"labels": ids}, loss="output", optimizer="adamw", name=name)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    work = sum(1 for op in program.graph.ops if op.kind not in ("parameter", "buffer", "input", "constant", "tangent"))
    print(f"| {name} | {len(program.graph):,} | {work:,} | {seconds:.1f} s | {peak / 1e6:.0f} MB |", flush=True)


def main() -> None:
    """Print one row for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--here", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        extract(args.here)
        return
    print("| model | ops | without inputs and weights | extraction | peak memory of the process |")
    print("|---|---|---|---|---|", flush=True)
    for name in args.models.split(","):
        subprocess.run([sys.executable, __file__, "--here", name], check=True)


if __name__ == "__main__":
    main()
