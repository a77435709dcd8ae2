/** `programs/vm-services.ts` in a host's namespace, and what it goes by. */
import { renameSync, writeFileSync } from "node:fs";
import { type Program, startProgram } from "./program.ts";
import type { ServiceFacts, ServiceOptions } from "./programs/vm-services.ts";
import type { TemporaryFolder } from "./temporary-folder.ts";
import { bridge, hostAddress, type Place, startInPlace } from "./vm-network.ts";

export interface Services extends AsyncDisposable {
  readonly program: Program;
  /** Goes by these from the next question on. */
  change(facts: ServiceFacts): void;
  counters(): Promise<{ dhcp: Record<string, number>; dns: Record<string, number> }>;
}

export async function startServices(
  place: Place,
  folder: TemporaryFolder,
  services: ServiceOptions["services"],
  facts: ServiceFacts,
): Promise<Services> {
  const path = folder.file("facts.json");
  const change = (next: ServiceFacts) => {
    writeFileSync(`${path}.new`, JSON.stringify(next));
    renameSync(`${path}.new`, path);
  };
  change(facts);
  const options: ServiceOptions = {
    interface: bridge,
    serverAddress: hostAddress,
    prefixLength: 16,
    services,
    facts: path,
  };
  const program = startInPlace(place, "vm-services.ts", options);
  await program.said(/^(serving|refused .*)$/m);
  const counters = async () => {
    const before = [...program.output.stdout.matchAll(/^counters .*$/gm)].length;
    program.kill("SIGUSR2");
    const [, text = ""] = await program.said(
      new RegExp(`(?:^counters .*$[^]*?){${before}}^counters (.*)$`, "m"),
    );
    return JSON.parse(text);
  };
  return { program, change, counters, [Symbol.asyncDispose]: () => program[Symbol.asyncDispose]() };
}

/** Debian's own client. Its script keeps what it was told in FILE.bound and FILE.renew. */
export function startClient(
  place: Place,
  folder: TemporaryFolder,
  options: {
    readonly name: string;
    /** eth0 without it. */
    readonly card?: string;
    readonly words?: readonly string[];
  },
): { readonly program: Program; readonly told: string } {
  const told = folder.file(options.name);
  const script = folder.file(`${options.name}.sh`);
  writeFileSync(
    script,
    [
      "#!/bin/sh",
      'case "$1" in bound)',
      "ip address flush dev $interface",
      "ip address add $ip/$mask dev $interface",
      "[ -z $router ] || ip route add default via $router;; esac",
      `env > ${told}.new && mv ${told}.new ${told}.$1`,
      "echo told $1",
    ].join("\n"),
    { mode: 0o755 },
  );
  const words = [
    "udhcpc",
    "-i",
    options.card ?? "eth0",
    "-f",
    "-t",
    "4",
    "-T",
    "1",
    "-A",
    "1",
    "-s",
    script,
  ];
  const argv = [...place.enter, "/bin/busybox", ...words, ...(options.words ?? [])];
  return { program: startProgram(argv), told };
}
