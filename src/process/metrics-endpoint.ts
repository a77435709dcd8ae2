import { isLoopback } from "../http/loopback.ts";
import { parseEndpoint } from "./endpoint.ts";

/** Where scrapers are waited for. */
export type MetricsEndpoint =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

export const metricsEndpointExpected =
  'an address of loopback such as "127.0.0.1:9464" or "[::1]:9464", or an absolute path';

/** An absolute path, or an address of loopback: others would tell the network. */
export function parseMetricsEndpoint(text: string): MetricsEndpoint | undefined {
  if (text.startsWith("/")) return { kind: "unix", path: text };
  const endpoint = parseEndpoint(text);
  if (endpoint === undefined || !isLoopback(endpoint.host)) return undefined;
  return { kind: "tcp", ...endpoint };
}
