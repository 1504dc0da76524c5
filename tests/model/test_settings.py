"""Bounds of the host's settings."""

import pytest

from kms_fast.model.quantities import format_quantity
from kms_fast.model.settings import HostSettings, host_options, mask_password


def test_every_default_is_within_its_own_bounds() -> None:
    for option in host_options().values():
        if option.default is not None:
            written = format_quantity(option.default, option.unit) if option.unit else option.default
            assert option.parse(written, strict=True) == option.default
        assert option.description.endswith(".")


def test_intervals_that_fight_retention_are_refused() -> None:
    HostSettings(renewal_interval_min=9_600, retention_s=15 * 86_400 * 2)
    with pytest.raises(ValueError, match="too long for retention"):
        HostSettings(renewal_interval_min=10_080, retention_s=15 * 86_400)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://kms@db/kms", "postgresql://kms@db/kms"),
        (
            "postgresql://kms:s3cret@db:5433,db2/kms?sslmode=require",
            "postgresql://kms:***@db:5433,db2/kms?sslmode=require",
        ),
        (
            "postgresql://db/kms?user=kms&password=s3cret&sslpassword=s3cret",
            "postgresql://db/kms?user=kms&password=***&sslpassword=***",
        ),
        ("postgresql://kms:s3/c@r:et@db/kms", "postgresql://kms:***@db/kms"),
        ("postgresql://:s3cret@/kms?host=/run/postgresql", "postgresql://:***@/kms?host=/run/postgresql"),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    assert mask_password(url) == shown


def test_no_password_in_a_repr() -> None:
    settings = HostSettings(store="postgresql://kms:s3cret@db/kms")
    assert "s3cret" not in f"{settings} {settings!r}"
    assert 'store="postgresql://kms:***@db/kms"' in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://kms:s3cret@db/kms",
        "s3cret",
        "postgresql://kms:s3cret/x@db/kms",
        "postgresql://kms:s3cret@x@db/kms",
        "postgresql://kms:s3cret#x@db/kms",
        "postgresql://kms:s3cret?x@db/kms@",
    ],
)
def test_malformed_store_urls_are_refused_without_telling_them(url: str) -> None:
    with pytest.raises(ValueError, match=r"write ") as caught:
        host_options()["store"].parse(url, strict=False)
    assert "s3cret" not in str(caught.value)
