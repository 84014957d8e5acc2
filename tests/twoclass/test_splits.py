"""Draws and splits follow their documented rule."""

import hashlib

import numpy as np
import pytest

from anomalib_spd.twoclass.splits import hash_order, hash_split

PATHS = [f"candle/Data/Images/Normal/{number:04d}.JPG" for number in range(100)]


def digest(number: int, path: str) -> str:
    return hashlib.sha256(bytes(f"{number}:{path}", "utf-8")).hexdigest()


@pytest.mark.parametrize("number", [0, 1, 17])
def test_the_order_is_that_of_the_hash(number: int) -> None:
    digests = [digest(number, path) for path in hash_order(PATHS, number)]
    assert digests == sorted(digests)
    assert sorted(hash_order(PATHS, number)) == PATHS


def test_the_rule_does_not_change() -> None:
    # a change of these would change every published draw
    assert [path[-8:-4] for path in hash_order(PATHS, 0)[:3]] == ["0031", "0053", "0088"]
    assert hash_order(["ü/ß.png", "a b.png"], 3) == sorted(["ü/ß.png", "a b.png"], key=lambda path: digest(3, path))


def test_the_order_of_the_files_does_not_matter() -> None:
    shuffled = list(np.random.default_rng(0).permutation(PATHS))
    assert hash_order(shuffled, 5) == hash_order(PATHS, 5) != hash_order(PATHS, 6)


@pytest.mark.parametrize(("fraction", "size"), [(0.6, 60), (0.2, 20), (0.004, 0), (0.999, 100), (0.125, 12)])
def test_a_division_loses_nothing(fraction: float, size: int) -> None:
    first, rest = hash_split(PATHS, fraction, 2)
    assert len(first) == size
    assert first + rest == hash_order(PATHS, 2)


def test_no_paths() -> None:
    assert hash_order([], 0) == []
    assert hash_split([], 0.5, 0) == ([], [])
