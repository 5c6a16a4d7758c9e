import math

import torch

import contracts
from armchair.nn.embeddings import TextEmbedding, TimestepEmbedding, sinusoids


def test_sinusoids_by_hand():
    found = sinusoids(torch.tensor([0, 3]), 4)
    slow = 3 / 100  # at half of the channels the frequency is 10000 ** -0.5
    expected = [
        [1.0, 1.0, 0.0, 0.0],
        [math.cos(3), math.cos(slow), math.sin(3), math.sin(slow)],
    ]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_every_timestep_has_an_embedding_of_its_own():
    embedding = contracts.seeded(lambda: TimestepEmbedding(16, dim=32))
    found = embedding(torch.arange(1000))
    assert found.shape == (1000, 32)
    assert torch.cdist(found, found).fill_diagonal_(1).min() > 1e-4
    contracts.gradient_reaches_every_parameter(embedding, found.square().sum())


def test_null_text_is_padding_at_every_position():
    assert TextEmbedding(11, text_length=3, dim=2).null_text(2).tolist() == [[11, 12, 13]] * 2
