"""The resources that a call touches, as ARNs.

Exact: S3 buckets and objects, and every parameter that is an ARN. Best effort: the ARN formats of the IAM action (from
the Service Authorization Reference), filled from parameters of the same or a related name; the account is left empty
where it is not known.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from narrows.core.values import Resource
from narrows.session.aws import iam
from narrows.session.aws.endpoints import partition
from narrows.session.aws.values import Target

LIMIT = 100
"""Resources named per call."""
_DEPTH = 8
_ARN = re.compile(r"^arn:aws[a-z-]*:[a-z0-9-]+:[a-z0-9-]*:(?:[0-9]{12}|aws|cloudfront)?:[^\s]{1,1024}$")
_QUEUE_URL = re.compile(r"^https?://[^/]+/(\d{12})/([A-Za-z0-9_.-]{1,80})/?$")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_CONTEXT = ("Partition", "Region", "Account")
_ACCOUNT = re.compile(r"^\d{12}$")

ALIASES: dict[str, tuple[str, ...]] = {
    "AliasName": ("AliasName",),
    "CertificateId": ("CertificateArn",),
    "ClusterName": ("cluster", "clusterName", "name"),
    "FunctionName": ("FunctionName",),
    "HostedZoneId": ("HostedZoneId", "Id"),
    "Id": (),
    "KeyId": ("KeyId",),
    "LoadBalancerId": (),
    "ModelId": ("modelId",),
    "ParameterNameWithoutLeadingSlash": ("Name", "Names"),
    "QueueName": ("QueueName",),
    "SecretId": ("SecretId", "Name"),
    "StateMachineName": ("name",),
    "StreamName": ("StreamName",),
    "TaskDefinitionFamilyName": ("family",),
}
"""Variables of ARN formats -> parameters that hold them, where the name alone does not say."""


def resources_of(target: Target, parameters: dict[str, Any], *, region: str = "", account: str = "") -> list[Resource]:
    """The resources of a call, exact ones first, at most LIMIT. `account` is the caller's, "" if unknown."""
    region = region or target.region
    found: dict[str, bool] = {}
    if target.service == "s3":
        _s3(target, parameters, partition(region)[0], found)
    for arn in _arns(parameters, 0):
        if not (target.service == "s3" and ":s3:" in arn and arn in found):
            found[arn] = True
    if target.service != "s3":
        context = {"Partition": partition(region)[0], "Region": region, "Account": account}
        for arn in _filled(target, parameters, context):
            found.setdefault(arn, False)
    return [Resource(arn, exact) for arn, exact in list(found.items())[:LIMIT]]


def account_of(parameters: Any, result: Any = None) -> str:
    """The first account id that ARNs or queue URLs in parameters or result name, or an empty string."""
    for value in (parameters, result):
        for arn in _arns(value, 0):
            account = arn.split(":")[4]
            if _ACCOUNT.match(account):
                return account
        if isinstance(value, dict):
            for name in ("QueueUrl", "AccountId", "Account"):
                text = value.get(name)
                matched = _QUEUE_URL.match(text) if isinstance(text, str) else None
                if matched:
                    return matched.group(1)
                if isinstance(text, str) and name != "QueueUrl" and _ACCOUNT.match(text):
                    return text
    return ""


def _s3(target: Target, parameters: dict[str, Any], where: str, found: dict[str, bool]) -> None:
    bucket = target.bucket or str(parameters.get("Bucket") or "")
    if not bucket:
        return
    base = bucket if bucket.startswith("arn:") else f"arn:{where}:s3:::{bucket}"
    key = unquote(target.key)
    if key:
        found[f"{base}/{key}"] = True
    else:
        found[base] = True
    delete = parameters.get("Delete")
    objects = delete.get("Objects") if isinstance(delete, dict) else None
    for entry in objects if isinstance(objects, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("Key"), str):
            found[f"{base}/{entry['Key']}"] = True
            if len(found) >= LIMIT:
                return
    source = parameters.get("CopySource")
    if isinstance(source, str):
        path = unquote(source.partition("?")[0]).removeprefix("/")
        found[path if path.startswith("arn:") else f"arn:{where}:s3:::{path}"] = True


def _arns(value: Any, depth: int) -> list[str]:
    if isinstance(value, str):
        return [value] if value.startswith("arn:") and _ARN.match(value) else []
    if depth > _DEPTH:
        return []
    out: list[str] = []
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        if isinstance(item, str):
            if item.startswith("arn:") and _ARN.match(item):
                out.append(item)
        elif isinstance(item, dict | list):
            out += _arns(item, depth + 1)
        if len(out) >= LIMIT:
            break
    return out


def _filled(target: Target, parameters: dict[str, Any], context: dict[str, str]) -> list[str]:
    flat: dict[str, list[str]] = {}
    _flatten(parameters, flat, 0)
    if target.service == "dynamodb" and isinstance(parameters.get("RequestItems"), dict):
        flat.setdefault("tablename", []).extend(str(name) for name in parameters["RequestItems"])
    out: list[str] = []
    for url in flat.get("queueurl", ()):
        matched = _QUEUE_URL.match(url)
        if matched:
            out.append(f"arn:{context['Partition']}:sqs:{context['Region']}:{matched.group(1)}:{matched.group(2)}")
    for template in iam.arn_formats(target.action):
        out += _fill(template, flat, context)
    return out[:LIMIT]


def _fill(template: str, flat: dict[str, list[str]], context: dict[str, str]) -> list[str]:
    variables = [name for name in dict.fromkeys(_VARIABLE.findall(template)) if name not in _CONTEXT]
    if not variables:
        return []
    values = {name: _values(name, flat) for name in variables}
    first = values[variables[0]]
    if not first:
        return []
    out = []
    for index, lead in enumerate(first):
        text = template
        for name in variables:
            if name == variables[0]:
                value = lead
            else:
                found = values[name]
                value = found[index] if index < len(found) else found[0] if found else ""
                if not value:
                    # The last part is often an id that the service adds (a secret's suffix, a stack's id).
                    value = "*" if name == variables[-1] and len(variables) == 2 and name.endswith("Id") else ""
            if not value:
                break
            text = text.replace(f"${{{name}}}", value)
        else:
            for name in _CONTEXT:
                text = text.replace(f"${{{name}}}", context[name])
            out.append(text)
    return out


def _values(variable: str, flat: dict[str, list[str]]) -> list[str]:
    stem = variable.removesuffix("WithPath")
    short = stem.removesuffix("Name").removesuffix("Id")
    names = [*ALIASES.get(variable, ()), stem, stem + "s", short + "Identifier"]
    if variable not in ALIASES:
        names += [stem + "Name", stem + "Id"]
    for name in names:
        found = [v for v in flat.get(name.lower(), ()) if v and not v.startswith("arn:") and len(v) <= 1024]
        if found:
            if variable == "ParameterNameWithoutLeadingSlash":
                found = [v.removeprefix("/") for v in found]
            return found
    return []


def _flatten(value: Any, into: dict[str, list[str]], depth: int) -> None:
    if depth > _DEPTH or not isinstance(value, dict):
        return
    for name, item in value.items():
        texts = [item] if isinstance(item, str) else item if isinstance(item, list) else []
        for text in texts:
            if isinstance(text, str):
                kept = into.setdefault(str(name).lower(), [])
                if len(kept) < LIMIT and text not in kept:
                    kept.append(text)
            else:
                _flatten(text, into, depth + 1)
        if isinstance(item, dict):
            _flatten(item, into, depth + 1)
