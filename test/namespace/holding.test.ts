/** The holder, as the compiled file: what it keeps, for whom, and how long it lives. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  existsSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  unlinkSync,
} from "node:fs";
import { holderSocketOf, limits } from "../../src/holding/protocol.ts";
import { encodeFrame } from "../../src/messaging/frame.ts";
import { openNull, RawClient } from "../support/agent-client.ts";
import { hostler, repositoryRoot } from "../support/binary.ts";
import {
  descriptorsIn,
  endHolders,
  holderOf,
  holdersOf,
  noHolder,
  openFile,
  TestDaemon,
} from "../support/holding.ts";
import { anonymousMemoryOf, descriptorsOf, throwMalformed } from "../support/malformed.ts";
import { runProgram, startProgram } from "../support/program.ts";
import { rotating } from "../support/rotation.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { suspend } from "../support/suspend.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const NOBODY = 65_534;
const hello = { kind: "hello", protocol: 1, version: "test" };

let folder: TemporaryFolder;
let control: string;

beforeEach(() => {
  folder = temporaryFolder();
  control = folder.file("control.sock");
});

afterEach(() => {
  endHolders(control);
  folder[Symbol.dispose]();
});

describe("it keeps descriptors by name", () => {
  test("put, get, list, drop", async () => {
    using daemon = new TestDaemon(control);
    const first = await daemon.putFile("a", folder.file("a"));
    const second = await daemon.putFile("b/é", folder.file("b"));
    expect(await daemon.list()).toEqual(["a", "b/é"]);
    expect(await daemon.get("a")).toBe(first);
    expect(await daemon.get("b/é")).toBe(second);
    expect(await daemon.get("c")).toBeUndefined();
    expect(await daemon.drop("a")).toBeUndefined();
    expect(await daemon.get("a")).toBeUndefined();
    expect(await daemon.drop("a")).toBe("ENOENT");
    expect(await daemon.list()).toEqual(["b/é"]);
    expect(daemon.client.names).toEqual(["b/é"]);
  });

  test("what was dropped is closed, in both processes", async () => {
    using daemon = new TestDaemon(control);
    const path = folder.file("dropped");
    await daemon.putFile("it", path);
    const holder = await holderOf(control);
    expect([...descriptorsIn(holder).values()]).toContain(path);
    await daemon.drop("it");
    expect([...descriptorsIn(holder).values()]).not.toContain(path);
    expect([...descriptorsIn(process.pid).values()]).not.toContain(path);
  });

  test("a name in use is refused, and what it had stays", async () => {
    using daemon = new TestDaemon(control);
    const first = await daemon.putFile("a", folder.file("a"));
    using other = openFile(folder.file("other")).file;
    expect(await daemon.put("a", other)).toBe("EEXIST");
    expect(await daemon.get("a")).toBe(first);
  });

  test("requests are answered in their order, and once", async () => {
    using daemon = new TestDaemon(control);
    using file = openFile(folder.file("a")).file;
    const answers: string[] = [];
    const done = Promise.withResolvers<void>();
    daemon.client.put("a", file, (refusal) => answers.push(`put ${refusal?.code}`));
    daemon.client.put("a", file, (refusal) => answers.push(`put ${refusal?.code}`));
    daemon.client.put("", file, (refusal) => answers.push(`empty ${refusal?.code}`));
    daemon.client.list((names) => answers.push(`list ${names}`));
    daemon.client.drop("a", (refusal) => answers.push(`drop ${refusal?.code}`));
    daemon.client.get("a", (found) => answers.push(`get ${found}`));
    daemon.client.list(() => done.resolve());
    expect(answers).toEqual([]);
    await done.promise;
    expect(answers.filter((answer) => answer.startsWith("empty"))).toEqual(["empty EINVAL"]);
    expect(answers.filter((answer) => !answer.startsWith("empty"))).toEqual([
      "put undefined",
      "put EEXIST",
      "list a",
      "drop undefined",
      "get undefined",
    ]);
  });
});

describe("the process", () => {
  test("a session of its own, /, /dev/null, and no descriptor that it was not given", async () => {
    using daemon = new TestDaemon(control);
    using _leak = openFile(folder.file("leak")).file;
    await daemon.ready();
    const holder = await holderOf(control);
    const status = readFileSync(`/proc/${holder}/stat`, "latin1").split(") ")[1]?.split(" ") ?? [];
    // state, ppid, pgrp, session
    expect(status.slice(2, 4).map(Number)).toEqual([holder, holder]);
    expect(readlinkSync(`/proc/${holder}/cwd`)).toBe("/");
    // Nothing of its daemon's: an empty one is that of a process in the middle of its exec.
    expect(readFileSync(`/proc/${holder}/environ`, "latin1")).toBe("HOSTLER_ROLE=holder\0");
    const descriptors = descriptorsIn(holder);
    for (const number of [0, 1, 2]) expect(descriptors.get(number)).toBe("/dev/null");
    const files = [...descriptors.values()].filter((path) => path.startsWith(folder.path));
    expect(files).toEqual([`${control}.holder.lock`]);
    expect(statSync(holderSocketOf(control)).mode & 0o777).toBe(0o600);
    expect(statSync(`${control}.holder.lock`).mode & 0o777).toBe(0o600);
  });

  test("one of it: a second one is refused", async () => {
    using daemon = new TestDaemon(control);
    await daemon.ready();
    const second = await runProgram([hostler(), "--hold", control]);
    expect(second.exitCode).toBe(111);
    expect(second.stderr).toContain("Another holder lives");
    expect(await daemon.list()).toEqual([]);
  });

  test("its socket and its lock are made anew when somebody removes them", async () => {
    const inode = await (async () => {
      using daemon = new TestDaemon(control);
      return await daemon.putFile("a", folder.file("a"));
    })();
    const holder = await holderOf(control);
    for (const removed of [["holder"], ["holder.lock", "holder"]]) {
      for (const name of removed) unlinkSync(`${control}.${name}`);
      await waitFor("the socket", () => existsSync(holderSocketOf(control)));
      using daemon = new TestDaemon(control);
      expect(await daemon.get("a")).toBe(inode);
    }
    expect(existsSync(`${control}.holder.lock`)).toBe(true);
    expect(await holderOf(control)).toBe(holder);
    const second = await runProgram([hostler(), "--hold", control]);
    expect(second).toMatchObject({ exitCode: 111, stderr: expect.stringContaining("the lock") });
  });

  test("one for all names of the control socket", async () => {
    symlinkSync(folder.path, folder.file("link"));
    {
      using daemon = new TestDaemon(folder.file("link/control.sock"));
      await daemon.putFile("a", folder.file("a"));
    }
    using next = new TestDaemon(control);
    expect(await next.list()).toEqual(["a"]);
    expect(holdersOf(control)).toHaveLength(1);
  });

  test("words that are not hostler's own are refused", async () => {
    for (const words of [[], ["relative"], [control, "2"], [control, "x"], [control, "3", "4"]]) {
      const result = await runProgram([hostler(), "--hold", ...words]);
      expect(result.exitCode).toBe(100);
    }
  });

  test("a path that is too long is refused where it is given", () => {
    const long = folder.file("x".repeat(110 - folder.path.length));
    expect(() => new TestDaemon(long)).toThrow(/at most 100 bytes, received 111/);
  });

  test("a program that is not there is said, and tried again", async () => {
    using daemon = new TestDaemon(control, [folder.file("hostler"), "--hold"]);
    await waitFor("the trouble", () => daemon.troubles.length >= 2);
    expect(daemon.troubles[0]).toContain("cannot start the holder");
    symlinkSync(hostler(), folder.file("hostler"));
    await daemon.ready();
  });
});

describe("how long it lives", () => {
  test("it ends when its daemon is gone and it keeps nothing", async () => {
    {
      using daemon = new TestDaemon(control);
      await daemon.ready();
      await holderOf(control);
    }
    await noHolder(control);
    expect(() => statSync(holderSocketOf(control))).toThrow();
  });

  test("it goes on while it keeps something, and ends after the last drop", async () => {
    let holder = 0;
    {
      using daemon = new TestDaemon(control);
      await daemon.putFile("a", folder.file("a"));
      holder = await holderOf(control);
    }
    {
      using daemon = new TestDaemon(control);
      await daemon.ready();
      expect(await holderOf(control)).toBe(holder);
      expect(await daemon.drop("a")).toBeUndefined();
    }
    await noHolder(control);
  });

  test("SIGTERM does not end it while it keeps something, and it says so", async () => {
    await using holder = startProgram([hostler(), "--hold", control]);
    await waitFor("its socket", () => statSync(holderSocketOf(control)).isSocket());
    using daemon = new TestDaemon(control);
    const inode = await daemon.putFile("a", folder.file("a"));
    for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGALRM"] as const) {
      holder.kill(signal);
      await holder.said(new RegExp(`received ${signal} and goes on: it keeps 1 descriptors`));
    }
    expect(await daemon.get("a")).toBe(inode);
    await daemon.drop("a");
    holder.kill("SIGTERM");
    expect((await holder.ended()).exitCode).toBe(0);
    // The daemon lives on: it has another one at once.
    await daemon.ready(2);
    expect(await daemon.list()).toEqual([]);
  });
});

describe("who dies", () => {
  test("the daemon, by SIGKILL: the next one finds everything, and the same holder", async () => {
    const script = `${repositoryRoot}/test/support/programs/holding-daemon.ts`;
    const words = [process.execPath, script, control, hostler(), folder.path];
    await using first = startProgram(words);
    await first.said(/kept 100/);
    const holder = await holderOf(control);
    first.kill("SIGKILL");
    await first.ended();
    using next = new TestDaemon(control);
    await next.ready();
    const names = Array.from({ length: 100 }, (_value, index) => `file-${index}`);
    expect(await next.list()).toEqual(names.toSorted());
    for (const name of names) expect(await next.get(name)).toBe(statSync(folder.file(name)).ino);
    expect(await holderOf(control)).toBe(holder);
    // And what the next one learned of it is enough to fill another holder.
    process.kill(holder, "SIGKILL");
    await next.ready(2);
    expect(await next.list()).toEqual(names.toSorted());
  });

  test("the holder, by SIGKILL: a new one is filled again", async () => {
    using daemon = new TestDaemon(control);
    const inodes = new Map<string, number>();
    for (const name of ["a", "b", "c"]) {
      inodes.set(name, await daemon.putFile(name, folder.file(name)));
    }
    for (let life = 2; life <= 4; life++) {
      const holder = await holderOf(control);
      process.kill(holder, "SIGKILL");
      await daemon.ready(life);
      expect(await holderOf(control)).not.toBe(holder);
      for (const [name, inode] of inodes) expect(await daemon.get(name)).toBe(inode);
    }
    expect(daemon.troubles).toContain("the holder ended by SIGKILL");
  });

  test("a holder that is dying: no other is started before it is dead", async () => {
    const script = `
      const path = ${JSON.stringify(holderSocketOf(control))};
      require("node:net").createServer(function (socket) {
        this.close();
        socket.destroy();
      }).listen(path, () => console.log("listening"));
      setInterval(() => {}, 1e6);`;
    await using dying = startProgram([process.execPath, "-e", script]);
    await dying.said(/listening/);
    using daemon = new TestDaemon(control);
    await waitFor("the end of the connection", () => daemon.troubles.length > 0);
    // Time enough to start one by mistake.
    for (let count = 0; count < 5; count++) await runProgram([hostler(), "--version"]);
    expect(holdersOf(control)).toEqual([]);
    dying.kill("SIGKILL");
    await daemon.ready();
  });

  describe("a holder that hangs", () => {
    const soon = { silenceTime: 200 };
    const stopped = async () => {
      const holder = await holderOf(control);
      suspend(holder);
      return holder;
    };
    const said = async (daemon: TestDaemon, words: string) => {
      await waitFor(words, () => daemon.troubles.some((trouble) => trouble.includes(words)));
    };

    test("of which all is known: it is killed, and another one is filled", async () => {
      using daemon = new TestDaemon(control, [hostler(), "--hold"], soon);
      const inode = await daemon.putFile("a", folder.file("a"));
      const holder = await stopped();
      expect(await daemon.get("a")).toBe(inode);
      expect(await daemon.list()).toEqual(["a"]);
      await said(daemon, `the holder, process ${holder}, has not answered for 200 ms`);
      await said(daemon, "the holder ended by SIGKILL");
      expect(await holderOf(control)).not.toBe(holder);
    });

    test("of a daemon before: it is left alone, said loudly, and goes on", async () => {
      {
        using before = new TestDaemon(control);
        await before.putFile("a", folder.file("a"));
      }
      const holder = await stopped();
      using daemon = new TestDaemon(control, [hostler(), "--hold"], soon);
      await said(daemon, `kill -CONT ${holder} has it go on`);
      expect(daemon.client.silence).toContain(`kill -KILL ${holder} ends it, and those are lost`);
      expect(holdersOf(control)).toEqual([holder]);
      process.kill(holder, "SIGCONT");
      await daemon.ready();
      expect(daemon.client.silence).toBeUndefined();
      expect(await daemon.get("a")).toBe(statSync(folder.file("a")).ino);
    });

    test("while it retrieves: it may have what nobody else has, and is left alone", async () => {
      using daemon = new TestDaemon(control, [hostler(), "--hold"], soon);
      await daemon.ready();
      const holder = await stopped();
      const asked = daemon.session("retrieveSession", "vm");
      await said(daemon, "It may have sessions that nobody else has, so it is left alone");
      expect(holdersOf(control)).toEqual([holder]);
      process.kill(holder, "SIGCONT");
      expect(await asked).toHaveProperty("code");
      await said(daemon, "the holder answers again");
    });

    test("with nobody who asks: it is not noticed, nor anything done", async () => {
      using daemon = new TestDaemon(control, [hostler(), "--hold"], soon);
      await daemon.ready();
      // Before that it may have been too slow to begin, on a busy machine.
      const before = daemon.troubles.length;
      const holder = await stopped();
      // Time enough to take it for silent by mistake.
      for (let count = 0; count < 20; count++) await runProgram([hostler(), "--version"]);
      expect(daemon.troubles.slice(before)).toEqual([]);
      process.kill(holder, "SIGCONT");
      expect(await daemon.list()).toEqual([]);
    });
  });

  test("both at once: all is lost, and the next daemon begins with nothing", async () => {
    {
      using daemon = new TestDaemon(control);
      await daemon.putFile("a", folder.file("a"));
      process.kill(await holderOf(control), "SIGKILL");
    }
    await noHolder(control);
    using next = new TestDaemon(control);
    expect(await next.list()).toEqual([]);
  });
});

describe("whom it serves", () => {
  test("one daemon at a time: a second one is served when the first is gone", async () => {
    using first = new TestDaemon(control);
    await first.ready();
    using second = new TestDaemon(control);
    await waitFor("the refusal", () =>
      second.troubles.some((trouble) =>
        trouble.includes(`the first, process ${process.pid}, lives`),
      ),
    );
    const inode = await first.putFile("a", folder.file("a"));
    expect(second.readyCount).toBe(0);
    first[Symbol.dispose]();
    await second.ready();
    expect(await second.get("a")).toBe(inode);
  });

  skipUnless("users", [root, program("setpriv", "util-linux")], () => {
    const asNobody = ["setpriv", `--reuid=${NOBODY}`, "--clear-groups"];

    test("a daemon of another user is refused, and said why", async () => {
      using daemon = new TestDaemon(control);
      await daemon.putFile("a", folder.file("a"));
      chmodSync(folder.path, 0o755);
      chmodSync(holderSocketOf(control), 0o666);
      const script = `
        const net = require("node:net");
        const socket = net.connect(${JSON.stringify(holderSocketOf(control))});
        socket.on("data", (bytes) => { console.log(String(bytes)); process.exit(); });`;
      const bun = folder.file("bun");
      await Bun.write(bun, Bun.file(process.execPath));
      chmodSync(bun, 0o755);
      const result = await runProgram([...asNobody, bun, "-e", script], {
        workingDirectory: "/",
      });
      expect(result.stdout).toContain('"code":"EPERM"');
      expect(result.stdout).toContain(`received one of user ${NOBODY}`);
      expect(await daemon.list()).toEqual(["a"]);
    });

    test("a holder of another user is given nothing", async () => {
      chownSync(folder.path, NOBODY, NOBODY);
      const binary = folder.file("hostler");
      await Bun.write(binary, Bun.file(hostler()));
      chmodSync(binary, 0o755);
      await using _holder = startProgram([...asNobody, binary, "--hold", control]);
      await waitFor("its socket", () => statSync(holderSocketOf(control)).isSocket());
      using daemon = new TestDaemon(control);
      await waitFor("the trouble", () => daemon.troubles.length > 0);
      expect(daemon.troubles[0]).toContain(`is served by user ${NOBODY}: expected user 0`);
      expect(daemon.readyCount).toBe(0);
    });
  });
});

describe("limits", () => {
  test("a name of 129 bytes is refused, one of 128 is not", async () => {
    using daemon = new TestDaemon(control);
    using file = openFile(folder.file("a")).file;
    expect(await daemon.put("é".repeat(64), file)).toBeUndefined();
    expect(await daemon.put(`${"é".repeat(64)}x`, file)).toBe("ENAMETOOLONG");
    expect(await daemon.put("a\0b", file)).toBe("EINVAL");
    expect(await daemon.drop("x".repeat(129))).toBe("ENAMETOOLONG");
    expect(await daemon.get("x".repeat(129))).toBeUndefined();
    const session = await daemon.session("createSession", "x".repeat(64));
    expect(session).toMatchObject({ code: "ENAMETOOLONG" });
  });

  test("so it is by the holder itself, for a daemon that does not look", async () => {
    await using _holder = startProgram([hostler(), "--hold", control]);
    using raw = await RawClient.connect(holderSocketOf(control));
    using nothing = openNull();
    await raw.sendBytes(encodeFrame(hello));
    const put = { kind: "put", id: 7, name: "x".repeat(129) };
    await raw.sendBytes(encodeFrame(put, 1), [nothing.number]);
    const answer = await waitFor("the answer", () => {
      raw.look();
      return /"id":7.*ENAMETOOLONG.*\n/.exec(new TextDecoder().decode(raw.received)) ?? undefined;
    });
    expect(answer[0]).toContain("at most 128 bytes, received one of 129");
  });

  test("4096 descriptors, and one more is refused", async () => {
    using daemon = new TestDaemon(control);
    using file = openFile(folder.file("a")).file;
    const refusals: (string | undefined)[] = [];
    const all = Array.from({ length: limits.descriptors }, (_value, index) =>
      daemon.put(`${index}-${"\u0001".repeat(100)}`, file),
    );
    for (const refusal of await Promise.all(all)) if (refusal !== undefined) refusals.push(refusal);
    expect(refusals).toEqual([]);
    expect(await daemon.put("one more", file)).toBe("EMFILE");
    expect(await daemon.list()).toHaveLength(limits.descriptors);
    process.kill(await holderOf(control), "SIGKILL");
    await daemon.ready(2);
    expect(await daemon.list()).toHaveLength(limits.descriptors);
  });

  skipUnless("a low limit on open files", program("prlimit", "util-linux"), () => {
    test("it keeps fewer, and refuses the next one", async () => {
      const words = ["prlimit", "--nofile=160:160", hostler(), "--hold", control];
      await using _holder = startProgram(words);
      await waitFor("its socket", () => statSync(holderSocketOf(control)).isSocket());
      using daemon = new TestDaemon(control);
      using file = openFile(folder.file("a")).file;
      const most = 160 - limits.ownDescriptors;
      for (let index = 0; index < most; index++) {
        expect(await daemon.put(`${index}`, file)).toBeUndefined();
      }
      expect(await daemon.put("one more", file)).toBe("EMFILE");
      expect(await daemon.list()).toHaveLength(most);
    });
  });

  test("a wrong hello, no request, or a descriptor too many ends the connection", async () => {
    using daemon = new TestDaemon(control);
    await daemon.putFile("a", folder.file("a"));
    daemon[Symbol.dispose]();
    using nothing = openNull();
    const wrong: [unknown, unknown, number][] = [
      [{ ...hello, protocol: 2 }, undefined, 0],
      [hello, { kind: "put", id: 1, name: "b" }, 0],
      [hello, { kind: "list", id: 1 }, 1],
      [hello, { kind: "forget", id: 1 }, 0],
    ];
    for (const [first, second, count] of wrong) {
      using raw = await RawClient.connect(holderSocketOf(control));
      await raw.sendBytes(encodeFrame(first));
      const numbers = Array<number>(count).fill(nothing.number);
      if (second !== undefined) await raw.sendBytes(encodeFrame(second, count), numbers);
      await raw.closed();
    }
    using next = new TestDaemon(control);
    expect(await next.list()).toEqual(["a"]);
  });
});

test("malformed frames: it holds nothing of them, and keeps what it kept", async () => {
  const FRAMES_A_SEED = 1_000;
  const MEMORY_BOUND = 160 * 1024;
  const inode = await (async () => {
    using daemon = new TestDaemon(control);
    return await daemon.putFile("a", folder.file("a"));
  })();
  const holder = await holderOf(control);
  using nothing = openNull();
  await waitFor("the end of the daemon", () => descriptorsOf(holder) > 0);
  const memory = anonymousMemoryOf(holder);
  const target = {
    connect: () => RawClient.connect(holderSocketOf(control)),
    hello,
    descriptor: nothing.number,
    oneAtATime: true,
  };
  const before = [...descriptorsIn(holder).values()].filter((path) => path === "/dev/null").length;
  const seeds = Array.from({ length: 100 }, (_value, index) => 1 + index);
  for (const seed of rotating("the holder's socket", seeds, { outOf: 10 })) {
    await throwMalformed(target, { seed, frames: FRAMES_A_SEED });
  }
  using next = new TestDaemon(control);
  expect(await next.get("a")).toBe(inode);
  expect(await next.list()).toEqual(["a"]);
  expect(await holderOf(control)).toBe(holder);
  const after = [...descriptorsIn(holder).values()].filter((path) => path === "/dev/null").length;
  expect(after).toBe(before);
  expect(anonymousMemoryOf(holder) - memory).toBeLessThan(MEMORY_BOUND);
}, 600_000);
