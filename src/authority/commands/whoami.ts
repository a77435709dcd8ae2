import { identityApi } from "../../identity/api.ts";
import { type ClientFlags, show } from "./client-flags.ts";
import { listText } from "./words.ts";

export async function runWhoami(flags: ClientFlags): Promise<number> {
  return await show(
    flags,
    (client) => client.call(identityApi.whoami, {}),
    ({ who, role, special }) =>
      role === null ? `${who}\n` : `${who}, role ${role}, permitted ${listText(special)}\n`,
  );
}
