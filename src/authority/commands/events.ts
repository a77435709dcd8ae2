import { printJsonLine, printText } from "../../command-line/output.ts";
import { identityApi } from "../../identity/api.ts";
import { escapeControls } from "../../logging/format.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { AuthorityClient } from "../client.ts";
import { type ClientFlags, placeOf } from "./client-flags.ts";
import { timeText } from "./words.ts";

interface EventsFlags extends ClientFlags {
  readonly follow: boolean;
  readonly after: string | undefined;
}

export async function runEvents(flags: EventsFlags): Promise<number> {
  using client = await AuthorityClient.connect(placeOf(flags));
  const { after, follow, json } = flags;
  const tell = async (id: string, event: Readonly<Record<string, unknown>>) => {
    if (json) await printJsonLine({ id, ...event });
    else await printText(line(id, event));
  };
  if (!follow) {
    const { events } = await client.call(identityApi.eventsKept, { after });
    for (const { id, event } of events) await tell(id, event);
    return ExitCode.done;
  }
  const { signal } = new AbortController();
  const events = client.stream(identityApi.events, {}, { after, signal });
  for await (const { id, data } of events) await tell(id, data);
  return ExitCode.done;
}

function line(id: string, event: Readonly<Record<string, unknown>>): string {
  const { kind, time, sequence: _sequence, ...words } = event;
  const said = Object.entries(words).map(([name, value]) => `${name} ${textOf(value)}`);
  const parts = [timeText(Number(time)), id, String(kind), ...said];
  return `${parts.map(escapeControls).join(" ")}\n`;
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}
