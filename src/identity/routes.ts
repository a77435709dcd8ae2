import { describePrincipal } from "../http/principal.ts";
import {
  type Call,
  defineRoute,
  defineStream,
  type Route,
  type StreamRoute,
} from "../http/route.ts";
import { identityApi } from "./api.ts";
import type { Authority } from "./authority.ts";
import type { SessionFacts } from "./lifecycle-session.ts";
import { IdentityRefusal } from "./refusal.ts";

/** What an authority can be asked. Names are the wire: never used for something else. */
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
      ...identityApi.events,
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
      ...identityApi.eventsKept,
      run: (_call, { after }) => ({
        events: core.events.after(after).map((event) => ({ id: core.events.idOf(event), event })),
      }),
    }),
    defineRoute({
      ...identityApi.challenge,
      run: () => core.challenge(),
    }),
    defineRoute({
      ...identityApi.enrol,
      async run(call, input) {
        const answer = await enrolments.use(input, call.from);
        call.changed({ object: `host ${answer.host}`, after: hosts.show(answer.host).keys });
        return answer;
      },
    }),
    defineRoute({
      ...identityApi.sessionOpen,
      run: (call, input) => hosts.openSession(input, call.from),
    }),
    defineRoute({
      ...identityApi.statement,
      run: () => certificates.statement(),
    }),
    defineRoute({
      ...identityApi.whoami,
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
      ...identityApi.keyRotate,
      async run(call, input) {
        const facts = factsOf(call);
        const keys = await hosts.rotateKey(facts, input);
        const { key, next } = keys;
        call.changed({ object: `host ${facts.host}`, before: [key], after: [key, next] });
        return { version: 1 as const, ...keys };
      },
    }),
    defineRoute({
      ...identityApi.pinsConfirm,
      async run(call, { pins }) {
        const { host } = factsOf(call);
        const before = await hosts.confirm(host, pins);
        call.changed({ object: `host ${host}`, before, after: pins });
        return {};
      },
    }),
    defineRoute({
      ...identityApi.sessionClose,
      run(call) {
        const { host, id } = factsOf(call);
        sessions.end(host, (facts) => facts.id === id, "closed");
        return {};
      },
    }),
    defineRoute({
      ...identityApi.sessionsList,
      run: () => ({ sessions: [...sessions.of()] }),
    }),
  ];
}

function hostRoutes({ core, hosts, enrolments }: Authority): Route[] {
  return [
    defineRoute({
      ...identityApi.hostsList,
      run: () => ({ hosts: hosts.list().map(copyHost) }),
    }),
    defineRoute({
      ...identityApi.hostsShow,
      run: (_call, { name }) => copyHost(hosts.show(name)),
    }),
    defineRoute({
      ...identityApi.hostsRevoke,
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
      ...identityApi.hostsAcknowledge,
      async run(call, { name }) {
        const before = hosts.show(name).clones;
        const host = await hosts.acknowledge(name);
        call.changed({ object: `host ${name}`, before, after: host.clones });
        return copyHost(host);
      },
    }),
    defineRoute({
      ...identityApi.hostsRemove,
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
  return [
    defineRoute({
      ...identityApi.tokensList,
      run: () => ({ tokens: [...enrolments.list()] }),
    }),
    defineRoute({
      ...identityApi.tokensCreate,
      async run(call, input) {
        const by = describePrincipal(call.principal);
        const created = await enrolments.create({ ...input, by });
        const { id, host, replace } = created.token;
        call.changed({ object: `token ${id}`, after: { host, replace } });
        return created;
      },
    }),
    defineRoute({
      ...identityApi.tokensRevoke,
      async run(call, { id }) {
        const token = await enrolments.revoke(id);
        call.changed({ object: `token ${id}`, before: "unused", after: token.phase });
        return token;
      },
    }),
  ];
}

function operatorRoutes({ operators }: Authority): Route[] {
  const copy = (operator: ReturnType<typeof operators.show>) => {
    return { ...operator, special: [...operator.special] };
  };
  return [
    defineRoute({
      ...identityApi.operatorsList,
      run: () => ({ operators: operators.list().map(copy) }),
    }),
    defineRoute({
      ...identityApi.operatorsAdd,
      async run(call, input) {
        const words = describePrincipal(call.principal);
        const { operator, token } = await operators.add(call.principal, { ...input, words });
        const { role, special } = operator;
        call.changed({ object: `operator ${operator.name}`, after: { role, special } });
        return { operator: copy(operator), token };
      },
    }),
    defineRoute({
      ...identityApi.operatorsRotate,
      async run(call, input) {
        const { operator, token } = await operators.rotate(call.principal, input);
        call.changed({ object: `operator ${input.name}`, after: { overlap: input.overlap } });
        return { operator: copy(operator), token };
      },
    }),
    defineRoute({
      ...identityApi.whoamiRotate,
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
      ...identityApi.operatorsRevoke,
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
      ...identityApi.certificatesList,
      run: view,
    }),
    defineRoute({
      ...identityApi.certificatesRotate,
      async run(call) {
        const before = certificates.pins;
        await certificates.rotate();
        call.changed({ object: "certificates", before, after: certificates.pins });
        return view();
      },
    }),
    defineRoute({
      ...identityApi.certificatesFinish,
      async run(call, { force }) {
        const before = certificates.pins;
        await certificates.finish({ unconfirmed: () => hosts.unconfirmed(), force });
        call.changed({ object: "certificates", before, after: certificates.pins });
        return view();
      },
    }),
  ];
}
