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
