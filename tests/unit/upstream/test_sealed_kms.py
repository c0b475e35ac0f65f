"""AWS KMS as the master of the sealed store: bound to name and version by the encryption context."""

from __future__ import annotations

import os
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from narrows.upstream.sealed import SealedStore
from narrows.upstream.sealed_keys import Masters
from narrows.upstream.sources_shape import SourceFailed
from narrows.upstream.vault import Vault
from narrows.wire.sigv4 import Credentials

REGION = "eu-west-1"


def chain(profile: str) -> Credentials:
    return Credentials("AKIAEXAMPLE000000000", "secret/of+the-gateway", None)


@mock_aws
def test_kms_wraps_and_unwraps_for_one_name_and_version(tmp_path: Path) -> None:
    kms = boto3.client("kms", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="y")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    master = {"kind": "kms", "key": key, "region": REGION, "endpoint": "", "profile": ""}
    masters = Masters(tmp_path, Vault(), chain)
    secret = os.urandom(32)
    wrapped = masters.wrap(master, "one", 3, secret)
    assert masters.unwrap(master, "one", 3, wrapped) == secret
    for name, version in (("two", 3), ("one", 2)):
        with pytest.raises(SourceFailed, match="refused"):
            masters.unwrap(master, name, version, wrapped)
    other = master | {"key": "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000"}
    with pytest.raises(SourceFailed, match="KMS could not encrypt") as caught:
        masters.wrap(other, "one", 3, secret)
    assert "secret/of+the-gateway" not in str(caught.value) and caught.value.step == "source"

    store = SealedStore(tmp_path / "credentials", Vault(), chain)
    store.put("one", b"the secret", 1, tmp_path / "keys")
    assert store.rotate(master) == 1 and store.secret("one") == b"the secret"
    with pytest.raises(SourceFailed):
        store.rotate(other)
    assert store.secret("one") == b"the secret" and store.current() == master, "a key that cannot wrap is not taken"
