/** Network boot on a bridge, with real clients in machines of their own namespaces. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { appendFileSync, readFileSync, symlinkSync } from "node:fs";
import { identityApi } from "../../src/identity/api.ts";
import { parseMessage } from "../../src/network/dhcp/message.ts";
import { UNANSWERED_REPEATS } from "../../src/network-boot/limits.ts";
import { vettingApi } from "../../src/vetting/protocol-api.ts";
import { ovmfPxeDiscover } from "../support/boot-clients.ts";
import { clientBytes } from "../support/dhcp-messages.ts";
import { base, bootFolder, curl, efiProgram, startNetworkBoot } from "../support/network-boot.ts";
import { runProgram } from "../support/program.ts";
import { file, program, root, skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { DurableOrchestrator } from "../support/vetting-orchestrator/daemon.ts";
import { mac as runMac } from "../support/vetting-orchestrator/runs.ts";
import {
  hostAddress,
  ip,
  makeVmNetwork,
  outsideHostAddress,
  startInPlace,
  startSniffer,
  type VmNetwork,
  type VmPlace,
} from "../support/vm-network.ts";

setDefaultTimeout(60_000);

const features = [
  root,
  file("/bin/busybox", "busybox-static"),
  file("/sbin/ip", "iproute2"),
  program("curl", "curl"),
];

/** A machine that has its address already. */
async function withMachines(count: number): Promise<VmNetwork & { first: VmPlace }> {
  const network = await makeVmNetwork(count);
  for (const machine of network.machines) {
    await ip(machine, `address add ${machine.address}/16 dev eth0`);
  }
  const [first] = network.machines;
  if (first === undefined) throw new RangeError("One machine at least");
  return { ...network, first };
}

/** Words of a client that gets a file from the host into a local one. */
type Client = (remote: string, local: string) => readonly string[];

const clients: Readonly<Record<string, Client>> = {
  "busybox, blocks of 512": (remote, local) => {
    return ["/bin/busybox", "tftp", "-g", "-r", remote, "-l", local, hostAddress];
  },
  "busybox, blocks of 1468": (remote, local) => {
    return ["/bin/busybox", "tftp", "-b", "1468", "-g", "-r", remote, "-l", local, hostAddress];
  },
  curl: (remote, local) => ["curl", "-s", "-o", local, `tftp://${hostAddress}/${remote}`],
  "curl without options": (remote, local) => {
    return ["curl", "-s", "--tftp-no-options", "-o", local, `tftp://${hostAddress}/${remote}`];
  },
};
const debianClients: Readonly<Record<string, Client>> = {
  "tftp-hpa": (remote, local) => {
    return ["tftp", "-m", "binary", hostAddress, "-c", "get", remote, local];
  },
  atftp: (remote, local) => ["atftp", "-g", "-r", remote, "-l", local, hostAddress],
  "atftp with windows": (remote, local) => {
    const options = ["--option", "windowsize 8", "--option", "blksize 1024", "--option", "tsize 0"];
    return ["atftp", ...options, "-g", "-r", remote, "-l", local, hostAddress];
  },
};

async function expectAllFiles(
  machine: VmPlace,
  files: ReadonlyMap<string, Uint8Array>,
  folder: TemporaryFolder,
  client: Client,
): Promise<void> {
  for (const [name, bytes] of files) {
    const local = folder.file(`got-${name}`);
    const { exitCode } = await runProgram([...machine.enter, ...client(name, local)]);
    expect({ name, exitCode }).toEqual({ name, exitCode: 0 });
    expect(Buffer.compare(readFileSync(local), bytes)).toBe(0);
  }
}

skipUnless("TFTP", features, () => {
  test.each(Object.entries(clients))("%s gets every file, whole", async (_name, client) => {
    using folder = temporaryFolder();
    using local = temporaryFolder();
    await using network = await withMachines(1);
    const { path, files } = bootFolder(folder);
    await using boot = await startNetworkBoot(network.host, { bootFolder: path });
    await expectAllFiles(network.first, files, local, client);
    const { tftp } = await boot.counters();
    expect(tftp).toMatchObject({ malformed: 0, unsent: 0, strangers: 0 });
    expect(tftp.endings["done"]).toBe(files.size);
  });

  test("what is not on its list is not there, whatever it is called", async () => {
    using folder = temporaryFolder();
    await using network = await withMachines(1);
    const { path } = bootFolder(folder);
    symlinkSync("/etc/passwd", `${path}/link`);
    await using boot = await startNetworkBoot(network.host, { bootFolder: path });
    const names = ["../../etc/passwd", "/etc/passwd", "link", "./vmlinuz", "vmlinuz/../link", "."];
    for (const name of names) {
      const url = `tftp://${hostAddress}//${name}`;
      const argv = [...network.first.enter, "curl", "-s", "--path-as-is", "-o", "/dev/null", url];
      // CURLE_TFTP_NOTFOUND
      expect({ name, code: (await runProgram(argv)).exitCode }).toEqual({ name, code: 68 });
    }
    const put = ["tftp", "-p", "-l", `${path}/vmlinuz`, "-r", "vmlinuz", hostAddress];
    const { stderr } = await runProgram([...network.first.enter, "/bin/busybox", ...put]);
    expect(stderr).toContain("Nothing is written");
    expect((await boot.counters()).tftp["refused"]).toBe(names.length + 1);
  });

  test("a file that was changed is refused, over HTTP too", async () => {
    using folder = temporaryFolder();
    await using network = await withMachines(1);
    const { path } = bootFolder(folder);
    await using boot = await startNetworkBoot(network.host, { bootFolder: path });
    appendFileSync(`${path}/vmlinuz`, "more");
    const argv = ["curl", "-s", "-o", "/dev/null", `tftp://${hostAddress}/vmlinuz`];
    expect((await runProgram([...network.first.enter, ...argv])).exitCode).not.toBe(0);
    await boot.program.said(/TFTP refused: .*The file has changed: "vmlinuz"/);
    expect((await curl(network.first, `${base}/vmlinuz`)).status).toBe(503);
    expect((await curl(network.first, `${base}/initramfs`, ["-o", "/dev/null"])).status).toBe(200);
  });

  test("a request of a forged address is answered a named number of times", async () => {
    using folder = temporaryFolder();
    await using network = await withMachines(2);
    const [sender, victim] = network.machines;
    if (sender === undefined || victim === undefined) throw new RangeError("Two machines");
    const { path } = bootFolder(folder);
    await using boot = await startNetworkBoot(network.host, { bootFolder: path });
    const sniffer = startInPlace(victim, "packet-sniffer.ts", { interface: "eth0" });
    await using _sniffer = sniffer;
    await sniffer.said(/listening/);
    const send = { interface: "eth0", to: hostAddress, from: victim.address, file: "vmlinuz" };
    await using sending = startInPlace(sender, "send-tftp.ts", send);
    expect((await sending.ended()).exitCode).toBe(0);
    await boot.program.said(/TFTP vmlinuz to 10\.100\.1\.2: no answer/);
    const { tftp } = await boot.counters();
    expect(tftp).toMatchObject({ blocks: 1 + UNANSWERED_REPEATS, repeats: UNANSWERED_REPEATS });
    // DATA 1 of 516 bytes, after the headers of IP and UDP.
    const frames = sniffer.output.stdout.matchAll(/^frame 45\w{54}00030001\w{1024}$/gm);
    expect([...frames].length).toBe(1 + UNANSWERED_REPEATS);
  });
});

const debian = [...features, program("atftp", "atftp"), file("/usr/bin/tftp", "tftp-hpa")];

skipUnless("TFTP with Debian's clients", debian, () => {
  test.each(Object.entries(debianClients))("%s gets every file, whole", async (_name, client) => {
    using folder = temporaryFolder();
    using local = temporaryFolder();
    await using network = await withMachines(1);
    const { path, files } = bootFolder(folder);
    await using boot = await startNetworkBoot(network.host, { bootFolder: path });
    await expectAllFiles(network.first, files, local, client);
    expect((await boot.counters()).tftp.endings["done"]).toBe(files.size);
  });
});

skipUnless("files over HTTP", features, () => {
  test("whole, in parts, and by their heads", async () => {
    using folder = temporaryFolder();
    using local = temporaryFolder();
    await using network = await withMachines(1);
    const { path, files } = bootFolder(folder);
    await using _boot = await startNetworkBoot(network.host, { bootFolder: path });
    for (const [name, bytes] of files) {
      const got = local.file(name);
      const argv = ["curl", "-s", "-f", "-o", got, `${base}/${name}`];
      expect((await runProgram([...network.first.enter, ...argv])).exitCode).toBe(0);
      expect(Buffer.compare(readFileSync(got), bytes)).toBe(0);
    }
    const kernel = files.get("vmlinuz") ?? new Uint8Array(0);
    for (const [range, first, last] of [
      ["100-199", 100, 199],
      ["299990-", 299_990, 299_999],
      ["-5", 299_995, 299_999],
      ["299999-400000", 299_999, 299_999],
    ] as const) {
      const got = local.file("part");
      const words = ["-D", "-", "-r", range, "-o", got];
      const argv = ["curl", "-s", ...words, `${base}/vmlinuz`];
      const { stdout } = await runProgram([...network.first.enter, ...argv]);
      expect(stdout).toContain("HTTP/1.1 206");
      expect(stdout).toContain(`Content-Range: bytes ${first}-${last}/300000`);
      expect(Buffer.compare(readFileSync(got), kernel.subarray(first, last + 1))).toBe(0);
    }
    const outside = await curl(network.first, `${base}/vmlinuz`, ["-r", "300000-"]);
    expect(outside.status).toBe(416);
    expect(outside.head).toContain("Content-Range: bytes */300000");
    const head = await curl(network.first, `${base}/snponly.efi`, ["-I"]);
    expect(head.status).toBe(200);
    expect(head.head + head.text).toContain("Content-Length: 173792");
    expect(head.head + head.text).toContain("Content-Type: application/efi");
  });

  test("one connection for several, and nothing else is served", async () => {
    using folder = temporaryFolder();
    await using network = await withMachines(1);
    const { path } = bootFolder(folder);
    await using boot = await startNetworkBoot(network.host, { bootFolder: path });
    const urls = ["vmlinuz", "initramfs"].flatMap((name) => ["-o", "/dev/null", `${base}/${name}`]);
    await runProgram([...network.first.enter, "curl", "-s", ...urls]);
    expect((await boot.counters()).http).toMatchObject({ connections: 1, requests: 2 });
    for (const [url, words, status] of [
      ["/", [], 404],
      ["/metrics", [], 404],
      ["//vmlinuz", [], 404],
      ["/..%2f..%2fetc/passwd", [], 404],
      ["/../../etc/passwd", ["--path-as-is"], 404],
      ["/vmlinuz", ["-X", "DELETE"], 405],
      ["/vmlinuz", ["-d", "a=b"], 413],
      ["/vmlinuz", ["-H", `X: ${"a".repeat(9_000)}`], 400],
    ] as const) {
      const answer = await curl(network.first, `${base}${url}`, words);
      expect({ url, status: answer.status }).toEqual({ url, status });
    }
  });
});

const mac = "52:54:00:00:00:07";
const uuid = "00112233-4455-6677-8899-aabbccddeeff";

skipUnless("boot scripts", features, () => {
  test("first how to ask, then what was decided", async () => {
    using folder = temporaryFolder();
    await using network = await withMachines(1);
    const { path } = bootFolder(folder);
    const known = "52:54:00:00:00:08";
    const broken = "52:54:00:00:00:09";
    const wrong = "52:54:00:00:00:0a";
    await using boot = await startNetworkBoot(network.host, {
      bootFolder: path,
      decisions: {
        [mac]: { kind: "run", parameters: [["hostler.vetting.run", "12"]] },
        [known]: { kind: "disk", reason: "no-run" },
        [broken]: "throw",
        [wrong]: { kind: "run", parameters: [["token", "two words"]] },
      },
    });
    const script = async (search: string) => {
      return await curl(network.first, `${base}/boot.ipxe${search}`, ["-g"]);
    };
    expect((await script("")).text).toContain(`chain --replace ${base}/boot.ipxe?mac=`);
    const booted = await script(`?mac=${mac}&serial=SN%201&uuid=${uuid}`);
    expect(booted.head).toContain("Cache-Control: no-store");
    expect(booted.text).toContain(
      `kernel ${base}/vmlinuz initrd=initramfs hostler.vetting.run=12\n`,
    );
    await boot.program.said(
      new RegExp(`asked {"mac":"${mac}","serial":"SN 1","uuid":"${uuid}","peer":"10.100.1.1"}`),
    );
    expect((await script(`?mac=${known}`)).text).toContain("has no run to boot for");
    expect((await script("?mac=52:54:00:ff:ff:ff")).text).toContain("noted for enrolment");
    expect((await script(`?mac=${broken}`)).text).toContain("Nothing can be decided");
    await boot.program.said(/cannot be decided: The database is away/);
    expect((await script(`?mac=${wrong}`)).text).toContain("Nothing can be decided");
    const hostile = await script("?mac=$\u007bnet0/mac}%0Aboot");
    expect(hostile.status).toBe(400);
    expect(hostile.text).not.toContain("net0");
    expect((await boot.counters()).scripts).toEqual({
      chain: 1,
      boot: 1,
      "no-run": 1,
      unknown: 1,
      unavailable: 2,
      refused: 1,
    });
  });

  test("who asks too often is told to wait", async () => {
    using folder = temporaryFolder();
    await using network = await withMachines(1);
    const { path } = bootFolder(folder);
    await using boot = await startNetworkBoot(network.host, { bootFolder: path });
    const url = `${base}/boot.ipxe?mac=${mac}&n=[1-20]`;
    const argv = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}\\n", url];
    const { stdout } = await runProgram([...network.first.enter, ...argv]);
    expect(stdout.match(/200/g)?.length).toBeGreaterThanOrEqual(10);
    expect(stdout.match(/429/g)?.length).toBeGreaterThanOrEqual(5);
    await boot.program.said(/boot script over the rate: 10.100.1.1/);
  });
});

/** The compiled orchestrator on the host of a network, with its bridge to boot from. */
class BootOrchestrator extends DurableOrchestrator {
  bootFolder = "";

  override get argv(): readonly string[] {
    const folders = ["--boot-dir", this.bootFolder, "--ipxe-dir", this.bootFolder];
    const flags = ["--listen-boot", "vms", "--boot-parameter", "console=ttyS0,115200n8"];
    return [...super.argv, ...flags, ...folders];
  }
}

skipUnless("the orchestrator", features, () => {
  test("a host boots into its run inside its window; others are noted, or go on", async () => {
    using folder = temporaryFolder();
    await using network = await withMachines(1);
    await using orchestrator = new BootOrchestrator();
    orchestrator.before = network.host.enter;
    orchestrator.address = `${hostAddress}:7443`;
    orchestrator.bootFolder = bootFolder(folder).path;
    await orchestrator.start();
    const script = async (card: string) => {
      return (await curl(network.first, `${base}/boot.ipxe?mac=${card}`)).text;
    };
    const stranger = "52:54:00:ff:ff:ff";
    expect(await script(stranger)).toContain("noted for enrolment");
    const { hosts } = await orchestrator.call(vettingApi.hosts, {});
    expect(hosts).toMatchObject([{ mac: stranger, enrolled: false }]);
    const run = await orchestrator.prepare();
    const first = await script(runMac);
    const { shown } = await orchestrator.call(identityApi.certificatesList, {});
    const [, token = ""] = /hostler\.vetting\.token=(\S+)/.exec(first) ?? [];
    expect(token).toMatch(new RegExp(`^hostler-run-b-${run}-[\\w-]{43}$`));
    expect(first).toContain(
      `kernel ${base}/vmlinuz initrd=initramfs console=ttyS0,115200n8 ` +
        `hostler.vetting.orchestrator=https://${hostAddress}:7443 hostler.vetting.run=${run} ` +
        `hostler.vetting.token=${token} hostler.vetting.mac=${runMac} ` +
        `hostler.vetting.pin=${shown}\n`,
    );
    expect((await orchestrator.call(vettingApi.run, { run })).state).toBe("Booting");
    const second = await script(runMac);
    expect(second).toContain("hostler.vetting.token=");
    expect(second).not.toContain(token);
    await orchestrator.call(vettingApi.hostWindow, { mac: runMac, for_ms: 0 });
    expect(await script(runMac)).toContain("The boot window of the run of this machine is closed");
    const { stderr } = await orchestrator.stop();
    expect(stderr).toContain(`boot ${runMac}: the live image, asked by ${network.first.address}`);
    expect(stderr).not.toContain(token);
  });

  test("it does not start without what is to be booted, and says what to do", async () => {
    using folder = temporaryFolder();
    await using network = await withMachines(1);
    await using orchestrator = new BootOrchestrator();
    orchestrator.before = network.host.enter;
    orchestrator.address = `${hostAddress}:7443`;
    orchestrator.bootFolder = bootFolder(folder, { initramfs: undefined }).path;
    const { exitCode, stderr } = await orchestrator.refused();
    expect(exitCode).toBe(111);
    expect(stderr).toContain("Make it with images/live, and name its folder with --boot-dir.");
  });
});

skipUnless("proxyDHCP", features, () => {
  test("firmware is told what to load; everybody else nothing", async () => {
    using folder = temporaryFolder();
    await using network = await makeVmNetwork(2);
    const [machine, other] = network.machines;
    if (machine === undefined || other === undefined) throw new RangeError("Two machines");
    const { path } = bootFolder(folder);
    await using boot = await startNetworkBoot(network.host, { bootFolder: path });
    await using outside = await startSniffer(network);
    const sniff = (place: VmPlace) =>
      startInPlace(place, "packet-sniffer.ts", { interface: "eth0" });
    await using own = sniff(machine);
    await using others = sniff(other);
    await own.said(/listening/);
    await others.said(/listening/);
    const discover = ovmfPxeDiscover.slice();
    discover.set(Uint8Array.fromHex(machine.macAddress.replaceAll(":", "")), 28);
    const plain = clientBytes("discover", { hardwareAddress: machine.macAddress });
    const disguised = ovmfPxeDiscover.toHex();
    const payloads = [plain.toHex(), disguised, "00", discover.toHex()];
    const send = { interface: "eth0", from: "0.0.0.0", payloads };
    await using sending = startInPlace(machine, "send-dhcp.ts", send);
    expect((await sending.ended()).exitCode).toBe(0);
    const [, payload = ""] = await own.said(/^frame 45\w{38}00430044\w{8}(\w+)$/m);
    const answer = parseMessage(Uint8Array.fromHex(payload));
    expect(answer).toMatchObject({
      ok: true,
      value: { type: "offer", yourAddress: "0.0.0.0", hardwareAddress: machine.macAddress },
    });
    expect(Buffer.from(payload, "hex").toString("latin1")).toContain("snponly.efi");
    const { dhcp } = await boot.counters();
    expect(dhcp).toMatchObject({ received: 4, offers: 1, disguised: 1, malformed: 1 });
    expect(dhcp.unanswered["not of firmware that boots"]).toBe(1);
    await boot.program.said(new RegExp(`boot ${machine.macAddress}: offered snponly.efi`));
    // The answer goes to its card alone, and nothing by another interface.
    expect(others.output.stdout).not.toContain("00430044");
    expect(await outside.frames()).toEqual([]);
  });

  test("nobody is served by another interface", async () => {
    using folder = temporaryFolder();
    await using network = await withMachines(1);
    const { path } = bootFolder(folder);
    await using boot = await startNetworkBoot(network.host, { bootFolder: path });
    await ip(network.outside, `route add ${hostAddress} via ${outsideHostAddress}`);
    const outside = async (...words: string[]) => {
      return (await runProgram([...network.outside.enter, "curl", "-s", "-m", "5", ...words]))
        .exitCode;
    };
    // CURLE_COULDNT_CONNECT: the port is nobody's there.
    expect(await outside(`${base}/vmlinuz`)).toBe(7);
    expect(await outside(`http://${outsideHostAddress}:8067/vmlinuz`)).toBe(7);
    expect(await outside("--connect-timeout", "1", `tftp://${hostAddress}/vmlinuz`)).not.toBe(0);
    expect(await boot.counters()).toMatchObject({
      http: { connections: 0, requests: 0 },
      tftp: { requests: 0 },
    });
    expect((await curl(network.first, `${base}/vmlinuz`, ["-o", "/dev/null"])).status).toBe(200);
  });
});

skipUnless("starting", features, () => {
  const refusal = async (
    network: VmNetwork,
    options: Parameters<typeof startNetworkBoot>[1],
  ): Promise<string> => {
    await using boot = await startNetworkBoot(network.host, options);
    return boot.program.output.stdout.trim();
  };

  test("a card whose cable is not in yet is served", async () => {
    using folder = temporaryFolder();
    await using network = await makeVmNetwork(0);
    await ip(network.host, "link add card type veth peer name cable");
    await ip(network.host, "address add 10.101.0.1/24 dev card");
    await ip(network.host, "link set card up");
    const { path } = bootFolder(folder);
    await using boot = await startNetworkBoot(network.host, {
      bootFolder: path,
      interface: "card",
    });
    expect(boot.program.output.stdout).toContain("serving http://10.101.0.1:8067");
  });

  test("an interface that goes away is told", async () => {
    using folder = temporaryFolder();
    await using network = await makeVmNetwork(0);
    await ip(network.host, "link add card type veth peer name cable");
    await ip(network.host, "address add 10.101.0.1/24 dev card");
    await ip(network.host, "link set card up");
    const { path } = bootFolder(folder);
    await using boot = await startNetworkBoot(network.host, {
      bootFolder: path,
      interface: "card",
    });
    await ip(network.host, "link delete card");
    await boot.program.said(/Network boot hears nothing any more/);
  });

  test("what is missing, wrong or taken is said, with what to do", async () => {
    using folder = temporaryFolder();
    await using network = await makeVmNetwork(0);
    const { path } = bootFolder(folder);
    await using first = await startNetworkBoot(network.host, { bootFolder: path });
    expect(first.program.output.stdout).toContain(`serving ${base}`);
    await first.program.said(/boot file snponly.efi: 173792 bytes, SHA-256 [0-9a-f]{64}, from/);
    expect(await refusal(network, { bootFolder: path })).toMatch(
      /^refused NetworkBootRefused: .*another program has one of its ports/,
    );
    expect(await refusal(network, { bootFolder: path, interface: "nowhere" })).toMatch(
      /expected an interface with an IPv4 address/,
    );
    expect(await refusal(network, { bootFolder: path, address: "10.1.1.1" })).toMatch(
      /vms has 10.100.0.1. Name one of those/,
    );
    for (const [name, bytes, words] of [
      ["initramfs", undefined, /initramfs is not there: .*Make it with images\/live/],
      ["undionly.kpxe", undefined, /has undionly.kpxe, .*Install Debian's package ipxe/],
      ["snponly.efi", undefined, /has snponly.efi or ipxe.efi, iPXE for uefi-x64/],
      ["vmlinuz", new Uint8Array(0), /expected a regular file of 1 to .* found 0 bytes/],
      ["snponly.efi", efiProgram(0xaa64, 9_000), /expected machine 0x8664, found 0xaa64/],
      ["undionly.kpxe", efiProgram(0x8664, 9_000), /expected a boot program of BIOS/],
    ] as const) {
      using other = temporaryFolder();
      const { path: lacking } = bootFolder(other, { [name]: bytes });
      expect(await refusal(network, { bootFolder: lacking })).toMatch(words);
    }
  });
});
