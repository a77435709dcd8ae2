/** The names of the cases of stories about luod, for both sides of the serial line. */
export const fateCases = {
  before: [
    "clients subscribe, a kernel is loaded",
    "a required client's connection ends",
    "a required client is late",
    "a required client aborts",
    "a required client is killed",
    "a hook fails",
    "the operator aborts",
    "the kernel refuses",
    "a kernel is loaded again",
  ],
  after: [
    "luod finds what came over",
    "who was ready finds everything",
    "an optional client that failed has nothing to claim",
    "the blackout is told",
    "a bare client's session is kept for the next luod",
    "luod dies before and after it lets the registry go",
  ],
} as const;

/** Where luod is killed after a kexec, while a client of two sessions claims and finishes. */
export const killPointsAfter = [
  "live-update:record:before#1",
  "live-update:record:after#1",
  "live-update:retrieve-session:before#1",
  "live-update:retrieve-session:after#1",
  "live-update:retrieve-session:before#2",
  "live-update:send:before#1",
  "live-update:send:after#1",
  "live-update:send:before#2",
  "live-update:send:after#2",
  "live-update:finish-session:before#1",
  "live-update:finish-session:after#1",
  "live-update:finish-session:after#2",
  "live-update:record:after#4",
  "live-update:record:after#6",
] as const;

const deathAfter = (point: (typeof killPointsAfter)[number]) => `luod dies at ${point}` as const;

export const custodyCases = {
  before: ["clients subscribe, a kernel is loaded"],
  after: [
    ...killPointsAfter.map(deathAfter),
    "the holder dies, then luod, and a claimed session is claimed again",
    "holder and luod die at once: what nobody claimed is there",
    "a client dies after its claim, and claims again",
    "a bare client's session is kept until the operator finishes it",
    "nobody claims: kept",
    "nobody claims: finished after a time",
    "the blackout is told",
    "all is settled",
  ],
} as const;

/** Where luod is killed before a kexec, with three clients, of four sessions. */
export interface KillPoint {
  /** What leads to it. */
  readonly by: "dry-run" | "kexec";
  readonly at: string;
}

const byDryRun = [
  "create-session:before#1",
  "create-session:after#1",
  "create-session:after#4",
  "send:before#1",
  "send:before#3",
  "send:after#3",
  "send:after#6",
  "send:after#8",
  "record:after#1",
  "record:after#3",
  "record:before#5",
  "record:after#5",
  "record:after#6",
  "record:after#8",
  "record:after#10",
  "record:after#12",
  "record:after#14",
  "hang-up:before",
  "hang-up:after",
  "drop-session:before#1",
  "drop-session:after#1",
  "drop-session:after#3",
  "end-update:before",
  "end-update:after",
];
const byKexec = [
  "record:after#14",
  "preserve-registry:before",
  "preserve-registry:after",
  "prepare-kexec:before",
  "prepare-kexec:after",
  "enter-kernel:before",
  "enter-kernel:after",
];
export const killPointsBefore: readonly KillPoint[] = [
  ...byDryRun.map((at) => ({ by: "dry-run" as const, at })),
  ...byKexec.map((at) => ({ by: "kexec" as const, at })),
];
export const deathBefore = ({ by, at }: KillPoint): string => `luod dies in a ${by} at ${at}`;

export const crowdCases = {
  first: ["a hundred clients subscribe"],
  second: [
    "all claim, and subscribe again",
    "where the first update's time went",
    "the kernel is loaded for the second",
  ],
  third: [
    "all claim what went through two kexecs",
    "where the second update's time went",
    "what bare clients left is finished by the operator",
    "no session is left",
  ],
} as const;

export const refusalCases = [
  "a second luod",
  "kexec without a loaded kernel",
  "load of a text file",
  "load of a bzImage that is cut off",
  "load without liveupdate=on, and in spite of it",
  "two clients with one id",
  "ids of 63, 64 and 200 bytes",
  "a session's name that another has",
  "the device, held by another for a second",
  "the device, held by another for too long",
  "dry runs with real memory",
  "a kernel is loaded after all that",
] as const;

export const carriedCases = {
  before: ["run and hold take part"],
  after: [
    "the program has its memory, and what it parked",
    "the files have their content, mode, owner and time",
    "both take part in the next update",
    "where the time went",
    "SIGTERM to run ends the program",
  ],
} as const;
