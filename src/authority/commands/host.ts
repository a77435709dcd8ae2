import { renderTable } from "../../command-line/table.ts";
import { type HostView, identityApi, type SessionView } from "../../identity/api.ts";
import type { AuthorityClient } from "../client.ts";
import { authorityApi } from "../protocol.ts";
import { type ClientFlags, show } from "./client-flags.ts";
import { agoText, hashText, listText, timeText } from "./words.ts";

interface HostFlags extends ClientFlags {
  readonly host: string;
}

interface Presence {
  readonly host: string;
  readonly time: number;
  readonly version: string;
  readonly boot: string;
}

type ListedHost = HostView & { readonly presence: Presence | null };

export async function runList(flags: ClientFlags): Promise<number> {
  return await show(flags, listHosts, renderHosts);
}

async function listHosts(client: AuthorityClient): Promise<ListedHost[]> {
  const { hosts } = await client.call(identityApi.hostsList, {});
  const names = hosts.filter(({ phase }) => phase !== "revoked").map(({ name }) => name);
  const { hosts: present } = await client.call(authorityApi.presence, { hosts: names });
  const byName = new Map(present.map((found) => [found.host, found]));
  return hosts.map((host) => ({ ...host, presence: byName.get(host.name) ?? null }));
}

export async function runShow(flags: HostFlags): Promise<number> {
  return await show(
    flags,
    async (client) => {
      const host = await client.call(identityApi.hostsShow, { name: flags.host });
      const { sessions } = await client.call(identityApi.sessionsList, {});
      return { ...host, open: sessions.filter((session) => session.host === flags.host) };
    },
    renderHost,
  );
}

export async function runRevoke(flags: HostFlags): Promise<number> {
  return await change(flags, identityApi.hostsRevoke, ({ name }) => `host ${name} is revoked\n`);
}

export async function runAcknowledge(flags: HostFlags): Promise<number> {
  return await change(
    flags,
    identityApi.hostsAcknowledge,
    ({ name }) => `the clones of ${name} are acknowledged\n`,
  );
}

export async function runRemove(flags: HostFlags): Promise<number> {
  const { host } = flags;
  return await show(
    flags,
    (client) => client.call(identityApi.hostsRemove, { name: host }),
    () => `host ${host} is forgotten\n`,
  );
}

async function change(
  flags: HostFlags,
  route: typeof identityApi.hostsRevoke | typeof identityApi.hostsAcknowledge,
  render: (host: HostView) => string,
): Promise<number> {
  return await show(flags, (client) => client.call(route, { name: flags.host }), render);
}

export function renderHosts(hosts: readonly ListedHost[]): string {
  const columns = [
    ...["HOST", "STATE", "KEY", "SESSIONS", "LAST WORD", "VERSION"],
    ...["CLONES", "PINS", "ENROLLED"],
  ];
  const rows = hosts.map((host) => [
    host.name,
    host.phase,
    listText(host.keys.map(hashText)),
    String(host.sessions),
    host.presence === null ? "-" : `${agoText(Date.now() - host.presence.time)} ago`,
    host.presence?.version ?? "-",
    host.clones.length === 0 ? "none" : `${host.clones.length}, see host show`,
    host.confirmed ? "confirmed" : "old",
    timeText(host.enrolled_at),
  ]);
  return renderTable(columns, rows);
}

function renderHost(host: HostView & { readonly open: readonly SessionView[] }): string {
  const facts = [
    ["host", host.name],
    ["state", host.phase],
    ...host.keys.map((key) => ["key", key]),
    ["boot", host.boot ?? "-"],
    ["enrolled", timeText(host.enrolled_at)],
    ["trusts", host.confirmed ? "what the authority announces" : "an older certificate"],
    ...host.clones.map(({ boots, how }) => ["clone", `boots ${boots.join(" and ")} (${how})`]),
  ];
  const width = Math.max(...facts.map(([name = ""]) => name.length));
  const told = facts.map(([name = "", value = ""]) => `${name.padEnd(width)}  ${value}\n`).join("");
  if (host.open.length === 0) return told;
  const columns = ["SESSION", "STATE", "FROM", "BOOT", "AGE", "SILENT FOR"];
  const rows = host.open.map(({ session, phase, from, boot, age, idle }) => [
    ...[session, phase, from, boot],
    ...[agoText(age), agoText(idle)],
  ]);
  return `${told}\n${renderTable(columns, rows)}`;
}
