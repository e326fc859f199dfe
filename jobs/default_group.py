"""A command with commands of its own, one of which need not be named."""

from __future__ import annotations

from typing import Any, ClassVar

from typer.core import TyperGroup

_HELP = "--help"


class _DefaultGroup(TyperGroup):
    """What does not begin with the name of a command is for one of them."""

    otherwise: ClassVar[str]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] != _HELP and args[0] not in self.commands:
            args = [self.otherwise, *args]
        return super().parse_args(ctx, args)


def defaulting_to(name: str) -> type[TyperGroup]:
    """A group in which the command of this name need not be named."""
    return type("DefaultGroup", (_DefaultGroup,), {"otherwise": name})
