import numpy as np
import pytest
import torch

from armchair.core.jit import jit
from armchair.core.vectors import (
    LANES,
    chosen,
    larger,
    load,
    load_first,
    load_words,
    paired,
    pairs,
    rounded,
    scaled,
    spread,
    store,
    store_first,
    store_words,
    sum_of,
    transpose,
    zero_below,
)


@jit()
def arithmetic(x, y, number, results):
    one, other = load(x, 0), load(y, 0)
    store(results, 0, one + other)
    store(results, 16, one - other)
    store(results, 32, one * other)
    store(results, 48, one / other)
    store(results, 64, spread(number) * one)
    store(results, 80, larger(one, other))
    store(results, 96, rounded(other))


def test_arithmetic_is_that_of_sixteen_numbers():
    x, y = (np.random.default_rng(seed).normal(size=LANES).astype(np.float32) for seed in (0, 1))
    y *= 7
    results = np.zeros((7, LANES), np.float32)
    arithmetic(x, y, np.float32(3), results.reshape(-1))
    expected = [x + y, x - y, x * y, x / y, 3 * x, np.maximum(x, y), np.rint(y)]
    np.testing.assert_array_equal(results, expected)


@jit()
def convert(source, target, at):
    store(target, at, load(source, at))


def test_numbers_are_rounded_to_the_nearest_bfloat16():
    numbers = torch.cat([torch.randn(9), torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 0, -1e38])])
    numbers = torch.cat([numbers, torch.tensor([torch.inf, -torch.inf, torch.nan])])
    as_bits = np.zeros(20, np.uint16)
    convert(np.pad(numbers.numpy(), (4, 0)), as_bits, 4)
    rounded_to = torch.from_numpy(as_bits[4:]).view(torch.bfloat16)
    torch.testing.assert_close(rounded_to, numbers.bfloat16(), rtol=0, atol=0, equal_nan=True)
    widened = np.zeros(20, np.float32)
    convert(as_bits, widened, 4)
    np.testing.assert_array_equal(widened[4:], numbers.bfloat16().float().numpy())


@jit()
def convert_first(source, target, at, count):
    store_first(target, at, count, load_first(source, at, count))


@pytest.mark.parametrize("count", [0, 1, 15, 16])
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_a_part_leaves_the_rest_alone(count, dtype):
    source = np.arange(1, 19, dtype=np.float32)
    target = np.full(18, 7, dtype)
    convert_first(source, target, 2, count)
    expected = torch.from_numpy(source[2 : 2 + count])
    if dtype == np.uint16:
        expected = expected.bfloat16().view(torch.uint16)
    np.testing.assert_array_equal(target[2 : 2 + count], expected.numpy())
    assert (target[:2] == 7).all()
    assert (target[2 + count :] == 7).all()
    again = np.zeros(18, np.float32)
    convert_first(target, again, 2, count)
    np.testing.assert_array_equal(again[2 : 2 + count], source[2 : 2 + count])


@jit()
def scale(x, twos, results):
    store(results, 0, scaled(load(x, 0), load(twos, 0)))


def test_scaling_takes_powers_of_two():
    x = np.linspace(1, 2, LANES, dtype=np.float32)
    twos = np.array([*range(-8, 6), -126, 126], np.float32)
    results = np.zeros(LANES, np.float32)
    scale(x, twos, results)
    np.testing.assert_array_equal(results, np.ldexp(x, twos.astype(int)))


@jit()
def choose(bits, x, y, results):
    store(results, 0, chosen(bits, 1, load(x, 0), load(y, 0)))


def test_bits_choose_from_the_lowest_on():
    x, y = np.arange(16, dtype=np.float32), -np.arange(16, dtype=np.float32)
    results = np.zeros(16, np.float32)
    choose(np.array([0, 0b1000000000000110], np.uint16), x, y, results)
    assert [i for i in range(1, 16) if results[i] > 0] == [1, 2, 15]


@jit()
def keep(x, y, least, results):
    store(results, 0, zero_below(spread(least), load(x, 0), load(y, 0)))


def test_what_is_below_becomes_zero_and_what_is_no_number_is_not():
    x = np.array([-np.inf, -1, 2, 2.5, np.inf, np.nan, *range(10)], np.float32)
    y = np.arange(1, 17, dtype=np.float32)
    results = np.zeros(16, np.float32)
    keep(x, y, np.float32(2), results)
    np.testing.assert_array_equal(results, np.where(x < 2, 0, y))


@jit()
def add_up(x):
    return sum_of(load(x, 0))


def test_all_lanes_are_added_up():
    x = np.array([3**lane for lane in range(LANES)], np.float32)  # all sums are whole numbers
    assert add_up(x) == x.sum(dtype=np.float64)


@jit()
def make_pairs(halves, floats, from_halves, from_floats, copied):
    store_words(from_halves, 0, pairs(halves, 0, 20))
    store_words(from_floats, 0, paired(load(floats, 0), load(floats, 16)))
    store_words(copied, 0, load_words(from_halves, 0))


def test_pairs_take_turns():
    halves = np.arange(40, dtype=np.uint16)
    floats = torch.randn(32)
    from_halves, from_floats, copied = (np.zeros(32, np.uint16) for _ in range(3))
    make_pairs(halves, floats.numpy(), from_halves, from_floats, copied)
    np.testing.assert_array_equal(from_halves.reshape(16, 2).T, [halves[:16], halves[20:36]])
    expected = floats.bfloat16().view(2, 16).T
    got = torch.from_numpy(from_floats).view(torch.bfloat16).view(16, 2)
    assert torch.equal(got, expected)
    np.testing.assert_array_equal(copied, from_halves)


@jit()
def turn(source, at, distance, target, to, to_distance):
    transpose(source, at, distance, target, to, to_distance)


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_words_are_transposed(dtype):
    size = 4 // np.dtype(dtype).itemsize  # numbers of a word
    source = np.random.default_rng(0).integers(0, 1 << 15, (16, 20 * size)).astype(dtype)
    target = np.zeros((16, 18 * size), dtype)
    turn(source.reshape(-1), 2 * size, 20 * size, target.reshape(-1), size, 18 * size)
    words = source.reshape(16, 20, size)[:, 2:18]
    np.testing.assert_array_equal(target.reshape(16, 18, size)[:, 1:17], words.transpose(1, 0, 2))
