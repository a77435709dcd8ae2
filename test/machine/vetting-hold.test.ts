/** A person comes in to a host that holds: by OpenSSH, to the live image's own server. */
import { expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { guestFeatures } from "../support/machine.ts";
import { type Program, runProgram, startProgram } from "../support/program.ts";
import { onlyInAll } from "../support/rotation.ts";
import { program, skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import type { LaboratoryHost } from "../support/vetting-laboratory.ts";
import { laboratoryImage, laboratoryPatience } from "../support/vetting-laboratory.ts";
import { LaboratoryRun } from "../support/vetting-run.ts";

const holdSeconds = 150;

onlyInAll(() => {
  const features = [...guestFeatures, program("ssh", "openssh-client")];
  skipUnless("entering a hold", features, () => {
    test(
      "a key lets its owner in until it expires, whatever the clock says, and nobody else",
      async () => {
        using folder = temporaryFolder();
        const image = await laboratoryImage();
        await using run = await LaboratoryRun.start(image, { smbios: { biosVersion: "1.0.0" } });
        await run.boot();
        await run.until("the hold", ({ view }) => view.state === "FailedHolding");
        const client = await SshClient.make(folder, await forwardSsh(run.host));
        await client.isRefused();

        const began = performance.now();
        await run.does("hold", run.number, "--key", client.publicKey, "--for", `${holdSeconds}s`);
        const { view } = await run.until("its host key", (at) => at.view.hold?.host_key != null);
        await run.host.said(/the key of the hold is in its place/);
        const told = await client.runs('echo "a  b"; cat /etc/live-release');
        expect(told).toMatchObject({ exitCode: 0 });
        expect(told.stdout).toMatch(/^a {2}b\nhostler /);
        // What the operator was told is whom the client has spoken to.
        expect(await client.seenHostKey()).toBe(view.hold?.host_key ?? "");

        await using session = client.opens("echo rea''dy");
        await session.said(/ready/, laboratoryPatience);
        // A clock that leaps ends nothing, and gives nobody more time.
        for (const year of [2099, 2001]) {
          const leap = await client.runs(`date -s ${year}-01-01 >/dev/null; date +%Y`);
          expect(leap).toMatchObject({ exitCode: 0, stdout: `${year}\n` });
        }
        const ended = await session.ended(laboratoryPatience);
        expect((performance.now() - began) / 1_000).toBeGreaterThanOrEqual(holdSeconds);
        expect(ended.exitCode).toBe(255);
        await run.host.said(/the key of the hold has expired/);
        await client.isRefused();
        expect((await run.dossier()).view.state).toBe("FailedHolding");
      },
      3 * laboratoryPatience,
    );
  });
});

/** @returns the port of loopback that leads to the host's SSH server */
async function forwardSsh(host: LaboratoryHost): Promise<number> {
  const monitor = async (line: string) =>
    `${await host.command("human-monitor-command", { "command-line": line })}`;
  expect(await monitor("hostfwd_add net0 tcp:127.0.0.1:0-:22")).toBe("");
  const table = await monitor("info usernet");
  const [, port = ""] = /TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)/.exec(table) ?? [];
  if (port === "") throw new Error(`QEMU forwards no port:\n${table}`);
  return Number(port);
}

/** OpenSSH with a key of its own, and what it remembers of servers. */
class SshClient {
  readonly #folder: TemporaryFolder;
  readonly #port: number;

  private constructor(folder: TemporaryFolder, port: number) {
    this.#folder = folder;
    this.#port = port;
  }

  static async make(folder: TemporaryFolder, port: number): Promise<SshClient> {
    const words = ["-q", "-t", "ed25519", "-N", "", "-C", "alice", "-f", folder.file("key")];
    expect(await runProgram(["ssh-keygen", ...words])).toMatchObject({ exitCode: 0 });
    writeFileSync(folder.file("known"), "");
    return new SshClient(folder, port);
  }

  get publicKey(): string {
    return this.#folder.file("key.pub");
  }

  #words(...more: readonly string[]): string[] {
    const options = {
      ...{ BatchMode: "yes", IdentitiesOnly: "yes", StrictHostKeyChecking: "accept-new" },
      ...{ UserKnownHostsFile: this.#folder.file("known"), GlobalKnownHostsFile: "/dev/null" },
      ...{ ConnectTimeout: `${laboratoryPatience / 1_000}`, LogLevel: "ERROR" },
    };
    return [
      ...["ssh", "-F", "none", "-i", this.#folder.file("key"), "-p", `${this.#port}`],
      ...Object.entries(options).flatMap(([name, value]) => ["-o", `${name}=${value}`]),
      ...more,
    ];
  }

  async runs(command: string) {
    return await runProgram(this.#words("root@127.0.0.1", command), {
      deadlineMilliseconds: laboratoryPatience,
    });
  }

  /** A shell on a terminal, as a person has it: told one line, it waits for the next. */
  opens(line: string): Program {
    // Open for both, a pipe with a name has no end.
    const script = 'mkfifo "$1" && exec 3<>"$1" && echo "$2" >&3 && shift 2 && exec "$@" <&3 3<&-';
    const words = [this.#folder.file("keyboard"), line, ...this.#words("-tt", "root@127.0.0.1")];
    return startProgram(["sh", "-c", script, "sh", ...words]);
  }

  async isRefused(): Promise<void> {
    const { exitCode, stderr } = await this.runs("true");
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 255 });
    expect(stderr).toContain("Permission denied (publickey)");
  }

  /** As ssh-keygen tells it of what it remembered: "SHA256:… (ED25519)". */
  async seenHostKey(): Promise<string> {
    const known = this.#folder.file("known");
    const { stdout } = await runProgram(["ssh-keygen", "-l", "-f", known]);
    const [, digest, type] = /(SHA256:\S+) .* (\(\S+\))\s*$/.exec(stdout) ?? [];
    if (digest === undefined) throw new Error(`No key in ${readFileSync(known, "utf8")}`);
    return `${digest} ${type}`;
  }
}
