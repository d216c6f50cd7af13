"""The reference of all fields of a YAML file, read from where the fields are defined."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any

from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo

from experiments.places.resources import Resources
from experiments.specs.experiment_spec import ExperimentSpec, TrainingSpec
from experiments.specs.study_spec import Budget, Domain, Study, StudyObjective
from nas.config import OBJECTIVE_FIELDS, DataConfig, SearchConfig, TrainConfig
from nas.data.datasets import DATASETS, SOURCE_FIELDS
from nas.foundation.errors import UserError
from nas.foundation.field_notes import Needs, Origin, Unit, note_of
from nas.foundation.registry import Registry
from nas.search.methods import METHODS
from nas.supernet.objectives import OBJECTIVES, has_multiplier, parameters_of

SEARCHES = "searches: base, cells, grid"
TRAININGS = "trainings: base, cells, grid"

_SUFFIXES = {"_ms": "ms", "_s": "s", "_percent": "%", "_bytes": "bytes"}
"""Units that a field's name has."""


@dataclass(frozen=True)
class FieldEntry:
    """All that is known of a field.

    Attributes:
        section: where it is written.
        type: in words; the names to choose from, if it is one of some names.
        range: of numbers; empty if any is possible, or if it is no number.
        default: as YAML has it; empty if the field must be set.
        unit, source, needs: empty if it has none, see `nas.foundation.field_notes`.
        text: the documentation under the field.
    """

    section: str
    name: str
    type: str
    range: str
    default: str
    unit: str
    source: str
    needs: str
    text: str

    @property
    def facts(self) -> dict[str, str]:
        """All but the text that is known, by its heading."""
        facts = {
            "type": self.type,
            "range": self.range,
            "default": self.default or "none, must be set",
            "unit": self.unit,
            "source": self.source,
            "needs": self.needs,
        }
        return {heading: fact for heading, fact in facts.items() if fact}


def field_entries(claim: type[BaseModel]) -> list[FieldEntry]:
    """All fields, section by section.

    Args:
        claim: the record of a claim, which `analysis` defines.
    """
    records: dict[str, type[BaseModel]] = {
        "the file": TrainingSpec,
        SEARCHES: SearchConfig,
        TRAININGS: TrainConfig,
        "study": Study,
        "study.space.FIELD": Domain,
        "study.objectives": StudyObjective,
        "study.budget": Budget,
        "resources": Resources,
        "claims.NAME": claim,
    }
    return [entry for section, record in records.items() for entry in _entries(section, record)]


def find_entries(name: str, entries: Sequence[FieldEntry]) -> list[FieldEntry]:
    """The fields of a name, which may begin with its section: `num_epochs`, `study.budget.hours`.

    Raises:
        UserError: there is none.
    """
    section, _, last = name.rpartition(".")
    found = [
        entry
        for entry in entries
        if entry.name == last and (not section or section in (entry.section, *_sections(entry)))
    ]
    if not found:
        close = difflib.get_close_matches(last, [entry.name for entry in entries], n=1)
        remedy = f"did you mean '{close[0]}'?" if close else "`tfnas config` lists all fields"
        raise UserError(f"{name}: no such field; {remedy}")
    return found


def _sections(entry: FieldEntry) -> list[str]:
    """The sections that a person may write for a field: `base`, `cells` and `grid` mean the same fields."""
    return entry.section.partition(": ")[2].split(", ") if ": " in entry.section else []


def _entries(section: str, record: type[BaseModel]) -> Iterator[FieldEntry]:
    schema = record.model_json_schema()
    for name, field in record.model_fields.items():
        unit, source = note_of(field, Unit), note_of(field, Origin)
        yield FieldEntry(
            section=section,
            name=name,
            type=_describe_type(field, schema["properties"][name], schema.get("$defs", {})),
            range=_describe_range(schema["properties"][name]),
            default="" if field.is_required() else show_default(field),
            unit=unit.name if unit else next((u for end, u in _SUFFIXES.items() if name.endswith(end)), ""),
            source=source.name if source else "",
            needs="; ".join(_needs(record, name, field)),
            text=cleandoc(field.description or ""),
        )


def choices_of(field: FieldInfo) -> list[str]:
    """The names that a field of a registry can have; none for other fields."""
    for note in field.metadata:
        owner = getattr(note.func, "__self__", None) if isinstance(note, AfterValidator) else None
        if isinstance(owner, Registry):
            return list(owner)
    return []


def show_default(field: FieldInfo) -> str:
    """The default of a field as YAML has it."""
    default = field.get_default(call_default_factory=True)
    if default is None:
        return "null"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return f"{default:g}"
    if isinstance(default, BaseModel | Mapping | list):
        return "empty"
    return str(default) if str(default) else "empty"


def _describe_type(field: FieldInfo, schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    if choices := choices_of(field):
        return " | ".join(choices)
    return " or ".join(dict.fromkeys(_type_words(schema, defs)))


def _type_words(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> Iterator[str]:
    words = {"string": "text", "boolean": "true or false", "number": "number", "integer": "integer"}
    if "anyOf" in schema:
        for each in schema["anyOf"]:
            yield from _type_words(each, defs)
    elif "enum" in schema:
        yield " | ".join(map(str, schema["enum"]))
    elif "const" in schema:
        yield str(schema["const"])
    elif "$ref" in schema:
        yield "mapping"
    elif schema.get("type") == "array":
        items = " or ".join(dict.fromkeys(_type_words(schema.get("items", {}), defs)))
        yield f"list of {items}" if items else "list"
    elif schema.get("type") == "object":
        yield "mapping"
    elif schema.get("type") == "null":
        yield "null"
    elif schema.get("format") == "path":
        yield "path"
    elif "type" in schema:
        yield words[schema["type"]]


def _describe_range(schema: Mapping[str, Any]) -> str:
    """The bounds of a number in words: `above 0`, `0 to 8192`, `0 to below 1`."""
    for each in [schema, *schema.get("anyOf", [])]:
        low = [f"{each['minimum']:g}"] if "minimum" in each else []
        low += [f"above {each['exclusiveMinimum']:g}"] if "exclusiveMinimum" in each else []
        high = [f"{each['maximum']:g}"] if "maximum" in each else []
        # Below 2**31 is no bound that a person meets.
        below = each.get("exclusiveMaximum")
        high += [f"below {below:g}"] if below is not None and below < 2**31 else []
        step = [f"in steps of {each['multipleOf']:g}"] if "multipleOf" in each else []
        if low and high:
            return ", ".join([f"{low[0]} to {high[0]}", *step])
        if low:
            return ", ".join([low[0] if "above" in low[0] else f"at least {low[0]}", *step])
        if high:
            return f"at most {high[0]}"
    return ""


def _needs(record: type[BaseModel], name: str, field: FieldInfo) -> Iterator[str]:
    """What a field needs to have an effect: by its note, and by what the registries say of it."""
    if issubclass(record, DataConfig) and name in SOURCE_FIELDS:
        yield _one_of("dataset", [each for each in DATASETS if DATASETS[each].uses(name)])
    if record is SearchConfig:
        users = [each for each in METHODS if name not in METHODS[each].ignored_fields]
        if len(users) < len(METHODS):
            yield _one_of("method", users)
        if name in OBJECTIVE_FIELDS:
            yield _one_of("objective", [each for each in OBJECTIVES if name in parameters_of(each)])
        if name == "latency_multiplier_lr":
            yield _one_of("objective", [each for each in OBJECTIVES if has_multiplier(each)])
    if record is TrainingSpec and name in ExperimentSpec.model_fields:
        if name in ("claims", "study", "share_warmup"):
            yield "a file of searches"
    elif record is TrainingSpec:
        yield "a file of trainings, which it makes the file"
    if (needs := note_of(field, Needs)) is not None:
        yield needs.condition


def _one_of(field: str, names: Sequence[str]) -> str:
    return f"{field}: {' or '.join(names)}"


def reference_page(entries: Sequence[FieldEntry], heading: str) -> str:
    """The reference as Markdown.

    Args:
        heading: what comes before the sections.
    """
    lines = [heading.rstrip()]
    for section in dict.fromkeys(entry.section for entry in entries):
        lines += ["", f"## {section[:1].upper()}{section[1:]}"]
        for entry in entries:
            if entry.section == section:
                facts = [f"{name}: {_as_code(name, fact)}" for name, fact in entry.facts.items()]
                lines += ["", f"**`{entry.name}`**: {'; '.join(facts)}.", "", entry.text]
    return "\n".join(lines).rstrip() + "\n"


def _as_code(heading: str, fact: str) -> str:
    return f"`{fact}`" if heading == "default" and not fact.startswith("none,") else fact
