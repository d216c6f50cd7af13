import pickle
from collections import OrderedDict

import numpy as np
import pytest

from nas.foundation.errors import UserError
from nas.latency.calibration import draw_architecture
from nas.latency.entry import OpKey
from nas.latency.table import LatencyTable
from nas.latency.table_import import import_table
from nas.space.macro_space import get_space
from tests.support.tiny import TINY, make_dense_table

PAPER = get_space("paper")


def _published_content():
    """What the published files hold: 66 keys, written out from the paper's table, each width from 1."""
    content = OrderedDict(base=11.37)
    shapes = [
        (112, 16, 24, 2, "relu"),
        (56, 24, 24, 1, "relu"),
        (56, 24, 40, 2, "swish"),
        (28, 40, 40, 1, "swish"),
        (28, 40, 80, 2, "swish"),
        (14, 80, 80, 1, "swish"),
        (14, 80, 112, 1, "swish"),
        (14, 112, 112, 1, "swish"),
        (14, 112, 192, 2, "swish"),
        (7, 192, 192, 1, "swish"),
        (7, 192, 320, 1, "swish"),
    ]
    for resolution, in_channels, out_channels, stride, act in shapes:
        for kernel in (3, 5):
            for se, max_width in ((0, 8), (in_channels, 4), (2 * in_channels, 8)):
                key = f"{resolution}_{in_channels}_{se}_{out_channels}_k{kernel}_s{stride}_{act}"
                content[f"MBInvertedResBlock_{key}"] = OrderedDict(
                    (width, 1e-3 * kernel * width - 0.02) for width in range(1, max_width * in_channels + 1)
                )
    return content


@pytest.fixture(scope="module")
def content():
    return _published_content()


def _write(content, path):
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=2))
    return path


def test_the_published_format_has_66_keys_and_36480_entries(content):
    assert len(content) - 1 == 66
    assert sum(len(curve) for key, curve in content.items() if key != "base") == 36_480


def test_every_width_is_imported_as_it_is_negative_ones_too(content, tmp_path):
    table = import_table(_write(content, tmp_path / "latency_gpu.pkl"), PAPER)
    curves = {str(entry.key): entry for entry in table.entries}
    assert len(curves) == 66
    key = OpKey(
        resolution=112,
        in_channels=16,
        se_channels=32,
        out_channels=24,
        kernel_size=3,
        stride=2,
        activation="relu",
    )
    expected = content["MBInvertedResBlock_112_16_32_24_k3_s2_relu"]
    assert dict(zip(curves[str(key)].widths, curves[str(key)].latency_ms, strict=True)) == expected
    assert min(curves[str(key)].latency_ms) < 0


def test_an_imported_table_sums_up_what_the_file_says(content, tmp_path):
    table = import_table(_write(content, tmp_path / "latency_gpu.pkl"), PAPER)
    architecture = draw_architecture(PAPER, np.random.default_rng(0))
    expected_ms = content["base"]
    for layer, op, width in architecture.layers:
        key = (
            f"MBInvertedResBlock_{layer.resolution}_{layer.in_channels}_{op.se_channels(layer.in_channels)}"
            f"_{layer.out_channels}_k{op.kernel_size}_s{layer.stride}_{layer.activation}"
        )
        expected_ms += content[key][width]
    assert table.latency_ms(architecture) == pytest.approx(expected_ms)


def test_an_imported_table_says_where_it_comes_from_and_survives_saving(content, tmp_path):
    table = import_table(_write(content, tmp_path / "latency_gpu.pkl"), PAPER, device_name="Titan RTX")
    assert table.provenance.source == "imported"
    assert table.provenance.device_name == "Titan RTX"
    assert "latency_gpu.pkl" in table.provenance.note
    table.save(tmp_path / "table.json")
    assert LatencyTable.load(tmp_path / "table.json") == table


class _Attack:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_tries_to_run_code_is_refused_and_runs_nothing(tmp_path, protocol):
    marker = tmp_path / "was_here"
    path = tmp_path / "latency.pkl"
    path.write_bytes(pickle.dumps(OrderedDict(base=_Attack(marker)), protocol=protocol))
    with pytest.raises(UserError, match=r"latency\.pkl: .*it asks for .*open") as error:
        import_table(path, PAPER)
    assert not marker.exists()
    assert "\n" not in str(error.value)
    # The attack itself works, where it is let in.
    pickle.loads(path.read_bytes())
    assert marker.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("a numpy scalar", np.float64(1.0)), ("a set", {1}), ("a class", OpKey)],
)
def test_a_pickle_of_anything_but_ordered_dicts_and_numbers_is_refused(tmp_path, name, value):
    with pytest.raises(UserError, match=r"only ordered dicts of numbers|not a number"):
        import_table(_write(OrderedDict(base=value), tmp_path / "latency.pkl"), PAPER)


@pytest.mark.parametrize("damage", [b"", b"\x80", b"not a pickle\n", b"(lp0\nI1\na", b"cposix\nsystem\n."])
def test_a_damaged_pickle_is_refused_in_one_line(tmp_path, damage):
    with pytest.raises(UserError, match=r"latency\.pkl: not a published latency table") as error:
        import_table(_write(damage, tmp_path / "latency.pkl"), PAPER)
    assert "\n" not in str(error.value)


def test_a_truncated_pickle_is_refused(content, tmp_path):
    with pytest.raises(UserError, match="not a published latency table"):
        import_table(_write(pickle.dumps(content)[:-100], tmp_path / "latency.pkl"), PAPER)


KEY = "MBInvertedResBlock_112_16_32_24_k3_s2_relu"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": float("nan")}, "'base' is nan"),
        ({"base": True}, "'base' is True"),
        ({"Conv_1_2": OrderedDict({1: 0.1})}, "'Conv_1_2' is not of the form"),
        ({KEY: OrderedDict({"1": 0.1})}, "integer mid channels"),
        ({KEY: 0.1}, "integer mid channels"),
        ({KEY: OrderedDict({0: 0.1})}, "widths begin at 1"),
        ({KEY: OrderedDict({32: "0.1"})}, "at width 32' is '0.1', not a number"),
        ({KEY: OrderedDict({32: 0.1})}, "lacks widths 64 to 128"),
    ],
)
def test_wrong_content_is_named(content, tmp_path, change, message):
    with pytest.raises(UserError, match=f"latency.pkl: .*{message}"):
        import_table(_write(content | change, tmp_path / "latency.pkl"), PAPER)


def test_a_file_that_lacks_an_operator_of_the_space_is_refused(content, tmp_path):
    less = OrderedDict((key, curve) for key, curve in content.items() if key != KEY)
    with pytest.raises(UserError, match=r"latency.pkl: no entry for resolution=112 .* se_channels=32"):
        import_table(_write(less, tmp_path / "latency.pkl"), PAPER)
    with pytest.raises(UserError, match=r"latency.pkl: no entry for"):
        import_table(_write(content, tmp_path / "latency.pkl"), get_space("micro"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.pkl: cannot read"):
        import_table(tmp_path / "nowhere.pkl", PAPER)


def test_a_table_of_ours_can_be_imported_to_stand_for_another_device(tmp_path):
    table = make_dense_table(TINY)
    table.save(tmp_path / "table.json")
    imported = import_table(tmp_path / "table.json", TINY)
    assert imported.provenance.source == "imported"
    assert imported.provenance.device_name == table.provenance.device_name
    assert imported.entries == table.entries
    with pytest.raises(UserError, match="--space tiny"):
        import_table(tmp_path / "table.json", PAPER)
