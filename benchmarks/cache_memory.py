"""The memory of drawing 64 pictures of one prompt, and what a cache of every token would take.

    python benchmarks/cache_memory.py

Shape B of `make bench`. Each is a process of its own that draws the last tokens of 64 pictures: the
paper's pattern, whose layers keep what they may still see and whose pictures share their prompt;
and full attention with a prompt for each picture, which keeps every key and value. What is compared
is the peak of a process above that of one that draws a single picture of one prompt. Writes
benchmarks/results/cache_memory.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from contestants.serving import peak_bytes
from contestants.shapes import SHAPES

from armchair.core.files import write_text
from armchair.core.provenance import provenance
from armchair.models.sequence.compiled_decoder import CompiledDecoder
from armchair.models.sequence.text_to_image import TextToImageConfig, TextToImageTransformer
from armchair.nn.masks import AttentionName

RESULT = Path(__file__).parent / "results" / "cache_memory.json"
PICTURES, TOKENS = 64, 2  # drawn of each picture; those before are given


def draw(attention: AttentionName, pictures: int, prompts: int) -> int:
    """Draw the last tokens of pictures, as many of each prompt; the peak of this process, bytes."""
    sizes = SHAPES["B"]
    torch.manual_seed(0)
    model = TextToImageTransformer(TextToImageConfig(**sizes.config, attention=attention))
    codes = torch.randint(sizes.image_vocab, (TOKENS, pictures))
    with torch.no_grad():
        text = torch.randint(sizes.text_vocab, (prompts, sizes.text_length))
        cache = model.new_cache(num_prompts=prompts)
        for number in range(prompts):
            model.prefill(text[number : number + 1], text[:1, :0], cache.of_prompt(number))
        rows = torch.arange(prompts).repeat(pictures // prompts)
        decoder = CompiledDecoder(model, cache, rows)
        for index, last in enumerate(codes, sizes.image_length - 1 - TOKENS):
            decoder(last, index)
    return peak_bytes()


def peak_of(*words: str) -> int:
    """What `draw` says in a process of its own."""
    command = [sys.executable, __file__, *words]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measure, print, and write it down."""
    alone = peak_of("paper", "1", "1")
    ours = peak_of("paper", str(PICTURES), "1")
    dense = peak_of("full", str(PICTURES), str(PICTURES))
    times = (dense - alone) / (ours - alone)
    for name, peak in (("one picture", alone), ("ours", ours), ("every token of each", dense)):
        print(f"{name}: {peak / 2**20:,.0f} MiB")
    print(f"ours takes {dense / ours:.1f} times less, above one picture {times:.1f} times")
    peaks = {"one_picture": alone, "ours": ours, "dense": dense}
    result = {"peak_bytes": peaks, **provenance(torch.device("cpu"))}
    write_text(RESULT, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(draw(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))  # type: ignore[arg-type]
    else:
        main()
