"""The one console script, ``turnout``: finds its subcommands among installed entry points.

``router``, ``serving`` and ``training`` each announce theirs in the group ``turnout.commands``; nothing here imports
them until one is called, so ``turnout serve`` never loads pandas and ``turnout --help`` is quick.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec

import click

GROUP = "turnout.commands"
#: Packages of ours that need an extra, with a module that is there when the extra is.
_EXTRAS = {"training": ("training", "sklearn")}


class _Commands(click.Group):
    """Subcommands by entry point, loaded when called; listed when what they need is installed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(point.name for point in entry_points(group=GROUP) if _missing_extra(point) is None)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for point in entry_points(group=GROUP, name=cmd_name):
            extra = _missing_extra(point)
            return _load(point) if extra is None else _advice(point.name, extra)
        return None


def _missing_extra(point: EntryPoint) -> str | None:
    extra, probe = _EXTRAS.get(point.module.partition(".")[0], (None, ""))
    return extra if extra and find_spec(probe) is None else None


def _load(point: EntryPoint) -> click.Command:
    command = point.load()
    if not isinstance(command, click.Command):
        raise click.ClickException(f"entry point {point.value} is no click command")
    return command


def _advice(name: str, extra: str) -> click.Command:
    """Make a command that takes anything and says how to install the real one."""

    @click.command(
        name,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    )
    def advice() -> None:
        raise click.ClickException(
            f"turnout {name} needs the {extra} extra; install it with  pip install 'turnout[{extra}]'  "
            f"(in a source checkout: pip install -e '.[{extra}]')"
        )

    return advice


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="turnout", prog_name="turnout")
def main() -> None:
    """Send every LLM request to the cheapest model predicted to answer it well enough."""


if __name__ == "__main__":
    main()
