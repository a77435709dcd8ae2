import { durationArgument } from "../../command-line/parse.ts";
import { renderTable } from "../../command-line/table.ts";
import { identityApi, type TokenView } from "../../identity/api.ts";
import { limits } from "../../identity/protocol.ts";
import { type ClientFlags, type SecretFlags, show, showSecret } from "./client-flags.ts";
import { agoText, timeText } from "./words.ts";

interface CreateFlags extends SecretFlags {
  readonly host: string;
  readonly expires: string;
  readonly replace: boolean;
}

/** The token alone, on stdout or in a file of --out. */
export async function runCreate(flags: CreateFlags): Promise<number> {
  const { host, replace } = flags;
  const most = limits.longestTokenLifetime;
  const lifetime = Math.ceil(durationArgument("--expires", flags.expires, { most }));
  return await showSecret(
    flags,
    (client) => client.call(identityApi.tokensCreate, { host, lifetime, replace }),
    ({ text }) => `${text}\n`,
  );
}

export async function runList(flags: ClientFlags): Promise<number> {
  return await show(
    flags,
    async (client) => (await client.call(identityApi.tokensList, {})).tokens,
    renderTokens,
  );
}

export async function runRevoke(flags: ClientFlags & { readonly id: string }): Promise<number> {
  return await show(
    flags,
    (client) => client.call(identityApi.tokensRevoke, { id: flags.id }),
    ({ id, host }) => `token ${id} of ${host} is revoked\n`,
  );
}

export function renderTokens(tokens: readonly TokenView[]): string {
  const columns = ["ID", "HOST", "STATE", "STOLEN", "MADE", "GOOD FOR", "BY"];
  const rows = tokens.map(({ id, host, phase, stolen, made, lifetime, by }) => [
    ...[id, host, phase, stolen ? "yes" : "no"],
    ...[timeText(made), agoText(lifetime), by],
  ]);
  return renderTable(columns, rows);
}
