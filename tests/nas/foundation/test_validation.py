"""Error lines for invalid records."""

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from nas.foundation.validation import first_error


class Inner(BaseModel):
    sizes: list[int] = []


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid")

    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("content", "start"),
    [
        ({"x": 1}, "x: "),
        ({".": 1}, ".: "),
        ({"..": 1}, "..: "),
        ({"inner": {"sizes": [1, "a"]}}, "inner.sizes[1]: 'a': "),
    ],
)
def test_the_line_begins_with_the_field_whatever_its_name(content: dict[str, object], start: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Record.model_validate(content)
    assert first_error(caught.value).startswith(start)
