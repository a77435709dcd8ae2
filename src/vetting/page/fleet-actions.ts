import type { SpecSummary } from "../protocol-api.ts";
import type { HostView } from "../protocol-operator.ts";
import { ask } from "./ask.ts";
import { element, field } from "./dom.ts";
import type { Shell } from "./shell.ts";

/** A host is taken in, or its next run begins. */

export function openTakeIn(host: HostView, shell: Shell): void {
  const name = element("input", { name: "name", value: host.name, required: true, maxlength: 63 });
  shell.dialog({
    title: `Take ${host.mac} in`,
    content: [field("Name", name)],
    action: "Take in",
    act: () => ask("POST", "/v1/vetting/hosts", { mac: host.mac, name: name.value }),
  });
}

export async function openStart(host: HostView, shell: Shell): Promise<void> {
  const told = await shell.attempt(() =>
    ask<{ readonly specs: readonly SpecSummary[] }>("GET", "/v1/vetting/specs"),
  );
  if (told === undefined) return;
  if (told.specs.length === 0) {
    shell.tell("There is no spec that a host could be held to: hostler vetting spec put FILE.");
    return;
  }
  const options = told.specs.map(({ name, revision }) =>
    element(
      "option",
      { value: name, selected: name === host.spec },
      `${name}, revision ${revision}`,
    ),
  );
  const spec = element("select", { name: "spec", required: true }, ...options);
  const minutes = element("input", {
    ...{ name: "window", type: "number", min: 1, max: 43_200, value: 30, required: true },
  });
  shell.dialog({
    title: `Vet ${host.name}`,
    content: [
      field("Spec", spec),
      field("It may boot for so many minutes", minutes, "Then it gets no token any more"),
    ],
    action: "Begin the run",
    act: () =>
      ask("POST", "/v1/vetting/runs", {
        ...{ mac: host.mac, spec: spec.value, window_ms: Number(minutes.value) * 60_000 },
      }),
  });
}
