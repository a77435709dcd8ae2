/**
 * The demo's bad version: hostler with one mistake in it. It proves itself, and its candidate is
 * heard, but as the canonical agent it ends as soon as it has begun.
 */
export {};

const [role, verb, ...flags] = process.argv.slice(2);
const isAgent = role === "fleet" && verb === "agent";
if (Bun.isMainThread && isAgent && !flags.includes("--candidate")) {
  throw new Error("a mistake of this version: it cannot be the canonical agent");
}
await import("../../../../src/main.ts");
