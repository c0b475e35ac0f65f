"""What a call uploads, by its SHA-256: refs of kind `file`, which join it to the answers and edits with the same text.

Read are function code and layers (each member of the zip), S3 objects, CloudFormation templates, and commands and
documents in parameters. A zip is untrusted: it is read within bounds, and refused with a problem beyond them. Values
that AWS calls secret are never hashed: a short secret can be found from its hash.
"""

from __future__ import annotations

import base64
import binascii
import io
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from narrows.core.values import Described
from narrows.session.digests import digests
from narrows.session.http.messages import Message
from narrows.session.llm.loose import arr, first, obj, parse, txt

MEMBERS = 2000
"""Members of a zip that are read."""
UNPACKED = 64 << 20
"""Bytes that the members of a zip may have together, unpacked."""
_PIECE = 1 << 20

_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    ArithmeticError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)
"""What `zipfile` raises on bytes that are no zip, an encrypted one, or one of a kind that it does not know."""


def read(request: Message, out: Described) -> None:
    """Add the refs of what a described call uploads; what could not be read is told in `out.problems`."""
    reader = _READERS.get((out.service, out.operation))
    if reader is None or not request.whole:
        return
    found: list[str] = []
    reader(request, out, found)
    out.refs += [("file", digest) for digest in dict.fromkeys(found)]


def _object(request: Message, out: Described, found: list[str]) -> None:
    """An S3 object: as it is stored, and without a content coding that it is stored with."""
    found += digests(request.stored)
    if request.body != request.stored:
        found += digests(request.body)
    if request.body.startswith(b"PK\x03\x04"):
        _zip(request.body, out, found)


def _function(request: Message, out: Described, found: list[str]) -> None:
    """Lambda: the zip in the request itself. One that lies in S3 was read when it was put there."""
    given = _json(request)
    packed = txt(first(given, "ZipFile") or obj(first(given, "Code", "Content")).get("ZipFile"))
    if not packed:
        return
    try:
        raw = base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError):
        out.problems.append("request: the zip file is not base64")
        return
    found += digests(raw)
    _zip(raw, out, found)


def _commands(request: Message, out: Described, found: list[str]) -> None:
    """Systems Manager: each list of a command's parameters as one text, as a script is."""
    for value in obj(_json(request).get("Parameters")).values():
        lines = [txt(line) for line in arr(value)]
        found += digests("\n".join(lines))
        if len(lines) > 1:
            for line in lines:
                found += digests(line)


def _parameter(request: Message, out: Described, found: list[str]) -> None:
    """Parameter Store, but not SecureString."""
    given = _json(request)
    if given.get("Type") in ("String", "StringList"):
        found += digests(txt(given.get("Value")))


def _documents(*names: str) -> Callable[[Message, Described, list[str]], None]:
    def texts(request: Message, out: Described, found: list[str]) -> None:
        for name in names:
            value = out.parameters.get(name)
            if isinstance(value, str):
                found += digests(value)

    return texts


def _user_data(request: Message, out: Described, found: list[str]) -> None:
    """EC2: the script that an instance starts with."""
    value = txt(out.parameters.get("UserData"))
    try:
        found += digests(base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError):
        return  # hidden as sensitive, or no base64: nothing to join


def _json(request: Message) -> dict[str, Any]:
    try:
        return obj(parse(request.body)) if request.body else {}
    except ValueError:
        return {}  # told where the parameters were decoded


def _zip(raw: bytes, out: Described, found: list[str]) -> None:
    """Each member's digests. The sizes that a zip declares are not believed: what is unpacked is counted."""
    room = UNPACKED
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) > MEMBERS:
                out.problems.append(f"request: only the first {MEMBERS} of a zip's {len(members)} members were read")
            for member in members[:MEMBERS]:
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    out.problems.append("request: a member of a zip is packed in a way that is not read")
                    continue
                content = _unpacked(archive, member, room)
                if content is None:
                    out.problems.append(f"request: a zip of more than {UNPACKED} bytes unpacked, not read further")
                    return
                room -= len(content)
                found += digests(content)
    except _ZIP_ERRORS as error:
        out.problems.append(f"request: a zip that cannot be read: {type(error).__name__}")


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, room: int) -> bytes | None:
    """A member's content, None if it is longer than `room`."""
    pieces: list[bytes] = []
    size = 0
    with archive.open(member) as stream:
        while piece := stream.read(_PIECE):
            size += len(piece)
            if size > room:
                return None
            pieces.append(piece)
    return b"".join(pieces)


_READERS: dict[tuple[str, str], Callable[[Message, Described, list[str]], None]] = {
    ("s3", "PutObject"): _object,
    ("lambda", "CreateFunction"): _function,
    ("lambda", "UpdateFunctionCode"): _function,
    ("lambda", "PublishLayerVersion"): _function,
    ("cloudformation", "CreateStack"): _documents("TemplateBody"),
    ("cloudformation", "UpdateStack"): _documents("TemplateBody"),
    ("cloudformation", "CreateChangeSet"): _documents("TemplateBody"),
    ("cloudformation", "CreateStackSet"): _documents("TemplateBody"),
    ("cloudformation", "ValidateTemplate"): _documents("TemplateBody"),
    ("ssm", "SendCommand"): _commands,
    ("ssm", "PutParameter"): _parameter,
    ("ssm", "CreateDocument"): _documents("Content"),
    ("ssm", "UpdateDocument"): _documents("Content"),
    ("iam", "CreatePolicy"): _documents("PolicyDocument"),
    ("iam", "CreatePolicyVersion"): _documents("PolicyDocument"),
    ("iam", "PutRolePolicy"): _documents("PolicyDocument"),
    ("iam", "CreateRole"): _documents("AssumeRolePolicyDocument"),
    ("s3", "PutBucketPolicy"): _documents("Policy"),
    ("stepfunctions", "CreateStateMachine"): _documents("definition"),
    ("stepfunctions", "UpdateStateMachine"): _documents("definition"),
    ("ec2", "RunInstances"): _user_data,
}
