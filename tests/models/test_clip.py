import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import contracts
from armchair.core.errors import BundleError, ConfigError
from armchair.models.clip import (
    CLIPConfig,
    CLIPModel,
    contrastive_loss,
    embed_texts,
    recall_at,
)
from armchair.models.clip_weights import from_openai

TINY = CLIPConfig(
    image_size=16,
    patch_size=4,
    image_dim=16,
    image_layers=2,
    image_heads=2,
    text_vocab_size=11,
    text_length=6,
    text_dim=8,
    text_layers=2,
    text_heads=2,
    embedding_dim=5,
)
VIT_B_32 = CLIPConfig(
    image_size=224,
    patch_size=32,
    image_dim=768,
    image_layers=12,
    image_heads=12,
    text_vocab_size=49_407,
    text_length=77,
    text_dim=512,
    text_layers=12,
    text_heads=8,
    embedding_dim=512,
    activation="quick_gelu",
)
END = TINY.text_vocab_size
TEXT = torch.tensor([[1, 2, 3, END, 0, 0], [4, END, 7, 7, 7, 7], [5, 6, 7, 8, 9, END]])


def build(**changes):
    return CLIPModel(dataclasses.replace(TINY, **changes))


def images(count, size=16):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


# The model


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 151_277_313),
        ({"patch_size": 16}, 149_620_737),
        (
            {
                "patch_size": 14,
                "image_dim": 1024,
                "image_layers": 24,
                "image_heads": 16,
                "text_dim": 768,
                "text_heads": 12,
                "embedding_dim": 768,
            },
            427_616_513,
        ),
    ],
    ids=["ViT-B/32", "ViT-B/16", "ViT-L/14"],
)
def test_parameters_of_the_published_models(changes, count):
    with torch.device("meta"):
        model = CLIPModel(dataclasses.replace(VIT_B_32, **changes))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_embeddings_are_unit_vectors_of_one_space():
    model = contracts.seeded(build)
    for embeddings in (model.encode_images(images(3)), model.encode_texts(TEXT)):
        assert embeddings.shape == (3, 5)
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))


def test_a_gradient_reaches_every_parameter():
    model = contracts.seeded(build)
    pairs = model.encode_images(images(3)), model.encode_texts(TEXT)
    contracts.gradient_reaches_every_parameter(model, contrastive_loss(*pairs, model.scale))


def test_rows_do_not_mix():
    model = contracts.seeded(build)
    contracts.rows_do_not_mix(model.encode_images, images(3), tolerance=1e-6)
    contracts.rows_do_not_mix(model.encode_texts, TEXT, tolerance=1e-6)


def test_it_saves_and_loads(tmp_path):
    contracts.saves_and_loads(build, lambda m: m.encode_images(images(2)), tmp_path / "state")
    contracts.same_seed_same_result(build, lambda m: m.encode_texts(TEXT))


def test_a_text_is_read_where_it_ends():
    """Whatever follows the end does not matter, and every token up to it does."""
    model = contracts.seeded(build)
    embeddings = model.encode_texts(TEXT)
    for row, end in enumerate([3, 1, 5]):
        for position in range(TINY.text_length):
            other = TEXT.clone()
            other[row, position] = (other[row, position] + 1) % END  # never an end
            changed = not torch.equal(model.encode_texts(other)[row], embeddings[row])
            assert changed == (position <= end)


def test_positions_after_the_end_of_all_texts_are_not_computed():
    model, lengths = contracts.seeded(build), []
    model.texts.blocks[0].register_forward_pre_hook(
        lambda _, given: lengths.append(len(given[0][0]))
    )
    whole, short = model.encode_texts(TEXT), model.encode_texts(TEXT[:2])
    assert lengths == [TINY.text_length, 4]
    torch.testing.assert_close(short, whole[:2], rtol=0, atol=1e-6)


def test_texts_are_embedded_by_length_and_given_in_their_own_order():
    model, lengths = contracts.seeded(build), []
    expected = model.encode_texts(TEXT)
    model.texts.blocks[0].register_forward_pre_hook(
        lambda _, given: lengths.append(len(given[0][0]))
    )
    torch.testing.assert_close(embed_texts(model, TEXT, batch_size=1), expected, rtol=0, atol=1e-6)
    assert lengths == sorted(lengths)
    assert len(lengths) == len(TEXT)


def test_every_larger_id_is_the_end_and_a_full_text_needs_none():
    model = contracts.seeded(build)
    padded = torch.tensor([[1, 2, 3, END + 3, END + 4, END + 5]])  # an id for every position
    assert torch.equal(model.encode_texts(padded), model.encode_texts(TEXT[:1]))
    full = torch.tensor([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7]])
    first, other = model.encode_texts(full)
    assert not torch.equal(first, other)


def test_a_picture_is_seen_whole():
    """Every patch reaches the embedding, in whatever order: attention has no direction."""
    model = contracts.seeded(build)
    pixels = images(1).requires_grad_()
    model.encode_images(pixels)[0, 0].backward()
    patches = pixels.grad.unfold(2, 4, 4).unfold(3, 4, 4).abs().sum(dim=(0, 1, 4, 5))
    assert (patches > 0).all()


def test_the_scale_starts_at_the_papers_and_stays_below_100():
    model = contracts.seeded(build)
    assert model.scale.item() == pytest.approx(1 / 0.07)
    model.limit_scale()
    assert model.scale.item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        model.log_scale.fill_(7.0)
    model.limit_scale()
    assert model.scale.item() == pytest.approx(100)
    assert model.log_scale.requires_grad


def test_autocast_leaves_embeddings_in_float32_and_near():
    model = contracts.seeded(build)
    exact = model.encode_images(images(2)), model.encode_texts(TEXT)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.encode_images(images(2)), model.encode_texts(TEXT)
    for a, b in zip(exact, rounded, strict=True):
        assert b.dtype == torch.float32
        torch.testing.assert_close(a, b, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("image_size", 18, "multiple of patch_size = 4"),
        ("image_dim", 15, "multiple of image_heads = 2"),
        ("text_dim", 9, "multiple of text_heads = 2"),
        ("text_layers", 0, "at least 1"),
        ("embedding_dim", -1, "at least 1"),
    ],
)
def test_configs_that_make_no_sense(field, value, message):
    with pytest.raises(ConfigError, match=f"(?s){field}.*{message}"):
        dataclasses.replace(TINY, **{field: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 1}, "patch_size.*power of 2"),
        ({"patch_size": 6, "image_size": 18}, "patch_size.*power of 2"),
        ({"patch_size": 8, "image_dim": 18}, "image_dim.*multiple of 4"),
    ],
)
def test_convolutions_that_make_no_patches(changes, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        dataclasses.replace(TINY, patches="convolutions", **changes)


@pytest.mark.parametrize("patches", ["linear", "convolutions"])
def test_pictures_become_as_many_tokens_by_either_kind_of_patches(patches):
    model = build(patches=patches)
    assert model.images.patches(images(2)).shape == (2, 16, 4, 4)
    assert model.encode_images(images(2)).shape == (2, 5)


# The loss


def unit(*shape, seed=0):
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_the_loss_is_the_definition():
    a, b, scale = unit(4, 5), unit(4, 5, seed=1), torch.tensor(7.0)
    logits = [[float(7 * a[i] @ b[j]) for j in range(4)] for i in range(4)]
    by_hand = 0.0
    for i in range(4):
        by_hand += math.log(sum(math.exp(x) for x in logits[i])) - logits[i][i]
        by_hand += math.log(sum(math.exp(row[i]) for row in logits)) - logits[i][i]
    assert contrastive_loss(a, b, scale).item() == pytest.approx(by_hand / 8, rel=1e-5)
    assert contrastive_loss(a, a, torch.tensor(100.0)) < contrastive_loss(a, b, scale)
    same = unit(1, 5).expand(4, 5)
    assert contrastive_loss(same, same, scale).item() == pytest.approx(math.log(4), rel=1e-5)


def test_pictures_are_told_false_texts_too():
    a, b, false, scale = unit(4, 5), unit(4, 5, seed=1), unit(6, 5, seed=2), torch.tensor(7.0)
    own = torch.arange(4)
    which_text = F.cross_entropy(7 * a @ torch.cat([b, false]).T, own)
    which_picture = F.cross_entropy(7 * b @ a.T, own)
    expected = (which_text + which_picture) / 2
    torch.testing.assert_close(contrastive_loss(a, b, scale, false=false), expected)


@pytest.mark.parametrize("false", [None, unit(8, 5, seed=2)])
def test_the_loss_of_a_batch_is_the_mean_of_its_ranks_losses(false):
    a, b, scale = unit(6, 5), unit(6, 5, seed=1), torch.tensor(7.0)

    def loss_of(rank):
        rows = slice(3 * rank, 3 * rank + 3)
        parts = iter([a, b, false])
        return contrastive_loss(
            a[rows],
            b[rows],
            scale,
            false=None if false is None else false[4 * rank : 4 * rank + 4],
            gather=lambda _: (next(parts), 3 * rank),
        )

    mean = (loss_of(0) + loss_of(1)) / 2
    torch.testing.assert_close(mean, contrastive_loss(a, b, scale, false=false))


def test_the_loss_is_exact_under_autocast():
    a, b, scale = unit(8, 5), unit(8, 5, seed=1), torch.tensor(100.0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = contrastive_loss(a, b, scale)
    assert torch.equal(loss, contrastive_loss(a, b, scale))


def test_recall():
    similarity = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.5, 0.1], [0.3, 0.3, 0.3]])
    assert recall_at(1, similarity) == pytest.approx(1 / 3)
    assert recall_at(2, similarity) == pytest.approx(2 / 3)
    assert recall_at(3, similarity) == 1.0  # the third row is all ties, where its own comes last
    assert recall_at(3, torch.full((3, 3), torch.nan)) == 0.0


# Published weights


def openai_state(width=128, text_width=64, layers=2, patch=4, size=8, dim=16):
    """Random tensors under the names and in the shapes of a published model."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator) * 0.1

    state = {
        "visual.conv1.weight": draw(width, 3, patch, patch),
        "visual.class_embedding": draw(width),
        "visual.positional_embedding": draw(1 + (size // patch) ** 2, width),
        "visual.proj": draw(width, dim),
        "token_embedding.weight": draw(21, text_width),
        "positional_embedding": draw(7, text_width),
        "text_projection": draw(text_width, dim),
        "logit_scale": torch.tensor(3.0),
        "input_resolution": torch.tensor(size),
        "context_length": torch.tensor(7),
        "vocab_size": torch.tensor(21),
    }
    norms = {"visual.ln_pre": width, "visual.ln_post": width, "ln_final": text_width}
    for start, d in (("visual.", width), ("", text_width)):
        for layer in range(layers):
            block = f"{start}transformer.resblocks.{layer}"
            norms |= {f"{block}.ln_1": d, f"{block}.ln_2": d}
            for name, shape in (
                ("attn.in_proj_weight", (3 * d, d)),
                ("attn.in_proj_bias", (3 * d,)),
                ("attn.out_proj.weight", (d, d)),
                ("attn.out_proj.bias", (d,)),
                ("mlp.c_fc.weight", (4 * d, d)),
                ("mlp.c_fc.bias", (4 * d,)),
                ("mlp.c_proj.weight", (d, 4 * d)),
                ("mlp.c_proj.bias", (d,)),
            ):
                state[f"{block}.{name}"] = draw(*shape)
    for norm, d in norms.items():
        state |= {f"{norm}.weight": 1 + draw(d), f"{norm}.bias": draw(d)}
    return state


def norm_of(state, name, x):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def run_blocks(state, start, x, mask):
    """Through torch's own attention, which keeps its projections as the published weights do."""
    d = x.shape[-1]
    for layer in range(2):
        block = f"{start}transformer.resblocks.{layer}"
        attention = nn.MultiheadAttention(d, d // 64, batch_first=True)
        prefix = f"{block}.attn."
        attention.load_state_dict(
            {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        )
        y = norm_of(state, f"{block}.ln_1", x)
        x = x + attention(y, y, y, attn_mask=mask, need_weights=False)[0]
        y = norm_of(state, f"{block}.ln_2", x)
        y = F.linear(y, state[f"{block}.mlp.c_fc.weight"], state[f"{block}.mlp.c_fc.bias"])
        y = y * torch.sigmoid(1.702 * y)
        x = x + F.linear(y, state[f"{block}.mlp.c_proj.weight"], state[f"{block}.mlp.c_proj.bias"])
    return x


@torch.no_grad()
def reference(state, pixels, text):
    """What the published model computes, from pixels in [0, 1]."""
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    x = F.conv2d((pixels - mean) / deviation, state["visual.conv1.weight"], stride=4)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([state["visual.class_embedding"].expand(len(x), 1, -1), x], dim=1)
    x = norm_of(state, "visual.ln_pre", x + state["visual.positional_embedding"])
    x = run_blocks(state, "visual.", x, None)
    seen = norm_of(state, "visual.ln_post", x[:, 0]) @ state["visual.proj"]
    x = state["token_embedding.weight"][text] + state["positional_embedding"]
    mask = torch.full((7, 7), -math.inf).triu(1)
    x = norm_of(state, "ln_final", run_blocks(state, "", x, mask))
    read = x[torch.arange(len(x)), text.argmax(dim=1)] @ state["text_projection"]
    return F.normalize(seen, dim=1), F.normalize(read, dim=1)


def test_published_weights_give_their_embeddings():
    state = openai_state()
    model = from_openai(state)
    assert model.config == CLIPConfig(
        image_size=8,
        patch_size=4,
        image_dim=128,
        image_layers=2,
        image_heads=2,
        text_vocab_size=20,
        text_length=7,
        text_dim=64,
        text_layers=2,
        text_heads=1,
        embedding_dim=16,
        activation="quick_gelu",
    )
    pixels = images(3, size=8)
    text = torch.tensor([[19, 3, 4, 20, 0, 0, 0], [19, 20, 0, 0, 0, 0, 0], [19, 1, 1, 1, 1, 1, 20]])
    seen, read = reference(state, (pixels + 1) / 2, text)
    torch.testing.assert_close(model.encode_images(pixels), seen, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.encode_texts(text), read, atol=1e-5, rtol=0)
    assert model.scale.item() == pytest.approx(math.exp(3))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_published_weights_may_be_halves():
    state = {name: t.half() if t.is_floating_point() else t for name, t in openai_state().items()}
    assert {parameter.dtype for parameter in from_openai(state).parameters()} == {torch.float32}


@pytest.mark.parametrize("missing", ["visual.proj", "ln_final.bias", "positional_embedding"])
def test_what_is_not_a_whole_clip_is_refused(missing):
    state = openai_state()
    del state[missing]
    with pytest.raises(BundleError, match="not the weights of a CLIP"):
        from_openai(state)


def test_weights_of_another_kind_are_refused():
    state = {**openai_state(), "visual.layer1.0.conv1.weight": torch.zeros(1)}
    with pytest.raises(BundleError, match="layer1"):
        from_openai(state)


def test_transformers_computes_the_same():
    """Another implementation with the same random weights."""
    import transformers

    model = contracts.seeded(lambda: build(activation="quick_gelu"))
    shared = {"hidden_act": "quick_gelu", "projection_dim": 5}
    theirs = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={
                **shared,
                "vocab_size": END + 1,
                "hidden_size": 8,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "max_position_embeddings": 6,
                "bos_token_id": 0,
                "eos_token_id": END,
                "pad_token_id": 0,
            },
            vision_config={
                **shared,
                "hidden_size": 16,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 16,
                "patch_size": 4,
            },
            projection_dim=5,
        )
    ).eval()
    theirs.load_state_dict(as_transformers(model.state_dict()), strict=False)
    with torch.no_grad():
        out = theirs(input_ids=TEXT, pixel_values=images(3))
        seen, read = model.encode_images(images(3)), model.encode_texts(TEXT)
    torch.testing.assert_close(seen, out.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(read, out.text_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        model.scale * seen @ read.mT, out.logits_per_image, atol=1e-3, rtol=0
    )


def as_transformers(state):
    """Our tensors under the names of transformers."""
    renamed = {
        "logit_scale": state["log_scale"],
        "visual_projection.weight": state["images.projection.weight"],
        "text_projection.weight": state["texts.projection.weight"],
        "vision_model.embeddings.class_embedding": state["images.class_token"][0],
        "vision_model.embeddings.patch_embedding.weight": state["images.patches.weight"],
        "vision_model.embeddings.position_embedding.weight": state["images.positions"],
        "text_model.embeddings.token_embedding.weight": state["texts.tokens"],
        "text_model.embeddings.position_embedding.weight": state["texts.positions"],
    }
    places = {
        "images.first_norm": "vision_model.pre_layrnorm",
        "images.norm": "vision_model.post_layernorm",
        "texts.norm": "text_model.final_layer_norm",
    }
    for ours, theirs in (("images", "vision_model"), ("texts", "text_model")):
        for layer in range(2):
            block, layer_name = f"{ours}.blocks.{layer}", f"{theirs}.encoder.layers.{layer}"
            places |= {
                f"{block}.attention_norm": f"{layer_name}.layer_norm1",
                f"{block}.mlp_norm": f"{layer_name}.layer_norm2",
                f"{block}.attention.projection": f"{layer_name}.self_attn.out_proj",
                f"{block}.mlp.hidden": f"{layer_name}.mlp.fc1",
                f"{block}.mlp.projection": f"{layer_name}.mlp.fc2",
            }
            for kind in ("weight", "bias"):
                thirds = state[f"{block}.attention.qkv.{kind}"].chunk(3)
                for name, third in zip("qkv", thirds, strict=True):
                    renamed[f"{layer_name}.self_attn.{name}_proj.{kind}"] = third
    for ours, theirs in places.items():
        for kind in ("weight", "bias"):
            renamed[f"{theirs}.{kind}"] = state[f"{ours}.{kind}"]
    return renamed
