"""Model cards: on which images the epoch of their accuracy was chosen, and names that forge nothing."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

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


RECORD = TrainedNetwork(
    network="mobilenet_v2",
    class_names=("a", "b"),
    resolution=32,
    mean=(0.5,),
    std=(0.5,),
    dataset="fashion_mnist_subset",
    epoch=3,
    metrics={"test_accuracy": 0.9, "num_test_images": 100.0},
    config={"num_epochs": 4, "val_fraction": 0.1, "augmentation": "none"},
)


def changed(*, config: dict[str, Any], **fields: Any) -> TrainedNetwork:
    return RECORD.model_copy(update=fields | {"config": RECORD.config | config})


@pytest.mark.parametrize("val_fraction", [0, 0.1])
def test_an_accuracy_that_the_test_images_chose_is_marked(val_fraction: float) -> None:
    card = write_card(changed(config={"val_fraction": val_fraction}), FACTS)
    is_selected = val_fraction == 0
    assert ("selected on test images" in card) == is_selected
    assert ("The best epoch was chosen on held-out training images" in card) != is_selected


FORGERIES = (
    "x |\n| Test accuracy | 99.99 % |",
    "x\n\n# Test accuracy: 99.99 %\n",
    "![x](http://evil.example/x.png) [here](http://evil.example)",
    "<img src=x> <!-- &lt;",
    "# *x* _y_ ~~z~~ `code`",
)


def tokens_of(card: str) -> list[Token]:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(card)


def kinds_of(card: str) -> Counter[str]:
    """How many headings, rows, links, images and so on a card has."""
    tokens = tokens_of(card)
    within = [child for token in tokens for child in token.children or ()]
    return Counter(token.type for token in (*tokens, *within))


@pytest.mark.parametrize("name", FORGERIES)
def test_a_name_forges_no_row_heading_link_or_image(name: str) -> None:
    forged = changed(dataset=name, network=name, class_names=(name, name), config={"augmentation": name})
    facts = replace(FACTS, file_name=name, checked_on=name, run=name, latency=name, table_latency=name)
    card = write_card(forged, facts)
    assert kinds_of(card) == kinds_of(write_card(RECORD, FACTS))
    shown = "".join(child.content for token in tokens_of(card) for child in token.children or ())
    # In the title, nine times in tables, in the sentence on training, and twice among the classes.
    assert shown.count(name.replace("\n", "\\n")) >= 12
