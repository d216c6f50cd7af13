"""GridRecord: what a launch registers in MLflow before its first trial: its grid and its claims.

Figures and report compare the grid that was registered last, and nothing else of the experiment.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from experiments.cells.cell import Cell
from experiments.tracking.tracked_cells import REGISTERS_TAG, REGISTRATION_TAG
from nas.config import PATH_FIELDS
from nas.foundation.identity import fingerprint

CLAIMS_TAG = "tfnas.claims"
"""SHA-256 of the claims alone."""

NOT_REGISTERED = frozenset({*PATH_FIELDS, "num_data_workers", "download", "device", "kernels"})
"""Config fields that are no settings: they say where things are, or what computes."""

_NUM_DIGITS = 12
"""Digits of the images' fingerprint that stand for the images."""


@dataclass(frozen=True)
class GridRecord:
    """A grid and its claims as JSON.

    Attributes:
        content: kind of the cells, YAML file, claims, the fields that all cells share (`base`), and by hash
            the name, the other fields, the images and the tags of each cell.
    """

    content: dict[str, Any]

    @classmethod
    def of(cls, cells: Sequence[Cell], claims: Mapping[str, Any], file: str) -> Self:
        """Records a grid.

        Args:
            cells: in the order of the YAML file, all of one kind.
            claims: JSON by name.
            file: name of the YAML file.
        """
        fields = [_settings(cell) for cell in cells]
        base = {name: value for name, value in fields[0].items() if all(value == own[name] for own in fields)}
        return cls(
            {
                "kind": cells[0].kind,
                "file": file,
                "results_version": str(cells[0].results_version),
                "claims": dict(claims),
                "base": base,
                "cells": {
                    cell.hash: {
                        "name": cell.name,
                        "fields": {name: value for name, value in own.items() if name not in base},
                        "images": cell.data_fingerprint[:_NUM_DIGITS],
                        "tags": cell.tags,
                    }
                    for cell, own in zip(cells, fields, strict=True)
                },
            }
        )

    @property
    def kind(self) -> str:
        """The kind of its cells."""
        return str(self.content["kind"])

    @cached_property
    def text(self) -> str:
        """The content of the artifact."""
        return json.dumps(self.content, indent=1, allow_nan=False) + "\n"

    @property
    def sha256(self) -> str:
        """Identifies it: any edit of grid or claims changes it."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the launch that registers it."""
        return {
            REGISTRATION_TAG: self.sha256,
            REGISTERS_TAG: self.kind,
            CLAIMS_TAG: fingerprint(self.content["claims"]),
        }


def _settings(cell: Cell) -> dict[str, Any]:
    return {name: value for name, value in cell.fields.items() if name not in NOT_REGISTERED}
