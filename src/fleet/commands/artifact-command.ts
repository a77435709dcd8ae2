import { type Command, defineCommand, subCommandsOf } from "../../command-line/definition.ts";

/** What is made, signed, published and fetched of releases: none of it needs an operator. */

const refused = {
  111: "it is not believed, or cannot be had: what was expected, and what received",
} as const;
const jsonFlag = { json: { type: "boolean", description: "Print JSON" } } as const;
const outFlag = {
  out: {
    type: "string",
    required: true,
    valueHint: "file",
    complete: "file",
    description: "A new file",
  },
} as const;
const folderFlag = {
  folder: {
    type: "string",
    required: true,
    valueHint: "folder",
    complete: "file",
    description: "What is published: releases, root sets, metadata.json",
  },
} as const;
const keyFlag = {
  key: {
    type: "string",
    repeatable: true,
    required: true,
    valueHint: "file",
    complete: "file",
    description: "A secret key, 0600; several sign together",
  },
} as const;

const generateCommand = defineCommand({
  meta: {
    name: "generate",
    description: "Make a pair of keys that sign: root sets and metadata, or manifests",
    examples: [["hostler fleet key generate root-1", "The secret key in root-1, and root-1.pub"]],
    exitCodes: refused,
  },
  args: {
    file: { type: "positional", description: "A new file for the secret key, 0600" },
    ...jsonFlag,
  },
  run: async (args) => await (await import("./artifact-key.ts")).runKeyGenerate(args),
});

/** `hostler fleet key …` */
export const keyCommand: Command = defineCommand({
  meta: {
    name: "key",
    description: "Make keys that sign releases; they stay off the operator's host",
    examples: [["hostler fleet key generate release", "The secret key in release"]],
  },
  subCommands: subCommandsOf(generateCommand),
});

const buildCommand = defineCommand({
  meta: {
    name: "build",
    description: "Make of executables what devices fetch: packed blocks, and an unsigned manifest",
    examples: [
      [
        "hostler fleet artifact build 1.5.0 dist/release/hostler-* --folder site",
        "For every architecture and libc there is a file of",
      ],
      [
        "hostler fleet artifact build 1.5.0 hostler --floor 1.4.2 --folder site",
        "Who has it never goes below 1.4.2 again",
      ],
    ],
  },
  args: {
    version: { type: "positional", description: "Such as 1.5.0 or 1.6.0-rc.1" },
    files: {
      type: "positional",
      repeatable: true,
      complete: "file",
      description: "Executables, each with its architecture and libc in itself",
    },
    ...folderFlag,
    floor: {
      type: "string",
      valueHint: "version",
      description: "Below it a device never goes once it has this version; 0.0.0 without it",
    },
    channel: {
      type: "string",
      valueHint: "name",
      default: "stable",
      description: "Devices may follow some channels alone",
    },
    label: {
      type: "string",
      repeatable: true,
      valueHint: "name=value",
      description: "Said in the manifest",
    },
    issued: {
      type: "string",
      valueHint: "time",
      description: "Such as 2027-01-31T12:00:00Z; now without it",
    },
    "block-size": {
      type: "string",
      valueHint: "size",
      default: "64KiB",
      description: "Of the blocks by which two versions are compared: 4KiB to 4MiB",
    },
    level: {
      type: "string",
      valueHint: "1-19",
      default: "19",
      description: "Of zstd: larger is smaller and slower",
    },
    "skip-version-check": {
      type: "boolean",
      description: "Ask no file which version it is; those for other machines are never asked",
    },
    ...jsonFlag,
  },
  run: async (args) => await (await import("./artifact-build.ts")).runArtifactBuild(args),
});

const signCommand = defineCommand({
  meta: {
    name: "sign",
    description: "Sign a manifest; more keys may sign it later",
    examples: [
      [
        "hostler fleet artifact sign site/hostler-1.5.0.manifest.json --key release",
        "What it says is shown, and signed in its place",
      ],
    ],
    exitCodes: refused,
  },
  args: {
    manifest: { type: "positional", complete: "file", description: "As build has made it" },
    ...keyFlag,
    ...jsonFlag,
  },
  run: async (args) =>
    await (await import("./artifact-sign.ts")).runSign({
      ...args,
      file: args.manifest,
      of: "manifest",
    }),
});

const trustFlags = {
  root: {
    type: "string",
    required: true,
    valueHint: "file",
    complete: "file",
    description: "The root set that is trusted; later ones are looked for where the release is",
  },
} as const;

const verifyCommand = defineCommand({
  meta: {
    name: "verify",
    description: "Say whether a device would take a release: signatures, and every block",
    examples: [
      [
        "hostler fleet artifact verify 1.5.0 --at https://example.org/hostler --root root-1.json",
        "As it is published, all of it read",
      ],
    ],
    exitCodes: { 0: "it would", ...refused },
  },
  args: {
    version: { type: "positional", description: "Of the release" },
    at: {
      type: "string",
      required: true,
      valueHint: "address",
      description: "A folder, or its address: https:, http: or file:",
    },
    ...trustFlags,
    "signatures-only": { type: "boolean", description: "Read no block" },
    ...jsonFlag,
  },
  run: async (args) => await (await import("./artifact-verify.ts")).runArtifactVerify(args),
});

const pushCommand = defineCommand({
  meta: {
    name: "push",
    description: "Publish a signed release, verified first: metadata.json comes last",
    examples: [
      [
        "hostler fleet artifact push 1.5.0 --folder site --to file:///srv/www/hostler",
        "In a folder",
      ],
      [
        "hostler fleet artifact push 1.5.0 --folder site --to https://example.org/hostler/ \\\n" +
          "    --token-file token",
        "By PUT, to a server that takes it",
      ],
    ],
    exitCodes: refused,
  },
  args: {
    version: { type: "positional", description: "Of the release" },
    ...folderFlag,
    to: {
      type: "string",
      required: true,
      valueHint: "address",
      description: "A folder's: file:, https: or http:",
    },
    "token-file": {
      type: "string",
      valueHint: "file",
      complete: "file",
      description: "What the server is sent as Authorization: Bearer; 0600",
    },
    ...jsonFlag,
  },
  run: async (args) => await (await import("./artifact-push.ts")).runArtifactPush(args),
});

const fetchCommand = defineCommand({
  meta: {
    name: "fetch",
    description: "Bring a release to this host as a device does: what is the same here is not sent",
    examples: [
      [
        "hostler fleet artifact fetch 1.5.0 --from https://example.org/hostler \\\n" +
          "    --root root-1.json --into folder",
        "In folder/versions; called again, it goes on from where it was",
      ],
    ],
    exitCodes: refused,
  },
  args: {
    version: { type: "positional", description: "Of the release" },
    from: {
      type: "string",
      required: true,
      repeatable: true,
      valueHint: "address",
      description: "A folder, or its address; several are tried in order",
    },
    ...trustFlags,
    into: {
      type: "string",
      required: true,
      valueHint: "folder",
      complete: "file",
      description: "Has versions/, and in trust/ what is believed; made when there is none",
    },
    base: {
      type: "string",
      repeatable: true,
      valueHint: "file",
      complete: "file",
      description: "Whose blocks may be the same; this program itself without it",
    },
    rate: {
      type: "string",
      valueHint: "size",
      description: "At most so much a second: 1KiB or more",
    },
    certificates: {
      type: "string",
      valueHint: "file",
      complete: "file",
      description: "PEM: whom the https: server is certified by",
    },
    "time-limit": { type: "string", valueHint: "duration", description: "Give up then" },
    ...jsonFlag,
  },
  run: async (args) => await (await import("./artifact-fetch.ts")).runArtifactFetch(args),
});

/** `hostler fleet artifact …` */
export const artifactCommand: Command = defineCommand({
  meta: {
    name: "artifact",
    description: "Make, sign, verify, publish and fetch releases",
    examples: [
      ["hostler fleet artifact build 1.5.0 dist/hostler --folder site", "Make what is published"],
      ["hostler fleet artifact sign site/hostler-1.5.0.manifest.json --key release", "Sign it"],
      ["hostler fleet artifact push 1.5.0 --folder site --to file:///srv/www", "Publish it"],
    ],
  },
  subCommands: subCommandsOf(buildCommand, signCommand, verifyCommand, pushCommand, fetchCommand),
});

const publicKeysFlag = {
  key: {
    type: "string",
    repeatable: true,
    required: true,
    valueHint: "file",
    complete: "file",
    description: "A public key, FILE.pub",
  },
} as const;
const thresholdFlag = {
  threshold: {
    type: "string",
    valueHint: "count",
    default: "1",
    description: "So many of these keys have to sign",
  },
} as const;

const initCommand = defineCommand({
  meta: {
    name: "init",
    description: "Make the first root set, to be signed, and pinned on devices",
    examples: [
      [
        "hostler fleet root init --key root-1.pub --key root-2.pub --out site/root-1.json",
        "One of the two signs what follows; the other is kept where it cannot be lost",
      ],
    ],
    exitCodes: refused,
  },
  args: { ...publicKeysFlag, ...thresholdFlag, ...outFlag, ...jsonFlag },
  run: async (args) => await (await import("./artifact-root.ts")).runRootInit(args),
});

const rotateCommand = defineCommand({
  meta: {
    name: "rotate",
    description: "Make the root set that follows: old keys and new ones have to sign it",
    examples: [
      [
        "hostler fleet root rotate site/root-1.json --key root-2.pub --key root-3.pub \\\n" +
          "    --out site/root-2.json",
        "Devices that know root-1.json follow; then sign metadata anew",
      ],
    ],
    exitCodes: refused,
  },
  args: {
    previous: { type: "positional", complete: "file", description: "The present root set" },
    ...publicKeysFlag,
    ...thresholdFlag,
    ...outFlag,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./artifact-root.ts")).runRootRotate(args),
});

const metadataCommand = defineCommand({
  meta: {
    name: "metadata",
    description: "Make the next metadata: who signs releases, and what is revoked",
    examples: [
      [
        "hostler fleet root metadata site/metadata.json --signer release.pub --valid 2160h",
        "Let release sign manifests; then sign this with a root key",
      ],
      [
        "hostler fleet root metadata site/metadata.json --revoke-key release.pub=stolen \\\n" +
          "    --signer release-2.pub",
        "No device takes what that key has signed",
      ],
      [
        "hostler fleet root metadata site/metadata.json --revoke DIGEST='loses data'",
        "No device takes that file",
      ],
    ],
    exitCodes: refused,
  },
  args: {
    file: {
      type: "positional",
      complete: "file",
      description: "The present metadata, which is replaced; made when there is none",
    },
    signer: {
      type: "string",
      repeatable: true,
      valueHint: "file",
      complete: "file",
      description: "A public key that signs manifests; in place of the present ones, if given",
    },
    "revoke-key": {
      type: "string",
      repeatable: true,
      valueHint: "file=reason",
      description: "A public key that counts no more",
    },
    revoke: {
      type: "string",
      repeatable: true,
      valueHint: "digest=reason",
      description: "SHA-256 of a file that no device is to take",
    },
    valid: {
      type: "string",
      valueHint: "duration",
      default: "2160h",
      description: "After that time devices say that it is stale, and go on",
    },
    ...jsonFlag,
  },
  run: async (args) => await (await import("./artifact-root.ts")).runRootMetadata(args),
});

const rootSignCommand = defineCommand({
  meta: {
    name: "sign",
    description: "Sign a root set or metadata with root keys",
    examples: [
      [
        "hostler fleet root sign site/metadata.json --key root-1",
        "What it says is shown, and signed",
      ],
    ],
    exitCodes: refused,
  },
  args: {
    file: { type: "positional", complete: "file", description: "root-N.json, or metadata.json" },
    ...keyFlag,
    ...jsonFlag,
  },
  run: async (args) => await (await import("./artifact-sign.ts")).runSign({ ...args, of: "root" }),
});

/** `hostler fleet root …` */
export const rootCommand: Command = defineCommand({
  meta: {
    name: "root",
    description: "Say which keys devices trust: root sets, and the metadata that they sign",
    examples: [
      ["hostler fleet root init --key root-1.pub --key root-2.pub --out root-1.json", "The first"],
      ["hostler fleet root sign root-1.json --key root-1", "Sign it; devices pin this file"],
    ],
  },
  subCommands: subCommandsOf(initCommand, rootSignCommand, rotateCommand, metadataCommand),
});
