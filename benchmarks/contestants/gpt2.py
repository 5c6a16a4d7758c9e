"""GPT-2 of transformers, in the shapes of a DALL·E: what people would use instead."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from serving import Run, serve
from shapes import SHAPES

WARM_UP = 8  # image tokens


def build(task: str, shape: str, batch: int, variant: str) -> tuple[Run, dict[str, Any]]:
    """A task; the variant is its precision: weights for drawing, autocast for training."""
    torch.manual_seed(0)
    sizes = SHAPES[shape]
    config = transformers.GPT2Config(
        vocab_size=sizes.text_vocab + sizes.image_vocab,
        n_positions=sizes.length,
        n_embd=sizes.dim,
        n_layer=sizes.num_layers,
        n_head=sizes.num_heads,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = transformers.GPT2LMHeadModel(config)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[variant]
    about = {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "precision": variant,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    run = _sampling if task == "sample" else _training
    return run(model, shape, batch, dtype), about


def _sampling(model: Any, shape: str, batch: int, dtype: torch.dtype) -> Run:
    sizes = SHAPES[shape]
    model.to(dtype).eval()
    text = torch.randint(sizes.text_vocab, (1, sizes.text_length)).repeat(batch, 1)

    @torch.no_grad()
    def draw(count: int = sizes.image_length) -> int:
        model.generate(
            text,
            attention_mask=torch.ones_like(text),
            do_sample=True,
            top_k=sizes.image_vocab // 2,
            min_new_tokens=count,
            max_new_tokens=count,
            use_cache=True,
        )
        return batch * count

    draw(WARM_UP)
    return draw


def _training(model: Any, shape: str, batch: int, dtype: torch.dtype) -> Run:
    sizes = SHAPES[shape]
    tokens = torch.randint(sizes.text_vocab + sizes.image_vocab, (batch, sizes.length))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    model.train()

    def update() -> int:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return batch * sizes.length

    update()
    return update


if __name__ == "__main__":
    serve(build)
