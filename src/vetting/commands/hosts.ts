import { durationArgument } from "../../command-line/parse.ts";
import { apiLimits, hostApi } from "../protocol-api.ts";
import { allHosts, type ClientFlags, macOf, show } from "./ask.ts";
import { renderHosts } from "./words.ts";

/** What a command asks of hosts. */

interface HostFlags extends ClientFlags {
  readonly host: string;
}

export async function runHostList(flags: ClientFlags): Promise<number> {
  return await show(
    flags,
    async (client) => ({ hosts: await allHosts(client) }),
    ({ hosts }) => renderHosts(hosts, process.stdout.columns),
  );
}

export async function runHostAdd(
  flags: ClientFlags & {
    readonly mac: string;
    readonly name: string | undefined;
    readonly spec: string | undefined;
  },
): Promise<number> {
  const { name, spec } = flags;
  const mac = flags.mac.toLowerCase().replaceAll("-", ":");
  const given = { mac, ...(name !== undefined && { name }), ...(spec !== undefined && { spec }) };
  return await show(
    flags,
    (client) => client.call(hostApi.hostAdd, given),
    (host) => renderHosts([host], process.stdout.columns),
  );
}

export async function runHostWindow(flags: HostFlags & { readonly for: string }): Promise<number> {
  const range = { least: 0, most: apiLimits.window };
  const lasts = durationArgument("--for", flags.for, range);
  return await show(
    flags,
    async (client) => {
      const mac = await macOf(client, flags.host);
      return await client.call(hostApi.hostWindow, { mac, for_ms: lasts });
    },
    (host) => renderHosts([host], process.stdout.columns),
  );
}

export async function runHostRemove(flags: HostFlags): Promise<number> {
  return await show(
    flags,
    async (client) => {
      const mac = await macOf(client, flags.host);
      return await client.call(hostApi.hostRemove, { mac });
    },
    () => `${flags.host} is forgotten\n`,
  );
}
