import * as v from "valibot";
import { describeIssues } from "../../messaging/describe-issues.ts";
import type { Bytes } from "../../units/units.ts";
import type { VmConfig } from "./config.ts";

/**
 * What a cloud-hypervisor machine is besides its memory, as one piece of bytes: JSON with the two
 * JSON texts of the migration in it, as they came. Its numbers are never read as ours: a register
 * has 64 bits, and a number of JavaScript 53.
 */
export interface MigrationState {
  /** Slots of guest memory, in the order of the descriptors. */
  readonly slots: readonly number[];
  /** VmMigrationConfig: vm_config, common_cpuid, memory_manager_data. */
  readonly config: string;
  /** Snapshot: of processors and devices. */
  readonly state: string;
}

/** Written out, and never used again for another form. */
const FORM = 1;

const slotSchema = v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(0xffff_ffff));
const formSchema = v.strictObject({
  form: v.literal(FORM),
  slots: v.pipe(v.array(slotSchema), v.minLength(1)),
  config: v.string(),
  state: v.string(),
});

export function encodeState({ slots, config, state }: MigrationState): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({ form: FORM, slots, config, state }));
}

/** @returns what is wrong with bytes that are no such state */
export function decodeState(
  bytes: Uint8Array,
  limits: { readonly messageBytes: Bytes; readonly memorySlots: number },
): MigrationState | { readonly refusal: string } {
  // Two texts in a text: each letter of them has two bytes at most.
  const most = 4 * limits.messageBytes;
  if (bytes.length > most) {
    return { refusal: `expected a state of at most ${most} bytes, received ${bytes.length}` };
  }
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return { refusal: "expected the state of a cloud-hypervisor machine, received other bytes" };
  }
  const checked = v.safeParse(formSchema, value);
  if (!checked.success) return { refusal: describeIssues(checked.issues) };
  const { slots, config, state } = checked.output;
  if (slots.length > limits.memorySlots) {
    const expected = `at most ${limits.memorySlots} pieces of memory`;
    return { refusal: `expected ${expected}, received ${slots.length}` };
  }
  return { slots, config, state };
}

/** Of all that the VMM wrote, what stands in other places for another VMM. */
const deviceSchema = v.looseObject({ id: v.nullish(v.string()) });
const configSchema = v.looseObject({
  vm_config: v.looseObject({
    payload: v.nullish(v.looseObject({})),
    disks: v.nullish(v.array(deviceSchema)),
    net: v.nullish(v.array(deviceSchema)),
    serial: v.looseObject({}),
    vsock: v.nullish(v.looseObject({})),
  }),
});

type Place = Record<string, unknown>;

/**
 * The configuration with the files, sockets and cards that the machine has now: a snapshot may go
 * on in another folder, and by another TAP. What the machine is, is left as it was.
 * @param text VmMigrationConfig, whose numbers are kept to the last digit
 * @param now what the machine would be made of
 */
export function placeConfig(text: string, now: VmConfig): string | { readonly refusal: string } {
  let value: unknown;
  try {
    value = parseExactly(text);
  } catch {
    return { refusal: "expected a configuration in JSON, received something else" };
  }
  const checked = v.safeParse(configSchema, value);
  if (!checked.success) return { refusal: describeIssues(checked.issues) };
  const config: Place & v.InferOutput<typeof configSchema>["vm_config"] = checked.output.vm_config;
  placeKeys(config.payload, now.payload, ["kernel", "initramfs", "firmware"]);
  placeKeys(config.serial, now.serial, ["socket"]);
  placeKeys(config.vsock, now.vsock, ["socket"]);
  if ("landlock_enable" in config) {
    config["landlock_enable"] = now.landlock_enable ?? false;
    config["landlock_rules"] = now.landlock_rules ?? null;
  }
  const missing = [
    ...placeAll(config.disks, now.disks, ["path"]),
    ...placeAll(config.net, now.net, ["tap"]),
  ];
  if (missing.length === 0) return JSON.stringify(checked.output);
  const names = missing.map((id) => JSON.stringify(id)).join(", ");
  return { refusal: `expected a machine with the devices of the state, which lacks ${names}` };
}

/** Where the machine has such a key, then and now. */
function placeKeys(place: Place | null | undefined, now: object | undefined, keys: string[]): void {
  for (const key of keys) {
    if (place?.[key] == null || now === undefined || !Object.hasOwn(now, key)) continue;
    place[key] = (now as Place)[key];
  }
}

/** @returns ids that the machine does not have */
function placeAll(
  places: readonly Place[] | null | undefined,
  devices: readonly { readonly id: string }[] | undefined,
  keys: string[],
): string[] {
  return (places ?? []).flatMap((place) => {
    const device = devices?.find(({ id }) => id === place["id"]);
    if (device === undefined) return [String(place["id"])];
    placeKeys(place, device, keys);
    return [];
  });
}

/** ECMAScript's proposal "JSON.parse source text access", which Bun has. */
interface ExactJson {
  parse(
    text: string,
    reviver: (key: string, value: unknown, context: { readonly source?: string }) => unknown,
  ): unknown;
  rawJSON(text: string): unknown;
}

/** Numbers that JavaScript would round are kept as they were written. */
function parseExactly(text: string): unknown {
  const exact = JSON as unknown as ExactJson;
  return exact.parse(text, (_key, value, { source }) =>
    typeof value === "number" && String(value) !== source ? exact.rawJSON(source ?? "") : value,
  );
}
