import { AuthorityClient, type ExpectedDaemon } from "../../authority/client.ts";
import {
  type ClientFlags,
  placeOf,
  show as showAnswer,
} from "../../authority/commands/client-flags.ts";
import { wholeNumber } from "../../command-line/parse.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { hostApi } from "../protocol-api.ts";
import type { HostView } from "../protocol-operator.ts";
import { type Stage, stages } from "../protocol-result.ts";

/** How a command asks an orchestrator. */

export type { ClientFlags };

/** Who is expected at the control socket: an authority alone has no runs. */
const expectedOrchestrator: ExpectedDaemon = {
  name: "orchestrator",
  start: "hostler vetting orchestrator",
  flag: "--control-socket",
};

export const show: typeof showAnswer = (flags, ask, render) =>
  showAnswer({ daemon: expectedOrchestrator, ...flags }, ask, render);

export const connect = (flags: ClientFlags): Promise<AuthorityClient> =>
  AuthorityClient.connect(placeOf({ daemon: expectedOrchestrator, ...flags }));

export interface RunFlags extends ClientFlags {
  readonly run: string;
}

/** @throws UsageError */
export function runNumber(text: string): number {
  return wholeNumber(text, { name: "the command", least: 1, most: 999_999_999_999_999 });
}

/** @throws UsageError */
export function stageArgument(text: string): Stage {
  const stage = stages.find((one) => one.toLowerCase() === text.toLowerCase());
  if (stage !== undefined) return stage;
  throw new UsageError(`Expected a stage: ${stages.join(", ")}, received ${text}`);
}

/** All pages of a list, by what the next one is asked with. */
export async function pagesOf<Page, Next>(
  ask: (next: Next | undefined) => Promise<Page>,
  nextOf: (page: Page) => Next | null,
): Promise<Page[]> {
  const pages: Page[] = [];
  let next: Next | undefined;
  do {
    const page = await ask(next);
    pages.push(page);
    next = nextOf(page) ?? undefined;
  } while (next !== undefined);
  return pages;
}

export async function allHosts(client: AuthorityClient): Promise<HostView[]> {
  const pages = await pagesOf(
    (after: string | undefined) =>
      client.call(hostApi.hosts, { ...(after !== undefined && { after }) }),
    ({ next }) => next,
  );
  return pages.flatMap(({ hosts }) => hosts);
}

/** @returns the card of a host by its name; what is a card stays as it is. @throws UsageError */
export async function macOf(client: AuthorityClient, text: string): Promise<string> {
  if (/^[0-9a-f]{2}([:-][0-9a-f]{2}){5}$/i.test(text)) {
    return text.toLowerCase().replaceAll("-", ":");
  }
  const host = (await allHosts(client)).find(({ name }) => name === text);
  if (host !== undefined) return host.mac;
  throw new UsageError(
    `Expected the name of a host, or its card such as 52:54:00:12:34:56, received ${text}. ` +
      "hostler vetting host list shows them",
  );
}
