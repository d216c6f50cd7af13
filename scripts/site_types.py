"""Types of fields as the documentation site shows them: without the checks that pydantic makes."""

from typing import Any

import griffe


def plain(annotation: Any) -> Any:
    """`Annotated[T, ...]` as T, also within a union; anything else as it is."""
    match annotation:
        case griffe.ExprSubscript(
            left=griffe.ExprName(name="Annotated"), slice=griffe.ExprTuple(elements=[first, *_])
        ):
            return plain(first)
        case griffe.ExprBinOp(left=left, operator="|", right=right):
            return griffe.ExprBinOp(plain(left), "|", plain(right))
    return annotation


class PlainTypes(griffe.Extension):
    """Shows the plain type of each attribute."""

    def on_attribute(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Replaces the type of an attribute that has been read."""
        attr.annotation = plain(attr.annotation)
