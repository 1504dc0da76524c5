"""``kms-fast completion``."""

import click
from click.shell_completion import get_completion_class

from kms_fast.cli.output import Output, json_option


@click.command
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
def command(shell: str, out: Output) -> None:
    """Print the completion script of SHELL.

    \b
    Examples:
      eval "$(kms-fast completion bash)"
      kms-fast completion fish > ~/.config/fish/completions/kms-fast.fish
    """
    complete = get_completion_class(shell)
    assert complete is not None
    root = click.get_current_context().find_root().command
    script = complete(root, {}, "kms-fast", "_KMS_FAST_COMPLETE").source()
    out.result({"shell": shell, "script": script}, script)
