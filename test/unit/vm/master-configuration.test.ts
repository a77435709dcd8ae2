/** The master's TOML: what each key becomes, and all mistakes at once. */
import { expect, test } from "bun:test";
import { masterDefaults, parseMasterConfiguration } from "../../../src/vm/master/configuration.ts";

const parse = (text: string) => parseMasterConfiguration("master.toml", text);

test("nothing said is a master that is alone", () => {
  expect(parse("")).toEqual({ kind: "ok", configuration: masterDefaults });
});

test("a store of several masters, whole", () => {
  const outcome = parse(`
    silent_after = "20s"
    [store]
    name = "east"
    servers = ["tls://a.example:4222", "tls://b.example:4222"]
    credentials = "nkey"
    credentials_file = "/etc/hostler/nats.nk"
    ca_file = "/etc/hostler/nats.pem"
    replicas = 3
  `);
  expect(outcome).toMatchObject({
    kind: "ok",
    configuration: {
      silentAfter: 20_000,
      shared: {
        name: "east",
        servers: ["tls://a.example:4222", "tls://b.example:4222"],
        credentials: { kind: "nkey", file: "/etc/hostler/nats.nk" },
        tls: { ca: "/etc/hostler/nats.pem" },
        replicas: 3,
        proof: { kind: "none" },
      },
    },
  });
});

test("how it is known that nothing is lost", () => {
  const proofOf = (line: string) => {
    const outcome = parse(`[store]\nservers = ["nats://127.0.0.1:4222"]\n${line}`);
    return outcome.kind === "ok" ? outcome.configuration.shared?.proof : outcome;
  };
  const address = "http://127.0.0.1:8222";
  expect(proofOf(`monitoring = "${address}"`)).toEqual({ kind: "monitoring", address });
  expect(proofOf('durable_acknowledgements = "checked"')).toEqual({ kind: "operator" });
});

test("all mistakes, each in its place", () => {
  const outcome = parse(`
    silent_after = "1s"
    lost_after = "15s"
    [store]
    servers = []
    replicas = 2
    credentials = "nkey"
    key_file = "relative"
    color = "red"
  `);
  if (outcome.kind !== "refused") throw new Error("It was taken");
  const paths = outcome.errors.map(({ key_path }) => key_path);
  expect(paths.toSorted()).toEqual(
    [
      "lost_after",
      "silent_after",
      "store.color",
      "store.credentials_file",
      "store.key_file",
      "store.replicas",
      "store.servers",
    ].toSorted(),
  );
});

test("a server that would be spoken to without TLS", () => {
  const outcome = parse('[store]\nservers = ["tls://a.example:4222", "nats://10.0.0.1:4222"]');
  if (outcome.kind !== "refused") throw new Error("It was taken");
  expect(outcome.errors).toEqual([
    expect.objectContaining({
      key_path: "store.servers[1]",
      expected: expect.stringContaining('"tls://HOST:PORT"'),
      received: expect.stringContaining("nats://10.0.0.1:4222"),
    }),
  ]);
});

test("what means something together alone", () => {
  const outcome = parse(`
    [store]
    servers = ["tls://a.example:4222"]
    credentials = "jwt"
    certificate_file = "/etc/hostler/nats.crt"
  `);
  if (outcome.kind !== "refused") throw new Error("It was taken");
  const paths = outcome.errors.map(({ key_path }) => key_path);
  expect(paths).toEqual(["store.credentials_file", "store.key_file"]);
});
