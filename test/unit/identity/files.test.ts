/** Keys and certificates in files: what is made, and what is refused with its mend. */
import { describe, expect, test } from "bun:test";
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import {
  chmodSync,
  chownSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { readAuthorityFile, writeAuthorityFile } from "../../../src/identity/authority-file.ts";
import { makeServerCertificate, pinOf } from "../../../src/identity/certificate.ts";
import { IdentityKey, openKey, readKey } from "../../../src/identity/host-key.ts";
import { limits } from "../../../src/identity/protocol.ts";
import { fingerprintOf, isSignedBy, systemRandom } from "../../../src/identity/secrets.ts";
import { FileRefused } from "../../../src/journal/file-refused.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";

const refusal = (act: () => unknown): string => {
  try {
    act();
  } catch (error) {
    if (error instanceof FileRefused) return error.message;
    throw error;
  }
  return "done";
};

describe("a key", () => {
  test("is made once, 0600 in 0700, and signs", () => {
    using folder = temporaryFolder();
    const path = folder.file("identity/key.pem");
    const key = openKey(path);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(statSync(join(path, "..")).mode & 0o777).toBe(0o700);
    expect(readdirSync(join(path, ".."))).toEqual(["key.pem"]);
    expect(readFileSync(path, "utf8")).toStartWith("-----BEGIN PRIVATE KEY-----\n");
    expect(openKey(path).fingerprint).toBe(key.fingerprint);
    expect(key.fingerprint).toBe(fingerprintOf(key.publicKey));
    const signed = { text: "x", signature: key.sign("x"), spki: key.publicKey };
    expect(isSignedBy(signed)).toBe(true);
    expect(isSignedBy({ ...signed, text: "y" })).toBe(false);
    expect(isSignedBy({ ...signed, spki: "AAAA" })).toBe(false);
    expect(Bun.inspect(key)).not.toContain("PRIVATE");
    expect(JSON.stringify(key)).not.toContain("PRIVATE");
  });

  test("that another process makes at the same time is taken", () => {
    using folder = temporaryFolder();
    const path = folder.file("key.pem");
    chmodSync(folder.path, 0o700);
    // Of one that was killed while it wrote.
    writeFileSync(`${path}.making`, "half of a k", { mode: 0o600 });
    const key = openKey(path);
    expect(readKey(path)?.fingerprint).toBe(key.fingerprint);
    expect(readdirSync(folder.path)).toEqual(["key.pem"]);
  });

  test("is one, however many processes begin at once", async () => {
    using folder = temporaryFolder();
    const path = folder.file("identity/key.pem");
    const room = new URL("../../../src/identity/host-key.ts", import.meta.url).pathname;
    const source = `
      const { openKey } = await import(${JSON.stringify(room)});
      process.stdin.once("data", () => {
        console.log(openKey(${JSON.stringify(path)}).fingerprint);
        process.stdin.destroy();
      });
      console.log("ready");`;
    const children = Array.from({ length: 4 }, () => {
      return Bun.spawn([process.execPath, "-e", source], { stdin: "pipe", stdout: "pipe" });
    });
    const readers = children.map(({ stdout }) => stdout.pipeThrough(new TextDecoderStream()));
    const lines = readers.map((reader) => reader[Symbol.asyncIterator]());
    for (const line of lines) expect((await line.next()).value).toBe("ready\n");
    for (const { stdin } of children) {
      stdin.write("go");
      stdin.flush();
    }
    const prints = await Promise.all(lines.map(async (line) => (await line.next()).value));
    await Promise.all(children.map(({ exited }) => exited));
    expect(new Set(prints)).toEqual(new Set([`${readKey(path)?.fingerprint}\n`]));
    expect(readdirSync(join(path, ".."))).toEqual(["key.pem"]);
  });

  test("is refused with another mode, owner, kind or content, and never replaced", () => {
    using folder = temporaryFolder();
    chmodSync(folder.path, 0o700);
    const path = folder.file("key.pem");
    const write = (text: string, mode = 0o600) => {
      writeFileSync(path, text);
      chmodSync(path, mode);
    };
    const pem = { format: "pem", type: "pkcs8" } as const;
    const good = String(generateKeyPairSync("ed25519").privateKey.export(pem));
    const curve = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export(pem);
    for (const mode of [0o640, 0o604, 0o660, 0o644]) {
      write(good, mode);
      expect(refusal(() => openKey(path))).toContain(`received mode 0${mode.toString(8)}`);
    }
    const contents = { garbage: "ü\0", empty: "", cut: good.slice(0, 60), other: String(curve) };
    for (const text of Object.values(contents)) {
      write(text);
      const message = refusal(() => openKey(path));
      expect(message).toContain("Restore it from where it was moved, or remove it");
      expect(readFileSync(path, "utf8")).toBe(text);
    }
    write("x".repeat(limits.fileBytes + 1));
    expect(refusal(() => openKey(path))).toContain(`at most ${limits.fileBytes} bytes`);
    write(good);
    if (process.getuid?.() === 0) {
      chownSync(path, 65_534, 65_534);
      expect(refusal(() => openKey(path))).toContain("received uid 65534");
      chownSync(path, 0, 0);
    }
    expect(refusal(() => openKey(path))).toBe("done");
  });

  test("is no link, and no folder", () => {
    using folder = temporaryFolder();
    chmodSync(folder.path, 0o700);
    openKey(folder.file("real.pem"));
    symlinkSync(folder.file("real.pem"), folder.file("link.pem"));
    expect(refusal(() => openKey(folder.file("link.pem")))).toContain("symbolic link");
    mkdirSync(folder.file("folder.pem"));
    expect(refusal(() => openKey(folder.file("folder.pem")))).toContain("expected a file");
  });

  test("is in a folder of its owner alone", () => {
    using folder = temporaryFolder();
    chmodSync(folder.path, 0o755);
    expect(refusal(() => openKey(folder.file("key.pem")))).toContain(`chmod 700 ${folder.path}`);
    writeFileSync(folder.file("file"), "");
    expect(refusal(() => openKey(folder.file("file/key.pem")))).toContain("received a file");
  });
});

describe("a certificate", () => {
  test("is P-256, from 1970 to 9999, with the names that it was made for", async () => {
    const names = ["authority.test", "192.0.2.1", "2001:db8::1"];
    const made = await makeServerCertificate({ names, random: systemRandom });
    const parsed = new X509Certificate(made.certificate);
    expect(parsed.validFrom).toBe("Jan  1 00:00:00 1970 GMT");
    expect(parsed.validTo).toBe("Dec 31 23:59:59 9999 GMT");
    expect(parsed.publicKey.asymmetricKeyDetails?.namedCurve).toBe("prime256v1");
    expect(parsed.verify(parsed.publicKey)).toBe(true);
    expect(parsed.checkHost("authority.test")).toBe("authority.test");
    expect(parsed.checkIP("192.0.2.1")).toBe("192.0.2.1");
    expect(parsed.fingerprint256.replaceAll(":", "").toLowerCase()).toBe(made.pin);
    expect(pinOf(parsed.raw)).toBe(made.pin);
  });

  test("serial numbers are positive and differ", async () => {
    const zero = () => new Uint8Array(16);
    const made = await makeServerCertificate({ names: ["x"], random: zero });
    expect(new X509Certificate(made.certificate).serialNumber).toBe(`40${"00".repeat(15)}`);
  });
});

describe("the authority's file", () => {
  test("is read as it was written, and refused when it says otherwise", async () => {
    using folder = temporaryFolder();
    const path = folder.file("authority.json");
    const make = () => makeServerCertificate({ names: ["x"], random: systemRandom });
    const [current, next] = [await make(), await make()];
    const facts = { certificates: { current, next }, serial: 7, time: 9 };
    writeAuthorityFile(path, facts);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readAuthorityFile(path)).toEqual(facts);
    expect(readAuthorityFile(folder.file("none"))).toBeUndefined();
    const text = readFileSync(path, "utf8");
    const damaged = [
      text.replace('"version":1', '"version":2'),
      text.slice(0, -5),
      text.replace(current.pin, next.pin),
      text.replace("BEGIN CERTIFICATE", "BEGIN CERTIFICAT"),
    ];
    for (const bad of damaged) {
      writeFileSync(path, bad);
      const message = refusal(() => readAuthorityFile(path));
      expect(message).toStartWith(`Cannot use the authority's file ${path}`);
      expect(message).not.toContain("PRIVATE");
    }
  });
});

test("a key object of another kind is no identity", () => {
  const { privateKey } = generateKeyPairSync("ed25519");
  expect(new IdentityKey(privateKey).publicKey).toHaveLength(60);
});
