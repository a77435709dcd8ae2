import type { Ending } from "../units/ending.ts";
import type { WireEnding } from "./protocol.ts";

/** An ending as both wires have it. */
export function encodeEnding(ending: Ending): WireEnding {
  if (ending.kind !== "signalled") return ending;
  return { kind: "signalled", signal: ending.signal, core_dumped: ending.coreDumped };
}

/** An ending that came over a wire. */
export function decodeEnding(ending: WireEnding): Ending {
  if (ending.kind !== "signalled") return ending;
  return { kind: "signalled", signal: ending.signal, coreDumped: ending.core_dumped };
}
