"""The JSON schema of a YAML file, for editors: what is known of a file without its table and images.

A launch checks more: what fields need of each other, and what is there.
"""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from experiments.specs.experiment_spec import ExperimentSpec, TrainingSpec
from experiments.specs.field_reference import choices_of, show_default
from nas.config import SAMPLING_ALIASES, ConfigRecord, SearchConfig, TrainConfig
from nas.foundation.field_notes import Needs, Origin, Unit, note_of

_SHARE = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*%\s*$"}

Schema = dict[str, Any]


def yaml_schema(claim: type[BaseModel]) -> Schema:
    """The schema of files of searches, studies and trainings.

    Args:
        claim: the record of a claim, which `analysis` defines.
    """
    records: list[type[BaseModel]] = [ExperimentSpec, TrainingSpec, claim]
    _, found = models_json_schema([(record, "validation") for record in records])
    defs = {name: _plain(each) for name, each in found["$defs"].items()}
    searches, trainings = defs.pop(ExperimentSpec.__name__), defs.pop(TrainingSpec.__name__)
    # A null drops one of the paper's; some fields of one can be replaced.
    replaced = {name: each for name, each in defs.pop(claim.__name__).items() if name != "required"}
    searches["properties"]["claims"]["additionalProperties"] = {"anyOf": [replaced, {"type": "null"}]}
    for spec, record in ((searches, SearchConfig), (trainings, TrainConfig)):
        fields = {f"{record.__name__}.{name}": field for name, field in _fields(record).items()}
        defs |= fields
        _fill(spec, {name.rpartition(".")[2]: {"$ref": f"#/$defs/{name}"} for name in fields})
    space = {name: {"$ref": "#/$defs/Domain"} for name in SearchConfig.model_fields if name != "seed"}
    defs["Study"]["properties"]["space"] |= {"properties": space, "additionalProperties": False}
    for name in ("claims", "study", "share_warmup"):
        del trainings["properties"][name]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A YAML file of tfnas: searches, a study or trainings",
        "if": {"required": ["architectures"]},
        "then": trainings,
        "else": searches | _exclusions(),
        "$defs": defs,
    }


def _exclusions() -> Schema:
    """A grid and a study exclude each other, and a file of searches has one of them."""
    some_grid = {"anyOf": [{"required": ["cells"]}, {"required": ["grid"]}]}
    no_claims = {"not": {"required": ["claims"]}}
    return {
        "if": {"required": ["study"]},
        "then": {"allOf": [{"not": some_grid}, no_claims]},
        "else": some_grid,
    }


def _fill(spec: Schema, fields: Schema) -> None:
    """Writes the fields of a config into the sections that hold them."""
    sections = spec["properties"]
    one = {"type": "object", "properties": fields, "additionalProperties": False}
    sections["base"] |= one
    sections["cells"] = {"description": sections["cells"]["description"], "type": "array", "items": one}
    values = {
        name: {"type": "array", "minItems": 1, "uniqueItems": True, "items": field}
        for name, field in fields.items()
    }
    sections["grid"] |= {"properties": values, "additionalProperties": False}


def _fields(record: type[ConfigRecord]) -> Schema:
    """The fields of a config, each with its notes in the description."""
    properties = record.model_json_schema()["properties"]
    fields = {name: _plain(schema) for name, schema in properties.items() if name != "architecture"}
    for name, schema in fields.items():
        field = record.model_fields[name]
        if choices := choices_of(field):
            aliases = [alias for alias, full in SAMPLING_ALIASES.items() if full in choices]
            schema["enum"] = choices + (aliases if name == "sampling" else [])
        notes = [("Unit", note_of(field, Unit)), ("Source", note_of(field, Origin))]
        lines = [f"{heading}: {note.name}." for heading, note in notes if note]
        lines += [f"Needs {note.condition}." for note in [note_of(field, Needs)] if note]
        if not field.is_required():
            lines.append(f"Default: {show_default(field)}.")
        schema["description"] = "\n\n".join([schema["description"], " ".join(lines)]).strip()
    if "target_latency_ms" in fields:
        number = {key: fields["target_latency_ms"].pop(key) for key in ("type", "exclusiveMinimum")}
        fields["target_latency_ms"]["anyOf"] = [number, _SHARE]
    return fields


def _plain(schema: Any) -> Any:
    """A schema without titles and formats, which tell an editor nothing."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "properties" in schema:
        properties = {name: _plain(each) for name, each in schema["properties"].items()}
        rest = {key: each for key, each in schema.items() if key != "properties"}
        return _plain(rest) | {"properties": properties}
    return {key: _plain(each) for key, each in schema.items() if key not in ("title", "format", "default")}
