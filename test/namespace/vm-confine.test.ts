/** What a VMM has when it begins, and what it has not; by programs that tell, in its place. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { chownSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { duplicate } from "../../ffi/descriptor.ts";
import { makeMemoryFile } from "../../ffi/memory-file.ts";
import { openProcess } from "../../ffi/pidfd.ts";
import { descriptorLimit, setDescriptorLimit } from "../../ffi/process.ts";
import { ExitCode } from "../../src/units/exit-code.ts";
import { adoptVmm, findVmm, identityOf } from "../../src/vm/perform/vmm-identity.ts";
import {
  MOST_REPORT_LENGTH,
  type VmmEnding,
  VmmProcess,
} from "../../src/vm/perform/vmm-process.ts";
import { hostler } from "../support/binary.ts";
import { cgroupFolder, writableCgroup } from "../support/cgroup.ts";
import {
  ConfinedHost,
  compiled,
  confinedGroup,
  confinedUser,
  newInvocation,
} from "../support/confined.ts";
import { makeNetworks } from "../support/networks.ts";
import { isAlive } from "../support/partition.ts";
import { runProgram, startProgram } from "../support/program.ts";
import { kernel, program, root, skipUnless } from "../support/skips.ts";
import { waitFor, withDeadline } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const SIGKILL = 9;
const SIGTERM = 15;
/** Connects to the socket that its word names, and prints what comes. */
const client = `use Socket; socket(my $socket, AF_UNIX, SOCK_STREAM, 0);
  connect($socket, pack_sockaddr_un($ARGV[0])) or die "connect: $!"; print <$socket>;`;
const mountsOfOurs = () => readFileSync("/proc/self/mountinfo", "utf8");

let host: ConfinedHost;

/** A start without a right that root of this machine has: as in a container. */
const without = (capability: string) =>
  compiled("/usr/bin/setpriv", `--bounding-set=-${capability}`);

skipUnless("a confined VMM", [root, program("gcc", "gcc"), program("perl", "perl-base")], () => {
  beforeAll(() => {
    host = new ConfinedHost();
  });

  afterAll(() => host[Symbol.dispose]());

  describe("has", () => {
    test("its user and group alone, no capability, no way to get one", async () => {
      const { report } = await host.probe();
      expect(report.status("Uid").split(/\s+/)).toEqual(Array(4).fill(String(confinedUser)));
      expect(report.status("Gid").split(/\s+/)).toEqual(Array(4).fill(String(confinedGroup)));
      expect(report.status("Groups").trim()).toBe("");
      for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) {
        expect(`${set} ${report.status(set)}`).toMatch(/ 0+$/);
      }
      expect(report.status("NoNewPrivs")).toBe("1");
      // A filter of system calls is the VMM's own to set up: it knows its threads.
      expect(report.status("Seccomp")).toBe("0");
    });

    test("a session of its own, and signals, mask and folder as at a fresh start", async () => {
      const { report } = await host.probe();
      expect(report.session).toBe(report.processId);
      expect(report.group).toBe(report.processId);
      expect(report.signals).toEqual([]);
      expect(report.mask).toBe("0");
      expect(report.umask).toBe("77");
      expect(report.folder).toBe("/");
    });

    test("the environment of its start and its invocation, nothing else", async () => {
      const invocation = newInvocation();
      const environment = ["A=1", "BUN_BE_BUN=1", "LD_PRELOAD=/no/such/library"];
      const { report } = await host.probe({ invocation, environment });
      expect(report.variables).toEqual([...environment, `INVOCATION_ID=${invocation}`]);
      expect(report.words).toEqual([host.probeProgram, "word"]);
    });

    test("the descriptors of its plan at their numbers, nothing else", async () => {
      using memory = makeMemoryFile("guest");
      using other = makeMemoryFile("other");
      const descriptors = [
        { source: memory.number, target: 3 },
        { source: other.number, target: 9 },
      ];
      const { report } = await host.probe({ descriptors });
      const found = [...report.descriptors].map(([number, what]) => `${number} ${what}`);
      expect(found).toEqual([
        "0 /dev/null",
        "1 OUTPUT",
        "2 /dev/null",
        "3 /memfd:guest (deleted)",
        "9 /memfd:other (deleted)",
      ]);
    });

    test("memory that it opens by its number, as QEMU does, and that is ours as well", async () => {
      using memory = makeMemoryFile("guest");
      const descriptors = [{ source: memory.number, target: 3 }];
      const { ending } = await host.shell("printf hello > /proc/self/fd/3", { descriptors });
      expect(ending).toEqual({ kind: "exited", status: 0 });
      expect(readFileSync(`/proc/self/fd/${memory.number}`, "utf8")).toBe("hello");
    });

    test("its limits and its score", async () => {
      const limits = {
        core: { soft: 0, hard: 0 },
        nofile: { soft: 77, hard: 99 },
        memlock: { soft: 4096, hard: 8192 },
      };
      const { lines } = await host.shell("cat /proc/self/limits /proc/self/oom_score_adj", {
        limits,
        outOfMemoryScore: 321,
      });
      const values = (name: string) =>
        lines
          .find((line) => line.startsWith(name))
          ?.slice(26)
          .trim()
          .split(/\s+/)
          .slice(0, 2);
      expect(values("Max open files")).toEqual(["77", "99"]);
      expect(values("Max core file size")).toEqual(["0", "0"]);
      expect(values("Max locked memory")).toEqual(["4096", "8192"]);
      expect(lines.at(-1)).toBe("321");
    });
  });

  describe("sees", () => {
    const devices = ["/dev/null", "/dev/urandom", "/dev/net/tun"];

    test("a /dev of its own with the devices of its plan alone, which it may open", async () => {
      const script = `find /dev ! -type d | sort; find /dev -type d | sort
        stat -c %t:%T /dev/net/tun
        for device in ${devices.join(" ")}; do (exec 5<>$device) && echo opened; done`;
      const { lines } = await host.shell(script, { devices });
      expect(lines).toEqual([
        "/dev/net/tun",
        "/dev/null",
        "/dev/urandom",
        "/dev",
        "/dev/net",
        "a:c8",
        "opened",
        "opened",
        "opened",
      ]);
    });

    test("files that it can change in its own folder alone, and no program there", async () => {
      const { runFolder } = host;
      const script = `echo x > ${runFolder}/file && echo written
        cp /bin/true ${runFolder}/true; chmod 700 ${runFolder}/true; ${runFolder}/true; echo $?
        for place in /tmp /var/tmp /dev; do echo x > $place/hostler-never; done`;
      const { lines } = await host.shell(script, { writable: [runFolder] });
      expect(lines.slice(0, 1)).toEqual(["written"]);
      expect(lines).toContain("126");
      expect(lines.filter((line) => /Read-only file system/.test(line))).toHaveLength(3);
      expect(readFileSync(`${runFolder}/file`, "utf8")).toBe("x\n");
      const { mode, uid, gid } = statSync(`${runFolder}/file`);
      expect([mode & 0o777, uid, gid]).toEqual([0o600, confinedUser, confinedGroup]);
    });

    test("a file by itself that it may change, and a socket of its own that we reach", async () => {
      const { runFolder } = host;
      const disk = host.folder.file("disk");
      writeFileSync(disk, "old");
      chownSync(disk, confinedUser, confinedGroup);
      const script = `use Socket;
        open(my $disk, "+<", "${disk}") or die "open: $!"; print $disk "new"; close $disk;
        socket(my $listener, AF_UNIX, SOCK_STREAM, 0) or die "socket: $!";
        bind($listener, pack_sockaddr_un("${runFolder}/api")) or die "bind: $!";
        listen($listener, 1); accept(my $peer, $listener) or die "accept: $!";
        print $peer "hello"; close $peer;`;
      const fields = { writable: [runFolder, disk] };
      const ran = host.run(["/usr/bin/perl", "-e", script], fields);
      const words = ["/usr/bin/perl", "-e", client, `${runFolder}/api`];
      await waitFor("its socket to answer", async () => {
        const { stdout } = await runProgram(words);
        return stdout === "hello";
      });
      expect((await ran).ending).toEqual({ kind: "exited", status: 0 });
      expect(readFileSync(disk, "utf8")).toBe("new");
    });

    test("mounts of which none has devices or gives privileges; the host's stay", async () => {
      const before = mountsOfOurs();
      const { runFolder } = host;
      const { lines } = await host.shell("cat /proc/self/mountinfo", { writable: [runFolder] });
      expect(mountsOfOurs()).toBe(before);
      const mounts = lines.map((line) => {
        const [, , , , place = "", options = "", ...rest] = line.split(" ");
        return { place, options: options.split(","), rest: rest.join(" ") };
      });
      const own = mounts.findLast(({ place }) => place === "/dev");
      expect(own?.options).toEqual(expect.arrayContaining(["ro", "nosuid", "noexec"]));
      for (const mount of mounts) {
        expect(mount.options).toContain("nosuid");
        // Nothing that is mounted here is seen there, nor the other way round.
        expect(mount.rest).not.toMatch(/shared:|master:/);
        if (mount === own) continue;
        expect(mount.options).toContain("nodev");
        expect(mount.options).toContain(mount.place === runFolder ? "rw" : "ro");
      }
      expect(mounts.find(({ place }) => place === runFolder)?.options).toContain("noexec");
    });

    skipUnless("a TAP", program("ip", "iproute2"), () => {
      test("that is its user's opens for it, and for no other", async () => {
        await using made = await makeNetworks(1);
        const [network] = made.networks;
        if (network === undefined) throw new Error("no network");
        const make = ["ip", "tuntap", "add", "dev", "vm-tap", "mode", "tap"];
        const words = [...network.enter, ...make, "user", String(confinedUser)];
        expect((await runProgram(words)).exitCode).toBe(0);
        const [nsenter = "", ...rest] = network.enter;
        const own = compiled(Bun.which(nsenter) ?? "", ...rest);
        // TUNSETIFF with IFF_TAP | IFF_NO_PI: linux/if_tun.h
        const script = `open(my $tun, "+<", "/dev/net/tun") or die "open: $!";
          my $request = pack("a16 S x22", "vm-tap", 0x1002);
          print ioctl($tun, 0x400454ca, $request) ? "attached\\n" : "refused: $!\\n";`;
        const fields = { devices, own };
        const { lines } = await host.run(["/usr/bin/perl", "-e", script], fields);
        expect(lines).toEqual(["attached"]);
        const other = await host.run(["/usr/bin/perl", "-e", script], {
          ...fields,
          user: confinedUser + 1,
        });
        expect(other.lines).toEqual(["refused: Operation not permitted"]);
      });
    });
  });

  skipUnless("a cgroup", writableCgroup, () => {
    test("is the VMM's from its first instruction", async () => {
      using cgroup = cgroupFolder();
      const folder = cgroup.file("machine");
      const { lines } = await host.shell("cat /proc/self/cgroup", { cgroup: folder });
      expect(lines.join("\n")).toMatch(/^0::.*\/machine$/m);
    });
  });

  describe("is refused with its stage and code, and leaves nobody:", () => {
    const cases: readonly (readonly [
      name: string,
      fields: Parameters<ConfinedHost["start"]>[1] & { readonly program?: string },
      refusal: readonly [stage: string, code: string | undefined, message: RegExp],
    ])[] = [
      ["no program", { program: "/no/such/vmm" }, ["exec", "ENOENT", /\/no\/such\/vmm/]],
      ["no program file", { program: "/etc/passwd" }, ["exec", "EACCES", /\/etc\/passwd/]],
      ["no cgroup", { cgroup: "/sys/fs/cgroup/no/such" }, ["cgroup", "ENOENT", /no\/such/]],
      ["no device", { devices: ["/dev/no-such"] }, ["devices", "ENOENT", /\/dev\/no-such/]],
      ["no node", { devices: ["/dev/pts"] }, ["devices", undefined, /\/dev\/pts/]],
      ["no folder", { writable: ["/no/such"] }, ["read-only", "ENOENT", /\/no\/such/]],
      [
        "a soft limit above the hard one",
        { limits: { nofile: { soft: 9, hard: 8 } } },
        ["limits", "EINVAL", /nofile of 9 and 8/],
      ],
      ["root", { user: 0 }, ["confine", undefined, /^user: .*1/]],
      ["mounts", { own: without("sys_admin") }, ["mounts", "EPERM", /unshare/]],
      ["another user", { own: without("setuid") }, ["user", "EPERM", /setresuid/]],
      ["the bounding set", { own: without("setpcap") }, ["capabilities", "EPERM", /drop 0/]],
      [
        "a file that is not ours",
        { own: { path: "/no/such/hostler", words: ["hostler"] } },
        ["spawn", "ENOENT", /cannot start the confiner/],
      ],
      ["time", { timeLimit: 0 }, ["time-limit", undefined, /within 0 ms/]],
    ];
    for (const [name, { program: file = "/bin/true", ...fields }, expected] of cases) {
      test(name, async () => {
        const invocation = newInvocation();
        const [stage, code, message] = expected;
        const refusal = await host.refusal([file], { invocation, ...fields });
        expect([refusal.stage, refusal.code]).toEqual([stage, code]);
        expect(refusal.message).toMatch(message);
        expect(findVmm(invocation, confinedUser).found).toEqual([]);
      });
    }

    test("a loader that is not there, which the message tells from the program", async () => {
      const path = host.folder.file("script");
      writeFileSync(path, "#!/no/such/interpreter\n", { mode: 0o755 });
      const refusal = await host.refusal([path]);
      expect(refusal.message).toContain("the file is there, but not the loader or interpreter");
    });
  });

  describe("without a part that is optional", () => {
    test("begins, and what was left out is told", async () => {
      const { started, lines } = await host.shell("ls -d /dev/pts; id -u", {
        own: without("sys_admin"),
        optional: ["mounts", "read-only", "devices", "cgroup", "limits"],
        cgroup: "/sys/fs/cgroup/no/such",
        limits: { nofile: { soft: 9, hard: 8 }, core: { soft: 0, hard: 0 } },
      });
      expect(started.leftOut.map(({ stage, code }) => `${stage} ${code}`)).toEqual([
        "cgroup ENOENT",
        "limits EINVAL",
        "mounts EPERM",
        "read-only EPERM",
        "devices EPERM",
      ]);
      expect(lines).toEqual(["/dev/pts", String(confinedUser)]);
    });

    test("has the host's /dev whole when its own cannot be made", async () => {
      const { started, lines } = await host.shell("ls -d /dev/pts; echo x > /dev/null; echo $?", {
        devices: ["/dev/null", "/dev/no-such"],
        optional: ["devices"],
      });
      expect(started.leftOut.map(({ stage }) => stage)).toEqual(["devices"]);
      expect(lines).toEqual(["/dev/pts", "0"]);
    });
  });

  describe("where no node may be made", () => {
    const own = () => without("mknod");

    test("has the host's nodes that its user may open, and no others", async () => {
      const devices = ["/dev/null", "/dev/urandom"];
      const script = "find /dev ! -type d | sort; echo x > /dev/null && echo opened";
      const { lines } = await host.shell(script, { devices, own: own() });
      expect(lines).toEqual([...devices, "opened"]);
    });

    test("is refused one that its user may not open", async () => {
      const path = readdirSync("/dev")
        .map((name) => `/dev/${name}`)
        .find((name) => {
          const status = statSync(name, { throwIfNoEntry: false });
          return status?.isCharacterDevice() && (status.mode & 0o6) === 0;
        });
      if (path === undefined) throw new Error("every device of this machine is everybody's");
      const refusal = await host.refusal(["/bin/true"], { devices: [path], own: own() });
      expect(refusal).toMatchObject({ stage: "devices", code: "EACCES" });
      expect(refusal.message).toContain(path);
    });
  });

  describe("outlives whoever started it", () => {
    test("by SIGKILL, is found by its invocation, adopted, and its end is told", async () => {
      const invocation = newInvocation();
      const script = `${import.meta.dirname}/../support/programs/vmm-starter.ts`;
      const words = [hostler(), invocation, String(confinedUser), "/bin/sleep", "1000000"];
      await using worker = startProgram([process.execPath, script, ...words]);
      const said = await worker.said(/^started (.*)$/m);
      const identity = JSON.parse(said[1] ?? "");
      worker.kill("SIGKILL");
      await worker.ended();
      expect(isAlive(identity.processId)).toBe(true);
      await waitFor("the VMM to be found", () => {
        return Bun.deepEquals(findVmm(invocation, confinedUser).found, [identity]);
      });
      const adoption = adoptVmm(identity);
      if (adoption.kind !== "adopted") throw new Error(adoption.reason);
      const ended = Promise.withResolvers<VmmEnding>();
      using vmm = new VmmProcess(host.loop, { identity, process: adoption.process }, ended.resolve);
      expect(vmm.signal(SIGKILL)).toBe("sent");
      const ending = await withDeadline("the end of the VMM", ended.promise);
      // Another reaps it; what the kernel tells of that depends on its age.
      if (ending.kind !== "unknown") {
        expect(ending).toEqual({ kind: "signalled", signal: SIGKILL, coreDumped: false });
      }
      expect(vmm.signal(SIGKILL)).toBe("gone");
      await waitFor("its end to be known", () => adoptVmm(identity).kind === "gone");
      expect(findVmm(invocation, confinedUser).found).toEqual([]);
    });
  });

  skipUnless("the end of another's child", kernel("6.15"), () => {
    test("is told with its status, as soon as its parent has reaped it", async () => {
      const script = "sleep 1000000 & echo child $!; wait";
      await using parent = startProgram(["/bin/sh", "-c", script]);
      const said = await parent.said(/^child (\d+)$/m);
      const invocation = newInvocation();
      const identity = identityOf(Number(said[1]), invocation);
      const process = openProcess(Number(said[1]));
      if (identity === undefined || process === undefined) throw new Error("no child");
      const ended = Promise.withResolvers<VmmEnding>();
      using vmm = new VmmProcess(host.loop, { identity, process }, ended.resolve);
      vmm.signal(SIGTERM);
      const ending = await withDeadline("the end of the child", ended.promise);
      expect(ending).toEqual({ kind: "signalled", signal: SIGTERM, coreDumped: false });
    });
  });

  describe("while it is confined", () => {
    /** In the confiner's place, with its environment and its report, which is descriptor 3. */
    const inPlace = (script: string) => ({
      path: "/bin/sh",
      words: ["/bin/sh", "-c", script] as const,
    });

    test("is found by its invocation, and ended at the limit of a start", async () => {
      const invocation = newInvocation();
      const own = inPlace("exec sleep 1000000");
      const refused = host.refusal(["/bin/true"], { invocation, own, timeLimit: 1_000 });
      // Its environment is not there in the middle of its exec: then it is looked for again.
      await waitFor("the one that hangs", () => findVmm(invocation, confinedUser).found.length > 0);
      expect((await refused).stage).toBe("time-limit");
      expect(findVmm(invocation, confinedUser).found).toEqual([]);
    });

    test("says no more than a report holds", async () => {
      const own = inPlace(`head -c ${MOST_REPORT_LENGTH + 100_000} /dev/zero | tr '\\0' x >&3`);
      const refusal = await host.refusal(["/bin/true"], { own });
      expect(refusal.stage).toBe("confine");
      expect(refusal.message).toMatch(/^the confiner failed: x{200}$/);
    });
  });

  test("is not what another user says it is", async () => {
    const invocation = newInvocation();
    const user = confinedUser + 1;
    const result = await host.start(["/bin/sleep", "1000000"], { invocation, user });
    if (result.kind === "refused") throw new Error(result.refusal.message);
    const ended = Promise.withResolvers<VmmEnding>();
    using vmm = new VmmProcess(host.loop, result, ended.resolve);
    // The start is told in the middle of the exec, a moment before the environment is there.
    await waitFor("the VMM's environment", () => findVmm(invocation, user).found.length > 0);
    expect(findVmm(invocation, user).found).toEqual([result.identity]);
    expect(findVmm(invocation, confinedUser).found).toEqual([]);
    vmm.signal(SIGKILL);
    await ended.promise;
  });

  test("lives on when nobody watches it any more", async () => {
    const result = await host.start(["/bin/sleep", "1000000"]);
    if (result.kind === "refused") throw new Error(result.refusal.message);
    new VmmProcess(host.loop, result, () => {})[Symbol.dispose]();
    const adoption = adoptVmm(result.identity);
    if (adoption.kind !== "adopted") throw new Error(adoption.reason);
    const ended = Promise.withResolvers<VmmEnding>();
    using vmm = new VmmProcess(host.loop, { ...result, ...adoption }, ended.resolve);
    vmm.signal(SIGKILL);
    expect((await ended.promise).kind).toBe("signalled");
  });

  describe("is not taken for another:", () => {
    /** Gives the number that a process had to another one. */
    async function recycle(processId: number): Promise<number> {
      return await waitFor(`process ${processId} to be another`, async () => {
        writeFileSync("/proc/sys/kernel/ns_last_pid", String(processId - 1));
        const child = Bun.spawn(["/bin/sleep", "1000000"], { stdin: "ignore" });
        if (child.pid === processId) {
          others.push(child);
          return processId;
        }
        child.kill("SIGKILL");
        await child.exited;
        return undefined;
      });
    }
    const others: Bun.Subprocess[] = [];

    test("one with its number, born later", async () => {
      const { started } = await host.run(["/bin/true"]);
      const { identity } = started;
      expect(adoptVmm(identity)).toMatchObject({ kind: "gone" });
      try {
        await recycle(identity.processId);
        const adoption = adoptVmm(identity);
        expect(adoption).toMatchObject({ kind: "gone" });
        expect("reason" in adoption && adoption.reason).toContain("is another, born at");
      } finally {
        for (const other of others) {
          other.kill("SIGKILL");
          await other.exited;
        }
      }
    });

    test("one whose first thread has ended is alive, and a zombie is not", async () => {
      const source = `${import.meta.dirname}/../support/programs/leaderless.c`;
      const path = host.folder.file("leaderless");
      const words = ["gcc", "-O1", "-Wall", "-pthread", "-o", path, source];
      expect(await runProgram(words)).toMatchObject({ exitCode: 0 });
      await using leaderless = startProgram([path]);
      await leaderless.said(/^alone$/m);
      const invocation = newInvocation();
      const identity = identityOf(leaderless.processId, invocation);
      if (identity === undefined) throw new Error("no such process");
      const adoption = adoptVmm(identity);
      expect(adoption.kind).toBe("adopted");
      if (adoption.kind === "adopted") adoption.process.close();
      // Nor is it proof that nobody carries an invocation.
      const search = findVmm(invocation, process.geteuid?.() ?? 0);
      expect(search.unreadable).toContain(leaderless.processId);
    });

    test("one that /proc cannot be asked about is not said to be gone", async () => {
      const own = identityOf(process.pid, newInvocation());
      if (own === undefined) throw new Error("no process of ours");
      const limit = descriptorLimit();
      if (limit === undefined) throw new Error("no limit of ours");
      // One more can be opened, which the pidfd is.
      using lowest = duplicate(2);
      const next = lowest.number;
      lowest.close();
      setDescriptorLimit({ ...limit, soft: next + 1 });
      try {
        expect(() => adoptVmm(own)).toThrow("EMFILE");
        setDescriptorLimit({ ...limit, soft: next });
        expect(() => findVmm(own.invocation, 0)).toThrow("EMFILE");
      } finally {
        setDescriptorLimit(limit);
      }
    });

    test("one of another boot, one without the invocation", async () => {
      const own = identityOf(process.pid, newInvocation());
      if (own === undefined) throw new Error("no process of ours");
      expect(adoptVmm({ ...own, bootId: "another" })).toEqual({
        kind: "gone",
        reason: "the host has been booted since",
      });
      // Nothing of it may be collected: only its start says who it is.
      expect(adoptVmm(own).kind).toBe("doubtful");
      expect(adoptVmm({ ...own, startTicks: own.startTicks + 1 }).kind).toBe("gone");
    });
  });

  test("the confiner tells whoever starts it by hand what it is for", async () => {
    const plans = ["", "{}", JSON.stringify({ user: 0 })];
    for (const plan of plans) {
      const { exitCode, stderr } = await runProgram([hostler(), "--confine", plan, "/bin/true"]);
      expect(exitCode).toBe(ExitCode.usage);
      expect(stderr).toContain("hostler --confine is for hostler's own use");
    }
  });
});
