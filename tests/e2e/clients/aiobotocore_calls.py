"""What aiobotocore gets, as one JSON object: many calls at a time, bodies read in pieces."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from typing import Any

from aiobotocore.session import get_session

TAG = os.environ["TAG"]
BUCKET = f"aio-{TAG}"


async def one(s3: Any, number: int) -> int:
    """An object up and down."""
    body = b"%d of %s " % (number, TAG.encode()) * (1 + 3000 * number)
    await s3.put_object(Bucket=BUCKET, Key=f"n/{number}", Body=body)
    digest = hashlib.sha256()
    answer = await s3.get_object(Bucket=BUCKET, Key=f"n/{number}")
    async with answer["Body"] as stream:
        async for piece in stream.iter_chunks(16384):
            digest.update(piece)
    assert digest.digest() == hashlib.sha256(body).digest()
    return number


async def main() -> None:
    """All of it."""
    session = get_session()
    async with session.create_client("s3") as s3, session.create_client("dynamodb") as dynamodb:
        await s3.create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": os.environ["AWS_REGION"]}
        )
        done = await asyncio.gather(*(one(s3, number) for number in range(16)))
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, PaginationConfig={"PageSize": 5})
        sizes = [len(page["Contents"]) async for page in pages]
        try:
            await dynamodb.describe_table(TableName="none")
        except dynamodb.exceptions.ResourceNotFoundException as error:
            raised = type(error).__name__
    print(json.dumps({"done": done, "sizes": sizes, "raised": raised}))


if __name__ == "__main__":
    asyncio.run(main())
