"""The one console script, ``turnout``: finds its subcommands among installed entry points.

``router``, ``serving`` and ``training`` each announce theirs in the group ``turnout.commands``; nothing here imports
them until one is called, so ``turnout serve`` never loads pandas and ``turnout --help`` is quick.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points, version

import click

GROUP = "turnout.commands"
#: Packages of ours whose commands need the training extra.
_EXTRA_OF = {"training": "training", "routing_data": "training"}


class _Commands(click.Group):
    """Subcommands by entry point, loaded when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(point.name for point in entry_points(group=GROUP))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for point in entry_points(group=GROUP, name=cmd_name):
            return _load(point)
        return None


def _load(point: EntryPoint) -> click.Command:
    try:
        command = point.load()
    except ModuleNotFoundError as exc:
        return _unavailable(point, exc.name or "a package")
    if not isinstance(command, click.Command):
        raise click.ClickException(f"entry point {point.value} is no click command")
    return command


def _unavailable(point: EntryPoint, missing: str) -> click.Command:
    extra = _EXTRA_OF.get(point.module.partition(".")[0], "training")
    advice = f"needs {missing!r}: install the {extra} extra with  pip install 'turnout[{extra}]'"

    @click.command(
        point.name,
        short_help=f"(not installed: pip install 'turnout[{extra}]')",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    )
    def unavailable() -> None:
        raise click.ClickException(f"turnout {point.name} {advice}")

    return unavailable


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("turnout"), prog_name="turnout")
def main() -> None:
    """Send every LLM request to the cheapest model predicted to answer it well enough."""


if __name__ == "__main__":
    main()
