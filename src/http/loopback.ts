import { isIP } from "node:net";

/** 127.0.0.0/8 and ::1 alone: a name may mean anything. */
export function isLoopback(hostname: string): boolean {
  if (isIP(hostname) === 4) return hostname.startsWith("127.");
  return hostname === "::1";
}
