/**
 * The seed's instructions on a host with systemd 257: install, systemctl enable --now luod, load,
 * luoctl kexec. What our unit says is enough for luod and its holder to live until the kernel is
 * entered, and nothing that it takes away is something that luod needs.
 */
import { expect, test } from "bun:test";
import { liveUpdateFeatures } from "../support/guest/live-update-guest.ts";
import { systemdGuest } from "../support/guest/systemd-guest.ts";
import { onlyInAll } from "../support/rotation.ts";
import { skipUnless } from "../support/skips.ts";

/** A client as others are: stopped by systemd on the way, with an id that luod knows. */
const client = `[Unit]
After=luod.service
[Service]
ExecStart=/usr/bin/hostler live-update hold --id state /run/state
`;

const helpers = `
fail() {
  echo "HOSTLER-NOTE failed: $*"
  systemctl status --no-pager --full luod client
  journalctl --no-pager -b -n 60
  exit 1
}
# Until the words after the number succeed; so many times a tenth of a second.
until_done() {
  left=$1; shift
  until "$@"; do
    left=$((left - 1)); [ $left -gt 0 ] || return 1
    usleep 100000
  done
}
subscribed() { luoctl list --json | grep -q '"state"'; }
holder() { pidof hostler | tr ' ' '\\n' | while read -r process; do
  tr '\\0' ' ' <"/proc/$process/cmdline" | grep -q -- --hold && echo "$process"
done; }
main() { systemctl show --value -p MainPID luod; }
replaced() { now=$(main) && [ "$now" -gt 0 ] && [ "$now" != "$1" ] && systemctl -q is-active luod; }
`;

// The guest's disk has no room for a second copy: the program is where it belongs already.
const first = `
. ./helpers
hostler install --role luod --prefix /usr || fail install
hostler install --role luod --prefix /usr | grep -q "Nothing to do" || fail "install again"
systemctl enable --now luod || fail enable
echo "HOSTLER-NOTE $(systemctl show -p SurviveFinalKillSignal luod)"
mkdir /run/state && echo kept >/run/state/word
cp client.service /run/systemd/system/ && systemctl daemon-reload && systemctl start client
until_done 300 subscribed || fail subscribe
luoctl kexec --dry-run || fail "dry run"
luoctl load /boot/vmlinuz --reuse-cmdline || fail load
luoctl kexec || fail kexec
`;

// The holder keeps what came over the kexec, so it has a reason to go on without luod.
const second = `
. ./helpers
until_done 600 systemctl -q is-active luod || fail "luod is not started at boot"
kept=$(holder)
was=$(main)
kill -KILL "$was"
until_done 300 replaced "$was" || fail "luod is not started again"
systemctl restart luod || fail restart
[ -n "$kept" ] && [ "$(holder)" = "$kept" ] || fail "the holder is another one: $kept, $(holder)"
echo "HOSTLER-NOTE same holder"
luoctl sessions
hostler live-update hold --id state --once /run/state || fail claim
echo "HOSTLER-NOTE found $(cat /run/state/word)"
luoctl status
hostler install --role luod --prefix /usr --remove && fail "removed while it runs"
systemctl disable --now luod || fail disable
hostler install --role luod --prefix /usr --remove --dry-run || fail remove
`;

onlyInAll(() => {
  skipUnless("luod as a service of systemd", liveUpdateFeatures, () => {
    test(
      "is installed, survives its own deaths, and carries a client over luoctl kexec",
      async () => {
        const { passed, lines } = await systemdGuest({
          name: "installed luod",
          stages: [{ script: first }, { script: second }],
          files: { "client.service": client, helpers },
          deadlineMilliseconds: 5 * 60_000,
        });
        const text = lines.join("\n");
        expect(passed, lines.slice(-120).join("\n")).toBe(true);
        expect(text).toContain("SurviveFinalKillSignal=yes");
        expect(text).toContain("NOTE same holder");
        expect(text).toContain("NOTE found kept");
      },
      6 * 60_000,
    );
  });
});
