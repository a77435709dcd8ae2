import { printJsonLine, printText } from "../../command-line/output.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { HostLink, type HostLinkEvent } from "../host-link.ts";
import { hostIn } from "./host-folder.ts";

interface SessionFlags {
  readonly directory: string;
  readonly once: boolean;
  readonly json: boolean;
}

/** Stays until SIGTERM or SIGINT, or until the authority refuses. */
export async function runSession(flags: SessionFlags): Promise<number> {
  const identity = hostIn(flags.directory);
  const tell = async (event: HostLinkEvent) => {
    if (flags.json) await printJsonLine(event);
    else await printText(`${wordsOf(event)}\n`);
  };
  if (flags.once) {
    const { host, session, key } = await identity.openSession();
    await tell({ event: "open", host, session, key });
    return ExitCode.done;
  }
  const stop = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => stop.abort());
  await using link = new HostLink(identity);
  for await (const event of link.run(stop.signal)) await tell(event);
  return ExitCode.done;
}

function wordsOf(event: HostLinkEvent): string {
  switch (event.event) {
    case "open":
      return `${event.host}: session ${event.session} is open`;
    case "link":
      return `the link is ${event.state}`;
    case "trouble":
      return event.reason;
  }
}
