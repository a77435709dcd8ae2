/**
 * Devices of the fleet's bench, many in one process: FOLDER, whose subfolders are their identities.
 * It is told what to do by lines on its standard input, and answers each by one line of JSON.
 *
 *     enrol      lets all of them in, by the token that lies in each folder
 *     go         starts all of them; answered when each was heard
 *     heard      answered when each was heard since the last `forget`
 *     forget     forgets what was counted
 *     tell       what was counted
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { openHost } from "../../src/authority/host-side.ts";
import { EventLoop } from "../../src/event-loop/event-loop.ts";
import { repositoryRoot } from "../setup.ts";
import { SimulatedDevice } from "./fleet-device.ts";

/** What the devices of one process have seen since they were told to forget. */
export interface AgentCounts {
  /** Milliseconds from each heartbeat's writing to its acknowledgement. */
  readonly beats: readonly number[];
  /** Attempts at a link that failed, and links that were lost, by their words. */
  readonly failures: Readonly<Record<string, number>>;
}

/** Enrolments that are under way at once. */
const atOnce = 32;

const [folder = ""] = process.argv.slice(2);
const loop = new EventLoop(() => new Worker(join(repositoryRoot, "src/main.ts")));
const folders = readdirSync(folder).map((name) => join(folder, name));
let beats: number[] = [];
let failures: Record<string, number> = {};
let heard = new Set<string>();
let allHeard = Promise.withResolvers<void>();

function forget(): void {
  beats = [];
  failures = {};
  heard = new Set();
  allHeard = Promise.withResolvers();
}

async function enrol(): Promise<void> {
  const waiting = folders.filter((one) => !existsSync(join(one, "authority.json")));
  const work = async () => {
    for (let one = waiting.pop(); one !== undefined; one = waiting.pop()) {
      const token = readFileSync(join(one, "token"), "utf8");
      await openHost(one, (message) => process.stderr.write(`${message}\n`)).enrol({ token });
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
}

function count(reason: string): void {
  const words = reason.replaceAll(/\d+/g, "N").slice(0, 160);
  failures[words] = (failures[words] ?? 0) + 1;
}

function start(): void {
  for (const one of folders) {
    new SimulatedDevice(loop, one, {
      onBeat: (taken) => {
        beats.push(taken);
        heard.add(one);
        if (heard.size === folders.length) allHeard.resolve();
      },
      onFailure: count,
      onTrouble: count,
    });
  }
}

async function act(word: string): Promise<unknown> {
  switch (word) {
    case "enrol":
      await enrol();
      return folders.length;
    case "go":
      start();
      await allHeard.promise;
      return heard.size;
    case "heard":
      await allHeard.promise;
      return heard.size;
    case "forget":
      forget();
      return null;
    case "tell":
      return { beats, failures } satisfies AgentCounts;
    default:
      throw new Error(`There is no ${word}`);
  }
}

const decoder = new TextDecoder();
let rest = "";
for await (const bytes of Bun.stdin.stream()) {
  const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
  rest = lines.pop() ?? "";
  for (const line of lines) {
    void act(line).then((answer) => process.stdout.write(`${JSON.stringify({ line, answer })}\n`));
  }
}
process.exitCode = 0;
