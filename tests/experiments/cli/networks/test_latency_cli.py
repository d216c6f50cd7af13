import json
import pickle
import re
import subprocess
import sys
from collections import OrderedDict

import pytest

from experiments.cli.main import main
from nas.latency import quiet
from nas.latency.table import LatencyTable, reachable_interval_ms
from nas.space.macro_space import get_space
from tests.support.published import make_config, write_config
from tests.support.tiny import full_depth_architecture, make_dense_table


@pytest.fixture
def tfnas(monkeypatch, capsys):
    """Runs the command in this process; returns exit code, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tfnas", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return ended.value.code or 0, output.out, output.err

    return run


@pytest.fixture
def paper_table(tmp_path):
    path = tmp_path / "paper.json"
    make_dense_table(get_space("paper")).save(path)
    return path


@pytest.fixture(scope="module")
def micro_table(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "micro.json"
    arguments = ["--space", "micro", "--out", str(path), "--max-seconds", "1", "--even-if-busy", "--json"]
    output = subprocess.run(
        [
            sys.executable,
            "-c",
            "from experiments.cli.main import main; main()",
            "latency",
            "measure",
            *arguments,
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return path, json.loads(output.stdout)


def test_measure_writes_a_table_and_says_what_it_is(micro_table):
    path, summary = micro_table
    table = LatencyTable.load(path)
    assert table.space == "micro"
    assert summary["fingerprint"] == table.fingerprint
    assert summary["range_ms"] == pytest.approx(reachable_interval_ms(table))
    assert summary["provenance"]["source"] == "measured"


def test_check_reports_the_agreement_draws_it_and_stores_the_correction(tfnas, micro_table, tmp_path):
    path, _ = micro_table
    plot, corrected = tmp_path / "plot.svg", tmp_path / "corrected.json"
    arguments = ["--networks", 5, "--plot", plot, "--out", corrected, "--even-if-busy", "--json"]
    code, out, _ = tfnas("latency", "check", path, *arguments)
    assert code == 0
    result = json.loads(out)
    assert set(result["agreement"]) >= {"mape_percent", "bias_percent", "spearman", "kendall_tau"}
    assert len(result["networks"]) == 5
    assert "measured latency (ms)</text>" in plot.read_text()
    assert len(plot.with_suffix(".csv").read_text().splitlines()) == 6
    calibration = LatencyTable.load(corrected).calibration
    assert calibration is not None
    assert calibration.slope == result["correction"]["slope"]


def test_check_refuses_a_plot_format_before_it_measures(tfnas, paper_table):
    code, _, err = tfnas("latency", "check", paper_table, "--plot", "plot.doc")
    assert code == 2
    assert "plot.doc" in err


def test_a_machine_that_stays_busy_is_refused(tfnas, tmp_path, monkeypatch):
    monkeypatch.setattr(quiet, "PATIENCE_S", 1.0)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        while not quiet.measure_load().is_busy:
            pass
        code, _, err = tfnas("latency", "measure", "--space", "micro", "--out", tmp_path / "table.json")
    finally:
        busy.kill()
        busy.wait()
    assert code == 2
    waiting, refusal = err.splitlines()
    assert re.fullmatch(r"waiting up to 1 s for a quiet machine: other processes use \d\.\d CPUs", waiting)
    assert re.fullmatch(r"tfnas: the machine is busy: .*--even-if-busy.*", refusal)
    assert not (tmp_path / "table.json").exists()


def test_a_table_measured_on_a_busy_machine_says_so_when_it_is_written(tfnas, tmp_path, monkeypatch):
    busy = make_dense_table(get_space("micro"))
    busy = busy.model_copy(
        update={"provenance": busy.provenance.model_copy(update={"num_busy_cpus": 0.9, "num_cpus": 2})}
    )
    insisted = []

    def measure_table(*_, even_if_busy, **__):
        insisted.append(even_if_busy)
        return busy

    monkeypatch.setattr("nas.latency.measurement.measure_table", measure_table)
    arguments = ["--space", "micro", "--out", tmp_path / "table.json"]
    tfnas("latency", "measure", *arguments)
    tfnas("latency", "measure", *arguments, "--even-if-busy")
    monkeypatch.setenv("TFNAS_EVEN_IF_BUSY", "1")
    code, _, err = tfnas("latency", "measure", *arguments)
    assert insisted == [False, True, True]
    assert code == 0
    assert re.fullmatch(r"tfnas: warning: .*table\.json: measured while .* used 0\.9 CPUs, .*\n", err)


def test_range_prints_nested_intervals(tfnas, paper_table):
    code, out, _ = tfnas("latency", "range", paper_table, "--json")
    assert code == 0
    intervals = json.loads(out)
    low_ms, high_ms = intervals["all_networks_ms"]
    for name in ("at_initial_widths_ms", "at_full_depth_ms", "at_full_depth_and_initial_widths_ms"):
        inner_low_ms, inner_high_ms = intervals[name]
        assert low_ms <= inner_low_ms < inner_high_ms <= high_ms
    _, text, _ = tfnas("latency", "range", paper_table)
    assert f"{low_ms:.3f}" in text


def _write_pickle(table, path):
    content = OrderedDict(base=table.base_ms)
    for entry in table.entries:
        key = entry.key
        name = f"{key.resolution}_{key.in_channels}_{key.se_channels}_{key.out_channels}"
        content[f"MBInvertedResBlock_{name}_k{key.kernel_size}_s{key.stride}_{key.activation}"] = OrderedDict(
            zip(entry.widths, entry.latency_ms, strict=True)
        )
    path.write_bytes(pickle.dumps(content))
    return path


def test_import_writes_a_table_of_the_pickle(tfnas, tmp_path):
    table = make_dense_table(get_space("paper"))
    source, out = _write_pickle(table, tmp_path / "latency.pkl"), tmp_path / "table.json"
    code, _, _ = tfnas("latency", "import", source, "--space", "paper", "--out", out)
    assert code == 0
    assert [entry.latency_ms for entry in LatencyTable.load(out).entries] == [
        entry.latency_ms for entry in table.entries
    ]


def test_an_imported_pickle_has_the_device_that_one_names_or_warns_in_one_line(tfnas, tmp_path):
    source = _write_pickle(make_dense_table(get_space("paper")), tmp_path / "latency.pkl")
    arguments = ["latency", "import", source, "--space", "paper", "--out", tmp_path / "table.json"]
    code, _, err = tfnas(*arguments, "--device-name", "Titan RTX")
    assert (code, err) == (0, "")
    assert LatencyTable.load(tmp_path / "table.json").provenance.device_name == "Titan RTX"
    code, _, err = tfnas(*arguments)
    assert code == 0
    assert re.fullmatch(r"tfnas: warning: .*latency\.pkl: .*'unknown'.*--device-name\n", err)
    assert LatencyTable.load(tmp_path / "table.json").provenance.device_name == "unknown"


def test_an_imported_json_table_keeps_its_device_unless_one_names_another(tfnas, paper_table, tmp_path):
    arguments = ["latency", "import", paper_table, "--space", "paper", "--out", tmp_path / "table.json"]
    before = LatencyTable.load(paper_table).provenance.device_name
    code, _, err = tfnas(*arguments)
    assert (code, err) == (0, "")
    assert LatencyTable.load(tmp_path / "table.json").provenance.device_name == before
    code, out, err = tfnas(*arguments, "--device-name", "Titan RTX", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["provenance"]["device_name"] == "Titan RTX"
    assert LatencyTable.load(tmp_path / "table.json").provenance.device_name == "Titan RTX"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("latency", "range", "nowhere.json"), "nowhere.json"),
        (("latency", "import", "nowhere.pkl", "--space", "paper", "--out", "t.json"), "nowhere.pkl"),
        (("latency", "measure", "--space", "micro", "--out", "nowhere/t.json"), "there is no folder"),
        (("describe", "nowhere.json"), "nowhere.json"),
        (("describe", "tf-nas-a", "--latency", "nowhere.json"), "nowhere.json"),
    ],
)
def test_wrong_input_ends_with_code_2_and_one_line(tfnas, arguments, message):
    code, out, err = tfnas(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_damaged_table_ends_with_code_2_and_one_line(tfnas, paper_table):
    paper_table.write_text(paper_table.read_text()[:1000])
    code, _, err = tfnas("latency", "range", paper_table)
    assert code == 2
    assert "paper.json" in err
    assert err.count("\n") == 1


def test_describe_knows_the_size_of_the_published_network_exactly(tfnas):
    code, out, _ = tfnas("describe", "tf-nas-a", "--json")
    assert code == 0
    description = json.loads(out)
    assert (description["parameters"], description["macs"]) == (8_757_527, 456_675_855)
    assert description["depth"] == len(description["layers"]) == 18


def test_describe_reads_a_published_config_and_warns_in_one_line_where_it_is_ambiguous(tfnas, tmp_path):
    space = get_space("paper")
    path = tmp_path / "model.config"
    for op, is_ambiguous in ((space.op("k5_e3"), False), (space.op("k5_e6"), True)):
        architecture = full_depth_architecture(space, op)
        widths = [4 * layer.in_channels if is_ambiguous else width for layer, _, width in architecture.layers]
        write_config(make_config(architecture.with_widths(widths), space), path)
        code, out, err = tfnas("describe", path, "--json")
        assert code == 0
        assert [layer["mid_channels"] for layer in json.loads(out)["layers"]] == widths
        assert err.count("\n") == is_ambiguous
        assert err.startswith("tfnas: warning: " if is_ambiguous else "")


def test_describe_refuses_a_wrong_published_config_in_one_line(tfnas, tmp_path):
    space = get_space("paper")
    config = make_config(full_depth_architecture(space), space)
    config["stage3"][1]["kernel_size"] = 7
    code, out, err = tfnas("describe", write_config(config, tmp_path / "model.config"))
    assert (code, out) == (2, "")
    assert "model.config: stage3[1].kernel_size: 7" in err
    assert err.count("\n") == 1


def test_describe_knows_the_size_of_torchvisions_network(tfnas):
    _, out, _ = tfnas("describe", "efficientnet_b0", "--json")
    description = json.loads(out)
    assert description["parameters"] == 5_288_548
    assert description["macs"] == pytest.approx(385.8e6, rel=1e-3)


def test_describe_sums_latency_by_stage(tfnas, paper_table):
    _, out, _ = tfnas("describe", "tf-nas-a", "--latency", paper_table, "--json")
    description = json.loads(out)
    by_stage_ms = [
        sum(layer["latency_ms"] for layer in description["layers"] if layer["stage"] == stage)
        for stage in range(1, 7)
    ]
    assert description["stage_latencies_ms"] == pytest.approx(by_stage_ms)
    total_ms = description["base_latency_ms"] + sum(by_stage_ms)
    assert description["latency_ms"] == pytest.approx(total_ms)
    _, text, _ = tfnas("describe", "tf-nas-a", "--latency", paper_table)
    assert f"{total_ms:.3f} ms by lookup table" in text
    assert "8,757,527" in text


def test_describe_refuses_a_table_of_another_space(tfnas, tmp_path):
    make_dense_table(get_space("micro")).save(tmp_path / "micro.json")
    code, _, err = tfnas("describe", "tf-nas-a", "--latency", tmp_path / "micro.json")
    assert code == 2
    assert "'micro'" in err
    assert "'paper'" in err


def test_describe_measures_networks_in_turn(tfnas, tmp_path):
    full_depth_architecture(get_space("micro")).save(tmp_path / "arch.json")
    arguments = [tmp_path / "arch.json", "mobilenet_v2", "--measure", "--even-if-busy", "--json"]
    code, out, _ = tfnas("describe", *arguments)
    assert code == 0
    first, second = json.loads(out)
    assert first["measured"]["ratio_to_first"] == 1.0
    assert first["resolution"] == second["resolution"] == 28
    for description in (first, second):
        assert description["measured"]["median_ms"] > 0
        assert description["measured"]["ratio_iqr"] >= 0
