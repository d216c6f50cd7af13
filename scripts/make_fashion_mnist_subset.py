"""Build `nas/data/bundled/fashion_mnist_subset.npz`: the first images of each class of Fashion-MNIST.

    python scripts/make_fashion_mnist_subset.py /usr/share/datasets/fashion-mnist

The folder holds the four files of Fashion-MNIST, for instance from the Debian package
`dataset-fashion-mnist`. Images keep the order of the original files.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.data.dataset_readers import BUNDLED_FILE, read_idx_files

NUM_PER_CLASS = {"train": 500, "test": 100}
NUM_CLASSES = 10


def first_of_each_class(labels_N: NDArray[np.uint8], num_per_class: int) -> NDArray[np.intp]:
    """Indices, ascending, of the first `num_per_class` images of each class."""
    return np.sort(
        np.concatenate([np.flatnonzero(labels_N == c)[:num_per_class] for c in range(NUM_CLASSES)])
    )


def main() -> None:
    """Writes the file. The same input gives the same bytes, for the same version of zlib."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with the files of Fashion-MNIST")
    parser.add_argument("--out", type=Path, default=BUNDLED_FILE, help="file to write")
    arguments = parser.parse_args()
    arrays = {}
    for part, num_per_class in NUM_PER_CLASS.items():
        images_NHW, labels_N = read_idx_files(arguments.folder, part)
        chosen = first_of_each_class(labels_N, num_per_class)
        arrays |= {f"{part}_images": images_NHW[chosen], f"{part}_labels": labels_N[chosen]}
    np.savez_compressed(arguments.out, allow_pickle=False, **arrays)
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
