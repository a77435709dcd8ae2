/** The compiled master and the compiled worker, with real sessions: from a file to machines. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import type { ClusterStatus } from "../../src/vm/protocol-master.ts";
import { hostler } from "../support/binary.ts";
import { type Program, runProgram, startProgram } from "../support/program.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { type TestImage, VmHost } from "../support/vm-worker.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

let host: VmHost;
let image: TestImage;
const masters: Program[] = [];

const place = (name: string) => host.folder.file(name);

/** Runs `hostler WORDS` on the host. @returns what it printed */
async function say(words: readonly string[], input?: string): Promise<string> {
  const argv = [...host.enter, hostler(), ...words];
  const { exitCode, stdout, stderr } = await runProgram(argv, input === undefined ? {} : { input });
  if (exitCode === 0) return stdout;
  throw new Error(`hostler ${words.join(" ")}: ${exitCode}: ${stdout}${stderr} ${host.said}`);
}

const socket = () => ["--control-socket", place("master.sock")];

async function startMaster(): Promise<Program> {
  const words = ["vm", "master", "--listen", "127.0.0.1:7443"];
  const state = ["--state-directory", place("master")];
  const master = startProgram([...host.enter, hostler(), ...words, ...state, ...socket()]);
  masters.push(master);
  await master.said(/listening at https/);
  return master;
}

async function apply(machines: readonly string[]): Promise<void> {
  const path = place("cluster.json");
  const machine = machines.map((name) => host.specOf(name, image));
  writeFileSync(path, JSON.stringify({ machine }));
  await say(["vm", "apply", path, "--master", "--master-socket", place("master.sock")]);
}

const cluster = async () =>
  JSON.parse(await say(["vm", "cluster", "--json", ...socket()])) as ClusterStatus;

const converged = (names: readonly string[]) =>
  waitFor(`${names.join(", ")} as declared`, async () => {
    const { machines, convergence_percent: percent } = await cluster();
    const found = machines.map(({ name, status }) => `${name} ${status}`).toSorted();
    const wanted = names.map((name) => `${name} running`).toSorted();
    return percent === 100 && JSON.stringify(found) === JSON.stringify(wanted);
  });

beforeEach(async () => {
  host = await VmHost.make();
  image = await host.image();
  await startMaster();
  const token = await say(["identity", "token", "create", "web-1", ...socket()]);
  await say(["identity", "enrol", "--directory", place("identity")], token);
  await host.start({
    configuration: [
      "[master]",
      `identity = ${JSON.stringify(place("identity"))}`,
      'address = "https://127.0.0.1:7443"',
      'labels = {zone = "a"}',
    ],
  });
});
afterEach(async () => {
  for (const master of masters.splice(0)) await master[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
});

const needs = [root, program("qemu-system-x86_64", "qemu-system-x86"), program("ip", "iproute2")];

skipUnless("a master and its worker", needs, () => {
  test("make what a file declares, over the death of either, and remove what is gone", async () => {
    await apply(["a", "b"]);
    await converged(["a", "b"]);
    expect((await cluster()).workers).toMatchObject([
      { name: "web-1", standing: "healthy", labels: { zone: "a" }, machines: 2 },
    ]);
    const before = [...host.vmmProcesses()].toSorted();
    await host.kill();
    await host.start({
      configuration: ["[master]", `identity = ${JSON.stringify(place("identity"))}`],
    });
    await converged(["a", "b"]);
    expect([...host.vmmProcesses()].toSorted()).toEqual(before);
    await apply(["a"]);
    await host.reaches("b", "stopping");
    await host.say("shutdown", "b", "--now");
    await converged(["a"]);
    expect(host.vmmProcesses()).toHaveLength(1);
  });
});
