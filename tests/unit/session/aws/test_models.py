"""The index of models: fast to load, safe against a broken cache, and no botocore until it is needed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from narrows.session.aws.models import Models


def only_directory(cache: Path) -> Path:
    (directory,) = cache.iterdir()
    return directory


def test_importing_imports_neither_botocore_nor_networking() -> None:
    code = (
        "import sys, narrows.session.aws.resolve, narrows.session.aws.models, narrows.session.aws.errors,"
        " narrows.session.aws.endpoints; sys.exit(bool({'botocore', 'ssl', 'urllib.request'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_resolving_from_a_cache_does_not_import_botocore(models: Models, cache_dir: Path) -> None:
    code = (
        "import sys, pathlib; from narrows.session.aws.models import Models;"
        "from narrows.session.aws.resolve import resolve;"
        "from narrows.session.aws.endpoints import host_for;"
        f"m = Models(pathlib.Path({str(cache_dir)!r}));"
        "t = resolve(m, method=b'POST', target=b'/', headers=[(b'x-amz-target', b'DynamoDB_20120810.PutItem')],"
        " signing_name='dynamodb', region='eu-west-1');"
        "assert host_for(t).host == 'dynamodb.eu-west-1.amazonaws.com';"
        "sys.exit('botocore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_signing_name_loads_in_milliseconds(models: Models, cache_dir: Path) -> None:
    best = {}
    for name in ("ec2", "s3", "dynamodb", "sagemaker"):
        times = []
        for _ in range(5):
            fresh = Models(cache_dir)
            fresh.signing_names()
            start = time.perf_counter()
            assert fresh.group(name) is not None
            times.append(time.perf_counter() - start)
        best[name] = min(times)
    assert max(best.values()) < 0.005, best


def test_progress_is_told_and_all_signing_names_are_indexed(models: Models, cache_dir: Path) -> None:
    told: list[tuple[int, int, str]] = []
    count = Models(cache_dir).build_all(lambda done, total, name: told.append((done, total, name)))
    assert count == len(told) == told[-1][0] == told[-1][1] > 300
    assert not [p for p in only_directory(cache_dir).iterdir() if p.name.startswith(".")]


def test_a_corrupt_or_foreign_file_is_built_again(tmp_path: Path) -> None:
    first = Models(tmp_path)
    assert first.group("sts") is not None
    path = only_directory(tmp_path) / "sts.json"
    whole = path.read_bytes()
    for broken in (b"", whole[:100], b"[]", b'{"a":1}', b'[{"service":"sts"}]'):
        path.write_bytes(broken)
        group = Models(tmp_path).group("sts")
        assert group is not None and "AssumeRole" in group.services[0].operations
        assert path.read_bytes() == whole
    (only_directory(tmp_path) / "signing.json").write_bytes(b"{")
    assert "dynamodb" in Models(tmp_path).signing_names()


def test_without_a_cache_directory_it_works_in_memory() -> None:
    group = Models(None).group("sqs")
    assert group is not None and group.services[0].name == "sqs"
    assert Models(None).group("no-such-service") is None


def test_known_traps_of_signing_names(models: Models) -> None:
    names = models.signing_names()
    assert set(names["s3"]) == {"s3", "s3control"}
    assert names["rds"][0] == "rds" and {"docdb", "neptune"} < set(names["rds"])
    assert set(names["dynamodb"]) == {"dynamodb", "dynamodbstreams"}
    assert names["monitoring"] == ["cloudwatch"]
    assert {"bedrock", "bedrock-runtime", "bedrock-agent", "bedrock-agent-runtime"} <= set(names["bedrock"])
