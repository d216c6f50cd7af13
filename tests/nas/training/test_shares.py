"""Shares of batches: together they are the batches of one process, to the last bit."""

import numpy as np
import pytest
import torch
from PIL import Image

from nas.config import TrainConfig
from nas.data.training_data import load_training_data
from nas.foundation.world import World


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for label in ("a", "b"):
            (root / part / label).mkdir(parents=True)
            for number in range(8):
                pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / label / f"{number}.png")
    return root


@pytest.mark.parametrize("num_samples", [0, 1, 2, 5, 33, 512])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares_of_a_batch_cover_it_once_and_evenly(num_samples, size):
    shares = [list(range(num_samples))[World(rank, size).share(num_samples)] for rank in range(size)]
    assert [number for share in shares for number in share] == list(range(num_samples))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("augmentation", ["paper", "crop_flip", "none"])
@pytest.mark.parametrize("dataset", ["fashion_mnist_subset", "image_folder"])
@pytest.mark.parametrize("size", [2, 3])
def test_shares_of_all_processes_are_the_batches_of_one(folder, dataset, augmentation, size):
    fields = {"data_dir": folder} if dataset == "image_folder" else {"max_train_images": 60}
    config = TrainConfig(
        architecture="tf-nas-a",
        dataset=dataset,
        augmentation=augmentation,
        batch_size=5,
        val_fraction=0.4,
        device="cpu",
        **fields,
    )

    def batches(world):
        data = load_training_data(config, 24, world)
        generator = torch.Generator().manual_seed(3)
        return list(data.train_batches(generator)), list(data.val_split.evaluation_batches())

    whole_train, whole_val = batches(World())
    shares_train, shares_val = zip(*(batches(World(rank, size)) for rank in range(size)), strict=True)
    for whole, *shares in zip(whole_train, *shares_train, strict=True):
        for part in (0, 1):
            assert torch.equal(torch.cat([share[part] for share in shares]), whole[part])
    # A process without a share of the last batch has a batch less.
    assert sum(len(labels) for share in shares_val for _, labels in share) == sum(
        len(labels) for _, labels in whole_val
    )
    for number, (images, labels) in enumerate(whole_val):
        shares = [share[number] for share in shares_val if number < len(share)]
        assert torch.equal(torch.cat([share[0] for share in shares]), images)
        assert torch.equal(torch.cat([share[1] for share in shares]), labels)
