import numpy as np
from fake_source import load_busi

from jaxmed.data import similarity
from jaxmed.data.similarity import (
    correlation_matrix,
    duplicate_groups,
    label_conflicts,
    link,
    similar_pairs,
    thumbnail,
)


def noise(count, seed=0):
    return np.random.default_rng(seed).integers(0, 200, (count, 32, 32), np.uint8)


def blend(first, second, share):
    return np.round(share * first + (1 - share) * second).astype(np.uint8)


def test_a_thumbnail_averages_every_pixel():
    stripes = np.tile(np.array([0, 100], np.uint8), (64, 64))  # 64 x 128, one pixel wide
    assert thumbnail(stripes).shape == (32, 32)
    assert (thumbnail(stripes) == 50).all()


def test_correlation_is_pearsons():
    images = noise(5)
    expected = np.corrcoef(images.reshape(5, -1))
    np.testing.assert_allclose(correlation_matrix(images), expected, atol=1e-12)


def test_brightness_and_contrast_do_not_hide_a_copy():
    image = noise(1)[0]
    assert correlation_matrix(np.stack([image, image // 2 + 40]))[0, 1] > 0.999


def test_constant_images_resemble_nothing():
    images = np.concatenate([np.zeros((2, 32, 32), np.uint8), np.full((1, 32, 32), 7, np.uint8), noise(1)])
    assert np.isfinite(correlation_matrix(images)).all()
    assert len(similar_pairs(images, 0.5)) == 0
    assert duplicate_groups(images).tolist() == [0, 1, 2, 3]


def test_pairs_are_the_same_for_any_block_size(monkeypatch):
    images = np.concatenate([noise(5), noise(5)])
    whole = list(similar_pairs(images, 0.95))
    monkeypatch.setattr(similarity, "_BLOCK", 3)
    assert [(a, b) for a, b, _ in whole] == [(row, row + 5) for row in range(5)]
    np.testing.assert_allclose(list(similar_pairs(images, 0.95)), whole)


def test_a_chain_of_similar_images_is_one_group():
    first, last = noise(2)
    middle = blend(first, last, 0.5)
    images = np.stack([last, noise(1, seed=1)[0], middle, first])
    links = correlation_matrix(images)
    assert links[0, 3] < 0.6 < min(links[0, 2], links[2, 3])
    assert duplicate_groups(images, 0.6).tolist() == [0, 1, 0, 0]


def test_groups_are_numbered_by_their_first_case():
    assert link(5, np.array([3, 1]), np.array([0, 4])).tolist() == [0, 1, 2, 0, 1]


def test_a_conflict_needs_two_known_and_different_labels():
    images = np.repeat(noise(1), 4, axis=0)
    found = label_conflicts(similar_pairs(images), np.array([0, 0, 1, -1]))
    assert [(a, b) for a, b, _ in found] == [(0, 2), (1, 2)]


def test_no_images_have_no_pairs():
    assert len(similar_pairs(np.zeros((0, 32, 32), np.uint8))) == 0


def test_busi_holds_its_known_duplicates(busi_dir):
    source = load_busi(busi_dir)
    labels = np.array([case.label for case in source.cases])
    pairs = similar_pairs(source.thumbnails)
    strict = pairs.above(0.99)
    assert len(labels) == 780
    assert (len(strict), len(np.union1d(strict.first, strict.second))) == (118, 182)
    assert (len(pairs), len(np.union1d(pairs.first, pairs.second))) == (226, 315)
    assert len(label_conflicts(pairs, labels)) == 6
    assert len(label_conflicts(pairs, labels, threshold=0.95)) == 11
    names = {(source.cases[a].case_id, source.cases[b].case_id) for a, b, _ in label_conflicts(pairs, labels)}
    assert ("benign (433)", "malignant (145)") in names
