/** Operator, account and user of NATS in JWTs, as `nsc` makes them, for one server in a test. */
import { nkeys } from "@nats-io/transport-node";

type Pair = ReturnType<typeof nkeys.createUser>;

const words = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");

function sign(issuer: Pair, subject: Pair, nats: Readonly<Record<string, unknown>>): string {
  const claims = {
    jti: crypto.randomUUID(),
    iat: Math.floor(Date.now() / 1000),
    iss: issuer.getPublicKey(),
    name: "test",
    sub: subject.getPublicKey(),
    nats: { ...nats, version: 2 },
  };
  const text = `${encode({ typ: "JWT", alg: "ed25519-nkey" })}.${encode(claims)}`;
  const signature = issuer.sign(new TextEncoder().encode(text));
  return `${text}.${Buffer.from(signature).toString("base64url")}`;
}

/** @returns lines of nats-server.conf, and the file of a user's credentials */
export function makeNatsOperator(): { readonly lines: readonly string[]; credentials: string } {
  const operator = nkeys.createOperator();
  const [system, account, user] = [
    nkeys.createAccount(),
    nkeys.createAccount(),
    nkeys.createUser(),
  ];
  const unlimited = { subs: -1, data: -1, payload: -1, conn: -1, leaf: -1, imports: -1 };
  const storage = { mem_storage: -1, disk_storage: -1, streams: -1, consumer: -1 };
  const limits = { ...unlimited, exports: -1, wildcards: true };
  const ofSystem = sign(operator, system, { type: "account", limits });
  const ofAccount = sign(operator, account, {
    type: "account",
    limits: { ...limits, ...storage },
  });
  const ofUser = sign(account, user, { type: "user", pub: {}, sub: {}, ...unlimited });
  const preload = [
    `${system.getPublicKey()}: ${ofSystem}`,
    `${account.getPublicKey()}: ${ofAccount}`,
  ];
  return {
    lines: [
      `operator: ${sign(operator, operator, { type: "operator" })}`,
      `system_account: ${system.getPublicKey()}`,
      "resolver: MEMORY",
      `resolver_preload: { ${preload.join(", ")} }`,
    ],
    credentials: [
      `-----BEGIN NATS USER JWT-----\n${ofUser}\n------END NATS USER JWT------\n`,
      `-----BEGIN USER NKEY SEED-----\n${words(user.getSeed())}\n------END USER NKEY SEED------\n`,
    ].join("\n"),
  };
}
