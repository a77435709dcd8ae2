import { isIP } from "node:net";

/** "127.0.0.1:80", "[::1]:80" or "localhost:80"; no name that would have to be looked up. */
export function parseEndpoint(written: string): { host: string; port: number } | undefined {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(written);
  const [, bracketed, plain, digits] = match ?? [];
  const port = Number(digits);
  if (!(port >= 1 && port <= 65_535)) return undefined;
  if (bracketed !== undefined) return isIP(bracketed) === 6 ? { host: bracketed, port } : undefined;
  if (plain === "localhost") return { host: "127.0.0.1", port };
  return plain !== undefined && isIP(plain) === 4 ? { host: plain, port } : undefined;
}

const DEFAULT_PORT = 80;

/** Where HTTP is asked, and for what. */
export interface HttpEndpoint {
  readonly at:
    | { readonly kind: "tcp"; readonly host: string; readonly port: number }
    | { readonly kind: "unix"; readonly path: string };
  readonly path: string;
}

/** "http://127.0.0.1:8080/health", or "http://unix:/run/web.sock:/health"; without TLS. */
export function parseHttpEndpoint(written: string): HttpEndpoint | undefined {
  const [, unix, unixPath = "/"] =
    /^http:\/\/unix:(\/[^:\0]+)(?::(\/[!-~]*))?$/.exec(written) ?? [];
  if (unix !== undefined) return { at: { kind: "unix", path: unix }, path: unixPath };
  const [, host, port, path = "/"] =
    /^http:\/\/(\[[^\]]+\]|[^:/[\]]+)(?::(\d{1,5}))?(\/[!-~]*)?$/.exec(written) ?? [];
  if (host === undefined) return undefined;
  const endpoint = parseEndpoint(`${host}:${port ?? DEFAULT_PORT}`);
  return endpoint && { at: { kind: "tcp", ...endpoint }, path };
}

/** As it is written. */
export function formatHttpEndpoint({ at, path }: HttpEndpoint): string {
  return at.kind === "unix" ? `http://unix:${at.path}:${path}` : `http://${hostOf(at)}${path}`;
}

/** For the Host of a request. */
export function hostOf({ host, port }: { readonly host: string; readonly port: number }): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
}
