import { NetlinkSocket } from "../../ffi/netlink.ts";
import { interfaceIndex } from "../../ffi/packet-socket.ts";
import { Errno, SystemCallError } from "../../ffi/system-call-error.ts";
import { monotonicNow } from "../event-loop/clock.ts";
import type { EventLoop } from "../event-loop/event-loop.ts";
import type { MetricsRegistry } from "../http/metrics.ts";
import { RateLimiter } from "../http/rate-limiter.ts";
import { LimitedLogger } from "../logging/limited-logger.ts";
import type { Logger } from "../logging/logger.ts";
import { decodeAddress, dumpAddresses } from "../network/rtnetlink.ts";
import { formatIpv4 } from "../network/subnet.ts";
import { formatDuration } from "../units/units.ts";
import {
  BootFiles,
  type BootFolders,
  INITRAMFS,
  KERNEL,
  NetworkBootRefused,
} from "./boot-files.ts";
import { type HttpEvent, HttpListener, type ScriptAnswer } from "./http-listener.ts";
import { type Offering, SCRIPT_PATH } from "./lifecycle-choice.ts";
import { REMEMBERED_PEERS, SCRIPT_RATE, SCRIPTS_RATE } from "./limits.ts";
import {
  bootScript,
  chainScript,
  type DiskReason,
  diskReasons,
  diskScript,
  readQuery,
  refuseParameters,
  type ScriptQuery,
} from "./protocol-script.ts";
import { ProxyDhcp, type ProxyDhcpEvent } from "./proxy-dhcp.ts";
import { type TftpEvent, TftpServer } from "./tftp-server.ts";

/** Network boot on one interface: proxyDHCP, TFTP, and plain HTTP for files and scripts. */

export const BOOT_HTTP_PORT = 8_067;

/** What becomes of a machine that asks to boot: the system's own decision. */
export type BootDecision =
  /** Parameters of the kernel's command line; among them a token that was minted for this boot. */
  | {
      readonly kind: "run";
      readonly parameters: readonly (readonly [name: string, value: string | undefined])[];
    }
  | { readonly kind: "disk"; readonly reason: DiskReason };

export interface BootServiceOptions extends BootFolders {
  readonly loop: EventLoop;
  readonly logger: Logger;
  readonly interface: string;
  /** The interface's own, where it has several; undefined: its first one. */
  readonly address?: string;
  readonly port?: number;
  readonly decide: (asked: ScriptQuery & { readonly peer: string }) => Promise<BootDecision>;
}

/** Scripts that were given, by what stood in them. */
type ScriptKind = "chain" | "boot" | "over the rate" | "refused" | DiskReason;

export class BootService implements Disposable {
  /** "http://10.0.0.1:8067" */
  readonly base: string;
  readonly files: BootFiles;
  readonly scripts = new Map<ScriptKind, number>();
  readonly #options: BootServiceOptions;
  readonly #log: LimitedLogger;
  readonly #perPeer = new RateLimiter(SCRIPT_RATE, REMEMBERED_PEERS);
  readonly #all = new RateLimiter(SCRIPTS_RATE, 1);
  readonly #owned: Disposable;
  readonly proxyDhcp: ProxyDhcp;
  readonly tftp: TftpServer;
  readonly http: HttpListener;

  private constructor(options: BootServiceOptions, files: BootFiles, address: string) {
    using owned = new DisposableStack();
    const { loop, interface: device, port = BOOT_HTTP_PORT } = options;
    this.#options = options;
    this.files = owned.use(files);
    const clock = { now: monotonicNow, wakeAfter: loop.wakeAfter.bind(loop) };
    this.#log = owned.use(new LimitedLogger(options.logger, clock));
    this.base = `http://${address}:${port}`;
    const { programs, byName } = files;
    const offering: Offering = { programs, base: this.base, serverAddress: address };
    const common = { loop, interface: device, serverAddress: address, files: byName };
    this.http = owned.use(
      HttpListener.start({
        ...common,
        port,
        script: (search, peer) => this.#script(search, peer),
        onEvent: (event) => this.#tellHttp(event),
      }),
    );
    this.tftp = owned.use(
      TftpServer.start({ ...common, onEvent: (event) => this.#tellTftp(event) }),
    );
    this.proxyDhcp = owned.use(
      ProxyDhcp.start({
        loop,
        interface: device,
        offering,
        onEvent: (event) => this.#tellProxy(event),
      }),
    );
    this.#owned = owned.move();
  }

  /**
   * Opens and hashes all files, then answers.
   * @throws NetworkBootRefused with what to do
   */
  static async start(options: BootServiceOptions): Promise<BootService> {
    const { interface: device, loop, logger } = options;
    const address = addressOf(device, options.address);
    const files = await BootFiles.open(options, () => loop.letOthers());
    try {
      const service = new BootService(options, files, address);
      logger.info(
        `Network boot on ${device}: proxyDHCP and TFTP at ${address}, files at ${service.base}`,
      );
      for (const { name, path, size, sha256 } of files.byName.values()) {
        logger.info(`boot file ${name}: ${size} bytes, SHA-256 ${sha256}, from ${path}`);
      }
      return service;
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error;
      throw new NetworkBootRefused(whyNotServing(error, device), { cause: error });
    }
  }

  async #script(search: string, peer: string): Promise<ScriptAnswer> {
    const now = monotonicNow();
    if (this.#perPeer.take(peer, now) > 0 || this.#all.take("all", now) > 0) {
      this.#count("over the rate");
      this.#log.warn(`boot script over the rate: ${peer} asks too often`);
      return { status: 429, text: "Too many boots: wait a moment\n" };
    }
    const read = readQuery(search);
    switch (read.kind) {
      case "refused":
        this.#count("refused");
        this.#log.warn(`boot script refused: ${peer}: ${read.reason}`);
        return { status: 400, text: `${read.reason}\n` };
      case "bare":
        this.#count("chain");
        return { status: 200, text: chainScript(`${this.base}${SCRIPT_PATH}`) };
      case "whole":
        return { status: 200, text: await this.#scriptFor(read.query, peer) };
    }
  }

  async #scriptFor(query: ScriptQuery, peer: string): Promise<string> {
    const decision = await this.#decide(query, peer);
    if (decision.kind === "run") {
      const { parameters } = decision;
      const reason = refuseParameters({ parameters });
      if (reason === undefined) {
        this.#count("boot");
        this.#log.say("info", "boot", `boot ${query.mac}: the live image, asked by ${peer}`);
        return bootScript({ base: this.base, kernel: KERNEL, initramfs: INITRAMFS, parameters });
      }
      this.#log.say("error", "boot parameters", `boot ${query.mac}: ${reason}`);
    }
    const reason = decision.kind === "run" ? "unavailable" : decision.reason;
    this.#count(reason);
    this.#log.say("info", "boot", `boot ${query.mac}: from its disk. ${diskReasons[reason]}`);
    return diskScript(reason);
  }

  /** A machine that boots is not left at a prompt because we cannot decide. */
  async #decide(query: ScriptQuery, peer: string): Promise<BootDecision> {
    try {
      return await this.#options.decide({ ...query, peer });
    } catch (error) {
      const words = error instanceof Error ? error.message : String(error);
      this.#log.say("error", "boot decision", `boot ${query.mac}: cannot be decided: ${words}`);
      return { kind: "disk", reason: "unavailable" };
    }
  }

  #count(kind: ScriptKind): void {
    this.scripts.set(kind, (this.scripts.get(kind) ?? 0) + 1);
  }

  #tellProxy(event: ProxyDhcpEvent): void {
    switch (event.kind) {
      case "offered":
        this.#log.say("info", "offered", `boot ${event.macAddress}: offered ${event.bootFile}`);
        break;
      case "refused":
        this.#log.warn(`boot refused: ${event.macAddress}: ${event.reason}`);
        break;
      case "lost":
        this.#options.logger.error(
          `Network boot hears nothing any more (${event.reason}): start it again when the ` +
            "interface is there",
        );
        break;
    }
  }

  #tellTftp(event: TftpEvent): void {
    if (event.kind === "refused") {
      this.#log.warn(`TFTP refused: ${event.peer}: ${event.reason}`);
      return;
    }
    const { peer, file, ending, text, milliseconds } = event;
    const level = ending === "done" || ending === "ended by the client" ? "info" : "warn";
    const said = text === undefined ? "" : ` (${text})`;
    const time = formatDuration(Math.round(milliseconds));
    this.#log.say(level, `TFTP ${ending}`, `TFTP ${file} to ${peer}: ${ending}${said}, ${time}`);
  }

  #tellHttp(event: HttpEvent): void {
    if (event.kind === "refused")
      this.#log.warn(`boot file refused: ${event.peer}: ${event.reason}`);
    else {
      const { peer, file, bytes } = event;
      this.#log.say("info", "boot file", `boot file ${file} to ${peer}: ${bytes} bytes`);
    }
  }

  /** Has what it counts told with a daemon's other metrics. */
  measure(metrics: MetricsRegistry): void {
    const { proxyDhcp, tftp, http, scripts } = this;
    const samples = (label: string, counts: Iterable<readonly [string, number]>) =>
      [...counts].map(([name, value]) => ({ labels: { [label]: name }, value }));
    metrics.collect(
      { name: "hostler_boot_dhcp_messages_total", help: "Messages of firmware, by what became" },
      "counter",
      () => {
        const { unanswered, received: _, ...counted } = proxyDhcp.counters;
        return samples("outcome", [...Object.entries(counted), ...Object.entries(unanswered)]);
      },
    );
    metrics.collect(
      { name: "hostler_boot_tftp_transfers_total", help: "TFTP transfers, by how they ended" },
      "counter",
      () => samples("ending", Object.entries(tftp.counters.endings)),
    );
    metrics.collect(
      { name: "hostler_boot_tftp_requests_total", help: "TFTP requests that began no transfer" },
      "counter",
      () => {
        const { malformed, refused, overLimit } = tftp.counters;
        return samples("reason", Object.entries({ malformed, refused, overLimit }));
      },
    );
    metrics.collect(
      { name: "hostler_boot_http_bytes_total", help: "Bytes of boot files and scripts over HTTP" },
      "counter",
      () => [{ labels: {}, value: http.counters.bytes }],
    );
    metrics.collect(
      { name: "hostler_boot_scripts_total", help: "Boot scripts, by what stood in them" },
      "counter",
      () => samples("kind", scripts),
    );
  }

  [Symbol.dispose](): void {
    this.#owned[Symbol.dispose]();
  }
}

/**
 * Of the kernel itself: node:os leaves out a card whose cable is not in yet.
 * @throws NetworkBootRefused without such an interface or address
 */
function addressOf(device: string, wanted: string | undefined): string {
  const index = interfaceIndex(device);
  using route = new NetlinkSocket("route");
  const own = route
    .dump(dumpAddresses())
    .map(decodeAddress)
    .filter((address) => address.index === index)
    .map(({ address }) => formatIpv4(address));
  const [first] = own;
  if (first === undefined) {
    throw new NetworkBootRefused(
      `Cannot serve network boot on ${device}: expected an interface with an IPv4 address. ` +
        "Give it one; those that boot must reach it.",
    );
  }
  if (wanted === undefined) return first;
  if (own.includes(wanted)) return wanted;
  throw new NetworkBootRefused(
    `Cannot serve network boot at ${wanted}: ${device} has ${own.join(", ")}. Name one of those.`,
  );
}

const portsOfBoot = "UDP 69 (TFTP) and 4011 (PXE), and the TCP port of the boot files";

function whyNotServing({ errno }: SystemCallError, device: string): string {
  if (errno === Errno.EADDRINUSE) {
    return (
      `Cannot serve network boot on ${device}: another program has one of its ports: ` +
      `${portsOfBoot}. Stop it there; a DHCP server at port 67 may stay.`
    );
  }
  return (
    `Cannot serve network boot on ${device}. It needs root, or CAP_NET_RAW and ` +
    "CAP_NET_BIND_SERVICE."
  );
}
