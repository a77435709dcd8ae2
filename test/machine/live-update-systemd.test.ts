/**
 * systemd 257's own way into the next kernel. Whoever holds sessions must survive its final kill:
 * that is what our units have to say.
 */
import { expect, test } from "bun:test";
import { liveUpdateFeatures } from "../support/guest/live-update-guest.ts";
import { systemdGuest } from "../support/guest/systemd-guest.ts";
import { onlyInAll } from "../support/rotation.ts";
import { skipUnless } from "../support/skips.ts";

const program = "test/machine/guest/live-update-systemd.ts";

const survivor = `[Unit]
DefaultDependencies=no
IgnoreOnIsolate=yes
After=basic.target
Before=shutdown.target
SurviveFinalKillSignal=yes
[Service]
ExecStart=/usr/bin/guest-bun /scenario/session.js keep survivor
`;
/** It is not stopped before the final kill either, so that this alone ends it. */
const ordinary = survivor
  .replace("SurviveFinalKillSignal=yes\n", "")
  .replace("keep survivor", "keep ordinary");

const first = `
cp survivor.service ordinary.service /run/systemd/system/
systemctl daemon-reload && systemctl start survivor ordinary || exit 1
until [ -e /run/kept-survivor ] && [ -e /run/kept-ordinary ]; do
  systemctl is-active --quiet survivor && systemctl is-active --quiet ordinary || exit 1
done
guest-bun load.js && systemctl kexec`;

onlyInAll(() => {
  skipUnless("sessions in a guest with systemd", liveUpdateFeatures, () => {
    test(
      "come over a systemctl kexec with who survives the final kill",
      async () => {
        const { passed, cases, lines } = await systemdGuest({
          name: "systemctl kexec",
          stages: [{ script: first }, { script: "exec guest-bun session.js look" }],
          files: { "survivor.service": survivor, "ordinary.service": ordinary },
          programs: { load: "test/machine/guest/load-kernel.ts", session: program },
        });
        const last = lines.slice(-60).join("\n");
        expect(
          cases.map(({ outcome }) => outcome),
          last,
        ).toEqual(["ok", "ok"]);
        expect(passed, last).toBe(true);
      },
      6 * 60_000,
    );
  });
});
