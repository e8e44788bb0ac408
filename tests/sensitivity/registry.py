"""Where the wrong rules are listed: each is a class of rules, or a patch of the model."""

import inspect
import re
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import CodeType
from typing import Any, TypeVar
from unittest import mock

from qbprop_model.expectation import Expectation
from qbprop_model.operations import InvalidOperationError, Operation
from qbprop_model.rules import Rules
from qbprop_model.world import World

VARIANTS: dict[str, "Variant"] = {}
"""Every wrong rule by name."""

R = TypeVar("R", bound=type[Rules])
Wrap = Callable[[Any], Any]


@dataclass(frozen=True)
class Variant:
    """A model with one wrong rule. ``patch`` makes a wrong ``owner.attribute`` of the right one."""

    name: str
    description: str
    rules: type[Rules] = Rules
    owner: object = None
    attribute: str = ""
    patch: Wrap | None = None

    @property
    def family(self) -> str:
        """The module that states it."""
        stated = self.rules if self.patch is None else self.patch
        return stated.__module__.rpartition(".")[2]

    @contextmanager
    def active(self) -> Iterator[Rules]:
        """The model is wrong meanwhile; gives the rules to make Worlds of."""
        with ExitStack() as stack:
            if self.patch is not None:
                wrong = self.patch(getattr(self.owner, self.attribute))
                stack.enter_context(mock.patch.object(self.owner, self.attribute, wrong))
            stack.enter_context(mock.patch.object(World, "apply", _followed(World.apply)))
            yield self.rules()

    def concerns(self, called: AbstractSet[CodeType]) -> bool:
        """Whether this model may go another way than a right one that has called these."""
        if self.patch is not None:
            replaced = [inspect.getattr_static(self.owner, self.attribute)]
        else:
            own = [vars(cls) for cls in self.rules.__mro__[: -len(Rules.__mro__)]]
            names = {name for each in own for name in each if not name.startswith("__")}
            replaced = [getattr(Rules, name) for name in names if hasattr(Rules, name)]
        codes = [_code(each) for each in replaced]
        return None in codes or not called.isdisjoint(codes)


def _code(function: object) -> CodeType | None:
    """What runs when it is called; None where that is not known."""
    for attribute in ("fget", "func", "__func__"):
        function = getattr(function, attribute, function)
    return getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None


def _followed(apply: Callable[[World, Operation], Expectation]) -> Any:
    """An ``apply`` that leaves out what a wrong model has no answer to."""

    def followed(world: World, operation: Operation) -> Expectation:
        try:
            return apply(world, operation)
        except (KeyError, IndexError, AssertionError, ValueError) as lost:
            raise InvalidOperationError("the wrong rule leads nowhere") from lost

    return followed


def wrong_rule(description: str) -> Callable[[R], R]:
    """Decorator of a class of rules of which one is wrong."""

    def register(rules: R) -> R:
        name = re.sub(r"(?<!^)(?=[A-Z])", "-", rules.__name__).lower()
        VARIANTS[name] = Variant(name, description, rules=rules)
        return rules

    return register


def wrong_effect(description: str, owner: object, attribute: str) -> Callable[[Wrap], Wrap]:
    """Decorator of a function that makes a wrong ``owner.attribute`` out of the right one."""

    def register(patch: Wrap) -> Wrap:
        name = patch.__name__.replace("_", "-")
        VARIANTS[name] = Variant(name, description, owner=owner, attribute=attribute, patch=patch)
        return patch

    return register
