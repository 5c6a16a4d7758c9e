"""CLIP's picture embeddings as priors see them: scaled, or as codes.

Unit vectors are small numbers: 1/32 in each of 1,024 dimensions. `EmbeddingScale` brings them to a
size at which noise of unit variance is noise. `EmbeddingCodes` writes them as a row of codes, most
telling first, for a prior that predicts one after the other.

Source: "Hierarchical Text-Conditional Image Generation with CLIP Latents" (arXiv 2204.06125),
section 2.2 and appendix C.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from armchair.core.errors import ConfigError, DataError

Scaling = Literal["paper", "unit", "whiten"]

NUM_DOTS = 64  # buckets of equal mass for the dot product with the text's embedding
_PAPER_SCALE = 17.2
_MAX_ERROR = 0.01
_NO_VARIANCE = 1e-9  # of unit vectors, the mean over directions
_LEAST_VARIANCE = 1e-3  # of the mean variance: directions with less are not blown up further


class Components(NamedTuple):
    """Principal components: a mean, and directions (rows) by falling variance."""

    mean: Float64[Tensor, " E"]
    directions: Float64[Tensor, "E E"]
    variances: Float64[Tensor, " E"]


class EmbeddingScale(nn.Module):
    """Unit vectors to the numbers that a prior predicts, and back.

    Args:
        dim: Dimensions E.
        scaling: "paper" multiplies by 17.2, which in 1,024 dimensions gives the variance of
            ImageNet's pixels; "unit" by sqrt(E), for a mean square of 1; "whiten" turns and
            scales the directions of the embeddings given to `fit` to unit variance.
    """

    mean: Tensor
    whitening: Tensor
    colouring: Tensor

    def __init__(self, dim: int, scaling: Scaling) -> None:
        super().__init__()
        self.factor = {"paper": _PAPER_SCALE, "unit": dim**0.5}.get(scaling)
        if self.factor is None:
            self.register_buffer("mean", torch.zeros(dim))
            self.register_buffer("whitening", torch.eye(dim))
            self.register_buffer("colouring", torch.eye(dim))

    @torch.no_grad()
    def fit(self, embeddings: Float[Tensor, "N E"]) -> None:
        """Learn to whiten from embeddings; the other scalings have nothing to learn.

        Raises:
            DataError: They are all the same.
        """
        if self.factor is not None:
            return
        mean, directions, variances = _varied_components(embeddings)
        deviations = variances.clamp(min=_LEAST_VARIANCE * float(variances.mean())).sqrt()
        self.mean.copy_(mean)
        self.whitening.copy_(directions.mT / deviations)
        self.colouring.copy_(directions * deviations[:, None])

    def forward(self, embeddings: Float[Tensor, "B E"]) -> Float[Tensor, "B E"]:
        """Scale unit vectors."""
        if self.factor is not None:
            return embeddings * self.factor
        return _product(embeddings - self.mean, self.whitening)

    def inverse(self, scaled: Float[Tensor, "B E"]) -> Float[Tensor, "B E"]:
        """The unit vectors in the directions that scaled numbers speak of."""
        if self.factor is None:
            scaled = _product(scaled, self.colouring) + self.mean
        return F.normalize(scaled, dim=1)


class EmbeddingCodes(nn.Module):
    """Unit vectors to codes and back: principal components, each in buckets of equal width.

    Args:
        dim: Dimensions E.
        num_components: Components K that are kept; see `components_needed`.
        num_buckets: Buckets of each.
    """

    mean: Tensor
    directions: Tensor
    lowest: Tensor
    width: Tensor
    dot_edges: Tensor

    def __init__(self, dim: int, *, num_components: int, num_buckets: int) -> None:
        super().__init__()
        self.num_buckets = num_buckets
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("directions", torch.eye(dim)[:num_components])  # K E
        self.register_buffer("lowest", -torch.ones(num_components))
        self.register_buffer("width", torch.full((num_components,), 2 / num_buckets))
        self.register_buffer("dot_edges", torch.linspace(-1, 1, NUM_DOTS + 1)[1:-1])

    @torch.no_grad()
    def fit(self, images: Float[Tensor, "N E"], texts: Float[Tensor, "N E"]) -> None:
        """Learn components, buckets, and the distribution of dot products from pairs.

        Args:
            images: Unit vectors of pictures.
            texts: Those of their captions.

        Raises:
            ConfigError: The components leave 1% of the variance out, or more.
            DataError: The pictures' are all the same.
        """
        mean, directions, _ = _varied_components(images)
        num_components = len(self.directions)
        needed = components_needed(images)
        if num_components < needed:
            expected = f"at least {needed}, which leave out less than {_MAX_ERROR:.0%}"
            raise ConfigError("num_components", got=num_components, expected=expected)
        self.mean.copy_(mean)
        self.directions.copy_(directions[:num_components])
        places = self._places(images)
        self.lowest.copy_(places.amin(dim=0))
        spread = places.amax(dim=0) - self.lowest
        self.width.copy_((spread / self.num_buckets).clamp(min=1e-12))
        dots = (images * texts).sum(dim=1).double()
        shares = torch.arange(1, NUM_DOTS, dtype=torch.float64, device=dots.device) / NUM_DOTS
        self.dot_edges.copy_(dots.quantile(shares))

    def encode(self, embeddings: Float[Tensor, "B E"]) -> Int64[Tensor, "B K"]:
        """The buckets that unit vectors fall into, [0, num_buckets); the outermost have no end."""
        buckets = ((self._places(embeddings) - self.lowest) / self.width).floor().long()
        return buckets.clamp(0, self.num_buckets - 1)

    def decode(self, codes: Int[Tensor, "B K"]) -> Float[Tensor, "B E"]:
        """Unit vectors through the middles of buckets."""
        places = self.lowest + (codes + 0.5) * self.width
        return F.normalize(_product(places, self.directions) + self.mean, dim=1)

    def encode_dots(
        self, images: Float[Tensor, "B E"], texts: Float[Tensor, "B E"]
    ) -> Int64[Tensor, " B"]:
        """The buckets of the pairs' dot products, [0, NUM_DOTS), each as likely as any other."""
        dots = (images * texts).sum(dim=1)
        return torch.bucketize(dots, self.dot_edges, right=True)

    def _places(self, embeddings: Tensor) -> Tensor:
        return _product(embeddings - self.mean, self.directions.mT)  # B K


def principal_components(embeddings: Float[Tensor, "N E"]) -> Components:
    """The principal components of embeddings."""
    rows = embeddings.double()
    mean = rows.mean(dim=0)
    centred = rows - mean
    variances, columns = torch.linalg.eigh(centred.mT @ centred / len(rows))
    return Components(mean, columns.mT.flip(0), variances.flip(0).clamp(min=0))


def _varied_components(embeddings: Float[Tensor, "N E"]) -> Components:
    """The principal components of embeddings that are not all the same.

    Raises:
        DataError: They are.
    """
    components = principal_components(embeddings)
    if not float(components.variances.mean()) > _NO_VARIANCE:
        raise DataError(
            f"the CLIP gives all of {len(embeddings):,} pictures the same embedding",
            hint="give it other pictures, or train it for longer",
        )
    return components


def components_needed(embeddings: Float[Tensor, "N E"]) -> int:
    """The fewest components that leave out less than 1% of the variance."""
    variances = principal_components(embeddings).variances
    left_out = 1 - variances.cumsum(0) / variances.sum()
    return int((left_out >= _MAX_ERROR).sum()) + 1


def _product(rows: Tensor, matrix: Tensor) -> Tensor:
    """A matrix product that is exact also under autocast."""
    with torch.autocast(rows.device.type, enabled=False):
        return rows @ matrix
