"""x-transformers' decoder and its autoregressive wrapper, with its cache."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import torch
from serving import Run, serve
from shapes import SHAPES
from x_transformers import AutoregressiveWrapper, Decoder, TransformerWrapper

WARM_UP = 8  # image tokens


def build(task: str, shape: str, batch: int, variant: str) -> tuple[Run, dict[str, Any]]:
    """Drawing alone; the variant is the precision of its weights."""
    assert task == "sample"
    torch.manual_seed(0)
    sizes = SHAPES[shape]
    decoder = Decoder(
        dim=sizes.dim,
        depth=sizes.num_layers,
        heads=sizes.num_heads,
        attn_dim_head=sizes.dim // sizes.num_heads,
        attn_flash=True,
    )
    num_tokens = sizes.text_vocab + sizes.image_vocab
    network = TransformerWrapper(
        num_tokens=num_tokens, max_seq_len=sizes.length, attn_layers=decoder
    )
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[variant]
    model = AutoregressiveWrapper(network).to(dtype).eval()
    text = torch.randint(sizes.text_vocab, (1, sizes.text_length)).repeat(batch, 1)

    @torch.no_grad()
    def draw(count: int = sizes.image_length) -> int:
        model.generate(text, count, cache_kv=True, filter_kwargs={"k": sizes.image_vocab // 2})
        return batch * count

    draw(WARM_UP)
    about = {
        "x-transformers": importlib.metadata.version("x-transformers"),
        "torch": torch.__version__,
        "precision": variant,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    return draw, about


if __name__ == "__main__":
    serve(build)
