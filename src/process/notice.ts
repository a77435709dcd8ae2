/** What a process says of itself on its NOTIFY_SOCKET: sd_notify(3). Pure. */

/** Under which a descriptor is parked that was given no name, or none that can be one. */
export const NAMELESS = "stored";
/** Bytes of a name in LISTEN_FDNAMES. */
const LONGEST_NAME = 255;

/** What is to become of parked descriptors. */
export type Parking =
  /** Those that came with the notice are kept for the next instance. */
  | {
      readonly kind: "store";
      readonly name: string;
      /** One that is hung up, or fails, is kept no more. */
      readonly isPolled: boolean;
    }
  | { readonly kind: "remove"; readonly name: string };

export interface Notice {
  readonly isReady: boolean;
  /** WATCHDOG=1. */
  readonly isBeat: boolean;
  readonly parking: Parking | undefined;
}

/** Printable ASCII, without what separates the names in LISTEN_FDNAMES. */
export const isParkedName = (name: string): boolean =>
  name.length <= LONGEST_NAME && /^[!-9;-~][ -9;-~]*$/.test(name);

export function readNotice(text: string): Notice {
  const lines = text.split("\n");
  const named = lines.findLast((line) => line.startsWith("FDNAME="))?.slice("FDNAME=".length);
  const name = named !== undefined && isParkedName(named) ? named : NAMELESS;
  return {
    isReady: lines.includes("READY=1"),
    isBeat: lines.includes("WATCHDOG=1"),
    parking: parkingOf(lines, name, named !== undefined),
  };
}

function parkingOf(lines: readonly string[], name: string, isNamed: boolean): Parking | undefined {
  // Without a name it would be known to nobody what goes: sd_notify(3) wants one.
  if (lines.includes("FDSTOREREMOVE=1")) return isNamed ? { kind: "remove", name } : undefined;
  if (!lines.includes("FDSTORE=1")) return undefined;
  return { kind: "store", name, isPolled: !lines.includes("FDPOLL=0") };
}
