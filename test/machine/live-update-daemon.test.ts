/** luod and luoctl over real kexecs, with clients that save real memory. */

import { expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { liveUpdateFeatures, liveUpdateGuest, python } from "../support/guest/live-update-guest.ts";
import { onlyInAll } from "../support/rotation.ts";
import { program, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const limitMilliseconds = 6 * 60_000;
const socket = "/run/luod/liveupdate.sock";

/** Waits for a file or a word of luoctl, as an operator's script does. */
const helpers = `
until_said() {
  for i in $(seq 600); do grep -q "$1" "$2" && return 0; usleep 100000; done
  cat "$2"
  return 1
}
start_luod() { luod "$@" >/tmp/luod.log 2>&1 & until_said "listening at" /tmp/luod.log; }
fail() { echo "HOSTLER-NOTE failed: $*"; cat /tmp/*.log; exit 1; }
`;

const before = (client: string) => `
. ./helpers
start_luod || fail luod
${client} before ${socket} table 64 42 >/tmp/client.log 2>&1 &
until_said "subscribed" /tmp/client.log || fail client
luoctl load /boot/vmlinuz --reuse-cmdline || fail load
luoctl list
grep "client has" /tmp/client.log
luoctl kexec || fail kexec
sleep 60
fail "the kernel was not entered"
`;

const after = (client: string) => `
. ./helpers
start_luod || fail luod
luoctl status
${client} after ${socket} table >/tmp/client.log 2>&1 || fail claim
cat /tmp/client.log
luoctl sessions
luoctl finish table || fail finish
luoctl status | sed 's/^/HOSTLER-NOTE /'
`;

/** Its table of 64 MiB comes over a kexec as it was. */
async function keepsTable(client: string, content: Uint8Array): Promise<void> {
  const { lines, passed } = await liveUpdateGuest({
    name: `a bare client: ${client}`,
    files: { client: content, helpers },
    stages: [{ script: before(client) }, { script: after(client) }],
  });
  const text = lines.join("\n");
  expect(passed, text.slice(-8000)).toBe(true);
  const [, had = "absent"] = /client has (\d+ \w+)/.exec(text) ?? [];
  expect(text).toContain(`client found ${had}`);
}

skipUnless("luod over a kexec", [...liveUpdateFeatures, python], () => {
  test(
    "a client in Python that knows only luo-agent's words keeps 64 MiB",
    () => keepsTable("python3 ./client", readFileSync("test/machine/guest/bare-client.py")),
    limitMilliseconds,
  );
});

onlyInAll(() => {
  const gcc = program("gcc", "gcc");
  skipUnless("luod over a kexec, with a client in C", [...liveUpdateFeatures, gcc], () => {
    test(
      "a client in C that knows only luo-agent's words keeps 64 MiB",
      async () => {
        using folder = temporaryFolder();
        const file = folder.file("bare-client");
        const words = ["-O1", "-static", "-o", file, "test/machine/guest/bare-client.c"];
        const { status, stderr } = spawnSync("gcc", words, { encoding: "utf8" });
        expect(status, stderr).toBe(0);
        await keepsTable("./client", readFileSync(file));
      },
      limitMilliseconds,
    );
  });
});
