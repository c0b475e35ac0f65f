// What the AWS SDK for JavaScript gets, as one JSON object. TAG names what it makes. The SDK has no proxy setting of
// its own: programs give it an agent, as here, where HTTPS_PROXY is set and no endpoint is.
import { createHash, randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import {
  BatchWriteItemCommand, CreateTableCommand, DescribeTableCommand, DynamoDBClient, GetItemCommand, PutItemCommand,
  paginateScan,
} from "@aws-sdk/client-dynamodb";
import {
  CreateBucketCommand, DeleteObjectCommand, GetObjectCommand, NoSuchKey, PutObjectCommand, S3Client,
  paginateListObjectsV2, waitUntilObjectExists,
} from "@aws-sdk/client-s3";
import { GetCallerIdentityCommand, STSClient } from "@aws-sdk/client-sts";
import { Upload } from "@aws-sdk/lib-storage";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";
import { NodeHttpHandler } from "@smithy/node-http-handler";
import { HttpsProxyAgent } from "https-proxy-agent";

const { TAG, AWS_ENDPOINT_URL, HTTPS_PROXY, AWS_REGION } = process.env;
const agent = AWS_ENDPOINT_URL || !HTTPS_PROXY ? undefined : new HttpsProxyAgent(HTTPS_PROXY);
const options = () => ({
  region: AWS_REGION,
  ...(agent ? { requestHandler: new NodeHttpHandler({ httpsAgent: agent }) } : {}),
});
const s3 = new S3Client({ ...options(), forcePathStyle: Boolean(AWS_ENDPOINT_URL) });
const dynamodb = new DynamoDBClient(options());
const Bucket = `js-${TAG}`;
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");
const told = {};

await s3.send(new CreateBucketCommand({ Bucket, CreateBucketConfiguration: { LocationConstraint: AWS_REGION } }));
for (const Key of ["plain.txt", "a//b", "sp ace+plus", "åäö/日本.txt", "empty"]) {
  const Body = Key === "empty" ? "" : `body of ${Key} ${TAG}`;
  await s3.send(new PutObjectCommand({ Bucket, Key, Body }));
  const got = await s3.send(new GetObjectCommand({ Bucket, Key }));
  told[Key] = (await got.Body.transformToString()) === Body;
}
await waitUntilObjectExists({ client: s3, maxWaitTime: 10 }, { Bucket, Key: "plain.txt" });

// A stream whose length nobody knows, in parts.
const block = randomBytes(11 * 1024 * 1024);
async function* pieces() {
  for (let at = 0; at < block.length; at += 300000) yield block.subarray(at, at + 300000);
}
await new Upload({
  client: s3, params: { Bucket, Key: "streamed", Body: Readable.from(pieces(), { objectMode: false }) },
}).done();
const streamed = await s3.send(new GetObjectCommand({ Bucket, Key: "streamed" }));
told.streamed = sha256(await streamed.Body.transformToByteArray()) === sha256(block);

const url = await getSignedUrl(s3, new GetObjectCommand({ Bucket, Key: "plain.txt" }), { expiresIn: 300 });
told.presigned = new URL(url).searchParams.has("X-Amz-Signature");
if (AWS_ENDPOINT_URL) told.fetched = (await (await fetch(url)).text()) === `body of plain.txt ${TAG}`;
else told.fetched = true; // fetch of this Node has no proxy

const listed = [];
for await (const page of paginateListObjectsV2({ client: s3, pageSize: 2 }, { Bucket })) {
  listed.push(page.Contents.map((item) => item.Key));
}
told.listed = listed;
try {
  await s3.send(new GetObjectCommand({ Bucket, Key: "nowhere" }));
} catch (error) {
  told.missing = [error.name, error instanceof NoSuchKey, error.$metadata.httpStatusCode];
}
await s3.send(new DeleteObjectCommand({ Bucket, Key: "empty" }));

const TableName = `js-${TAG}`;
await dynamodb.send(new CreateTableCommand({
  TableName, BillingMode: "PAY_PER_REQUEST",
  KeySchema: [{ AttributeName: "id", KeyType: "HASH" }],
  AttributeDefinitions: [{ AttributeName: "id", AttributeType: "S" }],
}));
await dynamodb.send(new PutItemCommand({ TableName, Item: { id: { S: `written by js ${TAG}` } } }));
told.item = await dynamodb.send(new GetItemCommand({ TableName, Key: { id: { S: `written by js ${TAG}` } } }))
  .then((answer) => answer.Item);
const PutRequest = (n) => ({ PutRequest: { Item: { id: { S: `${n}` } } } });
await dynamodb.send(new BatchWriteItemCommand({ RequestItems: { [TableName]: [1, 2, 3].map(PutRequest) } }));
const scanned = [];
for await (const page of paginateScan({ client: dynamodb, pageSize: 2 }, { TableName })) {
  scanned.push(...page.Items.map((item) => item.id.S));
}
told.scanned = scanned.sort();
await dynamodb.send(new DescribeTableCommand({ TableName: `none-${TAG}` })).catch((error) => {
  told.table = [error.name, error.constructor.name];
});
told.account = (await new STSClient(options()).send(new GetCallerIdentityCommand({}))).Account;
console.log(JSON.stringify(told).replaceAll(TAG, "TAG"));
