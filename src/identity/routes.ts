import * as v from "valibot";
import { describePrincipal, roles, specialPermissions } from "../http/principal.ts";
import {
  type Call,
  defineRoute,
  defineStream,
  type Route,
  type StreamRoute,
} from "../http/route.ts";
import type { Authority } from "./authority.ts";
import type { SessionFacts } from "./lifecycle-session.ts";
import {
  challengeSchema,
  enrolAnswerSchema,
  enrolRequestSchema,
  hashSchema,
  limits,
  nameSchema,
  pinsSchema,
  rotateKeyAnswerSchema,
  rotateKeyRequestSchema,
  sessionAnswerSchema,
  sessionRequestSchema,
  statementSchema,
  tokenIdSchema,
} from "./protocol.ts";
import { identityPaths } from "./protocol-paths.ts";
import { IdentityRefusal } from "./refusal.ts";

/** What an authority can be asked. Names are the wire: never used for something else. */
const nothing = v.object({});
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

const hostSchema = v.strictObject({
  name: nameSchema,
  phase: v.picklist(["enrolled", "rotating", "revoked"]),
  keys: v.array(hashSchema),
  clones: v.array(
    v.strictObject({
      boots: v.pipe(v.array(v.string()), v.length(2)),
      how: v.picklist(["answers", "returned", "spoke"]),
    }),
  ),
  boot: v.nullable(v.string()),
  sessions: count,
  confirmed: v.boolean(),
  enrolled_at: v.number(),
});
const tokenSchema = v.strictObject({
  id: tokenIdSchema,
  host: nameSchema,
  replace: v.boolean(),
  phase: v.picklist(["unused", "used", "spent-before", "revoked", "expired"]),
  by: v.string(),
  made: v.number(),
  lifetime: v.number(),
  stolen: v.boolean(),
});
const operatorSchema = v.strictObject({
  name: nameSchema,
  role: v.picklist(roles),
  special: v.array(v.picklist(specialPermissions)),
  phase: v.picklist(["active", "revoked"]),
  tokens: count,
  by: v.string(),
  added_at: v.number(),
});
const certificatesSchema = v.strictObject({
  authority: hashSchema,
  shown: hashSchema,
  announced: v.nullable(hashSchema),
  unconfirmed: v.array(nameSchema),
});
const sessionSchema = v.strictObject({
  session: v.string(),
  host: nameSchema,
  boot: v.string(),
  from: v.string(),
  phase: v.picklist(["live", "superseded", "ended"]),
  age: v.number(),
  idle: v.number(),
});
const eventSchema = v.looseObject({
  kind: v.string(),
  sequence: count,
  time: v.number(),
});

export function identityRoutes(authority: Authority): readonly Route[] {
  return [
    ...openRoutes(authority),
    ...sessionRoutes(authority),
    ...hostRoutes(authority),
    ...tokenRoutes(authority),
    ...operatorRoutes(authority),
    ...certificateRoutes(authority),
  ];
}

export function identityStreams({ core }: Authority): readonly StreamRoute[] {
  return [
    defineStream({
      name: "identity.events",
      method: "GET",
      path: "/v1/identity/events",
      summary: "What happens to hosts, tokens, sessions, operators and certificates",
      permission: "view",
      mutates: false,
      input: nothing,
      output: eventSchema,
      async *stream(call, _input, after) {
        for await (const event of core.events.follow(after, call.signal)) {
          yield { id: core.events.idOf(event), event: event.kind, data: event };
        }
      },
    }),
  ];
}

/** For who has no session yet. */
function openRoutes({ core, enrolments, hosts, certificates }: Authority): Route[] {
  return [
    defineRoute({
      name: "identity.challenge",
      method: "POST",
      path: identityPaths.challenges,
      summary: "A nonce to sign, good once and for 30 seconds",
      permission: "anyone",
      mutates: false,
      input: nothing,
      output: challengeSchema,
      run: () => core.challenge(),
    }),
    defineRoute({
      name: "identity.enrol",
      method: "POST",
      path: identityPaths.enrolments,
      summary: "Lets a host in by its token, and binds the token to the host's key",
      permission: "anyone",
      mutates: true,
      input: enrolRequestSchema,
      output: enrolAnswerSchema,
      async run(call, input) {
        const answer = await enrolments.use(input, call.from);
        call.changed({ object: `host ${answer.host}`, after: hosts.show(answer.host).keys });
        return answer;
      },
    }),
    defineRoute({
      name: "identity.session.open",
      method: "POST",
      path: identityPaths.sessions,
      summary: "Opens a session for who signs with an enrolled key",
      permission: "anyone",
      // The audit log has what people and hosts change; that a host is here is an event.
      mutates: false,
      input: sessionRequestSchema,
      output: sessionAnswerSchema,
      run: (call, input) => hosts.openSession(input, call.from),
    }),
    defineRoute({
      name: "identity.statement",
      method: "GET",
      path: identityPaths.statement,
      summary: "Which certificates to trust, signed by the authority's key",
      permission: "anyone",
      mutates: false,
      input: nothing,
      output: statementSchema,
      run: () => certificates.statement(),
    }),
    defineRoute({
      name: "identity.whoami",
      method: "GET",
      path: "/v1/whoami",
      summary: "Who the server takes the caller for",
      permission: "anyone",
      mutates: false,
      input: nothing,
      output: v.strictObject({
        kind: v.picklist(["anonymous", "host", "operator", "local"]),
        who: v.string(),
        role: v.nullable(v.picklist(roles)),
        special: v.array(v.picklist(specialPermissions)),
      }),
      run: ({ principal }) => ({
        kind: principal.kind,
        who: describePrincipal(principal),
        role: principal.kind === "operator" ? principal.role : null,
        special: principal.kind === "operator" ? [...principal.special] : [],
      }),
    }),
  ];
}

/** For hosts, about themselves. */
function sessionRoutes({ hosts, sessions }: Authority): Route[] {
  const factsOf = ({ principal }: Call): SessionFacts => {
    const facts = principal.kind === "host" ? sessions.facts(principal.session) : undefined;
    if (facts !== undefined) return facts;
    throw new IdentityRefusal("not-allowed", {
      expected: "a host in its session",
      received: describePrincipal(principal),
    });
  };
  return [
    defineRoute({
      name: "identity.key.rotate",
      method: "POST",
      path: identityPaths.key,
      summary: "Announces the host's next key; both open sessions until it was used",
      permission: "host",
      mutates: true,
      input: rotateKeyRequestSchema,
      output: rotateKeyAnswerSchema,
      async run(call, input) {
        const facts = factsOf(call);
        const keys = await hosts.rotateKey(facts, input);
        const { key, next } = keys;
        call.changed({ object: `host ${facts.host}`, before: [key], after: [key, next] });
        return { version: 1 as const, ...keys };
      },
    }),
    defineRoute({
      name: "identity.pins.confirm",
      method: "POST",
      path: identityPaths.pins,
      summary: "The host says which certificates it trusts by now",
      permission: "host",
      mutates: false,
      input: v.strictObject({ pins: pinsSchema }),
      output: nothing,
      async run(call, { pins }) {
        await hosts.confirm(factsOf(call).host, pins);
        return {};
      },
    }),
    defineRoute({
      name: "identity.session.close",
      method: "POST",
      path: identityPaths.close,
      summary: "Ends the host's session",
      permission: "host",
      mutates: false,
      input: nothing,
      output: nothing,
      run(call) {
        const { host, id } = factsOf(call);
        sessions.end(host, (facts) => facts.id === id, "closed");
        return {};
      },
    }),
    defineRoute({
      name: "identity.sessions.list",
      method: "GET",
      path: "/v1/identity/sessions",
      summary: "Open sessions of hosts",
      permission: "view",
      mutates: false,
      input: nothing,
      output: v.strictObject({ sessions: v.array(sessionSchema) }),
      run: () => ({ sessions: [...sessions.of()] }),
    }),
  ];
}

function hostRoutes({ core, hosts, enrolments }: Authority): Route[] {
  const named = v.strictObject({ name: nameSchema });
  return [
    defineRoute({
      name: "identity.hosts.list",
      method: "GET",
      path: "/v1/identity/hosts",
      summary: "All hosts, revoked ones too",
      permission: "view",
      mutates: false,
      input: nothing,
      output: v.strictObject({ hosts: v.array(hostSchema) }),
      run: () => ({ hosts: hosts.list().map(copyHost) }),
    }),
    defineRoute({
      name: "identity.hosts.show",
      method: "GET",
      path: "/v1/identity/hosts/:name",
      summary: "One host",
      permission: "view",
      mutates: false,
      input: named,
      output: hostSchema,
      run: (_call, { name }) => copyHost(hosts.show(name)),
    }),
    defineRoute({
      name: "identity.hosts.revoke",
      method: "POST",
      path: "/v1/identity/hosts/:name/revoke",
      summary: "Ends a host's sessions at once; its keys never count again",
      permission: "operate",
      mutates: true,
      input: named,
      output: hostSchema,
      async run(call, { name }) {
        const before = hosts.show(name).phase;
        const host = await core.inTurn(async () => {
          const revoked = await hosts.revoke(name);
          await enrolments.revokeOf(name);
          return revoked;
        });
        call.changed({ object: `host ${name}`, before, after: host.phase });
        return copyHost(host);
      },
    }),
    defineRoute({
      name: "identity.hosts.acknowledge",
      method: "POST",
      path: "/v1/identity/hosts/:name/acknowledge",
      summary: "The clones of a host were seen to; the next one is reported again",
      permission: "operate",
      mutates: true,
      input: named,
      output: hostSchema,
      async run(call, { name }) {
        const before = hosts.show(name).clones;
        const host = await hosts.acknowledge(name);
        call.changed({ object: `host ${name}`, before, after: host.clones });
        return copyHost(host);
      },
    }),
    defineRoute({
      name: "identity.hosts.remove",
      method: "DELETE",
      path: "/v1/identity/hosts/:name",
      summary: "Forgets a revoked host; its keys stay revoked",
      permission: "admin",
      mutates: true,
      input: named,
      output: nothing,
      async run(call, { name }) {
        const before = hosts.show(name).phase;
        await hosts.remove(name);
        call.changed({ object: `host ${name}`, before });
        return {};
      },
    }),
  ];
}

function copyHost(host: ReturnType<Authority["hosts"]["show"]>) {
  return {
    ...host,
    keys: [...host.keys],
    clones: host.clones.map(({ boots, how }) => ({ boots: [...boots], how })),
  };
}

function tokenRoutes({ enrolments }: Authority): Route[] {
  const lifetime = v.pipe(
    v.number(),
    v.safeInteger(),
    v.minValue(1),
    v.maxValue(limits.longestTokenLifetime),
  );
  return [
    defineRoute({
      name: "identity.tokens.list",
      method: "GET",
      path: "/v1/identity/tokens",
      summary: "Enrolment tokens, without their secrets",
      permission: "view",
      mutates: false,
      input: nothing,
      output: v.strictObject({ tokens: v.array(tokenSchema) }),
      run: () => ({ tokens: [...enrolments.list()] }),
    }),
    defineRoute({
      name: "identity.tokens.create",
      method: "POST",
      path: "/v1/identity/tokens",
      summary: "A token that lets one host in, once; its text is told only here",
      permission: "operate",
      mutates: true,
      input: v.strictObject({
        host: nameSchema,
        lifetime: v.optional(lifetime, limits.tokenLifetime),
        replace: v.optional(v.boolean(), false),
      }),
      output: v.strictObject({ token: tokenSchema, text: v.string() }),
      async run(call, input) {
        const by = describePrincipal(call.principal);
        const created = await enrolments.create({ ...input, by });
        const { id, host, replace } = created.token;
        call.changed({ object: `token ${id}`, after: { host, replace } });
        return created;
      },
    }),
    defineRoute({
      name: "identity.tokens.revoke",
      method: "POST",
      path: "/v1/identity/tokens/:id/revoke",
      summary: "A token that was not used lets nobody in any more",
      permission: "operate",
      mutates: true,
      input: v.strictObject({ id: tokenIdSchema }),
      output: tokenSchema,
      async run(call, { id }) {
        const token = await enrolments.revoke(id);
        call.changed({ object: `token ${id}`, before: "unused", after: token.phase });
        return token;
      },
    }),
  ];
}

function operatorRoutes({ operators }: Authority): Route[] {
  const named = v.strictObject({ name: nameSchema });
  const overlap = v.optional(
    v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(limits.longestOverlap)),
    0,
  );
  const withToken = v.strictObject({ operator: operatorSchema, token: v.string() });
  const copy = (operator: ReturnType<typeof operators.show>) => {
    return { ...operator, special: [...operator.special] };
  };
  return [
    defineRoute({
      name: "identity.operators.list",
      method: "GET",
      path: "/v1/identity/operators",
      summary: "All operators, revoked ones too",
      permission: "view",
      mutates: false,
      input: nothing,
      output: v.strictObject({ operators: v.array(operatorSchema) }),
      run: () => ({ operators: operators.list().map(copy) }),
    }),
    defineRoute({
      name: "identity.operators.add",
      method: "POST",
      path: "/v1/identity/operators",
      summary: "A person or a program with a role; its token is told only here",
      permission: "admin",
      mutates: true,
      input: v.strictObject({
        name: nameSchema,
        role: v.picklist(roles),
        special: v.optional(
          v.pipe(v.array(v.picklist(specialPermissions)), v.maxLength(specialPermissions.length)),
          [],
        ),
      }),
      output: withToken,
      async run(call, input) {
        const words = describePrincipal(call.principal);
        const { operator, token } = await operators.add(call.principal, { ...input, words });
        const { role, special } = operator;
        call.changed({ object: `operator ${operator.name}`, after: { role, special } });
        return { operator: copy(operator), token };
      },
    }),
    defineRoute({
      name: "identity.operators.rotate",
      method: "POST",
      path: "/v1/identity/operators/:name/rotate",
      summary: "Another token for an operator; the old one ends at once, or after the overlap",
      permission: "admin",
      mutates: true,
      input: v.strictObject({ name: nameSchema, overlap }),
      output: withToken,
      async run(call, input) {
        const { operator, token } = await operators.rotate(call.principal, input);
        call.changed({ object: `operator ${input.name}`, after: { overlap: input.overlap } });
        return { operator: copy(operator), token };
      },
    }),
    defineRoute({
      name: "identity.whoami.rotate",
      method: "POST",
      path: "/v1/whoami/rotate",
      summary: "Another token for the operator who calls",
      permission: "view",
      mutates: true,
      input: v.strictObject({ overlap }),
      output: withToken,
      async run(call, input) {
        const { principal } = call;
        if (principal.kind !== "operator") {
          throw new IdentityRefusal("not-allowed", {
            expected: "an operator",
            received: describePrincipal(principal),
          });
        }
        const { name } = principal;
        const rotation = { name, overlap: input.overlap };
        const { operator, token } = await operators.rotate(principal, rotation);
        call.changed({ object: `operator ${name}`, after: { overlap: input.overlap } });
        return { operator: copy(operator), token };
      },
    }),
    defineRoute({
      name: "identity.operators.revoke",
      method: "POST",
      path: "/v1/identity/operators/:name/revoke",
      summary: "Ends what an operator does at once; its tokens never count again",
      permission: "admin",
      mutates: true,
      input: named,
      output: operatorSchema,
      async run(call, { name }) {
        const before = operators.show(name).phase;
        const operator = await operators.revoke(name);
        call.changed({ object: `operator ${name}`, before, after: operator.phase });
        return copy(operator);
      },
    }),
  ];
}

function certificateRoutes({ core, hosts, certificates }: Authority): Route[] {
  const view = () => ({
    authority: core.key.fingerprint,
    shown: certificates.served.pin,
    announced: certificates.announced ?? null,
    unconfirmed: [...hosts.unconfirmed()],
  });
  return [
    defineRoute({
      name: "identity.certificates.list",
      method: "GET",
      path: "/v1/identity/certificates",
      summary: "The certificate that is shown, the one that is announced, and who lacks it",
      permission: "view",
      mutates: false,
      input: nothing,
      output: certificatesSchema,
      run: view,
    }),
    defineRoute({
      name: "identity.certificates.rotate",
      method: "POST",
      path: "/v1/identity/certificates/rotate",
      summary: "Makes the next certificate and announces it to hosts",
      permission: "admin",
      mutates: true,
      input: nothing,
      output: certificatesSchema,
      async run(call) {
        const before = certificates.pins;
        await certificates.rotate();
        call.changed({ object: "certificates", before, after: certificates.pins });
        return view();
      },
    }),
    defineRoute({
      name: "identity.certificates.finish",
      method: "POST",
      path: "/v1/identity/certificates/finish",
      summary: "Shows the announced certificate, and trusts it alone",
      permission: "admin",
      mutates: true,
      input: v.strictObject({ force: v.optional(v.boolean(), false) }),
      output: certificatesSchema,
      async run(call, { force }) {
        const before = certificates.pins;
        await certificates.finish({ unconfirmed: () => hosts.unconfirmed(), force });
        call.changed({ object: "certificates", before, after: certificates.pins });
        return view();
      },
    }),
  ];
}
