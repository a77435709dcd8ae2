import { readFileSync } from "node:fs";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { withFile } from "../../journal/file-refused.ts";
import type { NatsPlace } from "./configuration.ts";
import { NatsStore, type NatsStoreOptions } from "./nats-store.ts";

/**
 * Opens the store that a configuration names.
 * @throws FileRefused for a file that it names and that cannot be used; StoreError refused
 */
export function openPlace(
  loop: EventLoop,
  { servers, credentials, tls, proof }: NatsPlace,
  rest: Omit<NatsStoreOptions, "servers" | "credentials" | "tls" | "proof">,
): NatsStore {
  const read = (path: string | undefined) => (path === undefined ? undefined : readText(path));
  const [ca, certificate, key] = [read(tls.ca), read(tls.certificate), read(tls.key)];
  const isPlain = ca === undefined && certificate === undefined && key === undefined;
  return new NatsStore(loop, {
    ...{ servers, credentials, proof },
    ...(!isPlain && {
      tls: {
        ...(ca !== undefined && { ca }),
        ...(certificate !== undefined && { certificate }),
        ...(key !== undefined && { key }),
      },
    }),
    ...rest,
  });
}

/** @throws FileRefused */
function readText(path: string): string {
  const otherwise = "name another file in [store] of the configuration";
  const what = "read what TLS to NATS is made with";
  return withFile({ what, path, otherwise }, () => readFileSync(path, "utf8"));
}
