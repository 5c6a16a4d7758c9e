"""The paper's DALL·E, in full."""

from __future__ import annotations

from armchair.core.schedules import Schedule
from armchair.data.sources import DataConfig
from armchair.models.autoencoders.dvae import DiscreteVAEConfig
from armchair.models.sequence.text_to_image import TextToImageConfig
from armchair.text.tokenizer import TokenizerConfig
from armchair.training.dalle1 import DALLE1Recipe
from armchair.training.loop import TrainingConfig
from armchair.training.objectives.discrete_vae import DiscreteVAELossConfig
from armchair.training.objectives.text_to_image import TextToImageLossConfig
from armchair.training.optim import OptimizerConfig

_AUTOENCODER_UPDATES = 3_000_000
_TRANSFORMER_UPDATES = 430_000


def dalle1_paper() -> DALLE1Recipe:
    """Zero-Shot Text-to-Image Generation, with the paper's sizes, schedules and batches.

    Command: armchair train dalle1-paper --data folder:PATH --out RUN
    Hardware: the paper used 64 V100 for the discrete VAE and 1,024 for the transformer, and 250
        million captioned pictures. One process cannot hold the transformer; this recipe is the
        reference from which others derive.
    Time: the paper gives none. 3,000,000 updates of the discrete VAE, 430,000 of the transformer.
    Sizes: encoder 53,786,240 parameters, decoder 43,829,766; 12.09 billion in the transformer's
        blocks (12 · 64 · 3968²).
    Scores to expect: none measured here. The paper's zero-shot FID on MS-COCO is about 28.

    Where the paper's text leaves room: its step size is halved at each plateau, five times; here at
    each sixth of the run. It crops a picture anew each time; here each is encoded twice, its centre
    and one crop near it, as 430,000 updates see a picture 1.8 times. The moving averages of the
    parameters, 0.999 and, every 25 updates, 0.99, grow to these decays from the start of the run.
    Weight decay spares biases, gains, embeddings and the codebook.
    """
    return DALLE1Recipe(
        name="dalle1-paper",
        description="DALL·E 1 as published.",
        data=DataConfig(source="scenes", num_pictures=250_000_000, views=2),
        tokenizer=TokenizerConfig(vocab_size=16_384, context_length=256, dropout=0.1),
        autoencoder=DiscreteVAEConfig(),
        autoencoder_loss=DiscreteVAELossConfig(),
        autoencoder_training=TrainingConfig(
            num_images=_AUTOENCODER_UPDATES * 512,
            batch_size=512,
            optimizer=OptimizerConfig(
                learning_rate=Schedule.of(1e-4, (0.4, 1.25e-6, "cosine")),  # 1,200,000 updates
                betas=(0.9, 0.999),
                weight_decay=1e-4,
                clip_norm=None,
                average_decay=0.999,
            ),
            log_every=51_200,
            validate_every=5_120_000,
            checkpoint_every=512_000,
            num_workers=8,
        ),
        augment=True,
        transformer=TextToImageConfig(
            text_vocab_size=16_384,
            text_length=256,
            image_vocab_size=8192,
            grid_size=32,
            dim=3968,
            num_layers=64,
            num_heads=62,
            attention="paper",
            conv_kernel=11,
            checkpoint_activations=True,
        ),
        transformer_loss=TextToImageLossConfig(condition_dropout=0.0),
        transformer_training=TrainingConfig(
            num_images=_TRANSFORMER_UPDATES * 1024,
            batch_size=1024,
            optimizer=OptimizerConfig(
                learning_rate=_halved(4.5e-4, warm_up=5000 / _TRANSFORMER_UPDATES, times=5),
                betas=(0.9, 0.96),
                weight_decay=4.5e-2,
                clip_norm=4.0,
                average_decay=0.99,
                average_every=25,
            ),
            log_every=102_400,
            validate_every=10_240_000,
            checkpoint_every=1_024_000,
            num_workers=8,
        ),
    )


def _halved(peak: float, *, warm_up: float, times: int) -> Schedule:
    """Linear warm-up to `peak`, then halvings at equal parts of the run."""
    halvings = ((n / (times + 1), peak / 2**n, "step") for n in range(1, times + 1))
    return Schedule.of(0.0, (warm_up, peak, "linear"), *halvings)  # type: ignore[arg-type]
