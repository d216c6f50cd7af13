"""Model cards: on which images the epoch was chosen whose accuracy they give."""

import pytest

from experiments.products.model_card import Facts, write_card
from nas.training.trained_network import TrainedNetwork

FACTS = Facts(
    num_parameters=1,
    num_macs=1,
    file_name="x.onnx",
    file_format="ONNX",
    size_bytes=1,
    latency="1 ms",
    checked_on="test images",
    max_error=0.0,
)


@pytest.mark.parametrize("val_fraction", [0, 0.1])
def test_an_accuracy_that_the_test_images_chose_is_marked(val_fraction: float) -> None:
    record = TrainedNetwork(
        network="mobilenet_v2",
        class_names=("a", "b"),
        resolution=32,
        mean=(0.5,),
        std=(0.5,),
        dataset="fashion_mnist_subset",
        epoch=3,
        metrics={"test_accuracy": 0.9, "num_test_images": 100.0},
        config={"num_epochs": 4, "val_fraction": val_fraction},
    )
    card = write_card(record, FACTS)
    is_selected = val_fraction == 0
    assert ("selected on test images" in card) == is_selected
    assert ("The best epoch was chosen on held-out training images" in card) != is_selected
