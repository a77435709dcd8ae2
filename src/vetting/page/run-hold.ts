import type { RunView } from "../protocol-operator.ts";
import { ask } from "./ask.ts";
import { button, element, facts, field, section } from "./dom.ts";
import { durationText } from "./format.ts";
import type { Shell } from "./shell.ts";
import { every } from "./timers.ts";

/** A host that holds: who may come in, and for how long still. */

export function holdSection(view: RunView, shell: Shell): HTMLElement | undefined {
  const { hold } = view;
  if (hold === null || view.verdict !== null) return undefined;
  const until = hold.key_until === null ? undefined : Date.parse(hold.key_until);
  const made = section(
    "It holds",
    facts([
      ["key", until === undefined ? "there is none: nobody can come in" : countdown(until)],
      ["SSH host key", hold.host_key === null ? null : element("code", {}, hold.host_key)],
      ["come in by", until === undefined ? null : element("code", {}, `ssh root@${view.address}`)],
    ]),
    element(
      "div",
      { class: "actions" },
      button(until === undefined ? "Give a key…" : "Give another…", () => openKey(view, shell), {
        "data-key": "key",
      }),
      button("Release…", () => openRelease(view, shell)),
    ),
  );
  made.classList.add("panel");
  return made;
}

/** The time goes on while nothing is told. */
function countdown(until: number): HTMLElement {
  const place = element("span", { role: "timer" });
  const draw = () => {
    const left = until - Date.now();
    place.textContent = left > 0 ? `for ${durationText(left)} more` : "has expired";
  };
  draw();
  const end = every(1_000, () => {
    if (place.isConnected) draw();
    else end();
  });
  return place;
}

function openKey(view: RunView, shell: Shell): void {
  const key = element("textarea", {
    ...{ name: "key", rows: 4, required: true, spellcheck: "false" },
    placeholder: "ssh-ed25519 AAAA… alice",
  });
  const minutes = element("input", {
    ...{ name: "minutes", type: "number", min: 1, max: 10_080, value: 60, required: true },
  });
  shell.dialog({
    title: `A key for ${view.host}`,
    content: [
      field("Public key of OpenSSH", key, "The private one stays where it is"),
      field("For so many minutes", minutes, "Then the key goes, and its sessions end"),
    ],
    action: "Give it",
    act: () =>
      ask("POST", `/v1/vetting/runs/${view.run}/key`, {
        ...{ key: key.value.trim(), for_ms: Number(minutes.value) * 60_000 },
      }),
  });
}

function openRelease(view: RunView, shell: Shell): void {
  const choices = [
    ["shutdown", "power off"],
    ["reboot", "boot again"],
    ["stay", "stay, without a key"],
  ] as const;
  const after = element(
    "select",
    { name: "after" },
    ...choices.map(([value, label]) => element("option", { value }, label)),
  );
  shell.dialog({
    title: `Release ${view.host}`,
    content: [field("Then it is to", after, "The run ends as failed, unless it stays")],
    action: "Release",
    isDangerous: true,
    act: () => ask("POST", `/v1/vetting/runs/${view.run}/release`, { after: after.value }),
  });
}
