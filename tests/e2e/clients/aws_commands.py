"""What the `aws` command prints, as one JSON object. `TAG` names what it makes, `WORK` is a folder for files.

With `INSIDE` set the same commands run inside this process: the same code without starting it each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TAG = os.environ["TAG"]
WORK = Path(os.environ["WORK"])
BUCKET = f"cli-{TAG}"
KEY = '{"id": {"S": "written by the command"}}'
# The command goes to SQS by a host name of its own whatever AWS_ENDPOINT_URL says.
SQS = ["--endpoint-url", os.environ["SQS_URL"]] if "SQS_URL" in os.environ else []


def inside(*arguments: str) -> str:
    """Run the command's own code here."""
    from awscli.clidriver import create_clidriver  # type: ignore[import-untyped]

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = create_clidriver().main(list(arguments))
    return out.getvalue() if not code else f"{out.getvalue()}exit {code}: {err.getvalue().strip()}"


def aws(*arguments: str) -> str:
    """What the command prints; with how it ended if that was not well."""
    if "INSIDE" in os.environ:
        return inside(*arguments)
    done = subprocess.run(["aws", *arguments], capture_output=True, text=True, check=False)
    return done.stdout if not done.returncode else f"{done.stdout}exit {done.returncode}: {done.stderr.strip()}"


def storage() -> list[object]:
    """Up in parts, down again, listed, fetched by a presigned URL, removed."""
    up, down, there = WORK / "up.bin", WORK / f"down-{TAG}.bin", f"s3://{BUCKET}/deep/up.bin"
    told: list[object] = [aws("s3", "mb", f"s3://{BUCKET}")]
    told.append(aws("s3", "cp", "--quiet", str(up), there))
    told.append(aws("s3", "cp", "--quiet", there, str(down)))
    told.append(down.read_bytes() == up.read_bytes())
    told.append(aws("s3", "ls", f"s3://{BUCKET}/deep/").split()[2:])
    url = aws("s3", "presign", there).strip()
    with urllib.request.urlopen(url, timeout=60) as answer:
        told.append(hashlib.sha256(answer.read()).hexdigest())
    told.append(aws("s3", "rm", there))
    told.append(aws("s3api", "get-object", "--bucket", BUCKET, "--key", "none", str(WORK / "none")))
    return told


def table() -> list[object]:
    """A table, an item in and out."""
    made = aws(
        "dynamodb", "create-table", "--table-name", BUCKET, "--billing-mode", "PAY_PER_REQUEST",
        "--attribute-definitions", "AttributeName=id,AttributeType=S",
        "--key-schema", "AttributeName=id,KeyType=HASH", "--query", "TableDescription.TableName",
    )  # fmt: skip
    put = aws("dynamodb", "put-item", "--table-name", BUCKET, "--item", KEY)
    return [made, put, aws("dynamodb", "get-item", "--table-name", BUCKET, "--key", KEY)]


def others() -> list[object]:
    """One call of each further protocol."""
    template = '{"Resources": {"T": {"Type": "AWS::SNS::Topic"}}}'
    return [
        aws("sts", "get-caller-identity"),
        aws("ec2", "describe-instances", "--query", "Reservations"),
        aws("iam", "list-users", "--path-prefix", f"/{TAG}/"),
        aws("sqs", "list-queues", "--queue-name-prefix", BUCKET, *SQS),
        aws("cloudformation", "validate-template", "--template-body", template),
        aws("logs", "describe-log-groups", "--log-group-name-prefix", f"/cli/{TAG}"),
    ]


def main() -> None:
    """All of it; two at a time where each is a process."""
    parts = (storage, table, others)
    if "INSIDE" in os.environ:
        told = [part() for part in parts]
    else:
        with ThreadPoolExecutor(2) as pool:
            told = [made.result() for made in [pool.submit(part) for part in parts]]
    print(json.dumps(told).replace(TAG, "TAG"))


if __name__ == "__main__":
    main()
