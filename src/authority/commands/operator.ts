import { durationArgument } from "../../command-line/parse.ts";
import { renderTable } from "../../command-line/table.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { type Role, type SpecialPermission, specialPermissions } from "../../http/principal.ts";
import { identityApi, type OperatorView } from "../../identity/api.ts";
import { limits } from "../../identity/protocol.ts";
import { type ClientFlags, type SecretFlags, show, showSecret } from "./client-flags.ts";
import { listText, timeText } from "./words.ts";

interface OperatorFlags extends ClientFlags {
  readonly operator: string;
}

/** The token alone, on stdout or in a file of --out. */
export async function runAdd(
  flags: OperatorFlags & SecretFlags & { readonly role: Role; readonly permit: readonly string[] },
): Promise<number> {
  const { operator: name, role } = flags;
  const special = flags.permit.flatMap((text) => text.split(",")).map(readPermission);
  return await showSecret(
    flags,
    (client) => client.call(identityApi.operatorsAdd, { name, role, special }),
    ({ token }) => `${token}\n`,
  );
}

function readPermission(text: string): SpecialPermission {
  const found = specialPermissions.find((permission) => permission === text);
  if (found !== undefined) return found;
  throw new UsageError(
    `Expected ${specialPermissions.join(", ")} after --permit, received ${JSON.stringify(text)}`,
  );
}

export async function runRotate(
  flags: OperatorFlags & SecretFlags & { readonly overlap: string },
): Promise<number> {
  const { operator: name } = flags;
  const range = { least: 0, most: limits.longestOverlap };
  const overlap = Math.ceil(durationArgument("--overlap", flags.overlap, range));
  return await showSecret(
    flags,
    (client) => client.call(identityApi.operatorsRotate, { name, overlap }),
    ({ token }) => `${token}\n`,
  );
}

export async function runRevoke(flags: OperatorFlags): Promise<number> {
  return await show(
    flags,
    (client) => client.call(identityApi.operatorsRevoke, { name: flags.operator }),
    ({ name }) => `operator ${name} is revoked\n`,
  );
}

export async function runList(flags: ClientFlags): Promise<number> {
  return await show(
    flags,
    async (client) => (await client.call(identityApi.operatorsList, {})).operators,
    renderOperators,
  );
}

export function renderOperators(operators: readonly OperatorView[]): string {
  const columns = ["OPERATOR", "ROLE", "PERMITTED", "STATE", "TOKENS", "ADDED", "BY"];
  const rows = operators.map(({ name, role, special, phase, tokens, added_at, by }) => [
    ...[name, role, listText(special), phase, String(tokens)],
    ...[timeText(added_at), by],
  ]);
  return renderTable(columns, rows);
}
