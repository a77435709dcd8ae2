/** The audit log as it stands on disks: what was written stays readable, byte for byte. */
import { expect, test } from "bun:test";
import { createPrivateKey } from "node:crypto";
import { copyFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { AuditLog } from "../../src/audit/log.ts";
import { keyText, signerOf } from "../../src/audit/signature.ts";
import { verifyAudit } from "../../src/audit/verify.ts";
import { callOf } from "../support/audit.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const golden = join(import.meta.dirname, "audit-log.jsonl");
const name = "segment-0000000000000001.jsonl";

/** The key of RFC 8032, 7.1, test 1: its signatures are the same for ever. */
const jwk = {
  ...{ kty: "OKP", crv: "Ed25519", d: "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A" },
  x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
};
const signer = signerOf(createPrivateKey({ key: jwk, format: "jwk" }));
const keys = new Set([keyText(signer.publicKey)]);

test("what is written today is what was written first", async () => {
  using folder = temporaryFolder();
  const now = () => Date.parse("2026-11-28T10:00:00.123Z");
  await using log = await AuditLog.open({ directory: folder.path, signer, now });
  await log.append(callOf(1));
  await log.append(callOf(2, { who: 'local uid 0, "root"', object: "é\n😀", after: undefined }));
  await log.append(callOf(3, { before: undefined, after: { token: "x", list: [1, null] } }));
  await log.close();
  const written = readFileSync(folder.file(name), "utf8");
  expect(written).toBe(readFileSync(golden, "utf8"));
});

test("what was written first verifies today, and is gone on with", async () => {
  using folder = temporaryFolder();
  copyFileSync(golden, folder.file(name));
  const options = { directory: folder.path, keys };
  expect(await verifyAudit(options)).toMatchObject({ verdict: "intact", records: 6 });
  await using log = await AuditLog.open({ directory: folder.path, signer });
  await log.append(callOf(4));
  expect(await verifyAudit(options)).toMatchObject({ verdict: "intact", records: 8 });
});
