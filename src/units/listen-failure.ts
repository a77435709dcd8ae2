/** bind(2), listen(2): why the kernel does not let one listen, and what to do. */
const reasons: Readonly<Record<string, string>> = {
  EADDRINUSE: "somebody listens there already. Stop it first, or choose another port",
  EADDRNOTAVAIL: "this host has no such address. Choose one that ip address shows",
  EACCES: "this user may not. Choose a port from 1024 on, or give CAP_NET_BIND_SERVICE",
  EINVAL: "it is of one link alone, and nothing says of which. Choose one that is not fe80::…",
};

/** Why Bun could not listen at an address and a port: its own message says where, and not why. */
export function whyNotListening(failure: unknown): string {
  if (!(failure instanceof Error)) return String(failure);
  const { code = "", message } = failure as Error & { readonly code?: string };
  return reasons[code] ?? (code === "" ? message : `${message} (${code})`);
}
