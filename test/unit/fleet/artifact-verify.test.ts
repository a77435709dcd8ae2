import { afterAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import {
  type Believed,
  believeManifest,
  believeMetadata,
  type DeviceFacts,
  followRoot,
  freshnessOf,
  type MetadataSeen,
  readRoot,
  readUnverified,
  signedText,
  type VerifyRefusal,
  verifyRefusals,
} from "../../../src/artifact/lifecycle-verify.ts";
import {
  artifactLimits,
  type Envelope,
  type Manifest,
  type Root,
} from "../../../src/artifact/protocol.ts";
import { newEnvelope, writeEnvelope } from "../../../src/artifact/signing-key.ts";
import { hashOf, isSignedBy } from "../../../src/identity/secrets.ts";
import { Keys } from "../../support/artifact.ts";
import { SeededChance } from "../../support/chance.ts";

const keys = new Keys();
afterAll(() => keys[Symbol.dispose]());

function expectRefusal(
  outcome: Believed<unknown>,
  refusal: VerifyRefusal,
  received?: string,
): void {
  if (outcome.kind === "ok") throw new Error(`Expected ${refusal}, and it was believed`);
  expect(outcome.refusal).toBe(refusal);
  for (const text of [outcome.expected, outcome.received, outcome.mend]) expect(text).not.toBe("");
  if (received !== undefined) expect(outcome.received).toContain(received);
}
function whatIs<T>(outcome: Believed<T>): T {
  if (outcome.kind === "ok") return outcome.value;
  throw new Error(`${outcome.refusal}: expected ${outcome.expected}, received ${outcome.received}`);
}

const first = keys.root(1, ["a", "b"], { by: ["a"] });
const root = whatIs(readRoot(first, isSignedBy));

describe("a root set", () => {
  test("counts when as many of its keys have signed as it says", () => {
    expect(root).toMatchObject({
      version: 1,
      threshold: 1,
      keys: [keys.public("a"), keys.public("b")],
    });
    const two = { by: ["a", "c"], threshold: 2 };
    expect(whatIs(readRoot(keys.root(1, ["a", "b", "c"], two), isSignedBy)).threshold).toBe(2);
  });

  test("does not count with fewer, or with one key twice", () => {
    const unsigned = keys.root(1, ["a", "b"], { by: [] });
    expectRefusal(readRoot(unsigned, isSignedBy), "root-below-own-threshold", "0");
    const other = keys.root(1, ["a", "b"], { by: ["stranger"] });
    expectRefusal(readRoot(other, isSignedBy), "root-below-own-threshold", "0");
    const one = JSON.parse(keys.root(1, ["a", "b"], { by: ["a"], threshold: 2 })) as Envelope;
    const twice = { ...one, signatures: [...one.signatures, ...one.signatures] };
    expectRefusal(readRoot(writeEnvelope(twice), isSignedBy), "root-below-own-threshold", "1");
  });

  test("has no key in two spellings", () => {
    const text = keys.public("a");
    // The last letter's two low bits are no part of the key: some decoders leave them out.
    const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const last = alphabet.indexOf(text.at(-2) ?? "");
    const twin = `${text.slice(0, -2)}${alphabet[last + 1]}=`;
    expect(Buffer.from(twin, "base64")).toEqual(Buffer.from(text, "base64"));
    const envelope = newEnvelope({
      ...{ format: 1, version: 1, issued: "2026-01-01T00:00:00Z", threshold: 2 },
      keys: [text, twin],
    });
    expectRefusal(readRoot(writeEnvelope(envelope), isSignedBy), "root-malformed", "keys.1");
  });

  const of = (change: object): string => {
    const value = { format: 1, version: 1, issued: "2026-01-01T00:00:00Z", threshold: 1 };
    const all = { ...value, keys: [keys.public("a")], ...change };
    return keys.sign("root", newEnvelope(all), ["a"]);
  };
  test.each<[string, string, string]>([
    ["no JSON", "hello", "a text that is no JSON"],
    ["a public key", "hostler-artifact-public-1 x", "a public key"],
    ["metadata", keys.metadata({ by: ["a"] }), "metadata"],
    ["another envelope", '{"format":2}', "format: 2"],
    ["a text that is no JSON", writeEnvelope({ format: 1, signed: "x", signatures: [] }), ""],
    ["a threshold of 0", of({ threshold: 0 }), "threshold: 0"],
    ["a threshold above its keys", of({ threshold: 2 }), ""],
    ["no key", of({ keys: [] }), "keys"],
    ["a key twice", of({ keys: [keys.public("a"), keys.public("a")] }), "keys"],
    ["a key of another kind", of({ keys: ["MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE"] }), "keys.0"],
    ["nine keys", of({ keys: [..."abcdefghi"].map((name) => keys.public(name)) }), "keys"],
    ["a word more", of({ more: true }), "more"],
    ["a format of later", of({ format: 2 }), "format 2, which a newer version reads"],
    ["too much", `${first}${" ".repeat(artifactLimits.rootBytes)}`, "bytes"],
  ])("with %s is refused", (_what, text, received) => {
    expectRefusal(readRoot(text, isSignedBy), "root-malformed", received);
  });
});

describe("the root set after it", () => {
  test("is signed by the old keys and by its own", () => {
    const next = keys.root(2, ["b", "c"], { by: ["b"] });
    expect(whatIs(followRoot(root, next, isSignedBy)).version).toBe(2);
    const both = keys.root(2, ["c", "d"], { by: ["a", "c"] });
    expect(whatIs(followRoot(root, both, isSignedBy)).keys).toContain(keys.public("d"));
  });

  test("is not signed by the new ones alone, nor by the old ones alone", () => {
    const alone = keys.root(2, ["c", "d"], { by: ["c", "d"] });
    expectRefusal(followRoot(root, alone, isSignedBy), "root-below-old-threshold", "0");
    const old = keys.root(2, ["c", "d"], { by: ["a", "b"] });
    expectRefusal(followRoot(root, old, isSignedBy), "root-below-own-threshold", "0");
  });

  test("is the next one: none is left out, and none comes again", () => {
    const third = keys.root(3, ["a"], { by: ["a"] });
    expectRefusal(followRoot(root, third, isSignedBy), "root-gap", "3");
    expectRefusal(followRoot(root, first, isSignedBy), "root-rolled-back", "1");
    expectRefusal(followRoot(root, "{}", isSignedBy), "root-malformed");
  });

  test("needs as many of the old keys as the old one says", () => {
    const two = { by: ["a", "b"], threshold: 2 };
    const strict = whatIs(readRoot(keys.root(1, ["a", "b"], two), isSignedBy));
    const weak = keys.root(2, ["a"], { by: ["a"] });
    expectRefusal(followRoot(strict, weak, isSignedBy), "root-below-old-threshold", "1");
    expect(whatIs(followRoot(strict, keys.root(2, ["a", "b"], two), isSignedBy)).version).toBe(2);
  });
});

const none: MetadataSeen = { version: 0, digest: null };
const believe = (text: string, seen: MetadataSeen = none, of: Root = root) =>
  believeMetadata({ root: of, text, check: isSignedBy, seen, digestOf: hashOf });

describe("metadata", () => {
  const text = keys.metadata({ by: ["b"], version: 5 });

  test("counts when the root's keys have signed it", () => {
    const { metadata, digest } = whatIs(believe(text));
    expect(metadata).toMatchObject({ version: 5, keys: [{ key: keys.public("release") }] });
    expect(digest).toBe(hashOf((JSON.parse(text) as Envelope).signed));
    const unsigned = keys.metadata({ by: ["release"], version: 5 });
    expectRefusal(believe(unsigned), "metadata-below-threshold", "0");
    expectRefusal(believe("[]"), "metadata-malformed");
  });

  test("is not replayed: what was seen is the least", () => {
    const { digest } = whatIs(believe(text));
    expectRefusal(believe(text, { version: 6, digest: null }), "metadata-replayed", "5");
    expect(whatIs(believe(text, { version: 5, digest })).metadata.version).toBe(5);
    expect(whatIs(believe(text, { version: 5, digest: null })).metadata.version).toBe(5);
  });

  test("is one text for each version", () => {
    const { digest } = whatIs(believe(text));
    const other = keys.metadata({ by: ["b"], version: 5, signers: ["another"] });
    expectRefusal(believe(other, { version: 5, digest }), "metadata-forked");
  });

  test("that is old is stale, and counts", () => {
    const { metadata } = whatIs(believe(text));
    expect(freshnessOf(metadata, "2026-12-31T23:59:59Z")).toBe("fresh");
    expect(freshnessOf(metadata, "2027-01-01T00:00:00Z")).toBe("stale");
    expect(freshnessOf(metadata, "1970-01-01T00:00:00Z")).toBe("fresh");
    expect(freshnessOf(metadata, null)).toBe("unknown");
  });

  test("of other keys than the present root set's does not count", () => {
    const next = whatIs(followRoot(root, keys.root(2, ["c"], { by: ["a", "c"] }), isSignedBy));
    expectRefusal(believe(text, none, next), "metadata-below-threshold");
  });

  test("has no more in it than it may", () => {
    const revoked = Array.from({ length: artifactLimits.revokedDigests + 1 }, (_none, index) => ({
      ...{ digest: index.toString(16).padStart(64, "0"), reason: "x" },
    }));
    expect(() => keys.metadata({ by: ["a"], revoked })).toThrow("revoked");
    expect(
      whatIs(believe(keys.metadata({ by: ["a"], revoked: revoked.slice(1) }))).digest,
    ).toBeString();
    const many = `${text}${" ".repeat(artifactLimits.metadataBytes)}`;
    expectRefusal(believe(many), "metadata-malformed", "bytes");
  });
});

const digest = "ab".repeat(32);
const plain: Manifest = {
  ...{ format: 1, product: "hostler", version: "1.5.0", floor: "1.2.0", channel: "stable" },
  ...{ labels: { commit: "abc" }, issued: "2026-01-01T00:00:00Z" },
  builds: [
    {
      ...{ architecture: "x64", libc: "glibc", digest, size: 100 },
      blocks: { digest: "cd".repeat(32), size: 100 },
    },
  ],
};
const device: DeviceFacts = { architecture: "x64", libc: "glibc", floor: "1.4.0", channels: null };
const manifestOf = (change: object, by: readonly string[] = ["release"]) =>
  keys.sign("manifest", newEnvelope({ ...plain, ...change }), by);

function judge(
  text: string,
  options: {
    readonly metadata?: string | null;
    readonly device?: Partial<DeviceFacts>;
    readonly ordered?: { readonly version: string; readonly digest: string };
  } = {},
) {
  const { metadata = keys.metadata({ by: ["a"] }), ordered = null } = options;
  const trusted = metadata === null ? null : whatIs(believe(metadata)).metadata;
  return believeManifest({
    ...{ trust: { root, metadata: trusted }, text, check: isSignedBy, ordered },
    device: { ...device, ...options.device },
  });
}

describe("a manifest", () => {
  test("is believed, and says what the device's floor will be", () => {
    const { build, floor, manifest } = whatIs(judge(manifestOf({})));
    expect(build.digest).toBe(digest);
    expect(manifest.labels).toEqual({ commit: "abc" });
    expect(floor).toBe("1.4.0");
    expect(whatIs(judge(manifestOf({ floor: "1.5.0" }))).floor).toBe("1.5.0");
    expect(whatIs(judge(manifestOf({}), { device: { floor: null } })).floor).toBe("1.2.0");
  });

  test("without metadata is not", () => {
    expectRefusal(judge(manifestOf({}), { metadata: null }), "metadata-missing");
  });

  test("that nobody has signed, or a stranger, or one whose key was stolen, is not", () => {
    expectRefusal(judge(manifestOf({}, [])), "manifest-unsigned");
    expectRefusal(judge(manifestOf({}, ["stranger"])), "manifest-unknown-key");
    const metadata = keys.metadata({ by: ["a"], signers: ["other"], revokedKeys: ["release"] });
    expectRefusal(judge(manifestOf({}), { metadata }), "manifest-revoked-key", "stolen");
    // What the stolen key has signed counts again when another one signs it.
    expect(judge(manifestOf({}, ["release", "other"]), { metadata }).kind).toBe("ok");
  });

  test("of a key that is named among the good ones and among the revoked ones is not", () => {
    const key = keys.public("release");
    const envelope = newEnvelope({
      ...{ format: 1, version: 1, issued: "2026-01-01T00:00:00Z", revoked: [] },
      ...{ expires: "2027-01-01T00:00:00Z", keys: [{ key, note: "" }] },
      revoked_keys: [{ key, reason: "stolen" }],
    });
    const metadata = keys.sign("metadata", envelope, ["a"]);
    expectRefusal(judge(manifestOf({}), { metadata }), "manifest-revoked-key", "stolen");
  });

  test("that was changed after it was signed is not", () => {
    const envelope = JSON.parse(manifestOf({})) as Envelope;
    const changed = { ...envelope, signed: envelope.signed.replace("1.5.0", "1.5.1") };
    expectRefusal(judge(writeEnvelope(changed)), "manifest-bad-signature");
  });

  test("whose signature is one for another kind of text is not", () => {
    // A root key that also signs manifests: what it has signed as metadata is no manifest.
    const envelope = newEnvelope(plain);
    const text = keys.sign("metadata", envelope, ["release"]);
    expectRefusal(judge(text), "manifest-bad-signature");
    expect(signedText("manifest", "x")).not.toBe(signedText("metadata", "x"));
  });

  test("of a signed old version is not, below the floor", () => {
    const old = manifestOf({ version: "1.3.9" });
    expectRefusal(judge(old), "below-floor", "1.3.9");
    expect(judge(old, { device: { floor: "1.3.9" } }).kind).toBe("ok");
    // A version before a release is before it.
    const early = manifestOf({ version: "1.4.0-rc.1" });
    expectRefusal(judge(early), "below-floor");
  });

  test("of a revoked file is not, whoever has signed it", () => {
    const metadata = keys.metadata({ by: ["a"], revoked: [{ digest, reason: "loses data" }] });
    expectRefusal(judge(manifestOf({}), { metadata }), "revoked-digest", "loses data");
  });

  test("of another version than the operator says is not", () => {
    const ordered = { version: "1.5.0", digest };
    expect(judge(manifestOf({}), { ordered }).kind).toBe("ok");
    const wrong = [
      { version: "1.5.1", digest },
      { version: "1.5.0", digest: "00".repeat(32) },
    ];
    for (const other of wrong) {
      expectRefusal(judge(manifestOf({}), { ordered: other }), "manifest-not-as-ordered");
    }
  });

  test("of another architecture, libc or channel is not", () => {
    expectRefusal(judge(manifestOf({}), { device: { architecture: "arm64" } }), "no-build", "x64");
    expectRefusal(judge(manifestOf({}), { device: { libc: "musl" } }), "no-build");
    const channels = ["beta", "stable"];
    expect(judge(manifestOf({}), { device: { channels } }).kind).toBe("ok");
    expectRefusal(
      judge(manifestOf({ channel: "nightly" }), { device: { channels } }),
      "wrong-channel",
    );
  });

  const [build] = plain.builds;
  test.each<[string, object]>([
    ["a floor above itself", { floor: "1.5.1" }],
    ["another product", { product: "holster" }],
    ["no build", { builds: [] }],
    ["a target twice", { builds: [build, build] }],
    ["a size of 0", { builds: [{ ...build, size: 0 }] }],
    ["a file of more than a gigabyte", { builds: [{ ...build, size: 1024 ** 3 + 1 }] }],
    ["a size that is no whole number", { builds: [{ ...build, size: 1.5 }] }],
    [
      "a block map that is too large",
      { builds: [{ ...build, blocks: { digest, size: artifactLimits.blockMapBytes + 1 } }] },
    ],
    ["a digest in capitals", { builds: [{ ...build, digest: digest.toUpperCase() }] }],
    ["an unknown architecture", { builds: [{ ...build, architecture: "riscv" }] }],
    [
      "33 labels",
      { labels: Object.fromEntries(Array.from({ length: 33 }, (_x, i) => [`l${i}`, ""])) },
    ],
    ["a path for a channel", { channel: "../x" }],
    ["a time with an offset", { issued: "2026-01-01T00:00:00+01:00" }],
    ["a word more", { run: "rm" }],
    ["a format of later", { format: 2 }],
  ])("with %s is refused", (_what, change) => {
    expectRefusal(judge(manifestOf(change)), "manifest-malformed");
  });

  test("is no longer than a marker takes", () => {
    const text = manifestOf({});
    const long = `${text}${" ".repeat(artifactLimits.manifestBytes - text.length)}`;
    expect(judge(long).kind).toBe("ok");
    expectRefusal(judge(`${long} `), "manifest-malformed", "bytes");
  });

  test("with more signatures than there are may be is refused", () => {
    const envelope = JSON.parse(manifestOf({})) as Envelope;
    const [signature] = envelope.signatures;
    if (signature === undefined) throw new Error("Nobody has signed it");
    const signatures = Array.from({ length: artifactLimits.signatures + 1 }, () => signature);
    expectRefusal(judge(writeEnvelope({ ...envelope, signatures })), "manifest-malformed");
  });
});

test("what is in an envelope can be shown before anybody trusts it", () => {
  const read = whatIs(readUnverified("manifest", manifestOf({}, [])));
  expect(read.value).toEqual(plain);
  expect(whatIs(readUnverified("root", first)).value.version).toBe(1);
  const metadata = keys.metadata({ by: [] });
  expect(whatIs(readUnverified("metadata", metadata)).value.version).toBe(1);
});

test("what is signed, with bytes of it changed, is refused or the same, and nothing throws", () => {
  const chance = new SeededChance(11);
  const text = manifestOf({});
  let believed = 0;
  for (let count = 0; count < 1_500; count += 1) {
    const bytes = Buffer.from(text);
    for (let changes = chance.below(3); changes >= 0; changes -= 1) {
      bytes[chance.below(bytes.length)] = chance.below(256);
    }
    const cut = chance.happens(0.2) ? bytes.subarray(0, chance.below(bytes.length)) : bytes;
    const outcome = judge(cut.toString());
    if (outcome.kind === "ok") {
      believed += 1;
      expect(outcome.value.manifest).toEqual(plain);
    }
  }
  // White space around the envelope is nobody's.
  expect(believed).toBeLessThan(100);
});

test("each refusal is expected by a test", () => {
  const text = readFileSync(import.meta.path, "utf8");
  expect(verifyRefusals.filter((refusal) => !text.includes(`"${refusal}"`))).toEqual([]);
});
