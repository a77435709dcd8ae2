/** What the operator tells as it happens, in words for whoever reads along. */
import * as v from "valibot";
import { happeningSchema, type ToldHappening } from "../../../src/fleet/protocol-operator.ts";
import { Tidings } from "../deadline.ts";

/** One more upgrade of a device, on a busy machine, takes no longer. */
const usualMilliseconds = 120_000;

const lineSchema = v.pipe(
  v.string(),
  v.parseJson(),
  v.object({ ...happeningSchema.entries, id: v.string() }),
);

/** What is told of devices, and how it is said here. */
const words: Readonly<Record<string, string>> = {
  told: "told to upgrade",
  preparing: "fetches the version, and has it prove itself",
  ready: "its candidate runs beside it",
  observed: "the operator hears its candidate",
  held: "holds, because nobody is heard",
  committed: "committed by the operator",
  swapping: "changes its link, and starts the new version",
  withdrawn: "taken back",
  returned: "as before, and may be told again",
  done: "done, every role has gone on answering from the new version",
};

export class Happenings {
  readonly all: ToldHappening[] = [];
  readonly #tidings = new Tidings();
  readonly #tell: (text: string) => void;

  /** @param tell prints one of them */
  constructor(tell: (text: string) => void) {
    this.#tell = tell;
  }

  /** A line of `hostler fleet events --follow --json`. */
  hear(line: string): void {
    const parsed = v.safeParse(lineSchema, line);
    if (!parsed.success) return;
    this.all.push(parsed.output);
    const text = wordsOf(parsed.output);
    if (text !== undefined) this.#tell(text);
    this.#tidings.tell();
  }

  /** Nothing more is heard: whoever waits is told why. */
  end(reason: string): void {
    this.#tidings.end(reason);
  }

  /** A place in them: only what comes after it is of interest. */
  get position(): number {
    return this.all.length;
  }

  /** @returns the first that fits, now or as soon as it comes */
  next(
    description: string,
    fits: (one: ToldHappening) => boolean,
    position = 0,
  ): Promise<ToldHappening> {
    const look = () => this.all.slice(position).find(fits);
    return this.#tidings.until(description, look, usualMilliseconds);
  }

  /** Resolves when the device's upgrade by this rollout is there. */
  async of(device: string, what: string, rollout: string): Promise<ToldHappening> {
    return await this.next(`${device} to be ${what}`, (one) => isOf(one, device, what, rollout));
  }

  /** In the order in which they were told to begin. */
  begun(rollout: string): string[] {
    const names = this.all.flatMap((one) =>
      one.what === "told" && one.rollout === rollout && one.device !== null ? [one.device] : [],
    );
    return [...new Set(names)];
  }

  /** Where in all of them that is; -1 where it has not happened. */
  placeOf(device: string, what: string, rollout: string): number {
    return this.all.findIndex((one) => isOf(one, device, what, rollout));
  }

  /** The most devices that were under way at once. */
  mostUnderWay(rollout: string): number {
    const under = new Set<string | null>();
    const counts = this.all.flatMap(({ what, device, rollout: name }) => {
      if (name !== rollout || device === null) return [];
      if (["done", "failed", "returned"].includes(what)) under.delete(device);
      else under.add(device);
      return [under.size];
    });
    return Math.max(0, ...counts);
  }
}

const isOf = (one: ToldHappening, device: string, what: string, rollout: string) =>
  one.device === device && one.what === what && one.rollout === rollout;

function wordsOf({ what, device, message }: ToldHappening): string | undefined {
  if (device === null) return message;
  if (what === "failed") return message.replace(/ .*, it says /, " ");
  const said = words[what];
  return said === undefined ? undefined : `${device}: ${said}`;
}
