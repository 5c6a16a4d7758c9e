"""What decides a DALL·E 2: the shape, the loss, and the training of each of its parts."""

from __future__ import annotations

from dataclasses import dataclass

from armchair.core.errors import ConfigError
from armchair.core.schedules import Schedule
from armchair.data.sources import DataConfig
from armchair.models.clip import CLIPConfig
from armchair.models.priors.autoregressive import AutoregressivePriorConfig
from armchair.models.priors.diffusion import DiffusionPriorConfig
from armchair.models.priors.one_step import OneStepPriorConfig
from armchair.models.unet import UNetConfig
from armchair.pipelines.dalle2_config import UPSAMPLERS, DALLE2Config, DALLE2SamplingConfig
from armchair.text.tokenizer import TokenizerConfig
from armchair.training.clip import check_clip_training
from armchair.training.examples import check_wordings
from armchair.training.loop import TrainingConfig
from armchair.training.objectives.contrastive import ContrastiveLossConfig
from armchair.training.objectives.diffusion import DiffusionLossConfig
from armchair.training.objectives.prior import OneStepPriorLossConfig, PriorLossConfig

PARTS = ("clip", "prior", "decoder", *UPSAMPLERS)


@dataclass(frozen=True, kw_only=True)
class DALLE2Recipe:
    """Everything that decides what a run makes; a part that is None is left out.

    Attributes:
        name: The recipe's name.
        description: What the model card says of the model.
        data: The pictures.
        tokenizer: How captions become tokens; None if nothing reads captions.
        truncate: Cut captions that are longer than the tokenizer's text, instead of refusing them.
        clip: The CLIP's shape.
        clip_loss: How its loss is computed.
        clip_training: How it is trained; its batches are the negatives.
        augment: Crop and shrink its pictures at random.
        clip_from: A bundle whose CLIP is taken as it is, with its tokenizer, by name or path,
            instead of training one; `clip` and `tokenizer` then say the same as the bundle.
        start_from: A bundle, by name or path, whose networks are trained further, with its
            tokenizer; what is said of their shapes is then the same as in the bundle. Those that it
            lacks begin anew.
        prior: The prior's shape, of one of three kinds.
        prior_loss: Its loss, of the same kind.
        prior_training: How it is trained.
        decoder: The decoder's shape.
        decoder_loss: Its loss.
        decoder_training: How it is trained.
        first_upsampler: The shape of what enlarges its pictures.
        first_upsampler_loss: Its loss.
        first_upsampler_training: How it is trained.
        second_upsampler: The shape of what enlarges those again.
        second_upsampler_loss: Its loss.
        second_upsampler_training: How it is trained.
        sampling: How the model draws where it is told nothing else.
        wordings: Share of each picture's captions, from the first on, that CLIP, prior and decoder
            are trained with, as a function of the progress of each.
    """

    name: str
    description: str = ""
    data: DataConfig
    tokenizer: TokenizerConfig | None = None
    truncate: bool = False
    clip: CLIPConfig | None = None
    clip_loss: ContrastiveLossConfig | None = None
    clip_training: TrainingConfig | None = None
    augment: bool = False
    clip_from: str | None = None
    start_from: str | None = None
    prior: DiffusionPriorConfig | AutoregressivePriorConfig | OneStepPriorConfig | None = None
    prior_loss: PriorLossConfig | OneStepPriorLossConfig | None = None
    prior_training: TrainingConfig | None = None
    decoder: UNetConfig
    decoder_loss: DiffusionLossConfig
    decoder_training: TrainingConfig
    first_upsampler: UNetConfig | None = None
    first_upsampler_loss: DiffusionLossConfig | None = None
    first_upsampler_training: TrainingConfig | None = None
    second_upsampler: UNetConfig | None = None
    second_upsampler_loss: DiffusionLossConfig | None = None
    second_upsampler_training: TrainingConfig | None = None
    sampling: DALLE2SamplingConfig
    wordings: Schedule = Schedule.of(1.0)

    def __post_init__(self) -> None:
        check_wordings(self.wordings)
        for part in PARTS:
            for name in fields_of(part)[1:]:
                if (getattr(self, name) is None) != (getattr(self, part) is None):
                    state = "None" if getattr(self, part) is None else "one"
                    expected = f"{state}, as for {part}"
                    raise ConfigError(name, got=getattr(self, name), expected=expected)
        if self.clip_from is not None and self.clip is None:
            raise ConfigError("clip_from", got=self.clip_from, expected="None without a clip")
        if self.clip_training is not None:
            check_clip_training(self.clip_training)
        in_one_step = isinstance(self.prior, OneStepPriorConfig)
        if in_one_step != isinstance(self.prior_loss, OneStepPriorLossConfig):
            got, kind = type(self.prior_loss).__name__, type(self.prior).__name__
            raise ConfigError("prior_loss", got=got, expected=f"the loss of a {kind}")
        self._check_prior_training()
        self.shape.check(self.sampling)
        text = self.tokenizer
        found = None if text is None else text.text_shape
        if found != self.shape.text_shape:
            expected = f"{self.shape.text_shape} tokens and positions, as the parts have"
            raise ConfigError("tokenizer", got=found, expected=expected)

    def _check_prior_training(self) -> None:
        """Refuse parts of batches where captions are told from all others of the batch."""
        loss, training = self.prior_loss, self.prior_training
        tells_captions = isinstance(loss, OneStepPriorLossConfig) and loss.contrastive_weight > 0
        if training is not None and tells_captions and training.accumulation != 1:
            raise ConfigError(
                "prior_training.accumulation",
                got=training.accumulation,
                expected="1, as every caption is told from all of its batch",
                hint="a smaller prior_training.batch_size saves memory",
            )

    @property
    def shape(self) -> DALLE2Config:
        """The shapes of all parts.

        Raises:
            ConfigError: They do not fit each other.
        """
        return DALLE2Config(
            clip=self.clip,
            prior=self.prior,
            decoder=self.decoder,
            first_upsampler=self.first_upsampler,
            second_upsampler=self.second_upsampler,
        )


def fields_of(part: str) -> tuple[str, ...]:
    """The fields of a recipe that decide a part."""
    return (part, f"{part}_loss", f"{part}_training")
