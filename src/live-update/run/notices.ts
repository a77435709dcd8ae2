/** What a program says to its service manager: sd_notify(3). */
export interface Notice {
  readonly ready: boolean;
  /** FDSTORE=1: the descriptors that came are to be kept. */
  readonly store: boolean;
  /** FDSTOREREMOVE=1: those of this name are to be let go. */
  readonly remove: boolean;
  /** FDNAME=; "stored" without one, as systemd has it. */
  readonly name: string;
  /** The name cannot stand in LISTEN_FDNAMES. */
  readonly isNameWrong: boolean;
  /** What our own service manager may hear: nothing of descriptors, nor of process numbers. */
  readonly forward: readonly string[];
}

const ours = new Set(["FDSTORE", "FDSTOREREMOVE", "FDNAME", "FDPOLL", "MAINPID", "MAINPIDFDID"]);
const ownBeat = new Set(["WATCHDOG", "WATCHDOG_USEC", "BARRIER"]);

export function parseNotice(text: string): Notice {
  const lines = text.split("\n").filter((line) => line.includes("="));
  const lastOf = (name: string) =>
    lines.findLast((line) => line.startsWith(`${name}=`))?.slice(name.length + 1);
  const name = lastOf("FDNAME") ?? "stored";
  return {
    ready: lastOf("READY") === "1",
    store: lastOf("FDSTORE") === "1",
    remove: lastOf("FDSTOREREMOVE") === "1",
    name,
    isNameWrong: !/^[\x20-\x39\x3b-\x7e]{1,255}$/.test(name),
    forward: lines.filter((line) => {
      const word = line.slice(0, line.indexOf("="));
      return !ours.has(word) && !ownBeat.has(word);
    }),
  };
}
