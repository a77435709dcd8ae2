/** NATS that acknowledges too early, is put back, denies, is another, or does not answer. */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { cpSync, rmSync, writeFileSync } from "node:fs";
import { connect, headers, nkeyAuthenticator, nkeys } from "@nats-io/transport-node";
import { natsReleases } from "../../scripts/nats-server.ts";
import { NatsStore, type NatsStoreOptions, natsLimits } from "../../src/store/nats/nats-store.ts";
import type { BucketDefinition, LinkState } from "../../src/store/store.ts";
import { testEventLoop } from "../support/event-loop.ts";
import { makeNatsOperator } from "../support/nats-jwt.ts";
import { type NatsServer, natsServer, startNatsServer } from "../support/nats-server.ts";
import { program, skipUnless } from "../support/skips.ts";
import { conformanceBuckets } from "../support/store-buckets.ts";
import { freshWriteId, problemOf, WatchReader } from "../support/store-conformance.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { rejectionOf, waitFor, withDeadline } from "../support/wait-for.ts";

const loop = testEventLoop();
afterAll(() => loop[Symbol.dispose]());

let folder: TemporaryFolder;
let stack: AsyncDisposableStack;
let troubles: string[];
beforeEach(() => {
  stack = new AsyncDisposableStack();
  folder = stack.use(temporaryFolder());
  troubles = [];
});
afterEach(() => stack.disposeAsync());

const [oldest, middle, newest] = natsReleases;
const facts = conformanceBuckets.filter(({ name }) => name === "facts");
const beats = conformanceBuckets.filter(({ name }) => name === "beats");

function open(server: NatsServer, options: Partial<NatsStoreOptions> = {}): NatsStore {
  return stack.use(
    new NatsStore(loop, {
      servers: [server.address],
      credentials: { kind: "none" },
      buckets: facts,
      role: "owner",
      proof: { kind: "operator" },
      deadline: 3_000,
      onTrouble: (message) => troubles.push(message),
      ...options,
    }),
  );
}

const serve = async (options: Omit<Parameters<typeof startNatsServer>[0], "folder">) =>
  stack.use(await startNatsServer({ ...options, folder: folder.path }));

const put = (store: NatsStore, key: string, value: string, expected?: number) =>
  store.put("facts", key, value, {
    writeId: freshWriteId(),
    ...(expected !== undefined && { expect: expected }),
  });

function secret(name: string, text: string | Uint8Array, mode = 0o600): string {
  writeFileSync(folder.file(name), text, { mode });
  return folder.file(name);
}

async function until(store: NatsStore, wanted: LinkState): Promise<void> {
  const end = new AbortController();
  const reached = (async () => {
    for await (const state of store.link(end.signal)) if (state === wanted) return;
  })();
  await withDeadline(`the link to be ${wanted}`, reached);
  end.abort();
}

skipUnless("durable acknowledgements of nats-server 2.9", natsServer(oldest), () => {
  for (const kind of ["none", "monitoring"] as const) {
    test(`are refused with proof ${kind}: writes too, but of volatile buckets`, async () => {
      const server = await serve({ release: oldest });
      const proof = kind === "none" ? { kind } : { kind, address: server.monitoring };
      const store = open(server, { buckets: [...facts, ...beats], proof });
      const error = await rejectionOf(store.ready());
      expect(error.message).toMatch(
        /What is written to facts could be lost.*sync_interval: always/,
      );
      expect(troubles).toHaveLength(1);
      expect((await problemOf(put(store, "a", "1"))).kind).toBe("refused");
      expect(await store.get("facts", "a")).toBeUndefined();
      await store.put("beats", "a", "1", { writeId: freshWriteId() });
      expect(store.capabilities.acknowledgement).toBe("interval");
    });
  }

  test("are believed when the operator says so, and said to be unknown", async () => {
    const store = open(await serve({ release: oldest }));
    await store.ready();
    await put(store, "a", "1");
    expect(store.capabilities.acknowledgement).toBe("unknown");
    expect(store.capabilities.server).toMatch(/^nats-server 2\.9\./);
  });
});

for (const release of [middle, newest]) {
  skipUnless(`durable acknowledgements of ${release.version}`, natsServer(release), () => {
    test("are proven by the server's monitoring", async () => {
      const server = await serve({ release, syncs: true });
      const proof = { kind: "monitoring", address: server.monitoring } as const;
      const store = open(server, { proof });
      await store.ready();
      expect(store.capabilities.acknowledgement).toBe("fsync");
    });

    test("are asked for again when the server comes back, with another configuration", async () => {
      const server = await serve({ release, syncs: true });
      const proof = { kind: "monitoring", address: server.monitoring } as const;
      const store = open(server, { proof });
      await store.ready();
      await put(store, "a", "1");
      await server.stop();
      await server.start({ syncs: false });
      await waitFor("a word to the operator", () => troubles.length > 0);
      expect(troubles[0]).toMatch(/acknowledges before it calls fsync/);
      expect((await problemOf(put(store, "a", "2"))).kind).toBe("refused");
      expect((await store.get("facts", "a"))?.value).toBe("1");
      await server.stop();
      await server.start({ syncs: true });
      await waitFor("a write", () => put(store, "a", "3").catch(() => undefined));
    });

    test("are not proven by the monitoring of another server, or of none", async () => {
      const server = await serve({ release, syncs: true });
      using elsewhere = temporaryFolder();
      await using other = await startNatsServer({ release, folder: elsewhere.path, syncs: true });
      const proofs = [
        { address: other.monitoring, reason: /the monitoring is of/ },
        { address: "http://127.0.0.1:1", reason: /monitoring cannot be read/ },
        { address: "http://192.0.2.1:8222", reason: /monitoring cannot be read/ },
      ];
      for (const { address, reason } of proofs) {
        const store = open(server, { proof: { kind: "monitoring", address } });
        expect((await rejectionOf(store.ready())).message).toMatch(reason);
      }
    });
  });
}

for (const release of natsReleases) {
  skipUnless(`buckets of nats-server ${release.version}`, natsServer(release), () => {
    const configOf = async (server: NatsServer, bucket: string) => {
      const response = await fetch(`${server.monitoring}/jsz?streams=1&config=1&accounts=1`);
      // biome-ignore lint/suspicious/noExplicitAny: the server's own words
      const { account_details: accounts } = (await response.json()) as any;
      // biome-ignore lint/suspicious/noExplicitAny: the server's own words
      const streams = accounts.flatMap((account: any) => account.stream_detail);
      // biome-ignore lint/suspicious/noExplicitAny: the server's own words
      return streams.find(({ name }: any) => name === `KV_${bucket}`).config;
    };

    test("are made as they are defined, and follow their definition", async () => {
      const server = await serve({ release });
      const before = open(server, { buckets: conformanceBuckets });
      await before.ready();
      expect(await configOf(server, "facts")).toMatchObject({
        discard: "new",
        max_age: 0,
        max_bytes: 4 * 1024 ** 2,
        max_msgs_per_subject: 1,
        storage: "file",
        allow_direct: true,
      });
      expect(await configOf(server, "beats")).toMatchObject({
        discard: "old",
        max_age: 3_600_000 * 1_000_000,
        storage: "memory",
      });
      await put(before, "a", "1");
      const larger = facts.map((bucket): BucketDefinition => ({ ...bucket, size: 8 * 1024 ** 2 }));
      const after = open(server, { buckets: larger });
      await after.ready();
      expect((await configOf(server, "facts")).max_bytes).toBe(8 * 1024 ** 2);
      expect((await after.get("facts", "a"))?.value).toBe("1");
    });

    test("a stream that cannot become the bucket is refused", async () => {
      const server = await serve({ release });
      await open(server).ready();
      const volatile = facts.map((bucket) => ({ ...bucket, volatile: true }));
      const store = open(server, { buckets: volatile });
      await waitFor("a word to the operator", () => troubles.length > 0);
      expect(troubles[0]).toMatch(/expected storage memory, received file/);
      expect((await problemOf(put(store, "a", "1"))).kind).toBe("refused");
    });

    test("a full one that may lose nothing refuses, and takes more when it is grown", async () => {
      const server = await serve({ release });
      const small = conformanceBuckets.filter(({ name }) => name === "few");
      const store = open(server, { buckets: small });
      await store.ready();
      const value = "v".repeat(1_000);
      const write = (to: NatsStore, key: number) =>
        to.put("few", `k.${key}`, value, { writeId: freshWriteId() });
      for (let key = 0; key < 3; key += 1) await write(store, key);
      expect(await problemOf(write(store, 3))).toEqual({ kind: "full" });
      expect((await store.get("few", "k.0"))?.value).toBe(value);
      const grown = open(server, {
        buckets: small.map((bucket) => ({ ...bucket, size: 64 * 1024 })),
      });
      await grown.ready();
      await write(grown, 3);
    });

    test("one that was put back: watches are reset, writers conflict", async () => {
      const server = await serve({ release });
      const store = open(server);
      await store.ready();
      const first = await put(store, "a", "1");
      await server.stop();
      cpSync(server.data, folder.file("older"), { recursive: true });
      await server.start();
      await until(store, "up");
      await using watch = new WatchReader(store, "facts", "");
      await watch.synced();
      const second = await put(store, "a", "2", first);
      await put(store, "b", "1");
      await watch.until("b", "1");
      await server.stop();
      rmSync(server.data, { recursive: true });
      cpSync(folder.file("older"), server.data, { recursive: true });
      await server.start();
      const { values, resets } = await watch.synced();
      expect(resets).toBe(1);
      expect(Object.fromEntries(values)).toEqual({ a: "1" });
      expect(troubles.join("\n")).toMatch(/facts of NATS was put back to an older state/);
      expect(await problemOf(put(store, "a", "3", second))).toEqual({
        kind: "conflict",
        received: first,
      });
    });

    test("more watches than the 1,000 that 2.15 has by default", async () => {
      const store = open(await serve({ release }), { deadline: 20_000 });
      await store.ready();
      const end = new AbortController();
      const first = async (index: number) => {
        const events = store.watch("facts", `k.${index}`, { signal: end.signal });
        for await (const event of events) return event.kind;
        return "none";
      };
      const kinds = await Promise.all(Array.from({ length: 1_100 }, (_, index) => first(index)));
      expect(new Set(kinds)).toEqual(new Set(["synced"]));
      expect(troubles).toEqual([]);
      end.abort();
    });

    test("a write that was lost on the way is found by its write id", async () => {
      const server = await serve({ release });
      const store = open(server, { deadline: 500, staleAfter: 300 });
      await store.ready();
      server.kill("SIGSTOP");
      const writeId = freshWriteId();
      const write = store.put("facts", "a", "1", { writeId, expect: 0 });
      expect(await problemOf(write)).toEqual({ kind: "ambiguous" });
      await until(store, "stale");
      server.kill("SIGCONT");
      await until(store, "up");
      const found = await waitFor("the write", () => store.get("facts", "a"));
      expect(found.writeId).toBe(writeId);
      expect(await store.put("facts", "a", "1", { writeId, expect: 0 })).toBe(found.revision);
    });
  });
}

/** Users of one server: the owner of all, and one with its own keys alone. */
function makeUsers() {
  const [user, owner] = [nkeys.createUser(), nkeys.createUser()];
  const lines = [
    "authorization { users: [",
    `  { nkey: ${owner.getPublicKey()} }`,
    `  { nkey: ${user.getPublicKey()}, permissions: {`,
    '    subscribe: ["_INBOX_web-1.>"]',
    "    publish: [",
    '      "$KV.facts.web-1.>"',
    '      "$JS.API.DIRECT.GET.KV_facts.$KV.facts.web-1.>"',
    '      "$JS.API.STREAM.INFO.KV_facts"',
    '      "$JS.API.CONSUMER.CREATE.KV_facts.*.$KV.facts.web-1.>"',
    "    ] } }",
    "] }",
  ];
  return { user, owner, lines };
}

for (const release of natsReleases) {
  skipUnless(`a hostile user of ${release.version}`, natsServer(release), () => {
    const { user, owner, lines } = makeUsers();
    const hostile = async (server: NatsServer) =>
      await connect({
        ...{ servers: server.address, tls: null, inboxPrefix: "_INBOX_web-1" },
        authenticator: nkeyAuthenticator(user.getSeed()),
      });

    test("permissions of a user are no fence around keys", async () => {
      const server = await serve({ release, lines });
      const file = secret("owner", owner.getSeed());
      const all = open(server, { credentials: { kind: "nkey", file } });
      await all.ready();
      await put(all, "web-2", "its own word");
      const connection = await hostile(server);
      await connection.request("$KV.facts.web-1.a", "a word of web-1");
      const read = "$JS.API.DIRECT.GET.KV_facts.$KV.facts.web-1.a";
      connection.publish(read, "", { reply: "$KV.facts.web-2" });
      await waitFor("the answer", async () => {
        const entry = await all.get("facts", "web-2");
        return entry?.value === "a word of web-1" ? entry : undefined;
      });
      await connection.close();
    });

    test("one who writes one key removes no others by it", async () => {
      const server = await serve({ release, lines });
      const file = secret("owner", owner.getSeed());
      const all = open(server, { credentials: { kind: "nkey", file } });
      await all.ready();
      await put(all, "web-2", "its own word");
      const connection = await hostile(server);
      const head = headers();
      head.set("Nats-Rollup", "all");
      const answer = await connection.request("$KV.facts.web-1.a", "1", {
        ...{ headers: head, timeout: 5_000 },
      });
      expect(answer.json()).toHaveProperty("error");
      expect((await all.get("facts", "web-2"))?.value).toBe("its own word");
      await connection.close();
    });
  });
}

skipUnless("who may do what in NATS", natsServer(newest), () => {
  const { user, owner, lines } = makeUsers();
  const seedFile = (name: string, pair: typeof user) => secret(name, pair.getSeed());

  test("a host reads, writes and watches its own keys, and no other", async () => {
    const server = await serve({ release: newest, lines });
    const all = open(server, { credentials: { kind: "nkey", file: seedFile("owner", owner) } });
    await all.ready();
    await put(all, "web-2.status", "secret");
    const store = open(server, {
      role: "user",
      inboxPrefix: "_INBOX_web-1",
      credentials: { kind: "nkey", file: seedFile("user", user) },
    });
    await store.ready();
    await put(store, "web-1.status", "1");
    expect((await store.get("facts", "web-1.status"))?.value).toBe("1");
    await using watch = new WatchReader(store, "facts", "web-1.");
    expect([...(await watch.synced()).values]).toEqual([["web-1.status", "1"]]);
    const denied = { kind: "denied" } as const;
    expect(await problemOf(put(store, "web-2.status", "2"))).toEqual(denied);
    expect(await problemOf(store.get("facts", "web-2.status"))).toEqual(denied);
    expect(await problemOf(new WatchReader(store, "facts", "").next())).toEqual(denied);
    expect(await problemOf(new WatchReader(store, "facts", "web-2.").next())).toEqual(denied);
    expect((await all.get("facts", "web-2.status"))?.value).toBe("secret");
  });

  test("a key that the server does not know is let in when it does", async () => {
    const server = await serve({ release: newest, lines });
    const file = seedFile("unknown", nkeys.createUser());
    const store = open(server, { credentials: { kind: "nkey", file }, deadline: 300 });
    expect((await problemOf(store.get("facts", "a"))).kind).toBe("unavailable");
    secret("unknown", owner.getSeed());
    await withDeadline("the first connection", store.ready());
  });

  test("a token, and a user of an operator's JWT, come from files", async () => {
    const server = await serve({ release: newest, lines: ['authorization { token: "s3cret" }'] });
    const token = secret("token", "s3cret\n");
    await open(server, { credentials: { kind: "token", file: token } }).ready();
    await server.stop();
    const operator = makeNatsOperator();
    await server.start({ lines: operator.lines });
    const file = secret("user.creds", operator.credentials);
    const store = open(server, { credentials: { kind: "jwt", file } });
    await store.ready();
    await put(store, "a", "1");
  });

  test("a file that others may read, is empty, or is not there, is refused", async () => {
    const server = await serve({ release: newest });
    const tries: readonly [string, RegExp][] = [
      [secret("open", "s", 0o644), /its owner alone may read it, received the mode 0644/],
      [secret("empty", ""), /expected 1 to 65536 bytes, received 0/],
      [secret("long", "s".repeat(70_000)), /received 70000/],
      [folder.file("none"), /Cannot read the credentials in/],
    ];
    const kinds = ["nkey", "jwt"] as const;
    for (const kind of kinds) {
      const credentials = { kind, file: secret("nonsense", "no credentials") };
      expect(() => open(server, { credentials })).toThrow(/received something else/);
    }
    for (const [file, reason] of tries) {
      expect(() => open(server, { credentials: { kind: "token", file } })).toThrow(reason);
    }
  });

  test("a file that is spoilt later is told, and mended, without an end", async () => {
    const server = await serve({ release: newest, lines });
    const file = seedFile("owner", owner);
    const store = open(server, { credentials: { kind: "nkey", file } });
    await store.ready();
    secret("owner", "nonsense");
    await server.stop();
    await server.start();
    await waitFor("a word to the operator", () => troubles.length > 0);
    secret("owner", owner.getSeed());
    await until(store, "up");
    await put(store, "a", "1");
  });

  test("without TLS nothing goes off loopback", async () => {
    const server = await serve({ release: newest });
    for (const address of ["nats://192.0.2.1:4222", "192.0.2.1", "nats://nats.example:4222"]) {
      expect(() => open(server, { servers: [address] })).toThrow(/expected tls:\/\/ off loopback/);
    }
    expect(() => open(server, { servers: [] })).toThrow(/an address of a NATS server/);
  });
});

skipUnless("TLS of NATS", [natsServer(newest), program("openssl", "openssl")], () => {
  const certificate = async (name: string) => {
    const [key, file] = [folder.file(`${name}.key`), folder.file(`${name}.pem`)];
    const words = [
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-nodes",
      "-keyout",
      key,
    ];
    const more = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-out", file];
    const child = Bun.spawnSync(["openssl", "req", "-x509", ...words, ...more]);
    expect(child.exitCode).toBe(0);
    return { key, file, pem: await Bun.file(file).text() };
  };

  test("the right authority is let in, another is not, and plain text is refused", async () => {
    const own = await certificate("own");
    const other = await certificate("other");
    const tls = [`tls { cert_file: "${own.file}", key_file: "${own.key}" }`];
    const server = await serve({ release: newest, lines: tls });
    const servers = [`tls://127.0.0.1:${server.port}`];
    const store = open(server, { servers, tls: { ca: own.pem } });
    await store.ready();
    await put(store, "a", "1");
    const wrong = open(server, { servers, tls: { ca: other.pem }, deadline: 500 });
    expect((await problemOf(wrong.get("facts", "a"))).kind).toBe("unavailable");
    await server.stop();
    await server.start({ lines: [] });
    const plain = open(server, { servers, tls: { ca: own.pem }, deadline: 500 });
    expect((await problemOf(plain.get("facts", "a"))).kind).toBe("unavailable");
  });
});

describe("a NATS that is not there", () => {
  test("has requests wait for their deadline, and no longer", async () => {
    const store = stack.use(
      new NatsStore(loop, {
        servers: ["nats://127.0.0.1:1"],
        credentials: { kind: "none" },
        buckets: facts,
        role: "owner",
        proof: { kind: "operator" },
        deadline: 200,
      }),
    );
    expect((await problemOf(put(store, "a", "1"))).kind).toBe("unavailable");
    expect((await problemOf(store.get("facts", "a"))).kind).toBe("unavailable");
    const open = Array.from({ length: natsLimits.openRequests }, () =>
      store.get("facts", "a").catch(() => {}),
    );
    expect((await problemOf(store.get("facts", "a"))).kind).toBe("refused");
    await Promise.all(open);
  });
});
