"""A command with commands of its own, one of which need not be named."""

from __future__ import annotations

from typing import Any, ClassVar

from typer.core import TyperGroup


class _DefaultGroup(TyperGroup):
    """What does not begin with the name of a command is for one of them."""

    otherwise: ClassVar[str]
    when_empty: ClassVar[bool]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args[:1] != ["--help"] and (args[0] not in self.commands if args else self.when_empty):
            args = [self.otherwise, *args]
        return super().parse_args(ctx, args)


def defaulting_to(name: str, *, when_empty: bool = False) -> type[TyperGroup]:
    """A group in which the command of this name need not be named; `when_empty`: also where nothing is said at all."""
    return type("DefaultGroup", (_DefaultGroup,), {"otherwise": name, "when_empty": when_empty})
