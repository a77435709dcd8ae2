/**
 * What an installation is killed in: run by the compiled file as its own Bun, with the kill points
 * of the build for fault tests. Says "DONE" at its end.
 */
import { Installation } from "../../src/fleet/perform/installation.ts";

const [act = "", folder = "", ...words] = process.argv.slice(2);
const [one = "", other = ""] = words;

const acts: Readonly<Record<string, (installation: Installation) => void>> = {
  store: (installation) => {
    process.stdout.write(`${installation.store(one, other).name}\n`);
  },
  swap: (installation) => installation.swap({ current: one, previous: other }),
  "swap-back": (installation) => {
    installation.swapBack({ current: one, previous: other === "" ? null : other });
  },
  collect: (installation) => {
    installation.collect({ keep: Number(one) });
  },
};

const run = acts[act];
if (run === undefined) throw new Error(`There is no act ${act}.`);
{
  using installation = Installation.open(folder, { make: act === "store" });
  run(installation);
}
process.stdout.write("DONE\n");
