"""The paper's CLIP, in full."""

from __future__ import annotations

from armchair.core.schedules import Schedule
from armchair.data.sources import DataConfig
from armchair.models.clip import CLIPConfig
from armchair.text.tokenizer import TokenizerConfig
from armchair.training.clip import CLIPRecipe
from armchair.training.loop import TrainingConfig
from armchair.training.objectives.contrastive import ContrastiveLossConfig
from armchair.training.optim import OptimizerConfig

_PICTURES = 400_000_000
_EPOCHS = 32
_BATCH_SIZE = 32_768
_UPDATES = _EPOCHS * _PICTURES / _BATCH_SIZE


def clip_paper() -> CLIPRecipe:
    """The largest model of CLIP's paper, ViT-L/14 at 224 pixels.

    Command: armchair train clip-paper --data folder:PATH --out RUN
    Hardware: the paper used 256 V100 for twelve days. One process would take years; this recipe is
        the reference from which others derive.
    Sizes: 427,616,513 parameters.
    Scores to expect: none measured here. The paper's model, after one more epoch at 336 pixels
        that is left out here, classifies 76.2% of ImageNet without training on it.

    Where it departs: the vocabulary is learnt from the captions, with the paper's number of tokens
    but without a token for the start.
    """
    return CLIPRecipe(
        name="clip-paper",
        description="CLIP as published.",
        data=DataConfig(source="scenes", num_pictures=_PICTURES),
        tokenizer=TokenizerConfig(vocab_size=49_407, context_length=77, dropout=0.0),
        clip=CLIPConfig(
            image_size=224,
            patch_size=14,
            image_dim=1024,
            image_layers=24,
            image_heads=16,
            text_vocab_size=49_407,
            text_length=77,
            text_dim=768,
            text_layers=12,
            text_heads=12,
            embedding_dim=768,
            activation="quick_gelu",
        ),
        clip_loss=ContrastiveLossConfig(chunk_size=256),
        clip_training=TrainingConfig(
            num_images=_EPOCHS * _PICTURES,
            batch_size=_BATCH_SIZE,
            optimizer=OptimizerConfig(
                learning_rate=Schedule.of(
                    0.0, (2000 / _UPDATES, 4e-4, "linear"), (1.0, 0.0, "cosine")
                ),
                betas=(0.9, 0.98),
                epsilon=1e-6,
                weight_decay=0.2,
                clip_norm=None,
                average_decay=0.0,
            ),
            log_every=100 * _BATCH_SIZE,
            validate_every=5000 * _BATCH_SIZE,
            checkpoint_every=1000 * _BATCH_SIZE,
            num_workers=8,
        ),
        augment=True,
    )
