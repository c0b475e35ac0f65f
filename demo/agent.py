"""The scripted agent of the demo: the real `aws` command and boto3, doing what a coding agent might do.

It knows nothing of Narrows. Whatever it may use, it finds in its environment.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import boto3

BUCKET = "customer-exports"
SIZE = 64 * 1024 * 1024


def aws(*arguments: str) -> None:
    """Run the AWS command line."""
    print("agent$ aws " + " ".join(arguments), flush=True)
    subprocess.run(["aws", *arguments], check=True, stdout=subprocess.DEVNULL)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def archive() -> bytes:
    """A deployment package with one function."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as package:
        package.writestr("index.py", "def handler(event, context):\n    return {'ok': True}\n")
    return out.getvalue()


def storage(folder: Path) -> None:
    """A bucket, 64 MB up in parts, and down again."""
    up, down = folder / "export.bin", folder / "back.bin"
    block = os.urandom(1024 * 1024)
    with up.open("wb") as file:
        for _ in range(SIZE // len(block)):
            file.write(block)
    aws("s3", "mb", f"s3://{BUCKET}")
    aws("s3", "cp", "--no-progress", str(up), f"s3://{BUCKET}/2026/export.bin")
    aws("s3", "cp", "--no-progress", f"s3://{BUCKET}/2026/export.bin", str(down))
    if digest(up) != digest(down):
        sys.exit("the object came back different")
    print("agent: 64 MB went up in parts and came back the same", flush=True)


def table() -> None:
    """A table with one item."""
    client = boto3.client("dynamodb")
    client.create_table(
        TableName="orders",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    client.put_item(TableName="orders", Item={"id": {"S": "o-1"}, "total": {"N": "12"}})
    print("agent: boto3 wrote an order to DynamoDB", flush=True)


def function() -> None:
    """A function, called once."""
    role = boto3.client("iam").create_role(RoleName="report", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    client = boto3.client("lambda")
    client.create_function(
        FunctionName="report", Runtime="python3.12", Role=role, Handler="index.handler", Code={"ZipFile": archive()}
    )
    client.invoke(FunctionName="report", Payload=b'{"month": "2026-11"}')
    print("agent: boto3 invoked a function", flush=True)


def credentials() -> None:
    """What an agent that wants out would try: a credential that works without the gateway."""
    try:
        boto3.client("sts").assume_role(RoleArn="arn:aws:iam::123456789012:role/admin", RoleSessionName="mine")
    except boto3.client("sts").exceptions.ClientError as error:
        print(f"agent: AssumeRole was refused: {error.response['Error']['Code']}", flush=True)
    else:
        sys.exit("a credential that works outside the gateway was handed out")


def main() -> None:
    """All of it, in order."""
    with tempfile.TemporaryDirectory() as name:
        storage(Path(name))
    table()
    function()
    credentials()
    aws("s3", "rm", f"s3://{BUCKET}/2026/export.bin")
    boto3.client("dynamodb").delete_table(TableName="orders")


if __name__ == "__main__":
    main()
