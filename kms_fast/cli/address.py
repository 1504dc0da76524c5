"""Addresses of hosts on the command line."""

import click

from kms_fast.discovery.address import parse_address
from kms_fast.errors import ConfigurationError


def check_address(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """A click callback: the text as it is. Raises click.BadParameter when it is no address of a host."""
    try:
        parse_address(value)
    except ConfigurationError as error:
        raise click.BadParameter(error.message, ctx, param) from None
    return value
