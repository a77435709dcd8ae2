/** What `run` and `hold` say: one line for people, one object for programs. */
export interface Word {
  /** Such as "ready". */
  readonly what: string;
  readonly text: string;
  readonly update?: string;
  readonly bytes?: number;
  readonly files?: number;
  /** Each thing that is in the way, or was left out. */
  readonly names?: readonly string[];
}

export type Say = (word: Word) => void;

/** The first few of many, in one line. */
export function listed(names: readonly string[], most = 5): string {
  const shown = names.slice(0, most).join("; ");
  return names.length > most ? `${shown}; and ${names.length - most} more` : shown;
}
