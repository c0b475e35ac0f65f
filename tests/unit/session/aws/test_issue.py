"""No operation whose answer looks like a credential goes unclassified."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from narrows.session.aws import build, issue
from narrows.session.aws.models import Models

CREDENTIAL = re.compile(
    r"^(secret_?access_?key|secretkey|session_?token|authorization_?token|password|password_?data|private_?key"
    r"|private_?key_?base64|key_?material|access_?token|refresh_?token|id_?token|auth_?token|service_?password"
    r"|service_?credential_?secret|db_?password|client_?secret|client_?secret_?value|token_?value|stream_?url"
    r"|participant_?token|auth_?code|web_?identity_?token|workload_?access_?token|cli_?token|web_?token"
    r"|authorized_?url|embed_?url|sign_?in_?url|master_?user_?password|login_?token|jwt|mac_?key"
    r"|activation_?code|streaming_?url)$",
    re.IGNORECASE,
)
"""Names of string or blob members that hold credentials."""

HARMLESS: dict[str, str] = {
    r"(?i)\.PendingModifiedValues\.MasterUserPassword$": "masked by the service",
    r"(?i)oidc.*\.ClientSecret$": "echoed configuration of another identity provider, masked by the service",
    r"^appmesh\..*\.file\.privateKey$": "the path of a key file",
    r"^dms\.\w+Endpoints?\.Endpoints?\.\w+Settings\.\w+$": "never returned by the service",
    r"^ec2\.\w+IpamExternalResourceVerificationTokens?\.": "a DNS record to publish",
    r"^eks\.\w+\.cluster\.connectorConfig\.activationCode$": "from RegisterCluster, which is refused",
    r"^glue\.(BatchGetJobs|GetJobs?)\.Jobs?\.SourceControlDetails\.AuthToken$": "the caller's own setting",
    r"^iot\.\w+TopicRuleDestinations?\..*\.secretKey$": "the name of a key in a secret",
    r"^marketplace-reporting\.GetBuyerDashboard\.embedUrl$": "one dashboard, read only",
    r"^payment-cryptography\.ExportKey\.WrappedKey\.": "a wrapped key, which only the other party can open",
    r"^securityhub\.GetFindings\..*\.MasterUserOptions\.MasterUserPassword$": "a finding's detail, masked",
    r"^workspaces-thin-client\.\w+\.environments?\.activationCode$": "enrols a device, whose user must still log in",
    r"^quicksight\.DescribeAssetBundleImportJob\..*\.CredentialPair\.Password$": "never returned by the service",
}
"""Pattern over `service.Operation.path.to.Member` -> why it is no credential that works outside the gateway."""


def members(model: dict[str, Any], shape: str, path: tuple[str, ...], seen: frozenset[str]) -> Iterator[str]:
    if shape in seen or len(path) > 7:
        return
    entry = model["shapes"][shape]
    seen = seen | {shape}
    if entry["type"] == "structure":
        for name, member in entry.get("members", {}).items():
            if CREDENTIAL.match(name) and model["shapes"][member["shape"]]["type"] in ("string", "blob"):
                yield ".".join((*path, name))
            yield from members(model, member["shape"], (*path, name), seen)
    elif entry["type"] == "list":
        yield from members(model, entry["member"]["shape"], path, seen)
    elif entry["type"] == "map":
        yield from members(model, entry["value"]["shape"], path, seen)


def test_every_answer_with_a_credential_is_classified(models: Models) -> None:
    unclassified = []
    for services in models.signing_names().values():
        for service in services:
            model = build.load_model(models.root, service)
            for name, operation in model["operations"].items():
                output = (operation.get("output") or {}).get("shape")
                if not output or issue.issues(service, name):
                    continue
                for path in members(model, output, (), frozenset()):
                    full = f"{service}.{name}.{path}"
                    if not any(re.search(pattern, full) for pattern in HARMLESS):
                        unclassified.append(full)
    assert not sorted(set(unclassified))


def test_the_list_names_real_operations(models: Models) -> None:
    for service, operations in issue.ISSUING.items():
        found = models.service(service)
        assert found is not None, service
        assert operations <= set(found.operations), (service, operations - set(found.operations))


def test_the_index_carries_the_mark(models: Models) -> None:
    for service, operation in (
        ("sts", "AssumeRole"),
        ("iam", "CreateAccessKey"),
        ("ecr", "GetAuthorizationToken"),
        ("ssm", "StartSession"),
        ("redshift", "GetClusterCredentials"),
        ("sso-oidc", "CreateToken"),
        ("ec2", "GetPasswordData"),
        ("eks-auth", "AssumeRoleForPodIdentity"),
        ("s3control", "GetDataAccess"),
        ("ssm", "CreateActivation"),
        ("iot", "CreateCertificateFromCsr"),
        ("ec2", "ImportKeyPair"),
        ("appstream", "CreateStreamingURL"),
    ):
        found = models.service(service)
        assert found is not None and found.operations[operation].issues
    sts = models.service("sts")
    assert sts is not None and not sts.operations["GetCallerIdentity"].issues
