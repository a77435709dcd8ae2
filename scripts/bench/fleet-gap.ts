/** A device's silence at a commit, and the way back from a bad canonical version. */
import { join } from "node:path";
import { bunExecutable } from "../command.ts";
import { Releases } from "../demo/fleet/release.ts";
import { FleetStage } from "../demo/fleet/stage.ts";
import { type DemoVersions, makeVersions } from "../demo/fleet.ts";
import { Program } from "../demo/program.ts";
import { repositoryRoot } from "../setup.ts";
import { ScriptError, type Step } from "../terminal.ts";
import type { Heard } from "./fleet-observer.ts";

export interface GapFindings {
  /** Between two heartbeats of the canonical agent, while nothing is upgraded: milliseconds. */
  readonly pace: readonly number[];
  /** The longest time in an upgrade between two heartbeats of whichever agent. */
  readonly anybody: readonly number[];
  /** From the last heartbeat of the former canonical agent to the first one of the next. */
  readonly canonical: readonly number[];
  /** From the swap to a bad version until the former one is heard again, and until it is proven. */
  readonly back: readonly number[];
  readonly proven: readonly number[];
}

const namespaceFlags = ["--fork", "--pid", "--mount", "--mount-proc", "--net", "--ipc"];
const heartbeat = "1s";
/** Of one upgrade, on a machine that is busy with other things as well. */
const UPGRADE_TIME = 180_000;

/** @param program the compiled file */
export async function measureGaps(
  program: string,
  { devices, step }: { readonly devices: number; readonly step: Step },
): Promise<GapFindings> {
  const versions = await makeVersions(program);
  const stage = new FleetStage({ versions, namespaceFlags });
  try {
    const first = await stage.makeNamespaces();
    const releases = new Releases(stage, { command: () => {} });
    await releases.makeTrust();
    await stage.startOperator();
    for (const version of [versions.good, versions.bad]) {
      await releases.publish(version, versions.installed.version);
    }
    const found = { pace: [], anybody: [], canonical: [], back: [], proven: [] };
    for (let index = 1; index <= devices; index += 1) {
      const say = (text: string) => step.say(`device ${index} of ${devices}: ${text}`);
      await new Watched({ stage, releases, versions, first, say }).upgrade(`box-${index}`, found);
    }
    return found;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new ScriptError([...stage.diaries, why].join("\n"), { exitCode: 1, cause: error });
  } finally {
    await stage.close();
  }
}

type Writable = { readonly [Name in keyof GapFindings]: number[] };

interface Parts {
  readonly stage: FleetStage;
  readonly releases: Releases;
  readonly versions: DemoVersions;
  /** Of the namespaces. */
  readonly first: number;
  readonly say: (text: string) => void;
}

/** A device, and what is heard of it. */
class Watched {
  readonly #parts: Parts;
  readonly #heard: Heard[] = [];
  #changed = Promise.withResolvers<void>();

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  async upgrade(name: string, found: Writable): Promise<void> {
    const { stage, releases, versions, first, say } = this.#parts;
    const device = await stage.makeDevice(name, releases.root);
    const observer = join(repositoryRoot, "scripts", "bench", "fleet-observer.ts");
    const enter = ["nsenter", "--target", `${first}`, "--net"];
    const argv = [...enter, bunExecutable, observer, device.identity];
    const program = new Program(`${name}'s observer`, argv, {}, (line) => this.#hear(line));
    try {
      await program.said(/^listening$/);
      const order = async (version: string, manifest: string) => {
        const words = ["--source", releases.source, "--device", name, "--heartbeat", heartbeat];
        // It is heard here, which the operator may hear later.
        const named = ["--name", `${name}-${version}`, "--max-unavailable", "1", "--allow-unknown"];
        await stage.ask("fleet", "rollout", manifest, ...words, ...named);
      };
      await this.#until(0, ({ what }) => what === "canonical");
      say("a good version");
      const begun = this.#heard.length;
      await order(versions.good.version, releases.manifestOf(versions.good));
      await this.#until(begun, ({ what, who }) => what === "status" && who === "done");
      noteCommit(this.#heard.slice(begun), found);
      say("a bad version");
      const next = this.#heard.length;
      await order(versions.bad.version, releases.manifestOf(versions.bad));
      await this.#until(next, ({ what, who }) => what === "status" && who === "rolled-back");
      noteWayBack(this.#heard.slice(next), found);
    } finally {
      program.kill("SIGKILL");
      device.kill();
    }
  }

  #hear(line: string): void {
    if (!line.startsWith("{")) return;
    this.#heard.push(JSON.parse(line) as Heard);
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  async #until(from: number, is: (heard: Heard) => boolean): Promise<void> {
    const late = AbortSignal.timeout(UPGRADE_TIME);
    while (!this.#heard.slice(from).some(is)) {
      if (late.aborted) throw new Error(`It took longer than ${UPGRADE_TIME} ms`);
      await this.#changed.promise;
    }
  }
}

const isBeat = ({ what }: Heard) => what !== "status";
const momentOf = (heard: readonly Heard[], phase: string) =>
  heard.find(({ what, who }) => what === "status" && who === phase)?.at ?? Number.NaN;

/** From a heartbeat to the next one of those. */
function waitsOf(heard: readonly Heard[]): number[] {
  return heard.slice(1).map(({ at }, index) => at - (heard[index]?.at ?? Number.NaN));
}

/** From the candidate that is ready, when both are heard, to the end. */
export function noteCommit(heard: readonly Heard[], found: Writable): void {
  const [ready, swapped] = [momentOf(heard, "cutover-ready"), momentOf(heard, "swapped")];
  const beats = heard.filter((one) => isBeat(one) && one.at >= ready);
  found.anybody.push(Math.max(...waitsOf(beats)));
  const canonical = beats.filter(({ what }) => what === "canonical");
  found.pace.push(...waitsOf(canonical.filter(({ at }) => at < swapped)));
  const [former] = canonical;
  const next = canonical.find(({ who }) => who !== former?.who);
  const last = canonical.findLast(({ who }) => who === former?.who);
  if (next !== undefined && last !== undefined) found.canonical.push(next.at - last.at);
}

export function noteWayBack(heard: readonly Heard[], found: Writable): void {
  const swapped = momentOf(heard, "swapped");
  const beats = heard.filter(({ what }) => what === "canonical");
  const last = beats.findLast(({ at }) => at <= swapped);
  const again = beats.find(({ who, at }) => at > swapped && who !== last?.who);
  if (again !== undefined) found.back.push(again.at - swapped);
  found.proven.push(momentOf(heard, "rolled-back") - swapped);
}
