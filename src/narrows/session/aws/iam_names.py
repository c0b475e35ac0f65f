"""Tables: IAM prefixes that differ from the signing name, and API operations whose IAM action has another name.

Sources: the Service Authorization Reference's "Actions" pages, and for S3 "Required permissions for Amazon S3 API
operations". Renames that the reference itself documents by a link are in the data file and not repeated here.
"""

from __future__ import annotations

PREFIXES: dict[str, tuple[str, ...]] = {
    "cloudcontrol": ("cloudformation",),
    "cloudwatch": ("cloudwatch",),
    "iot-data": ("iot",),
    "iot-jobs-data": ("iotjobsdata", "iot"),
    "iotsecuretunneling": ("iot",),
    "mturk": ("mechanicalturk",),
    "partnercentral-account": ("partnercentral", "partnercentral-account-management"),
    "partnercentral-benefits": ("partnercentral",),
    "partnercentral-channel": ("partnercentral",),
    "partnercentral-selling": ("partnercentral",),
    "resourcegroupstaggingapi": ("tag",),
    "s3control": ("s3", "s3express", "s3-outposts"),
}
"""Service (model directory) -> IAM prefixes, most likely first."""

BY_METHOD: dict[str, str] = {"apigateway": "apigateway", "apigatewayv2": "apigateway"}
"""Services whose IAM action is the HTTP method (`apigateway:GET`) -> the prefix."""

_S3: dict[str, str] = {
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "CreateSession": "s3express:CreateSession",
    "DeleteBucketAnalyticsConfiguration": "PutAnalyticsConfiguration",
    "DeleteBucketCors": "PutBucketCORS",
    "DeleteBucketEncryption": "PutEncryptionConfiguration",
    "DeleteBucketIntelligentTieringConfiguration": "PutIntelligentTieringConfiguration",
    "DeleteBucketInventoryConfiguration": "PutInventoryConfiguration",
    "DeleteBucketLifecycle": "PutLifecycleConfiguration",
    "DeleteBucketMetricsConfiguration": "PutMetricsConfiguration",
    "DeleteBucketOwnershipControls": "PutBucketOwnershipControls",
    "DeleteBucketReplication": "PutReplicationConfiguration",
    "DeleteBucketTagging": "PutBucketTagging",
    "DeleteObjects": "DeleteObject",
    "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
    "GetBucketLifecycle": "GetLifecycleConfiguration",
    "GetBucketNotificationConfiguration": "GetBucketNotification",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListBucketAnalyticsConfigurations": "GetAnalyticsConfiguration",
    "ListBucketIntelligentTieringConfigurations": "GetIntelligentTieringConfiguration",
    "ListBucketInventoryConfigurations": "GetInventoryConfiguration",
    "ListBucketMetricsConfigurations": "GetMetricsConfiguration",
    "ListDirectoryBuckets": "s3express:ListAllMyDirectoryBuckets",
    "ListObjects": "ListBucket",
    "PutBucketLifecycle": "PutLifecycleConfiguration",
    "PutBucketNotificationConfiguration": "PutBucketNotification",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "RenameObject": "s3express:CreateSession",
    "SelectObjectContent": "GetObject",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
    "WriteGetObjectResponse": "s3-object-lambda:WriteGetObjectResponse",
}

_NEPTUNE: dict[str, str] = {
    "CancelGremlinQuery": "CancelQuery",
    "CancelOpenCypherQuery": "CancelQuery",
    "DeletePropertygraphStatistics": "DeleteStatistics",
    "DeleteSparqlStatistics": "DeleteStatistics",
    "ExecuteFastReset": "ResetDatabase",
    "GetGremlinQueryStatus": "GetQueryStatus",
    "GetOpenCypherQueryStatus": "GetQueryStatus",
    "ListGremlinQueries": "GetQueryStatus",
    "ListOpenCypherQueries": "GetQueryStatus",
}

RENAMES: dict[str, dict[str, str]] = {
    "apigatewaymanagementapi": dict.fromkeys(
        ("DeleteConnection", "GetConnection", "PostToConnection"), "execute-api:ManageConnections"
    ),
    "bedrock-agent-runtime": {"RetrieveAndGenerateStream": "RetrieveAndGenerate"},
    "bedrock-runtime": {
        "Converse": "InvokeModel",
        "ConverseStream": "InvokeModelWithResponseStream",
        "InvokeModelWithBidirectionalStream": "InvokeModelWithResponseStream",
        "StartAsyncInvoke": "InvokeModel",
    },
    "budgets": {
        "CreateBudget": "ModifyBudget",
        "CreateNotification": "ModifyBudget",
        "CreateSubscriber": "ModifyBudget",
        "DeleteBudget": "ModifyBudget",
        "DeleteNotification": "ModifyBudget",
        "DeleteSubscriber": "ModifyBudget",
        "UpdateBudget": "ModifyBudget",
        "UpdateNotification": "ModifyBudget",
        "UpdateSubscriber": "ModifyBudget",
        "DescribeBudget": "ViewBudget",
        "DescribeBudgetNotificationsForAccount": "ViewBudget",
        "DescribeBudgetPerformanceHistory": "ViewBudget",
        "DescribeBudgets": "ViewBudget",
        "DescribeNotificationsForBudget": "ViewBudget",
        "DescribeSubscribersForNotification": "ViewBudget",
    },
    "cloudfront": {"CreateDistributionWithTags": "CreateDistribution"},
    "cloudsearchdomain": {"UploadDocuments": "document"},
    "comprehendmedical": {"DetectEntities": "DetectEntitiesV2"},
    "dynamodb": {
        "BatchExecuteStatement": "PartiQLUpdate",
        "ExecuteStatement": "PartiQLUpdate",
        "ExecuteTransaction": "PartiQLUpdate",
        "TransactGetItems": "GetItem",
        "TransactWriteItems": "PutItem",
    },
    "keyspaces": {
        "CreateKeyspace": "Create",
        "CreateTable": "Create",
        "CreateType": "Create",
        "DeleteKeyspace": "Drop",
        "DeleteTable": "Drop",
        "DeleteType": "Drop",
        "GetKeyspace": "Select",
        "GetTable": "Select",
        "GetTableAutoScalingSettings": "Select",
        "GetType": "Select",
        "ListKeyspaces": "Select",
        "ListTables": "Select",
        "ListTagsForResource": "Select",
        "ListTypes": "Select",
        "RestoreTable": "Restore",
        "UpdateKeyspace": "Alter",
        "UpdateTable": "Alter",
    },
    "kms": {"ReEncrypt": "ReEncryptFrom"},
    "lambda": {
        "GetLayerVersionByArn": "GetLayerVersion",
        "InvokeWithResponseStream": "InvokeFunction",
    },
    "neptune-graph": {"ExecuteQuery": "WriteDataViaQuery"},
    "neptunedata": _NEPTUNE,
    "s3": _S3,
    "s3control": {
        "DeleteBucketLifecycleConfiguration": "s3-outposts:PutLifecycleConfiguration",
        "DeleteBucketReplication": "s3-outposts:PutReplicationConfiguration",
        "DeleteBucketTagging": "s3-outposts:PutBucketTagging",
        "DeletePublicAccessBlock": "PutAccountPublicAccessBlock",
        "GetBucket": "s3-outposts:GetBucket",
        "GetPublicAccessBlock": "GetAccountPublicAccessBlock",
        "ListRegionalBuckets": "s3-outposts:ListRegionalBuckets",
        "PutPublicAccessBlock": "PutAccountPublicAccessBlock",
    },
    "sns": {"PublishBatch": "Publish"},
    "sqs": {
        "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
        "DeleteMessageBatch": "DeleteMessage",
        "SendMessageBatch": "SendMessage",
    },
    "timestream-query": {"Query": "Select"},
}
"""Service -> operation -> action (of the service's first prefix, or `prefix:Action`).

Where one operation needs several actions (DynamoDB transactions and PartiQL, KMS ReEncrypt) the one with the widest
effect stands here, so that a rule about writes applies.
"""

S3_VERSION: dict[str, str] = {
    "s3:DeleteObject": "s3:DeleteObjectVersion",
    "s3:DeleteObjectTagging": "s3:DeleteObjectVersionTagging",
    "s3:GetObject": "s3:GetObjectVersion",
    "s3:GetObjectAcl": "s3:GetObjectVersionAcl",
    "s3:GetObjectAttributes": "s3:GetObjectVersionAttributes",
    "s3:GetObjectTagging": "s3:GetObjectVersionTagging",
    "s3:GetObjectTorrent": "s3:GetObjectVersionTorrent",
    "s3:PutObjectAcl": "s3:PutObjectVersionAcl",
    "s3:PutObjectTagging": "s3:PutObjectVersionTagging",
}
"""The S3 action when the request names a `versionId`."""
