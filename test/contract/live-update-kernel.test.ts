/** What ffi/live-update.ts and ffi/kexec.ts say, call by call, to a kernel that has them. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { makeMemoryFile } from "../../ffi/memory-file.ts";
import { hostler, hostlerWithFaults, repositoryRoot } from "../support/binary.ts";
import { FakeKernel, type FakeKernelLimits } from "../support/fake-kernel.ts";
import { type Handle, handleOf, KernelCaller } from "../support/kernel-caller.ts";
import { runProgram } from "../support/program.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor, withDeadline } from "../support/wait-for.ts";

let folder: TemporaryFolder;
let kernel: FakeKernel;
let caller: KernelCaller;

function start(limits: FakeKernelLimits = {}): void {
  folder = temporaryFolder();
  kernel = new FakeKernel(folder.file("kernel"), limits);
  caller = new KernelCaller(kernel.environment);
}

async function end(): Promise<void> {
  await caller[Symbol.asyncDispose]();
  kernel[Symbol.dispose]();
  folder[Symbol.dispose]();
}

beforeEach(() => start());
afterEach(end);

const create = async (name: string) => handleOf(await caller.call("create", name));
const retrieveSession = async (name: string) =>
  handleOf(await caller.call("retrieveSession", name));
const file = async (content: string) => handleOf(await caller.call("file", content));
const names = (sessions: readonly { readonly name: string }[]) => sessions.map(({ name }) => name);

async function preserve(session: Handle, content: string, token: string): Promise<Handle> {
  const handle = await file(content);
  expect(await caller.call("preserve", session, handle, token)).toBe("done");
  return handle;
}

/** Into the kernel that is loaded, and a new caller there. */
async function kexec(): Promise<void> {
  const kernelImage = handleOf(await caller.call("open", "/proc/self/exe"));
  expect(await caller.call("load", { kernel: kernelImage, commandLine: "kho=on" })).toBe("done");
  void caller.start("reboot", "kexec");
  await waitFor("the kexec", () => kernel.ended === "kexec");
  await caller.kill();
  kernel.boot();
  caller = new KernelCaller(kernel.environment);
}

async function contentOf(session: Handle, token: string): Promise<string> {
  const retrieved = handleOf(await caller.call("retrieve", session, token));
  return await caller.call("content", retrieved);
}

describe("outgoing sessions", () => {
  test("have a name of their own each, and tell it", async () => {
    const session = await create("qemu/1");
    expect(await caller.call("name", session)).toEqual({ name: "qemu/1" });
    expect(await caller.call("create", "qemu/1")).toBe("EEXIST");
    expect(kernel.outgoing).toEqual([{ name: "qemu/1", tokens: [], open: true }]);
  });

  test("have names of 1 to 63 bytes, whatever the kernel would take", async () => {
    for (const name of ["", "x".repeat(64), "ü".repeat(32), "a\0b"]) {
      expect(await caller.call("create", name)).toBe("EINVAL");
      expect(await caller.call("retrieveSession", name)).toBe("EINVAL");
    }
    expect(kernel.calls).toEqual([]);
    await create(`${"ü".repeat(31)}x`);
  });

  test("end with their last descriptor, in whatever process it is", async () => {
    const session = await create("a");
    await preserve(session, "content", "1");
    const copy = handleOf(await caller.call("duplicate", session));
    await caller.call("lend", session);
    await caller.call("close", session);
    await caller.call("close", copy);
    expect(kernel.outgoing).toEqual([{ name: "a", tokens: [1n], open: true }]);
    await caller.call("takeBack");
    expect(kernel.outgoing).toEqual([]);
    // The name is free at once.
    await create("a");
  });

  test("end with the process that alone had them", async () => {
    await create("a");
    await caller.kill();
    expect(kernel.outgoing).toEqual([]);
  });

  test("refuse what can be done with retrieved ones alone", async () => {
    const session = await create("a");
    await preserve(session, "content", "1");
    expect(await caller.call("retrieve", session, "1")).toBe("EINVAL");
    expect(await caller.call("finish", session)).toBe("EINVAL");
  });
});

describe("what is preserved", () => {
  test("has a token of 64 bits that is its own in the session", async () => {
    const session = await create("a");
    const most = String(2n ** 64n - 1n);
    await preserve(session, "one", most);
    await preserve(session, "two", "0");
    expect(await caller.call("preserve", session, await file("three"), "0")).toBe("EEXIST");
    expect(kernel.outgoing[0]?.tokens).toEqual([2n ** 64n - 1n, 0n]);
  });

  test("is in one session, and free again when that one ends", async () => {
    const [first, second] = [await create("a"), await create("b")];
    const content = await preserve(first, "one", "1");
    const copy = handleOf(await caller.call("duplicate", content));
    expect(await caller.call("preserve", first, copy, "2")).toBe("EBUSY");
    expect(await caller.call("preserve", second, copy, "1")).toBe("EBUSY");
    await caller.call("close", first);
    expect(await caller.call("preserve", second, copy, "1")).toBe("done");
  });

  test("is a memfd", async () => {
    const session = await create("a");
    const device = handleOf(await caller.call("open", "/dev/null"));
    expect(await caller.call("preserve", session, device, "1")).toBe("ENOENT");
    expect(await caller.call("preserve", session, session, "1")).toBe("ENOENT");
    expect(await caller.call("preserve", session, 999, "1")).toBe("EBADF");
    expect(kernel.outgoing[0]?.tokens).toEqual([]);
  });

  test("goes into a session, not into another file", async () => {
    const one = await file("one");
    expect(await caller.call("preserve", one, await file("two"), "1")).toBe("ENOTTY");
    expect(await caller.call("retrieve", one, "1")).toBe("ENOTTY");
    expect(await caller.call("finish", one)).toBe("ENOTTY");
    expect(await caller.call("name", one)).toBe("ENOTTY");
  });
});

describe("across a kexec", () => {
  test("content comes back by its token, as often as one asks, until it is finished", async () => {
    const session = await create("a");
    await preserve(session, "one", "1");
    await preserve(session, "two", "7");
    await kexec();
    expect(kernel.incoming).toEqual([{ name: "a", tokens: [1n, 7n], open: false }]);
    const back = await retrieveSession("a");
    expect(await caller.call("name", back)).toEqual({ name: "a" });
    expect(await contentOf(back, "7")).toBe("two");
    expect(await contentOf(back, "1")).toBe("one");
    expect(await contentOf(back, "1")).toBe("one");
    expect(await caller.call("retrieve", back, "2")).toBe("ENOENT");
    const kept = handleOf(await caller.call("retrieve", back, "1"));
    expect(await caller.call("finish", back)).toBe("done");
    expect(await caller.call("finish", back)).toBe("done");
    expect(await caller.call("retrieve", back, "7")).toBe("ENOENT");
    expect(await caller.call("content", kept)).toBe("one");
  });

  test("a session is retrieved once, and destroyed when it is closed", async () => {
    await preserve(await create("a"), "one", "1");
    await kexec();
    expect(await caller.call("retrieveSession", "b")).toBe("ENOENT");
    const back = await retrieveSession("a");
    expect(await caller.call("retrieveSession", "a")).toBe("EINVAL");
    expect(await caller.call("preserve", back, await file("x"), "2")).toBe("EINVAL");
    await caller.call("close", back);
    expect(await caller.call("retrieveSession", "a")).toBe("ENOENT");
    expect(kernel.incoming).toEqual([]);
  });

  test("what came back can be preserved again, and outlives its former session", async () => {
    await preserve(await create("a"), "one", "1");
    await kexec();
    const former = await retrieveSession("a");
    const content = handleOf(await caller.call("retrieve", former, "1"));
    const session = await create("a");
    expect(await caller.call("preserve", session, content, "2")).toBe("done");
    await caller.call("close", former);
    expect(kernel.incoming).toEqual([]);
    expect(await caller.call("preserve", await create("b"), content, "1")).toBe("EBUSY");
    await kexec();
    expect(await contentOf(await retrieveSession("a"), "2")).toBe("one");
  });

  test("one that waits does not take its name from a new one", async () => {
    await preserve(await create("a"), "one", "1");
    await kexec();
    await create("a");
    const back = await retrieveSession("a");
    expect(await contentOf(back, "1")).toBe("one");
    expect(names(kernel.outgoing)).toEqual(["a"]);
  });

  test("what was closed before, or not retrieved by the next kexec, is lost", async () => {
    await preserve(await create("kept"), "one", "1");
    await caller.call("close", await create("closed"));
    await kexec();
    expect(names(kernel.incoming)).toEqual(["kept"]);
    await create("next");
    await kexec();
    expect(names(kernel.incoming)).toEqual(["next"]);
    expect(kernel.liveUpdates).toBe(2);
  });

  test("a restart loses everything", async () => {
    await create("a");
    void caller.start("reboot", "restart");
    await waitFor("the restart", () => kernel.ended === "restart");
    await caller.kill();
    kernel.boot();
    expect([kernel.outgoing, kernel.incoming]).toEqual([[], []]);
  });

  test("nobody is answered between two kernels, and the former one's callers fail", async () => {
    await using other = new KernelCaller(kernel.environment);
    await other.call("isLoaded");
    const image = handleOf(await caller.call("open", "/proc/self/exe"));
    await caller.call("load", { kernel: image, commandLine: "" });
    const never = caller.start("reboot", "kexec");
    await waitFor("the kexec", () => kernel.ended === "kexec");
    const late = other.start("create", "late");
    await waitFor("the late call", () => kernel.unanswered === 1);
    kernel.boot();
    expect(await withDeadline("the end of the former kernel", never)).toBe('"EIO"');
    expect(await withDeadline("the end of the late call", late)).toBe('"EIO"');
    expect(kernel.outgoing).toEqual([]);
    await using next = new KernelCaller(kernel.environment);
    handleOf(await next.call("create", "late"));
  });
});

describe("the next kernel", () => {
  test("is loaded, replaced and unloaded", async () => {
    const image = handleOf(await caller.call("open", "/proc/self/exe"));
    const initrd = handleOf(await caller.call("open", "/dev/null"));
    expect(await caller.call("isLoaded")).toBe(false);
    const commandLine = "console=ttyS0 liveupdate=on kho=on";
    await caller.call("load", { kernel: image, initrd, commandLine });
    expect(kernel.loaded).toMatchObject({ initrd: "/dev/null", commandLine });
    expect(kernel.loaded?.kernel).toContain("bun");
    expect(await caller.call("isLoaded")).toBe(true);
    await caller.call("load", { kernel: image, commandLine: "" });
    expect(kernel.loaded).toMatchObject({ initrd: undefined, commandLine: "" });
    expect(await caller.call("unload")).toBe("done");
    expect(await caller.call("isLoaded")).toBe(false);
    expect(await caller.call("unload")).toBe("done");
  });

  test("stays when another one is refused", async () => {
    const image = handleOf(await caller.call("open", "/proc/self/exe"));
    await caller.call("load", { kernel: image, commandLine: "first" });
    kernel.refuse("load", "ENOEXEC");
    const second = { kernel: image, commandLine: "second" };
    expect(await caller.call("load", second)).toBe("ENOEXEC");
    expect(kernel.loaded?.commandLine).toBe("first");
    expect(await caller.call("load", { ...second, commandLine: "a\0b" })).toBe("EINVAL");
    expect(await caller.call("load", second)).toBe("done");
    expect(kernel.loaded?.commandLine).toBe("second");
  });

  test("is needed for a kexec, which when it is refused leaves all as it was", async () => {
    const session = await create("a");
    await preserve(session, "one", "1");
    expect(await caller.call("reboot", "kexec")).toBe("EINVAL");
    const image = handleOf(await caller.call("open", "/proc/self/exe"));
    await caller.call("load", { kernel: image, commandLine: "" });
    kernel.refuse("reboot", "EBUSY");
    expect(await caller.call("reboot", "kexec")).toBe("EBUSY");
    expect(kernel.outgoing).toEqual([{ name: "a", tokens: [1n], open: true }]);
    expect(await caller.call("isLoaded")).toBe(true);
    await preserve(session, "two", "2");
    expect(kernel.ended).toBeUndefined();
  });
});

describe("a kernel under stress", () => {
  test("the device is busy so often, for both calls", async () => {
    kernel.refuse("open", "EBUSY", 2);
    expect(await caller.call("create", "a")).toBe("EBUSY");
    expect(await caller.call("retrieveSession", "a")).toBe("EBUSY");
    await create("a");
  });

  test.each(["create", "preserve", "finish", "name"] as const)(
    "%s is refused once",
    async (what) => {
      kernel.bring("came");
      const session = await create("a");
      const came = await retrieveSession("came");
      const content = await file("one");
      const call = async () => {
        if (what === "create") return await caller.call("create", "b");
        if (what === "preserve") return await caller.call("preserve", session, content, "1");
        return await caller.call(what, came);
      };
      kernel.refuse(what, "ENOMEM");
      expect(await call()).toBe("ENOMEM");
      expect(await call()).not.toBe("ENOMEM");
    },
  );

  test("Linux 6.19 had room for so many sessions, and files in each", async () => {
    await end();
    start({ sessions: 2, filesInSession: 1 });
    const session = await create("a");
    await create("b");
    expect(await caller.call("create", "c")).toBe("ENOMEM");
    await preserve(session, "one", "1");
    expect(await caller.call("preserve", session, await file("two"), "2")).toBe("ENOSPC");
  });

  test("a call that takes long is made, also for a caller that was killed in it", async () => {
    const held = kernel.hold("create");
    void caller.start("create", "a");
    await waitFor("the call", () => held.waiting === 1);
    expect(kernel.outgoing).toEqual([]);
    await caller.kill();
    held[Symbol.dispose]();
    expect(kernel.calls.map(({ request }) => request)).toEqual([{ call: "create", name: "a" }]);
    expect(kernel.outgoing).toEqual([]);
  });

  test("is asked to write file systems out, in place of the machine's", async () => {
    expect(await caller.call("sync")).toBe("done");
    expect(kernel.calls.map(({ request }) => request)).toEqual([{ call: "sync" }]);
  });

  test("a session can be put there, with files of the test", async () => {
    using content = makeMemoryFile("test");
    await Bun.write(Bun.file(content.number), "brought");
    kernel.bring("came", { "5": content });
    const session = await retrieveSession("came");
    expect(await contentOf(session, "5")).toBe("brought");
  });
});

test("as a program it takes orders, says what it did, and ends with its input", async () => {
  const orders = [{ do: "refuse", call: "open", code: "EBUSY", times: 2 }, { do: "boot" }];
  const result = await runProgram(
    [process.execPath, join(repositoryRoot, "test/support/fake-kernel.ts"), folder.file("second")],
    { input: orders.map((order) => `${JSON.stringify(order)}\n`).join("") },
  );
  const stdout = 'ready\n{"done":"refuse"}\n{"done":"boot"}\n';
  expect(result).toMatchObject({ exitCode: 0, stdout, stderr: "" });
});

describe("without the fault hooks there is one kernel, the machine's", () => {
  test("whatever the environment says", async () => {
    await using deaf = new KernelCaller(kernel.environment, { faults: false });
    // Calls that do no harm to the machine that this runs on.
    const content = handleOf(await deaf.call("file", "content"));
    expect(await deaf.call("name", content)).toBe("ENOTTY");
    expect(await deaf.call("finish", content)).toBe("ENOTTY");
    expect(await deaf.call("preserve", content, content, "1")).toBe("ENOTTY");
    expect(await deaf.call("retrieve", content, "1")).toBe("ENOTTY");
    await deaf.call("isLoaded");
    expect(kernel.calls).toEqual([]);
    // The same with them is heard.
    expect(await caller.call("name", await file("content"))).toBe("ENOTTY");
    expect(kernel.calls).toHaveLength(1);
  });

  test("and dist/hostler holds nothing of another one", () => {
    // What ffi/fault-kernel.ts says in an error; the variable's name stands in build.test.ts.
    const trace = "to the fault kernel at";
    expect(readFileSync(hostler()).includes(trace)).toBe(false);
    expect(readFileSync(hostlerWithFaults()).includes(trace)).toBe(true);
  });
});
