/**
 * Signals by name and number: signal(7). x86-64 and arm64 share these numbers. Real-time signals
 * count from SIGRTMIN as glibc has it, 34; musl keeps one more for itself and begins at 35.
 */
const numbers = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGILL: 4,
  SIGTRAP: 5,
  SIGABRT: 6,
  SIGBUS: 7,
  SIGFPE: 8,
  SIGKILL: 9,
  SIGUSR1: 10,
  SIGSEGV: 11,
  SIGUSR2: 12,
  SIGPIPE: 13,
  SIGALRM: 14,
  SIGTERM: 15,
  SIGSTKFLT: 16,
  SIGCHLD: 17,
  SIGCONT: 18,
  SIGSTOP: 19,
  SIGTSTP: 20,
  SIGTTIN: 21,
  SIGTTOU: 22,
  SIGURG: 23,
  SIGXCPU: 24,
  SIGXFSZ: 25,
  SIGVTALRM: 26,
  SIGPROF: 27,
  SIGWINCH: 28,
  SIGIO: 29,
  SIGPWR: 30,
  SIGSYS: 31,
} as const;

/** The signals that have a name of their own, such as SIGTERM. */
export const Signal = numbers;

/** The first and the last real-time signal that a program may use. */
export const SIGRTMIN = 34;
export const SIGRTMAX = 64;

/** A signal that is none: what was expected, and what came. */
export interface SignalRefusal {
  readonly kind: "not-a-signal";
  readonly expected: string;
  readonly received: string;
}

const names = new Map<number, string>(
  Object.entries(numbers).map(([name, number]) => [number, name]),
);
const byName = new Map<string, number>(Object.entries(numbers));

/** The names of all signals that have one of their own, by their numbers. */
export const signalNames: readonly string[] = Object.keys(numbers);

/** "SIGTERM", "SIGRTMIN+2", or "signal 32" for one that has no name. */
export function signalName(number: number): string {
  const name = names.get(number);
  if (name !== undefined) return name;
  if (number === SIGRTMIN) return "SIGRTMIN";
  if (number > SIGRTMIN && number <= SIGRTMAX) return `SIGRTMIN+${number - SIGRTMIN}`;
  return `signal ${number}`;
}

/** The number of a signal given as "SIGTERM", "TERM", "sigterm", "SIGRTMIN+2", "15" or 15. */
export function signalNumber(signal: string | number): number | SignalRefusal {
  const number = typeof signal === "number" ? signal : numberOfText(signal);
  if (number !== undefined && isSignal(number)) return number;
  return {
    kind: "not-a-signal",
    expected: `a name such as SIGTERM, TERM or SIGRTMIN+1, or a number from 1 to ${SIGRTMAX}`,
    received: typeof signal === "number" ? String(signal) : JSON.stringify(signal),
  };
}

/** 32 and 33 are the C library's own; kill(2) would take them, and break the program. */
function isSignal(number: number): boolean {
  return (
    names.has(number) || (Number.isInteger(number) && number >= SIGRTMIN && number <= SIGRTMAX)
  );
}

function numberOfText(text: string): number | undefined {
  if (/^\d{1,2}$/.test(text)) return Number(text);
  const upper = text.toUpperCase();
  const name = upper.startsWith("SIG") ? upper : `SIG${upper}`;
  const known = byName.get(name);
  if (known !== undefined) return known;
  const match = /^SIGRT(?:MIN(?:\+(\d{1,2}))?|MAX(?:-(\d{1,2}))?)$/.exec(name);
  if (match === null) return undefined;
  const [, above = "0", below = "0"] = match;
  return name.startsWith("SIGRTMIN") ? SIGRTMIN + Number(above) : SIGRTMAX - Number(below);
}
