"""Import of lookup tables: the published pickle format, and our own tables of other devices.

Source: TF-NAS, the published lookup-table files: an ordered dict of `base` -> ms and
`{block}_{resolution}_{in}_{se}_{out}_k{kernel}_s{stride}_{act}` -> ordered dict of mid channels -> ms.
"""

import collections
import hashlib
import io
import math
import pickle
import re
import reprlib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nas.foundation.errors import UserError
from nas.foundation.files import read_file
from nas.foundation.pickles import check_pickle
from nas.foundation.validation import first_error
from nas.latency.entry import LatencyEntry, OpKey
from nas.latency.table import LatencyTable, Provenance
from nas.space.macro_space import Space

UNKNOWN_DEVICE = "unknown"
"""Name of the device of a table that does not have one."""

_KEY = re.compile(
    r"MBInvertedResBlock_(?P<resolution>\d+)_(?P<in_channels>\d+)_(?P<se_channels>\d+)_(?P<out_channels>\d+)"
    r"_k(?P<kernel_size>\d+)_s(?P<stride>\d+)_(?P<activation>relu|swish)"
)


class _OnlyOrderedDicts(pickle.Unpickler):
    """Unpickles ordered dicts, strings and plain numbers. Refuses anything else without running it."""

    def find_class(self, module: str, name: str) -> type:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def import_table(path: str | Path, space: Space, device_name: str | None = None) -> LatencyTable:
    """Reads a table that was measured elsewhere: a published pickle, or a JSON table of ours.

    Every width keeps its value, negative latencies included. Any machine may search with an imported
    table; nothing compares its device with the machine's.

    Args:
        device_name: name of the device. None for the name in the file: JSON tables have one, pickles do not,
            and it becomes `unknown`.

    Raises:
        UserError: the file is missing, damaged or of another format, or does not cover the space.
    """
    path = Path(path)
    content = read_file(path, "a latency table")
    origin = f"imported from {path.name} (SHA-256 {hashlib.sha256(content).hexdigest()})"
    if path.suffix == ".json":
        table = LatencyTable.load(path)
        changes = {"source": "imported", "note": origin}
        if device_name:
            changes["device_name"] = device_name
        provenance = table.provenance.model_copy(update=changes)
        table = table.model_copy(update={"provenance": provenance})
    else:
        provenance = Provenance(
            source="imported",
            device_type=UNKNOWN_DEVICE,
            device_name=device_name or UNKNOWN_DEVICE,
            note=origin,
        )
        table = _table_of(_unpickle(content, path), space, provenance, path)
    if table.space != space.name:
        raise UserError(f"{path}: is of space '{table.space}'; import it with --space {table.space}")
    table.check_covers(space, str(path))
    return table


def _unpickle(content: bytes, path: Path) -> Any:
    try:
        check_pickle(content)
        return _OnlyOrderedDicts(io.BytesIO(content)).load()
    except Exception as error:  # A damaged pickle can make the unpickler raise almost anything.
        raise UserError(
            f"{path}: not a published latency table: {_one_line(error)}; "
            "only ordered dicts of numbers are read; get the file from its authors again"
        ) from None


def _table_of(content: Any, space: Space, provenance: Provenance, path: Path) -> LatencyTable:
    if not isinstance(content, dict) or "base" not in content:
        raise UserError(f"{path}: not a published latency table: it has no key 'base'; check the file")
    try:
        return LatencyTable(
            space=space.name,
            base_ms=_number(content["base"], "base", path),
            provenance=provenance,
            entries=tuple(_entry(key, curve, path) for key, curve in content.items() if key != "base"),
        )
    except ValidationError as error:
        raise UserError(f"{path}: {first_error(error)}") from None


def _entry(key: Any, curve: Any, path: Path) -> LatencyEntry:
    match = _KEY.fullmatch(key) if isinstance(key, str) else None
    if match is None:
        raise UserError(
            f"{path}: key {reprlib.repr(key)} is not of the form "
            "MBInvertedResBlock_RESOLUTION_IN_SE_OUT_kK_sS_ACT; check the file"
        )
    if not isinstance(curve, dict) or not curve or not all(type(width) is int for width in curve):
        raise UserError(f"{path}: '{key}' must map integer mid channels to ms; check the file")
    fields = {name: text if name == "activation" else int(text) for name, text in match.groupdict().items()}
    widths = sorted(curve)
    if widths[0] < 1:
        raise UserError(f"{path}: '{key}' has width {widths[0]}; widths begin at 1; check the file")
    return LatencyEntry(
        key=OpKey.model_validate(fields),
        widths=tuple(widths),
        latency_ms=tuple(_number(curve[width], f"{key} at width {width}", path) for width in widths),
    )


def _number(value: Any, what: str, path: Path) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise UserError(f"{path}: '{what}' is {reprlib.repr(value)}, not a number of ms; check the file")
    return float(value)


def _one_line(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else text[:117] + "..."
