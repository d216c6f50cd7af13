"""A tiny network as an exported ONNX file."""

import json
from typing import Any

from onnx import TensorProto, helper

from nas.training.export_metadata import INPUT_NAME, METADATA_KEY

METADATA = {
    "name": "a",
    "class_names": ["bag", "boot"],
    "resolution": 4,
    "view": "resize",
    "is_gray": True,
}


def exported(num_classes: int = 2, input_name: str = INPUT_NAME, metadata: Any = METADATA) -> bytes:
    """A network that averages its images, as ONNX."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", [input_name, "axes"], ["means"], keepdims=0),
            helper.make_node("MatMul", ["means", "weight"], ["logits"]),
        ],
        "network",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["batch", 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", num_classes])],
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3]),
            helper.make_tensor("weight", TensorProto.FLOAT, [3, num_classes], [1.0] * 3 * num_classes),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if metadata is not None:
        text = metadata if isinstance(metadata, str) else json.dumps(metadata)
        model.metadata_props.add(key=METADATA_KEY, value=text)
    return bytes(model.SerializeToString())
