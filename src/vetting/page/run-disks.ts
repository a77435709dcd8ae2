import type { Disk } from "../../hardware/inventory.ts";
import type { Dossier } from "../protocol-operator.ts";
import { ask } from "./ask.ts";
import { button, element, field, section, table } from "./dom.ts";
import { bytesText } from "./format.ts";
import type { Shell } from "./shell.ts";

/** Disks, and the interlock of what would be lost: who gives one up has to type its serial. */

export function diskSection({ inventory, spec, view }: Dossier, shell: Shell): HTMLElement {
  const disks = inventory?.disks ?? [];
  if (disks.length === 0) {
    return section("Disks", element("p", { class: "faint" }, noneText(inventory)));
  }
  const expected = new Map(
    spec.expected_disks.map(({ serial, size_bytes }) => [serial, size_bytes]),
  );
  const writes = spec.stages.Storage.mode === "verify";
  const mayBeGiven = view.state === "FailedHolding" && view.verdict === null;
  const words = writes
    ? "The stage Storage writes to disks that the spec names, and that have nothing on them."
    : "The stage Storage reads, and writes nothing.";
  return section(
    "Disks",
    element("p", {}, words),
    table(
      disks,
      [
        {
          title: "serial",
          cell: ({ serial, name }) =>
            serial === null ? `${name}, which tells none` : element("code", {}, serial),
        },
        { title: "model", cell: ({ model }) => model ?? "" },
        { title: "firmware", cell: ({ firmware }) => firmware ?? "" },
        { title: "size", kind: "number", cell: ({ size_bytes }) => bytesText(size_bytes) },
        {
          title: "spec",
          cell: ({ serial, size_bytes }) => {
            const size = serial === null ? undefined : expected.get(serial);
            if (size === undefined) return "not named";
            return size === size_bytes ? "named" : "another size";
          },
        },
        {
          title: "",
          kind: "actions",
          cell: (disk) =>
            writes && mayBeGiven && disk.serial !== null
              ? button("Give up…", () => openWipe(disk, disk.serial ?? "", view.run, shell), {
                  ...{ class: "danger", "aria-label": `Give up ${disk.serial}` },
                })
              : undefined,
        },
      ],
      "disks",
    ),
  );
}

const noneText = (inventory: Dossier["inventory"]) =>
  inventory === null
    ? "None is known yet: the stage Inventory tells them."
    : "The host has no disk that its kernel sees.";

function openWipe(disk: Disk, serial: string, run: number, shell: Shell): void {
  const typed = element("input", {
    ...{ name: "serial", autocomplete: "off", spellcheck: "false", required: true },
  });
  shell.dialog({
    title: `Give up all that is on ${serial}`,
    content: [
      element(
        "p",
        {},
        `${disk.model ?? "A disk"} of ${bytesText(disk.size_bytes)}. The stage Storage is done `,
        "again, and may write all of it. Nothing brings back what is there now.",
      ),
      field("Type the serial", typed),
    ],
    action: "Give it up, and try again",
    isDangerous: true,
    act: async () => {
      if (typed.value !== serial) {
        throw new Error(`Expected ${serial}, received ${typed.value || "nothing"}.`);
      }
      await ask("POST", `/v1/vetting/runs/${run}/retry`, { stage: "Storage", wipe: [serial] });
    },
  });
}
