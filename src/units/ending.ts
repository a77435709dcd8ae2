/** How a process ended; "unknown" when neither the kernel nor its parent could say. */
export type Ending =
  | { readonly kind: "exited"; readonly status: number }
  | { readonly kind: "signalled"; readonly signal: number; readonly coreDumped: boolean }
  | { readonly kind: "unknown"; readonly reason: string };

/** An ending in words: "exit 0", "SIGKILL", "SIGSEGV (core dumped)", "unknown". */
export function describeEnding(ending: Ending, nameSignal: (signal: number) => string): string {
  if (ending.kind === "exited") return `exit ${ending.status}`;
  if (ending.kind === "unknown") return `unknown: ${ending.reason}`;
  return `${nameSignal(ending.signal)}${ending.coreDumped ? " (core dumped)" : ""}`;
}
