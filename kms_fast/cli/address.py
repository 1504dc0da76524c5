"""Addresses of hosts and DNS domains on the command line."""

from collections.abc import Callable

import click

from kms_fast.discovery.address import parse_address, parse_domain
from kms_fast.errors import ConfigurationError


def check_address(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """A click callback: the text as it is. Raises click.BadParameter when it is no address of a host."""
    return _check(parse_address, ctx, param, value)


def check_optional_address(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """As `check_address`, for what need not be given."""
    return None if value is None else check_address(ctx, param, value)


def check_domain(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """A click callback: the text as it is. Raises click.BadParameter when it is no DNS domain."""
    return _check(parse_domain, ctx, param, value)


def _check(parse: Callable[[str], object], ctx: click.Context, param: click.Parameter, value: str) -> str:
    try:
        parse(value)
    except ConfigurationError as error:
        raise click.BadParameter(error.message, ctx, param) from None
    return value
