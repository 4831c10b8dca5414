"""The verb that makes shells complete the others: completion."""

import click
from click.shell_completion import get_completion_class

_ASKED_BY = "_SIE_AIRGAP_COMPLETE"
"""The variable by which click's scripts ask the program for completions; its name follows from the program's."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete verbs, options and files after `sie-airgap`. Nothing is installed.

    \b
    bash, in ~/.bashrc:
        eval "$(sie-airgap completion bash)"
    zsh, in ~/.zshrc after compinit:
        eval "$(sie-airgap completion zsh)"
    fish, once:
        sie-airgap completion fish > ~/.config/fish/completions/sie-airgap.fish

    bash must be 4.4 or later; the one that comes with macOS is older.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    # Only the text: click's own `source` first runs bash to ask for its version, which may not be on this machine.
    script = kind(ctx.find_root().command, {}, "sie-airgap", _ASKED_BY)
    click.echo(script.source_template % script.source_vars())
