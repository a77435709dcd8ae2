/** luod and luoctl over real kexecs, with clients that save real memory. */

import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { liveUpdateFeatures, liveUpdateGuest, python } from "../support/guest/live-update-guest.ts";
import { skipUnless } from "../support/skips.ts";

const limitMilliseconds = 6 * 60_000;
const client = readFileSync("test/machine/guest/bare-client.py");
const socket = "/run/luod/liveupdate.sock";

/** Waits for a file or a word of luoctl, as an operator's script does. */
const helpers = `
until_said() { for i in $(seq 600); do grep -q "$1" "$2" && return 0; usleep 100000; done; cat "$2"; return 1; }
start_luod() { luod "$@" >/tmp/luod.log 2>&1 & until_said "listening at" /tmp/luod.log; }
fail() { echo "HOSTLER-NOTE failed: $*"; cat /tmp/*.log; exit 1; }
`;

skipUnless("luod over a kexec", [...liveUpdateFeatures, python], () => {
  test(
    "a client in Python that knows only luo-agent's words keeps 64 MiB",
    async () => {
      const run = await liveUpdateGuest({
        name: "a bare client",
        files: { "client.py": client, helpers },
        stages: [
          {
            script: `
. ./helpers
start_luod || fail luod
python3 ./client.py before ${socket} table 64 42 >/tmp/client.log 2>&1 &
until_said "subscribed" /tmp/client.log || fail client
luoctl load /boot/vmlinuz --reuse-cmdline || fail load
luoctl list
grep "client has" /tmp/client.log
luoctl kexec || fail kexec
sleep 60
fail "the kernel was not entered"
`,
          },
          {
            script: `
. ./helpers
start_luod || fail luod
luoctl status
python3 ./client.py after ${socket} table >/tmp/client.log 2>&1 || fail claim
cat /tmp/client.log
luoctl sessions
luoctl finish table || fail finish
luoctl status
`,
          },
        ],
      });
      const text = run.lines.join("\n");
      expect(run.passed, text.slice(-8000)).toBe(true);
      const [, had = "absent"] = /client has (\d+ \w+)/.exec(text) ?? [];
      expect(text).toContain(`client found ${had}`);
    },
    limitMilliseconds,
  );
});
