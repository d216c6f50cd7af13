"""Published tables, trained and exported networks and trajectories that are wrong, or that attack."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from nas.foundation.checkpoint import load_newest_checkpoint, save_checkpoint
from nas.foundation.errors import UserError
from nas.search.records import Trajectory
from nas.space.baselines import make_network
from nas.space.macro_space import get_space
from nas.training.trained_network import TrainedNetwork
from tests.hostile.command import Command
from tests.support.exported import METADATA, exported
from tests.support.tiny import full_depth_architecture

CANARY = "attacked"


class Attack:
    """Makes a folder as soon as it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (CANARY,)


def nested(opcode: bytes, num_levels: int = 60) -> bytes:
    """A pickle of a few hundred bytes: twice the same, which is twice the same, and so on."""
    levels = b"".join(b"q%c(h%ch%c%c" % (n, n, n, opcode[0]) for n in range(num_levels))
    return b"\x80\x02(K\x01" + opcode + levels


KEY = "MBInvertedResBlock_14_8_0_16_k3_s2_relu"


def curves(**changes: Any) -> bytes:
    return pickle.dumps(OrderedDict(base=1.0) | changes, protocol=2)


# Why it is wrong, its content, and what must be said about it.
PICKLES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a published latency table"),
    "text": (b"base: 1.0\n", "not a published latency table"),
    "cut off": (curves()[:-3], "not a published latency table"),
    "calls a function": (pickle.dumps(Attack()), "mkdir"),
    "calls a function, in text": (pickle.dumps(Attack(), protocol=0), "mkdir"),
    "calls a function in a sound dict": (curves(base=Attack()), "mkdir"),
    "names a function": (b"cos\nsystem\n.", "os.system"),
    "names what takes functions": (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
    "names a number of NumPy's": (curves(base=np.float64(1.0)), "it asks for numpy"),
    "asks for an extension": (b"\x80\x02\x82\x01.", "not a published latency table"),
    "asks for something outside": (b"Pattacked\n.", "not a published latency table"),
    "asks for a huge memo": (b"\x80\x02}r\xff\xff\xff\x7f.", "memo of 2147483647"),
    "says it is longer than it is": (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.", "not a published latency"),
    "lists that explode": (nested(b"l") + b".", "more than one place"),
    "tuples that explode": (nested(b"t") + b"K\x01s.", "more than one place"),
    "not a dict": (pickle.dumps([1.0]), "no key 'base'"),
    "no base": (pickle.dumps(OrderedDict()), "no key 'base'"),
    "a base that is NaN": (curves(base=float("nan")), "'base' is nan"),
    "a base of many years": (curves(base=1e300), "base_ms: 1e+300"),
    "a base that is a list in a list in a list": (curves(base=[[[[[[[[[1]]]]]]]]]), "'base' is [[["),
    "a key of another form": (curves(Conv=OrderedDict({1: 1.0})), "'Conv' is not of the form"),
    "a key of a million characters": (curves(**{"a" * 1_000_000: 1.0}), "is not of the form"),
    "a width that takes all memory": (curves(**{KEY: {1: 0.1, 10**12: 0.2}}), "1000000000000"),
    "a width that is text": (curves(**{KEY: {"1": 0.1}}), "integer mid channels"),
    "one key in two spellings": (
        curves(**{KEY: {8: 0.1}, KEY.replace("_8_", "_08_"): {8: 0.1}}),
        "appears twice",
    ),
    "too few keys": (curves(), "no entry for"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("reason", PICKLES)
def test_a_published_table_that_is_wrong_is_refused_and_runs_nothing(reason: str, command: Command) -> None:
    content, expected = PICKLES[reason]
    Path("table.pkl").write_bytes(content)
    line = command.refuses("latency", "import", "table.pkl", "--space", "micro", "--out", "out.json")
    assert line.startswith("tfnas: table.pkl: ")
    assert expected in line


def test_the_attack_works_where_it_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(PICKLES["calls a function in a sound dict"][0])
    assert Path(CANARY).is_dir()


def record_and_weights() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    architecture = full_depth_architecture(get_space("micro"))
    record = TrainedNetwork(
        network=architecture,
        class_names=("bag", "boot", "coat"),
        resolution=28,
        mean=(0.3,),
        std=(0.3,),
        dataset="fashion_mnist_subset",
        epoch=1,
        metrics={},
        config={},
    )
    return record.model_dump(mode="json"), make_network(architecture, 3, 28).state_dict()


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def trained(**changes: Any) -> bytes:
    record, weights = record_and_weights()
    return saved({"format": 1, "record": record | changes, "weights": weights})


def compressed(content: bytes, replaced: str = "", by: bytes = b"") -> bytes:
    """The same ZIP file, compressed; one member replaced."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            is_it = bool(replaced) and name.endswith(replaced)
            target.writestr(name, by if is_it else source.read(name))
    return buffer.getvalue()


def without_a_weight() -> bytes:
    record, weights = record_and_weights()
    return saved({"format": 1, "record": record, "weights": dict(list(weights.items())[1:])})


TRAINED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "not a trained network"),
    "text": (lambda: b"weights: 1\n", "not a trained network"),
    "a pickle that calls a function": (lambda: pickle.dumps(Attack()), "not a trained network"),
    "torch's old format": (lambda: _saved_the_old_way(Attack()), "not a trained network"),
    "calls a function": (lambda: saved(Attack()), "not a trained network"),
    "calls a function among the weights": (
        lambda: saved({"record": record_and_weights()[0], "weights": {"a": Attack()}}),
        "not a trained network",
    ),
    "a whole network, pickled": (lambda: saved(torch.nn.Conv2d(1, 1, 1)), "not a trained network"),
    "cut off": (lambda: trained()[:-1000], "not a trained network"),
    "the middle is missing": (lambda: trained()[:5000] + trained()[-5000:], "not a trained network"),
    "unpacks to much more": (lambda: compressed(trained(), "data/0", bytes(10**8)), "unpacks to"),
    "a ZIP file of something else": (
        lambda: compressed(saved({}), "data.pkl", b"1"),
        "not a trained network",
    ),
    "a list": (lambda: saved([1, 2]), "not a trained network"),
    "the weights alone": (lambda: saved(record_and_weights()[1]), "not a trained network"),
    "a weight too few": (without_a_weight, "Missing key"),
    "weights of another network": (lambda: trained(network="mobilenet_v2"), "not a trained network"),
    "an unknown network": (lambda: trained(network="resnet"), "not a trained network"),
    "other classes": (lambda: trained(class_names=["a", "b"]), "size mismatch"),
    "no classes": (lambda: trained(class_names=[]), "class_names: []"),
    "a resolution that takes all memory": (lambda: trained(resolution=10**9), "resolution: 1000000000"),
    "a resolution below zero": (lambda: trained(resolution=-1), "resolution: -1"),
    "a mean that is NaN": (lambda: trained(mean=[float("nan")]), "mean[0]: nan"),
    "a deviation of zero": (lambda: trained(std=[0.0]), "std[0]: 0.0"),
    "two channels": (lambda: trained(mean=[0.1, 0.2]), "mean: [0.1, 0.2]: must be one value"),
    "a field too many": (lambda: trained(code="import os"), "code: unknown field"),
}


def _saved_the_old_way(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("reason", TRAINED)
def test_a_trained_network_that_is_wrong_is_refused_and_runs_nothing(reason: str, command: Command) -> None:
    make, expected = TRAINED[reason]
    Path("best.pt").write_bytes(make())
    for arguments in (("predict", "best.pt", "image.png"), ("export", "tf-nas-a", "--checkpoint", "best.pt")):
        line = command.refuses(*arguments)
        assert "best.pt: not a trained network" in line
        assert expected in line


def with_weights_in_another_file() -> bytes:
    model = onnx.load_from_string(exported())
    (weight,) = [tensor for tensor in model.graph.initializer if tensor.name == "weight"]
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "../secret", "offset": "0", "length": "24"}.items():
        weight.external_data.add(key=key, value=value)
    return bytes(model.SerializeToString())


EXPORTED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "export it again"),
    "text": (lambda: b"not a network", "not an ONNX file"),
    "a pickle that calls a function": (lambda: pickle.dumps(Attack()), "not an ONNX file"),
    "cut off": (lambda: exported()[:-40], "not an ONNX file"),
    "a trained network": (lambda: trained(), "not an ONNX file"),
    "weights in a file elsewhere": (with_weights_in_another_file, "not an ONNX file"),
    "not of tfnas": (lambda: exported(metadata=None), "not exported by tfnas"),
    "metadata that is no JSON": (lambda: exported(metadata="{"), "not exported by tfnas"),
    "metadata without end": (lambda: exported(metadata="[" * 100_000), "not exported by tfnas"),
    "metadata that is a list": (lambda: exported(metadata=[1]), "not exported by tfnas"),
    "no resolution": (
        lambda: exported(metadata={name: METADATA[name] for name in METADATA if name != "resolution"}),
        "resolution: missing",
    ),
    "a resolution that takes all memory": (
        lambda: exported(metadata=METADATA | {"resolution": 10**6}),
        "resolution: 1000000",
    ),
    "a resolution of another network": (lambda: exported(metadata=METADATA | {"resolution": 5}), "export it"),
    "another view": (lambda: exported(metadata=METADATA | {"view": "fish-eye"}), "view: 'fish-eye'"),
    "classes of another network": (lambda: exported(num_classes=3), "missing or invalid"),
    "an input of another name": (lambda: exported(input_name="pixels"), "export it"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("reason", EXPORTED)
def test_an_exported_network_that_is_wrong_is_refused_and_runs_nothing(reason: str, command: Command) -> None:
    make, expected = EXPORTED[reason]
    Path("model.onnx").write_bytes(make())
    line = command.refuses("predict", "model.onnx", "image.png")
    assert line.startswith("tfnas: model.onnx: ")
    assert expected in line


@pytest.mark.timeout(30)
def test_what_is_no_file_is_refused_and_not_waited_for(command: Command) -> None:
    os.mkfifo("pipe.onnx")
    os.mkfifo("pipe.pt")
    os.symlink("loop.pt", "loop.pt")
    os.mkdir("folder.onnx")
    for path in ("pipe.onnx", "pipe.pt", "loop.pt", "folder.onnx", "/dev/zero", "gone.onnx", "a" * 5000):
        command.refuses("predict", path, "image.png")
        command.refuses("latency", "import", path, "--space", "micro", "--out", "out.json")


def test_images_that_are_no_files_or_no_images_are_named_and_the_others_answered(
    command: Command, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from experiments.cli import main as cli

    Path("model.onnx").write_bytes(exported())
    os.mkfifo("pipe.png")
    Path("cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.new("RGB", (8, 8)).save("sound.png")
    broken = ["pipe.png", "cut.png", "gone.png", ".", "/dev/zero", "a" * 300]
    monkeypatch.setattr("sys.argv", ["tfnas", "predict", "model.onnx", *broken, "sound.png"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    shown = capfd.readouterr()
    assert caught.value.code == 1
    assert [line.split(": ")[1] for line in shown.err.splitlines()] == broken
    assert shown.out.startswith("sound.png: ")


def arrays(**changes: Any) -> dict[str, Any]:
    sound = {
        "space": np.array("micro"),
        "depth": np.array("sink"),
        "epoch_E": np.array([1, 2]),
        "is_joint_E": np.array([False, True]),
        "alpha_ELO": np.zeros((2, 10, 8), np.float32),
        "beta_ESD": np.zeros((2, 2, 6), np.float32),
        "mid_channels_ELO": np.ones((2, 10, 8), np.int64),
        "derived_op_EL": np.zeros((2, 10), np.int64),
        "train_count_ELO": np.zeros((2, 10, 8), np.int64),
        "scaling_ms_EP": np.zeros((2, 3)),
        "redundant_E": np.array([False, False]),
    }
    return sound | changes


def packed(**changes: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays(**changes))
    return buffer.getvalue()


def header_of(shape: str) -> bytes:
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


TRAJECTORIES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "not a trajectory"),
    "text": (lambda: b"epoch,loss\n", "not a trajectory"),
    "a pickle that calls a function": (lambda: pickle.dumps(Attack()), "not a trajectory"),
    "an array that calls a function": (lambda: packed(epoch_E=np.array([Attack(), 1])), "allow_pickle"),
    "cut off": (lambda: packed()[:-200], "not a trajectory"),
    "an array too few": (lambda: compressed(packed(), "epoch_E.npy", b""), "not a trajectory"),
    "an array too many": (lambda: packed(gamma_E=np.zeros(2)), "gamma_E"),
    "text for numbers": (lambda: packed(alpha_ELO=np.full((2, 10, 8), "a")), "alpha_ELO is <U1"),
    "another number of axes": (
        lambda: packed(alpha_ELO=np.zeros((2, 10), np.float32)),
        "alpha_ELO is float32",
    ),
    "another number of layers": (lambda: packed(space=np.array("paper")), "but L is 18"),
    "an unknown space": (lambda: packed(space=np.array("huge")), "no space 'huge'"),
    "another number of epochs": (lambda: packed(epoch_E=np.array([1, 2, 3])), "is_joint_E has shape (2,)"),
    "unpacks to a thousand times its size": (
        lambda: packed(scaling_ms_EP=np.zeros((2, 6_500_000))),
        "unpacks to",
    ),
    "an array that says it is huge": (
        lambda: compressed(packed(), "scaling_ms_EP.npy", header_of(f"(2, {10**15})")),
        "not a trajectory",
    ),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("reason", TRAJECTORIES)
def test_a_trajectory_that_is_wrong_is_refused_and_runs_nothing(
    reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, expected = TRAJECTORIES[reason]
    Path("trajectory.npz").write_bytes(make())
    with pytest.raises(UserError, match=r"^trajectory\.npz: ") as caught:
        Trajectory.load("trajectory.npz")
    assert expected in str(caught.value)
    assert not Path(CANARY).exists()


def test_the_trajectory_that_the_others_are_made_of_is_read(tmp_path: Path) -> None:
    (tmp_path / "trajectory.npz").write_bytes(packed())
    assert Trajectory.load(tmp_path / "trajectory.npz").alpha_ELO.shape == (2, 10, 8)


@pytest.mark.parametrize(
    "content", [[1, 2], {"format": 1}, {"format": 2, "config_hash": "search", "state": {}}, "text"]
)
def test_a_checkpoint_of_something_else_is_passed_over_or_refused(content: Any, tmp_path: Path) -> None:
    import hashlib

    save_checkpoint(tmp_path, 1, {"lr": 0.1}, "search")
    stored = saved(content)
    checksum = hashlib.sha256(stored).hexdigest()[:16]
    (tmp_path / f"checkpoint-00002-{checksum}.pt").write_bytes(stored)
    if isinstance(content, dict):
        with pytest.raises(UserError, match="checkpoint of another run"):
            load_newest_checkpoint(tmp_path, "search")
    else:
        with pytest.warns(UserWarning, match="damaged"):
            assert load_newest_checkpoint(tmp_path, "search") == {"lr": 0.1}
