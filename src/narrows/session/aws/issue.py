"""Operations that hand out credentials which work outside the gateway.

The gateway refuses these unless the connection sets `allow_credential_issue`: otherwise an agent could fetch a key, a
token or a login with its lease, and go around the gateway with it. The list has three kinds: answers that carry AWS
keys or tokens; answers that carry a login to a machine, network, database, registry or console (password, private
key, signed login URL, session token); and calls that install a credential of the caller's choice.

Not in the list: reading data that happens to be secret (`secretsmanager:GetSecretValue`, `ssm:GetParameter`, KMS data
keys), presigned URLs to one document, and answers that only echo configuration. Policy speaks about those by action.
A test scans botocore's models for credential-like members and fails on an operation that nobody has classified.
"""

from __future__ import annotations

ISSUING: dict[str, frozenset[str]] = {
    service: frozenset(operations.split())
    for service, operations in {
        "acm": "ExportCertificate GetAcmeExternalAccountBindingCredentials",
        "amplifybackend": "CreateToken GetBackendAuth GetToken",
        "amplifyuibuilder": "ExchangeCodeForToken RefreshToken",
        "appstream": "CreateAppBlockBuilderStreamingURL CreateImageBuilderStreamingURL CreateStreamingURL",
        "athena": "CreatePresignedNotebookUrl GetSessionEndpoint",
        "bedrock-agentcore": (
            "GetResourceApiKey GetResourceOauth2Token GetResourcePaymentToken GetWorkloadAccessToken"
            " GetWorkloadAccessTokenForJWT GetWorkloadAccessTokenForUserId"
        ),
        "cloudwatchomni": "GetSpaceCredentialsForOrganization",
        "codeartifact": "GetAuthorizationToken",
        "codebuild": "StartSandboxConnection",
        "codecatalyst": "CreateAccessToken StartDevEnvironmentSession",
        "codepipeline": "GetJobDetails GetThirdPartyJobDetails PollForJobs",
        "cognito-identity": "GetCredentialsForIdentity GetOpenIdToken GetOpenIdTokenForDeveloperIdentity",
        "cognito-idp": (
            "AddUserPoolClientSecret AdminInitiateAuth AdminRespondToAuthChallenge CreateUserPoolClient"
            " DescribeUserPoolClient GetClientToken GetTokensFromRefreshToken InitiateAuth"
            " ListUserPoolClientSecrets RespondToAuthChallenge UpdateUserPoolClient"
        ),
        "connect": (
            "CreateAuthCode CreateParticipant GetFederationToken StartAssistantContact StartChatContact"
            " StartWebRTCContact"
        ),
        "connectparticipant": "CreateParticipantConnection",
        "datasync": "DescribeLocationFsxOntap DescribeLocationFsxOpenZfs",
        "datazone": (
            "CreateConnection GetConnection GetEnvironmentCredentials GetIamPortalLoginUrl ListConnections"
            " UpdateConnection"
        ),
        "deadline": (
            "AssumeFleetRoleForRead AssumeFleetRoleForWorker AssumeQueueRoleForRead AssumeQueueRoleForUser"
            " AssumeQueueRoleForWorker"
        ),
        "devicefarm": "CreateTestGridUrl",
        "ds": "ResetUserPassword",
        "ec2": "CreateKeyPair ExportVerifiedAccessInstanceClientConfiguration GetPasswordData ImportKeyPair",
        "ec2-instance-connect": "SendSSHPublicKey SendSerialConsoleSSHPublicKey",
        "ecr": "GetAuthorizationToken",
        "ecr-public": "GetAuthorizationToken",
        "ecs": "ExecuteCommand",
        "eks": "RegisterCluster",
        "eks-auth": "AssumeRoleForPodIdentity",
        "emr": (
            "GetClusterSessionCredentials GetOnClusterAppUIPresignedURL GetPersistentAppUIPresignedURL"
            " GetSessionEndpoint"
        ),
        "emr-containers": "GetManagedEndpointSessionCredentials",
        "emr-serverless": "GetDashboardForJobRun GetResourceDashboard GetSessionEndpoint",
        "evs": "GetDepotUrl",
        "gamelift": ("CreateBuild GetComputeAccess GetComputeAuthToken GetInstanceAccess RequestUploadCredentials"),
        "gameliftstreams": "CreateStreamSessionAdminShell CreateStreamUrl GetStreamUrl ListStreamUrls",
        "glue": "GetSessionEndpoint",
        "grafana": "CreateWorkspaceApiKey CreateWorkspaceServiceAccountToken",
        "iam": (
            "ChangePassword CreateAccessKey CreateLoginProfile CreateServiceSpecificCredential"
            " CreateVirtualMFADevice ResetServiceSpecificCredential UpdateLoginProfile UploadSSHPublicKey"
            " UploadSigningCertificate"
        ),
        "iot": (
            "CreateCertificateFromCsr CreateKeysAndCertificate CreateProvisioningClaim RegisterCertificate"
            " RegisterCertificateWithoutCA RegisterThing"
        ),
        "iot-managed-integrations": "CreateProvisioningProfile",
        "iotsecuretunneling": "OpenTunnel RotateTunnelAccessToken",
        "ivs": "CreateChannel CreateStreamKey GetStreamKey BatchGetStreamKey",
        "ivs-realtime": "CreateParticipantToken CreateStage",
        "ivschat": "CreateChatToken",
        "kinesis-video-signaling": "GetIceServerConfig",
        "kinesisanalyticsv2": "CreateApplicationPresignedUrl",
        "lakeformation": (
            "AssumeDecoratedRoleWithSAML GetTemporaryDataLocationCredentials"
            " GetTemporaryGluePartitionCredentials GetTemporaryGlueTableCredentials"
        ),
        "lambda-microvms": "CreateMicrovmAuthToken CreateMicrovmShellAuthToken",
        "license-manager": "CheckoutBorrowLicense CreateToken GetAccessToken",
        "lightsail": (
            "CreateBucketAccessKey CreateContainerServiceRegistryLogin CreateKeyPair DownloadDefaultKeyPair"
            " GetBucketAccessKeys GetInstanceAccessDetails GetRelationalDatabaseMasterUserPassword"
            " ImportKeyPair StartGUISession"
        ),
        "mediapackage": (
            "ConfigureLogs CreateChannel DescribeChannel ListChannels RotateChannelCredentials"
            " RotateIngestEndpointCredentials UpdateChannel"
        ),
        "mwaa": "CreateCliToken CreateWebLoginToken",
        "pca-connector-scep": "CreateChallenge GetChallengePassword",
        "quicksight": (
            "GenerateEmbedUrlForAnonymousUser GenerateEmbedUrlForRegisteredUser"
            " GenerateEmbedUrlForRegisteredUserWithIdentity GetDashboardEmbedUrl GetSessionEmbedUrl"
        ),
        "redshift": "GetClusterCredentials GetClusterCredentialsWithIAM GetIdentityCenterAuthToken",
        "redshift-serverless": "GetCredentials GetIdentityCenterAuthToken",
        "route53domains": "RetrieveDomainAuthCode TransferDomainToAnotherAwsAccount",
        "route53globalresolver": "CreateAccessToken GetAccessToken",
        "s3": "CreateSession",
        "s3control": "GetDataAccess",
        "sagemaker": (
            "CreatePartnerAppPresignedUrl CreatePresignedDomainUrl CreatePresignedMlflowAppUrl"
            " CreatePresignedMlflowTrackingServerUrl CreatePresignedNotebookInstanceUrl StartSession"
        ),
        "signin": "CreateOAuth2Token CreateOAuth2TokenWithIAM",
        "ssm": "CreateActivation GetAccessToken ResumeSession StartSession",
        "sso": "GetRoleCredentials",
        "sso-oidc": "CreateToken CreateTokenWithIAM RegisterClient",
        "sts": (
            "AssumeRole AssumeRoleWithSAML AssumeRoleWithWebIdentity AssumeRoot GetDelegatedAccessToken"
            " GetFederationToken GetSessionToken GetWebIdentityToken"
        ),
        "transfer": "ImportSshPublicKey",
        "wickr": "GetOidcInfo GetOpentdfConfig RegisterOidcConfig RegisterOpentdfConfig",
        "workmail": "AssumeImpersonationRole",
    }.items()
}
"""Service (botocore model directory) -> operations."""


def issues(service: str, operation: str) -> bool:
    """True if the operation hands out a credential that works outside the gateway."""
    return operation in ISSUING.get(service, ())
