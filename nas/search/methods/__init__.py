"""Search methods, one module each.

To add one, write a subclass of `nas.search.method.SearchMethod` and register it in `METHODS`.
"""

from typing import TYPE_CHECKING

from nas.foundation.registry import Registry

if TYPE_CHECKING:
    from nas.search.method import SearchMethod

METHODS: "Registry[type[SearchMethod]]" = Registry(
    "method",
    {
        "tf_nas": "nas.search.methods.tf_nas:TfNas",
        "random": "nas.search.methods.random_search:RandomSearch",
        "gp_nas": "nas.search.methods.gp_nas:GpNas",
    },
)
"""How architectures are searched.

Given as text, so that a config knows the names without importing the classes.
"""
