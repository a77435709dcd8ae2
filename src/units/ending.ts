/** How a process ended; "unknown" when neither the kernel nor its parent could say. */
export type Ending =
  | { readonly kind: "exited"; readonly status: number }
  | { readonly kind: "signalled"; readonly signal: number; readonly coreDumped: boolean }
  | { readonly kind: "unknown"; readonly reason: string };
