"""OpenAI's CLIP weights: the names they have there, and the same model here.

    model = from_openai(load_file("ViT-B-32.safetensors"))

Their pictures are normalised by the mean and deviation of each colour; ours are in [-1, 1]. Both
are a line through the pixel's value, so that the patches' kernels and positions can take it in: the
model that is built gives their embeddings for our pictures.

Source: "Learning Transferable Visual Models From Natural Language Supervision", arXiv 2103.00020;
the names are those of the published state dictionaries.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from armchair.core.errors import BundleError
from armchair.models.clip import CLIPConfig, CLIPModel
from armchair.nn.skeletons import skeletons

_HEAD_DIM = 64
_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of red, green and blue in [0, 1]
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
_SIZES = ("input_resolution", "context_length", "vocab_size")  # the shapes say them too

_STARTS = {
    "visual.conv1.": "images.patches.",
    "visual.class_embedding": "images.class_token",
    "visual.positional_embedding": "images.positions",
    "visual.ln_pre.": "images.first_norm.",
    "visual.transformer.resblocks.": "images.blocks.",
    "visual.ln_post.": "images.norm.",
    "visual.proj": "images.projection.weight",
    "token_embedding.weight": "texts.tokens",
    "positional_embedding": "texts.positions",
    "transformer.resblocks.": "texts.blocks.",
    "ln_final.": "texts.norm.",
    "text_projection": "texts.projection.weight",
    "logit_scale": "log_scale",
}
_IN_BLOCKS = {
    ".ln_1.": ".attention_norm.",
    ".attn.in_proj_": ".attention.qkv.",
    ".attn.out_proj.": ".attention.projection.",
    ".ln_2.": ".mlp_norm.",
    ".mlp.c_fc.": ".mlp.hidden.",
    ".mlp.c_proj.": ".mlp.projection.",
}


def from_openai(state: Mapping[str, Tensor]) -> CLIPModel:
    """Build the model that a published state dictionary describes; its sizes are read off it.

    Args:
        state: Tensors under OpenAI's names, of any floating-point type.

    Returns:
        The model in float32, for pictures in [-1, 1].

    Raises:
        BundleError: It is not the state of a CLIP with a vision transformer.
    """
    ours = {_rename(name): t.float() for name, t in state.items() if name not in _SIZES}
    try:
        for name in ("images.projection.weight", "texts.projection.weight"):
            ours[name] = ours[name].mT.contiguous()
        ours["images.class_token"] = ours["images.class_token"][None]
        _take_in_normalisation(ours)
        config = _sizes(ours)
        with skeletons():
            model = CLIPModel(config)
        model.load_state_dict(ours, assign=True)
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BundleError(
            f"these are not the weights of a CLIP: {reason}",
            expected="the names and shapes of OpenAI's vision transformers, such as ViT-B/32",
        ) from error
    return model


def _rename(name: str) -> str:
    for theirs, ours in _STARTS.items():
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
            break
    for theirs, ours in _IN_BLOCKS.items():
        name = name.replace(theirs, ours)
    return name


def _take_in_normalisation(state: dict[str, Tensor]) -> None:
    """((x + 1) / 2 - mean) / deviation of every pixel x, before the patches' kernels."""
    mean, deviation = torch.tensor(_MEAN), torch.tensor(_DEVIATION)
    kernels, positions = state["images.patches.weight"], state["images.positions"]  # D 3 P P
    offset = torch.einsum("dcpq,c->d", kernels, (0.5 - mean) / deviation)
    state["images.patches.weight"] = kernels * (0.5 / deviation)[:, None, None]
    state["images.positions"] = torch.cat([positions[:1], positions[1:] + offset])


def _sizes(state: Mapping[str, Tensor]) -> CLIPConfig:
    image_dim, _, patch_size, _ = state["images.patches.weight"].shape
    vocab_size, text_dim = state["texts.tokens"].shape
    side = round((len(state["images.positions"]) - 1) ** 0.5)
    return CLIPConfig(
        image_size=side * patch_size,
        patch_size=patch_size,
        image_dim=image_dim,
        image_layers=_count_blocks(state, "images"),
        image_heads=image_dim // _HEAD_DIM,
        text_vocab_size=vocab_size - 1,
        text_length=len(state["texts.positions"]),
        text_dim=text_dim,
        text_layers=_count_blocks(state, "texts"),
        text_heads=text_dim // _HEAD_DIM,
        embedding_dim=len(state["texts.projection.weight"]),
        activation="quick_gelu",
    )


def _count_blocks(state: Mapping[str, Tensor], where: str) -> int:
    return sum(name.endswith(".qkv.weight") for name in state if name.startswith(where))
