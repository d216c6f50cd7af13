import pytest
import torch

from nas.foundation.errors import UserError
from nas.latency.compatibility import Hardware, check_table
from nas.latency.table import Provenance
from nas.latency.timing import device_name
from tests.support.tiny import TINY, TINY_AT_8, make_dense_table

HERE = device_name(torch.device("cpu"))
CPU = Hardware.of("cpu")


def _table(**provenance):
    return make_dense_table(TINY).model_copy(update={"provenance": Provenance(**provenance)})


def test_a_table_of_this_machine_and_space_passes():
    check_table(_table(source="measured", device_type="cpu", device_name=HERE), TINY, CPU)


def test_a_search_on_a_gpu_may_aim_at_the_cpu_beside_it():
    check_table(
        _table(source="measured", device_type="cpu", device_name=HERE), TINY, Hardware(HERE, "Titan RTX")
    )


def test_a_table_of_another_space_is_refused_with_the_remedy():
    with pytest.raises(UserError, match=r"my\.json: .*'tiny'.*'tiny_at_8'.*measure --space tiny_at_8"):
        check_table(make_dense_table(TINY), TINY_AT_8, CPU, "my.json")


@pytest.mark.parametrize(("device_type", "name"), [("cpu", "Xeon Gold 6130"), ("cuda", "Titan RTX")])
def test_a_table_of_another_device_is_refused_with_the_remedy(device_type, name):
    table = _table(source="measured", device_type=device_type, device_name=name)
    with pytest.raises(UserError, match=rf"'{name}' \({device_type}\), this is .*measure.*import"):
        check_table(table, TINY, CPU)


def test_a_table_holds_for_one_model_of_gpu():
    table = _table(source="measured", device_type="cuda", device_name="Titan RTX")
    check_table(table, TINY, Hardware(HERE, "Titan RTX"))
    with pytest.raises(UserError, match="'Titan RTX' \\(cuda\\), this is 'NVIDIA A100'; measure"):
        check_table(table, TINY, Hardware(HERE, "NVIDIA A100"))


@pytest.mark.parametrize("source", ["imported", "synthetic"])
def test_imported_and_synthetic_tables_stand_for_other_devices(source):
    check_table(_table(source=source, device_type="cuda", device_name="Titan RTX"), TINY, CPU)


def test_a_table_that_lacks_an_operator_is_refused():
    table = make_dense_table(TINY)
    with pytest.raises(UserError, match="no entry for"):
        check_table(table.model_copy(update={"entries": table.entries[1:]}), TINY, CPU)


def test_a_table_of_another_resolution_is_refused():
    with pytest.raises(UserError, match="no entry for resolution=16"):
        check_table(make_dense_table(TINY), TINY.at_resolution(32), CPU)
