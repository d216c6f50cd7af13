"""The `study` section of a YAML file: a search space, objectives, a budget."""

import itertools
import math
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from nas.config import ConfigRecord, SearchConfig
from nas.search.records import FINAL_METRIC_NAMES, METRIC_NAMES, SUPERNET_METRIC_NAMES

if TYPE_CHECKING:
    import optuna

ABS_ERROR = "abs_latency_error_percent"
OBJECTIVE_NAMES = (*METRIC_NAMES, *SUPERNET_METRIC_NAMES, *FINAL_METRIC_NAMES, ABS_ERROR)
MAX_CORNERS = 2000
"""Number of extreme points of a space that are checked before anything runs."""

Number = Annotated[int | float, Field(allow_inf_nan=False)]
Choice = bool | int | float | str | None


class Domain(ConfigRecord):
    """The values that a field may take: from `low` to `high`, or one of `choices`."""

    low: Number | None = None
    """Smallest value."""

    high: Number | None = None
    """Largest value, included."""

    log: bool = False
    """Whether values are drawn on a log scale."""

    step: Number | None = None
    """Distance between values; None for any value in between (any integer, for integer fields)."""

    choices: list[Choice] | None = None
    """The values, if they are not an interval."""

    when: dict[str, Choice | list[Choice]] = Field(default_factory=dict)
    """Values that other fields must have for this field to vary; otherwise it keeps its value in `base`."""

    def applies(self, values: dict[str, Any]) -> bool:
        """Whether the field is sampled, given the values of those before it."""
        return all(
            field in values and any(same_value(values[field], one) for one in _as_list(allowed))
            for field, allowed in self.when.items()
        )

    def extremes(self) -> list[Any]:
        """The values between which all others lie."""
        return self.choices if self.choices is not None else [self.low, self.high]

    def suggest(self, field: str, trial: "optuna.Trial") -> Any:
        """A value from the study's sampler."""
        if self.choices is not None:
            return trial.suggest_categorical(field, self.choices)
        assert self.low is not None
        assert self.high is not None
        if is_integer(field):
            low, high = int(self.low), int(self.high)
            return trial.suggest_int(field, low, high, step=int(self.step or 1), log=self.log)
        return trial.suggest_float(field, self.low, self.high, step=self.step, log=self.log)

    def __str__(self) -> str:
        if self.choices is not None:
            text = ", ".join(map(str, self.choices))
        else:
            text = f"{self.low} to {self.high}" + (", log" if self.log else "")
            text += f", step {self.step}" if self.step is not None else ""
        conditions = [f"{field} is {allowed}" for field, allowed in self.when.items()]
        return f"{text}, when {' and '.join(conditions)}" if conditions else text

    def problem(self, field: str) -> str | None:
        """What is wrong and the remedy; None if nothing is wrong."""
        if (self.choices is None) == (self.low is None and self.high is None):
            return "give either `low` and `high`, or `choices`"
        if self.choices is not None:
            if self.log or self.step is not None:
                return "log and step go with `low` and `high`; remove them"
            if not self.choices:
                return "choices: empty; give at least one value"
            if has_repeated(self.choices):
                return f"choices: {self.choices}: a value is there twice; remove one"
            return None
        return self._interval_problem(field)

    def _interval_problem(self, field: str) -> str | None:
        if self.low is None or self.high is None:
            return "low and high go together; add the other one"
        if self.low > self.high:
            return f"low: {self.low}: above high ({self.high}); swap them"
        if not _types(field) & {"integer", "number"}:
            return "not a number; give its values as `choices`"
        numbers = [self.low, self.high, *([] if self.step is None else [self.step])]
        if is_integer(field) and not all(isinstance(number, int) for number in numbers):
            return "an integer; write low, high and step without a decimal point"
        if self.log and self.low <= 0:
            return f"low: {self.low}: must be above 0 on a log scale"
        if self.log and self.step is not None:
            return "step: does not go with a log scale; remove one of the two"
        if self.step is not None and self.step <= 0:
            return f"step: {self.step}: must be above 0"
        return None


class StudyObjective(ConfigRecord):
    """A metric of a search's last epoch, and which way is better."""

    metric: Annotated[str, Field(min_length=1)]
    """An epoch's metric, or `abs_latency_error_percent`: its distance from the target, either way.

    `num_health_findings` counts the failed health checks of the whole search.
    """

    direction: Literal["maximize", "minimize"]
    """Which way is better."""

    def value(self, metrics: dict[str, float]) -> float | None:
        """Its value in the metrics of an epoch; None if they lack it."""
        if self.metric == ABS_ERROR:
            return abs(metrics["latency_error_percent"])
        return metrics.get(self.metric)


class Budget(ConfigRecord):
    """When a study ends: no point starts beyond either limit."""

    num_trials: Annotated[int, Field(ge=1)] | None = None
    """Points in total, over all launches, however they end."""

    hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Hours of searching, summed over searches and launches: two parallel searches use two per hour."""


class Study(ConfigRecord):
    """A search space over fields of `SearchConfig`, and how to look for its best points."""

    space: dict[str, Domain]
    """The fields to vary; a field comes after the fields in its `when`."""

    objectives: Annotated[list[StudyObjective], Field(min_length=1)]
    """One objective, or several to trade off against each other."""

    budget: Budget
    """When the study ends."""

    sampler: Literal["tpe", "nsga2", "random", "gp"] = "tpe"
    """Tree-structured Parzen estimator, NSGA-II, independent draws, or a Gaussian process."""

    sampler_seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seeds the sampler; the searches' own seeds are `seeds`."""

    seeds: list[Annotated[int, Field(ge=0)]] | None = None
    """Seeds over which the value of a point is averaged; None for the seed of `base` alone."""

    pruning: Literal["none", "median", "asha"] = "none"
    """How to end unpromising searches early; possible with one objective only."""

    storage: str | None = None
    """URL of the database of Optuna's storage; None for `study.db` in the output folder."""

    def suggest(self, trial: "optuna.Trial") -> dict[str, Any]:
        """A point of the space: the fields that apply, with values from the sampler."""
        return self._walk(lambda field: self.space[field].suggest(field, trial))

    def corners(self) -> Iterator[dict[str, Any]]:
        """Points at which every value is an extreme one, at most `MAX_CORNERS`."""
        extremes = [domain.extremes() for domain in self.space.values()]
        for picks in itertools.islice(itertools.product(*extremes), MAX_CORNERS):
            yield self._walk(dict(zip(self.space, picks, strict=True)).__getitem__)

    def problems(self) -> Iterator[str]:
        """What is wrong: one line per problem, with the remedy."""
        if not self.space:
            yield "space: empty; add a field, for instance `weight_lr: {low: 0.01, high: 0.1, log: true}`"
        yield from self._space_problems()
        yield from self._objective_problems()
        if self.budget == Budget():
            yield "budget: empty; give num_trials, hours or both"
        if self.budget.num_trials is None and math.isfinite(self.num_points()):
            yield f"budget.num_trials: missing; add it: the space has only {self.num_points():.0f} points"
        if self.sampler == "gp" and any(domain.when for domain in self.space.values()):
            yield "sampler: gp: would draw conditional fields (`when`) at random; choose tpe"
        if self.seeds is not None and (not self.seeds or len(set(self.seeds)) < len(self.seeds)):
            yield f"seeds: {self.seeds}: give at least one seed, each once"
        if self.storage is not None and re.search(r"://[^/]*:[^@]*\s[^@]*@", self.storage):
            yield "storage: a space in the password; write %20"
        if self.pruning != "none" and len(self.objectives) > 1:
            yield (
                f"pruning: {self.pruning}: several objectives do not rank searches before they end; "
                "set pruning: none, or keep one objective"
            )
        if self.pruning != "none" and self.objectives[0].metric in FINAL_METRIC_NAMES:
            yield (
                f"pruning: {self.pruning}: only the last epoch has {self.objectives[0].metric}; set pruning: "
                "none, or choose another objective"
            )
        if self.pruning != "none" and len(self.seeds or []) > 1:
            yield (
                f"pruning: {self.pruning}: a point's value is the mean over {len(self.seeds or [])} seeds, "
                "known only at their end; set pruning: none, or keep one seed"
            )

    def num_points(self) -> float:
        """Number of points of the space, ignoring conditions; infinite if a field is continuous."""
        counts = []
        for field, domain in self.space.items():
            if domain.choices is not None:
                counts.append(len(domain.choices))
            elif is_integer(field) or domain.step is not None:
                assert domain.low is not None
                assert domain.high is not None
                counts.append(int((domain.high - domain.low) / (domain.step or 1)) + 1)
            else:
                return math.inf
        return math.prod(counts)

    def _walk(self, choose: Callable[[str], Any]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for field, domain in self.space.items():
            if domain.applies(values):
                values[field] = choose(field)
        return values

    def _space_problems(self) -> Iterator[str]:
        before: set[str] = set()
        for field, domain in self.space.items():
            if field == "seed":
                yield "space.seed: not something to optimize; list seeds in `seeds` to average over them"
            elif field not in SearchConfig.model_fields:
                yield f"space.{field}: unknown field; correct its spelling"
            elif problem := domain.problem(field):
                yield f"space.{field}: {problem}"
            for other, allowed in domain.when.items():
                if other not in before:
                    yield f"space.{field}.when.{other}: not a field above {field} in the space; move it there"
                    continue
                choices = self.space[other].choices or []
                for value in _as_list(allowed):
                    if not any(same_value(value, choice) for choice in choices):
                        yield f"space.{field}.when.{other}: {value!r}: not among the choices of {other}"
            before.add(field)

    def _objective_problems(self) -> Iterator[str]:
        names = [objective.metric for objective in self.objectives]
        for index, name in enumerate(names):
            if name not in OBJECTIVE_NAMES:
                yield f"objectives[{index}].metric: '{name}'; choose among {', '.join(OBJECTIVE_NAMES)}"
            if name in names[:index]:
                yield f"objectives[{index}].metric: '{name}' is there twice; remove one"


def is_integer(field: str) -> bool:
    """Whether a field of `SearchConfig` takes integers only."""
    return "integer" in _types(field)


def _types(field: str) -> set[str]:
    """JSON types of a field of `SearchConfig`."""
    schema = _SCHEMAS[field]
    return {entry["type"] for entry in [schema, *schema.get("anyOf", [])] if "type" in entry}


_SCHEMAS: dict[str, Any] = SearchConfig.model_json_schema()["properties"]


def _as_list(allowed: Choice | list[Choice]) -> list[Choice]:
    return allowed if isinstance(allowed, list) else [allowed]


def has_repeated(values: Sequence[Any]) -> bool:
    """Whether two values of a YAML file are the same; quick for thousands of them."""
    hashable = [value for value in values if isinstance(value, Hashable)]
    others = [value for value in values if not isinstance(value, Hashable)]
    return len({(type(value), value) for value in hashable}) < len(hashable) or any(
        same_value(one, other) for one, other in itertools.combinations(others, 2)
    )


def same_value(one: Any, other: Any) -> bool:
    """Whether two values of a YAML file are equal and of one type (1 is not true)."""
    return type(one) is type(other) and bool(one == other)
