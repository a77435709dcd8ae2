/** Memory files, and live updates and kexec on a kernel that has or refuses them. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { existsSync, ftruncateSync, readFileSync } from "node:fs";
import { libc } from "../../../ffi/c-library.ts";
import { O_CLOEXEC } from "../../../ffi/constants.ts";
import { linkTarget, makePipe, writeFrom } from "../../../ffi/descriptor.ts";
import { isKernelLoaded, loadKernel } from "../../../ffi/kexec.ts";
import {
  createSession,
  finishSession,
  preserveDescriptor,
  retrieveDescriptor,
  retrieveSession,
  SESSION_NAME_BYTES,
  sessionName,
  sessionNameOfLink,
} from "../../../ffi/live-update.ts";
import { cString } from "../../../ffi/memory.ts";
import { makeMemoryFile } from "../../../ffi/memory-file.ts";
import { attempt, Errno } from "../../../ffi/system-call-error.ts";
import { type Check, openedFrom, outputOf, withoutRoot } from "./check.ts";
import { descriptorFlags } from "./descriptors.ts";

const F_ADD_SEALS = 1033;
const F_SEAL_GROW = 4;

const memoryFileChecks: readonly Check[] = [
  {
    name: "a memory file holds bytes, has no path, and closes on exec",
    run: () => {
      using file = makeMemoryFile("grün");
      strictEqual(descriptorFlags(file.number) & O_CLOEXEC, O_CLOEXEC);
      strictEqual(linkTarget(file), "/memfd:grün (deleted)");
      strictEqual(writeFrom(file, cString("hello"), 5), 5);
      strictEqual(readFileSync(`/proc/self/fd/${file.number}`, "latin1"), "hello");
    },
  },
  {
    name: "a memory file can be sealed where that was asked for",
    run: () => {
      const seal = (number: number) => attempt(() => libc.fcntl(number, F_ADD_SEALS, F_SEAL_GROW));
      using plain = makeMemoryFile("plain");
      strictEqual(seal(plain.number), -Errno.EPERM);
      using sealed = makeMemoryFile("sealed", { allowSealing: true });
      strictEqual(seal(sealed.number), 0);
      throws(() => ftruncateSync(sealed.number, 1), { code: "EPERM" });
    },
  },
  {
    name: "the name of a memory file has at most 249 bytes",
    run: () => {
      makeMemoryFile("x".repeat(249)).close();
      const opened = openedFrom();
      throws(() => makeMemoryFile("x".repeat(250)), { code: "EINVAL", call: "memfd_create" });
      throws(() => makeMemoryFile("a\0b"), RangeError);
      deepStrictEqual(opened(), [], "nothing stays open");
    },
  },
  {
    name: "a link tells what is open",
    run: () => {
      const pipe = makePipe();
      using read = pipe.read;
      using _write = pipe.write;
      ok(/^pipe:\[\d+\]$/.test(linkTarget(read)));
    },
  },
];

const device = "/dev/liveupdate";

const sessionChecks: readonly Check[] = [
  {
    name: "no session is made without the device",
    absence: () => (existsSync(device) ? `there is a ${device}` : undefined),
    run: () => {
      const opened = openedFrom();
      strictEqual(createSession("hostler-check"), -Errno.ENOENT);
      strictEqual(retrieveSession("hostler-check"), -Errno.ENOENT);
      deepStrictEqual(opened(), [], "nothing stays open");
    },
  },
  {
    name: "a session's name has 1 to 63 bytes, and no kernel is asked for another",
    run: () => {
      strictEqual(SESSION_NAME_BYTES, 63);
      for (const name of ["", "x".repeat(64), "ü".repeat(32), "a\0b"]) {
        strictEqual(createSession(name), -Errno.EINVAL, JSON.stringify(name));
        strictEqual(retrieveSession(name), -Errno.EINVAL, JSON.stringify(name));
      }
    },
  },
  {
    name: "what is no session is no session's",
    unlikeEmulator: "knows no ioctl of live updates",
    run: () => {
      using file = makeMemoryFile("no session");
      strictEqual(preserveDescriptor(file, file, 1n), -Errno.ENOTTY);
      strictEqual(preserveDescriptor(file, -1, 1n), -Errno.ENOTTY);
      strictEqual(retrieveDescriptor(file, 2n ** 64n - 1n), -Errno.ENOTTY);
      strictEqual(finishSession(file), -Errno.ENOTTY);
      strictEqual(sessionName(file), -Errno.ENOTTY);
    },
  },
  {
    name: "a token has 64 bits",
    run: () => {
      using file = makeMemoryFile("no session");
      for (const token of [-1n, 2n ** 64n]) {
        throws(() => preserveDescriptor(file, file, token), RangeError);
        throws(() => retrieveDescriptor(file, token), RangeError);
      }
    },
  },
  {
    name: "a session's name is found in its link as well",
    run: () => {
      strictEqual(sessionNameOfLink("anon_inode:[luo_session] qemu/1 (x)"), "qemu/1 (x)");
      strictEqual(sessionNameOfLink("anon_inode:[eventfd]"), undefined);
      strictEqual(sessionNameOfLink("/tmp/anon_inode:[luo_session] a"), undefined);
    },
  },
];

/** Either the call is not there at all, or one needs CAP_SYS_BOOT for it. */
const refusals = ["EPERM", "ENOSYS"];

const kexecChecks: readonly Check[] = [
  {
    name: "a command line with a zero byte is refused before the kernel sees half of it",
    run: () => {
      using kernel = makeMemoryFile("kernel");
      const options = { kernel, initrd: undefined, commandLine: "ro\0kho=on" };
      strictEqual(loadKernel(options), -Errno.EINVAL);
    },
  },
  {
    name: "whether a kernel is loaded is what /sys says",
    run: () => {
      const paths = ["/sys/kernel/kexec/loaded", "/sys/kernel/kexec_loaded"];
      const path = paths.find((candidate) => existsSync(candidate));
      const text = path === undefined ? "0\n" : readFileSync(path, "latin1");
      strictEqual(isKernelLoaded(), text === "1\n");
    },
  },
  {
    name: "nobody without CAP_SYS_BOOT loads a kernel, unloads it, or enters it",
    absence: withoutRoot,
    run: async ({ self }) => {
      const [path = "", ...rest] = self;
      const { output, ending } = await outputOf([path, ...rest, "--become=nobody-who-reboots"]);
      deepStrictEqual(ending, { kind: "exited", status: 0 });
      const words = output.trim().split("\n");
      const loading = words.slice(0, 3).map((line) => line.split(" "));
      deepStrictEqual(
        loading.map(([, what]) => what),
        ["load", "load-with-initrd", "unload"],
      );
      for (const [code = ""] of loading) ok(refusals.includes(code), output);
      deepStrictEqual(words.slice(3), [
        "EPERM kexec",
        "EPERM restart",
        "EPERM power-off",
        "EPERM halt",
      ]);
    },
  },
];

export const liveUpdateChecks: readonly Check[] = [
  ...memoryFileChecks,
  ...sessionChecks,
  ...kexecChecks,
];
