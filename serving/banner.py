"""The banner: what is served, what to try, and one decision explained. Printed once, for a person."""

from __future__ import annotations

import click

from router.commands import show
from router.errors import RouterError
from serving.state import State

SAMPLE = "Explain to a colleague why 0.1 + 0.2 is not 0.3 in floating point, and when it matters."


def greet(state: State, port: int) -> None:
    """Print the banner of a gateway that accepts requests.

    Parameters
    ----------
    state : State
    port : int
        The port it listens on, which the settings may have left open.
    """
    host = state.settings.server.host
    shown = f"[{host}]" if ":" in host else "127.0.0.1" if host == "0.0.0.0" else host
    address = f"http://{shown}:{port}"
    emulated = [d.candidate for d in state.deployments.values() if d.is_emulated]
    click.echo(
        f"\nTurnout on {address}   bundle {state.bundle_id}   {len(state.candidates)} candidates   docs {address}/docs"
    )
    if emulated:
        click.secho(
            f"EMULATED: {len(set(emulated))} of {len(state.candidates)} candidates answer made-up text from inside "
            "this program. Decisions and prices are real.",
            fg="yellow",
        )
    auth = ' \\\n  -H "authorization: Bearer $TURNOUT_KEY"' if state.settings.keys else ""
    click.echo(
        f"\nTry:\n\ncurl -i {address}/v1/chat/completions -H 'content-type: application/json'{auth} \\\n"
        '  -d \'{"model": "auto", "messages": [{"role": "user", "content": "What is 17 * 23?"}]}\'\n'
    )
    try:
        decision = state.router.route(SAMPLE, state.settings.routing.default)
    except RouterError as error:
        click.echo(f"No candidate can be chosen by `auto`: {error}")
        return
    click.echo(f"One decision: {SAMPLE!r}")
    show(decision)
