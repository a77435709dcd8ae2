/** Two compiled workers on two hosts: a machine that runs goes from one to the other. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { closeSync, openSync, readFileSync, statSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { hashPath } from "../../src/image/nar.ts";
import type { MigrationResultRecord } from "../../src/vm/protocol.ts";
import type { MigrationTicket } from "../../src/vm/protocol-migration.ts";
import { hostler } from "../support/binary.ts";
import { ConsoleTap } from "../support/console-tap.ts";
import { expectContinuous, numbersIn } from "../support/guest-numbers.ts";
import { type Program, startProgram } from "../support/program.ts";
import { onlyInAll } from "../support/rotation.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { VmPair } from "../support/vm-pair.ts";
import type { TestImage, VmHost } from "../support/vm-worker.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(120_000);

const MEBIBYTE = 1024 ** 2;

let pair: VmPair;
let giver: VmHost;
let taker: VmHost;
let image: TestImage;

beforeEach(async () => {
  pair = await VmPair.make();
  ({ giver, taker } = pair);
  image = await giver.image();
  await giver.start();
  await taker.start();
});
afterEach(async () => {
  await pair[Symbol.asyncDispose]();
});

async function makeMachine(...words: readonly string[]): Promise<void> {
  const from = ["--image", image.path, "--hash", image.hash];
  await giver.say("create", "web", ...from, "--start", ...words);
  await giver.counts("web");
}

/** The refused migration says why, and the machine counts on here; there is nothing of it there. */
async function refused(ticket: string, reason: string): Promise<void> {
  const { exitCode, stdout, stderr } = await giver.run("migrate", "web", "--ticket", ticket);
  expect([exitCode, stdout]).toEqual([111, ""]);
  expect(stderr).toContain(reason);
  await giver.reaches("web", "running");
  await giver.counts("web");
  expectContinuous(giver.numbers("web"));
}

const needs = [root, program("qemu-system-x86_64", "qemu-system-x86"), program("ip", "iproute2")];

skipUnless("a machine between two hosts", needs, () => {
  test("it counts on there with its disks, and nothing of it is left here", async () => {
    writeFileSync(join(image.path, "root.img"), new Uint8Array(MEBIBYTE).fill(7));
    const configuration = JSON.parse(readFileSync(join(image.path, "vm-config.json"), "utf8"));
    configuration.disks = [{ id: "root", path: "root.img", image_type: "Raw" }];
    configuration.hostler = { ephemeral_disks: [{ id: "scratch", size: MEBIBYTE }] };
    writeFileSync(join(image.path, "vm-config.json"), JSON.stringify(configuration));
    image = { path: image.path, hash: await hashPath(image.path) };
    await makeMachine("--memory", "64");
    const file = openSync(join(giver.machineFolder("web"), "disks/scratch.raw"), "r+");
    writeSync(file, "written by its guest", 4096);
    closeSync(file);
    const before = await giver.summary("web");
    await using tap = await ConsoleTap.open(giver, "web");
    const ticket = await pair.ticket();
    expect(statSync(ticket).mode & 0o777).toBe(0o600);
    const said = await giver.say("migrate", "web", "--ticket", ticket, "--json");
    const result = JSON.parse(said) as MigrationResultRecord;
    expect(result).toMatchObject({ name: "web", to: expect.stringContaining("10.77.0.2:") });
    expect(result.bytes).toBeGreaterThan(MEBIBYTE);
    console.log(`64 MiB: ${result.time_ms} ms, of which it stood still ${result.pause_ms} ms`);
    const after = await taker.reaches("web", "running");
    await taker.counts("web");
    const { address, mac, tap: card } = before;
    expect(after).toMatchObject({ address, mac, tap: card, restarts: 0, reason: null });
    expectContinuous(numbersIn(tap.text + taker.console("web")));
    const disks = join(taker.machineFolder("web"), "disks");
    expect(readFileSync(join(disks, "scratch.raw"), "latin1")).toContain("written by its guest");
    const [user] = taker.vmms().keys();
    expect(`${statSync(join(disks, "scratch.raw")).uid}`).toBe(user ?? "");
    await giver.expectNoMachines();
    expect(giver.kept().images).toEqual([]);
    // It is a machine like any other there: and back it goes.
    const again = await giver.run("migrate", "web", "--ticket", ticket);
    expect([again.exitCode, again.stderr]).toEqual([
      111,
      expect.stringContaining("no machine web"),
    ]);
    await taker.counts("web");
    await taker.say("pause", "web", "--wait");
    const back = await pair.ticketOf(giver);
    expect(await taker.say("migrate", "web", "--ticket", back)).toStartWith(
      "web: runs at 10.77.0.1:",
    );
    await giver.reaches("web", "paused");
    await taker.expectNoMachines();
    await giver.say("resume", "web", "--wait");
    await giver.counts("web");
    expect(`${giver.said}${taker.said}`).not.toContain("bug");
  });

  test("what is refused is refused before anything moves, with its reason", async () => {
    await makeMachine();
    const { address } = await giver.summary("web");
    await taker.say("create", "other", "--image", image.path, "--hash", image.hash);
    expect((await taker.summary("other")).address).toBe(address);
    const first = await pair.ticket();
    const words = JSON.parse(readFileSync(first, "utf8")) as MigrationTicket;
    const written = (changes: Partial<MigrationTicket>) =>
      pair.writeTicket(JSON.stringify({ ...words, ...changes }));
    await refused(written({ secret: "A".repeat(43) }), "there is no such ticket");
    await refused(written({ pin: "0".repeat(64) }), "expected a certificate with the pin 000");
    await refused(written({ name: "mail" }), "Expected a ticket for web, received one for mail");
    for (const [file, reason] of [
      [pair.writeTicket("{}"), "expected a ticket, and not right are"],
      [pair.writeTicket("x".repeat(5_000)), "Expected at most 4096 bytes in"],
      ["/nowhere.ticket", "expected a file there, received nothing (ENOENT). Look at its name"],
    ] as const) {
      const { exitCode, stderr } = await giver.run("migrate", "web", "--ticket", file);
      expect([exitCode, stderr]).toEqual([100, expect.stringContaining(reason)]);
    }
    // A second ticket for the same machine is worth more than the first one.
    const second = await pair.ticket();
    await refused(first, "Cannot reach 10.77.0.2");
    await taker.say("receive", "web", "--cancel");
    await refused(second, "make another one, by hostler vm receive");
    const short = await pair.ticket("web", "--expires", "1s");
    const { port } = JSON.parse(readFileSync(short, "utf8")) as MigrationTicket;
    await waitFor("its time to be over", async () => {
      const listening = await taker.on("ss", "-Hltn", `sport = :${port}`);
      return listening === "";
    });
    await refused(short, "may be used or out of date");
    // The taker's own reasons.
    const taken = await pair.ticket();
    await taker.say("create", "web", "--image", image.path, "--hash", image.hash);
    await refused(taken, "There is a machine web already");
    // What was declined leaves the ticket as it was.
    await refused(taken, "There is a machine web already");
    const { stderr } = await taker.run("receive", "web", "--listen", "10.77.0.2:0");
    expect(stderr).toContain("There is a machine web already");
    await taker.say("delete", "web", "--now", "--wait");
    await refused(taken, `its addresses (${address})`);
    await refused(taken, "other. Make the ticket with --network default, and it has a free one");
    expect((await taker.summaries()).map(({ name }) => name)).toEqual(["other"]);
    await taker.say("delete", "other", "--now", "--wait");
    expect(await giver.say("migrate", "web", "--ticket", taken)).toStartWith("web: runs at 10.77");
    await taker.counts("web");
  });

  test("it has another address there, where that is wished for", async () => {
    await makeMachine();
    const { address } = await giver.summary("web");
    await taker.say("create", "other", "--image", image.path, "--hash", image.hash);
    const receive = ["receive", "web", "--listen", "10.77.0.2:0", "--network"];
    for (const [network, code, reason] of [
      ["storage", 111, "expected a network of this worker (default), received storage"],
      ["default=192.0.2.1", 111, "192.0.2.1 is not in 10.100.0.0/16"],
      ["default=", 100, "--network: expected"],
    ] as const) {
      const { exitCode, stderr } = await taker.run(...receive, network);
      expect([exitCode, stderr]).toEqual([code, expect.stringContaining(reason)]);
    }
    await refused(await pair.ticket("web", "--network", `default=${address}`), "Name another");
    const ticket = await pair.ticket("web", "--network", "default");
    await giver.say("migrate", "web", "--ticket", ticket);
    const after = await taker.reaches("web", "running");
    expect(after.address).toMatch(/^10\.100\.0\./);
    expect(after.address).not.toBe(address);
    await taker.counts("web");
    // Back it goes to an address that is named.
    await giver.expectNoMachines();
    const back = await pair.ticketOf(giver, "web", "--network", "default=10.100.7.7");
    await taker.say("migrate", "web", "--ticket", back);
    expect((await giver.reaches("web", "running")).address).toBe("10.100.7.7");
    await giver.counts("web");
  });

  test("a declared machine goes for good, and a file adopts it where it went", async () => {
    const declaration = giver.folder.file("machines.json");
    const machine = [{ name: "web", imagePath: image.path, hash: image.hash }];
    writeFileSync(declaration, JSON.stringify({ machine }));
    await giver.say("apply", declaration);
    await giver.reaches("web", "running");
    const before = await giver.counts("web");
    await giver.say("migrate", "web", "--ticket", await pair.ticket());
    await taker.reaches("web", "running");
    expect(await taker.counts("web")).toBeGreaterThan(before);
    await giver.expectNoMachines();
    // Neither a later worker nor the old file makes it anew.
    await giver.kill();
    await giver.start();
    for (const verb of ["apply", "diff"]) {
      const { stdout } = await giver.run(verb, declaration);
      expect(stdout).toContain("left-alone");
      expect(stdout).toMatch(/it was given to 10\.77\.0\.2:\d+ at 2\S+: take it out of the file/);
    }
    await giver.expectNoMachines();
    // There it is nobody's to remove, and becomes a file's that declares it as it is.
    const { pid } = await taker.summary("web");
    const elsewhere = taker.folder.file("machines.json");
    writeFileSync(elsewhere, JSON.stringify({ machine: [] }));
    await taker.say("apply", elsewhere);
    const larger = [{ ...machine[0], memoryMb: 96 }];
    writeFileSync(elsewhere, JSON.stringify({ machine: larger }));
    expect(await taker.say("apply", elsewhere)).toContain("is declared here with another memoryMb");
    writeFileSync(elsewhere, JSON.stringify({ machine }));
    const adopted = await taker.say("apply", elsewhere);
    expect(adopted).toContain("adopt: it came from another host, as it is declared");
    await waitFor("all to be as declared", async () => {
      const { stdout } = await taker.run("diff", elsewhere);
      return stdout.includes("100 % as declared");
    });
    expect((await taker.summary("web")).pid).toBe(pid);
    // Back it goes, is adopted there by the file that still names it, and taken out of it.
    await taker.say("migrate", "web", "--ticket", await pair.ticketOf(giver));
    await giver.reaches("web", "running");
    await waitFor("the file to have it", async () => {
      const { stdout } = await giver.run("diff", declaration);
      return stdout.includes("100 % as declared");
    });
    await giver.counts("web");
    await taker.expectNoMachines();
    // Who knows that it went, and wants another one, says so.
    expect(await taker.say("forget-migrated", "web")).toContain("is made anew here");
    await waitFor("it to be made anew", async () => (await taker.summaries()).length === 1);
    const again = await taker.run("forget-migrated", "web");
    expect(again.stderr).toContain("Expected a declared machine that was given to another host");
    writeFileSync(declaration, JSON.stringify({ machine: [] }));
    await giver.say("apply", declaration);
    expect((await giver.summary("web")).wanted).toBe("absent");
  });

  test("a ticket is not made of an address that leads nowhere else", async () => {
    const of = (listen: string) => taker.run("receive", "web", "--listen", listen);
    for (const [listen, code, reason] of [
      ["0.0.0.0:0", 100, "expected the address by which the other host reaches this one"],
      ["[::]:0", 100, "expected the address by which the other host reaches this one"],
      ["192.0.2.9:0", 111, "Cannot listen at 192.0.2.9:0: this host has no such address. Choose"],
      ["[fe80::1]:0", 111, "Cannot listen at [fe80::1]:0: it is of one link alone"],
    ] as const) {
      const { exitCode, stderr } = await of(listen);
      expect([exitCode, stderr]).toEqual([code, expect.stringContaining(reason)]);
    }
  });

  test("a machine that does not run stays", async () => {
    await giver.say("create", "web", "--image", image.path, "--hash", image.hash);
    const { stderr } = await giver.run("migrate", "web", "--ticket", await pair.ticket());
    expect(stderr).toContain("web is created: it has not been booted");
    const usage = await giver.run("migrate", "web");
    expect([usage.exitCode, usage.stderr]).toEqual([100, expect.stringContaining("--ticket FILE")]);
  });

  /** Its VMM hangs, so that it is on its way for as long as the test wants. */
  async function onItsWay(): Promise<Program> {
    process.kill(giver.vmm, "SIGSTOP");
    const words = ["vm", "migrate", "web", "--ticket", await pair.ticket()];
    const migrate = startProgram([hostler(), ...words, "--control-socket", giver.controlSocket]);
    await giver.reaches("web", "sending");
    await taker.reaches("web", "receiving");
    return migrate;
  }

  test("Ctrl-C calls it off, and it goes on here without a gap", async () => {
    await makeMachine();
    await using migrate = await onItsWay();
    migrate.kill("SIGINT");
    await migrate.ended();
    process.kill(giver.vmm, "SIGCONT");
    await giver.reaches("web", "running");
    await giver.counts("web");
    await taker.expectNoMachines();
    expectContinuous(giver.numbers("web"));
    // And it can be sent for good.
    await giver.say("migrate", "web", "--ticket", await pair.ticket());
    await taker.reaches("web", "running");
    await taker.counts("web");
    await giver.expectNoMachines();
  });

  test("it is said that a machine is offered, before anything moves", async () => {
    await makeMachine();
    const ticket = await pair.ticket();
    process.kill(taker.workerProcessId, "SIGSTOP");
    const words = ["vm", "migrate", "web", "--ticket", ticket];
    await using migrate = startProgram([
      ...[hostler(), ...words, "--control-socket"],
      giver.controlSocket,
    ]);
    await waitFor("the offer to be shown", async () => {
      const { phase, reason } = await giver.summary("web");
      return phase === "running" && reason?.startsWith("it is offered to 10.77.0.2:") === true;
    });
    process.kill(taker.workerProcessId, "SIGCONT");
    expect((await migrate.ended()).exitCode).toBe(0);
    await taker.counts("web");
  });

  onlyInAll(() => {
    test("where the other VMM, or the other worker, dies, it goes on here", async () => {
      await makeMachine();
      {
        await using migrate = await onItsWay();
        process.kill(taker.vmm, "SIGKILL");
        process.kill(giver.vmm, "SIGCONT");
        expect((await migrate.ended()).exitCode).toBe(111);
        expect(migrate.output.stderr).toContain("web goes on here");
        await taker.expectNoMachines();
      }
      await giver.reaches("web", "running");
      await giver.counts("web");
      {
        await using migrate = await onItsWay();
        await taker.kill();
        process.kill(giver.vmm, "SIGCONT");
        expect((await migrate.ended()).exitCode).toBe(111);
        await taker.start();
        await taker.expectNoMachines();
      }
      await giver.reaches("web", "running");
      await giver.counts("web");
      expectContinuous(giver.numbers("web"));
    });
  });
});
