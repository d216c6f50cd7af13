"""Types of fields that several records share: numbers in their bounds."""

from typing import Annotated

from pydantic import Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(ge=1, lt=2**31)]
NonNegativeInt = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Resolution = Annotated[int, Field(ge=1, le=8192)]
Threads = Annotated[int, Field(ge=1, le=1024)]
"""A larger number is a typo, and would bring the machine down."""
