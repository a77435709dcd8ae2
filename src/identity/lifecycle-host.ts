import { limits } from "./protocol.ts";
import type { RefusalKind } from "./protocol-refusal.ts";

/**
 * The life of a host at its authority: enrolled → rotating → enrolled → revoked. Whoever performs
 * the effects does so after the state was stored. Pure.
 */
export interface HostKey {
  /** SHA-256 of the SPKI. */
  readonly fingerprint: string;
  /** The SPKI in base64. */
  readonly key: string;
}

/** One key that lives under two boot ids. */
export interface Clone {
  readonly boots: readonly [string, string];
  readonly how: CloneSign;
}

/**
 * answers: a boot id that is new opened a session while the one before it still answered a ping.
 * returned: a boot id opened a session after a newer one had. spoke: a session of an older boot id
 * was used after a newer one had opened its own. A reboot does none of these: what ran before it
 * neither answers nor speaks, and no boot has the id of an earlier one.
 */
export type CloneSign = "answers" | "returned" | "spoke";

interface Notes {
  /** Boot ids that opened sessions, the latest last. */
  readonly boots: readonly string[];
  readonly clones: readonly Clone[];
  /** Certificates that the host trusts, as it said last. */
  readonly pins: readonly string[];
}

export type HostState =
  | ({ readonly phase: "enrolled"; readonly key: HostKey } & Notes)
  /** Either key opens sessions, until the next one did. */
  | ({ readonly phase: "rotating"; readonly key: HostKey; readonly next: HostKey } & Notes)
  /** Final: none of these keys comes back. */
  | ({ readonly phase: "revoked"; readonly fingerprints: readonly string[] } & Notes);

export type HostEvent =
  /** A token let this key in. */
  | {
      readonly kind: "enrol";
      readonly key: HostKey;
      readonly replace: boolean;
      /** Certificates that it has shown to trust: the one that it saw, among the token's. */
      readonly pins: readonly string[];
    }
  /** The key `by`, in its session, wants that `next` takes its place; both have signed. */
  | { readonly kind: "rotate"; readonly by: string; readonly next: HostKey }
  /** A signature by this key was found right. */
  | {
      readonly kind: "session";
      readonly key: string;
      readonly boot: string;
      readonly pins: readonly string[];
      /** Other boot ids whose sessions have just answered a ping. */
      readonly answering: readonly string[];
    }
  /** The host, in a session, says which certificates it trusts, durably. */
  | { readonly kind: "confirm"; readonly pins: readonly string[] }
  /** A session that a newer boot id had superseded was used. */
  | { readonly kind: "spoke"; readonly boot: string }
  | { readonly kind: "revoke" }
  /** An operator has seen the clones, and seen to them. */
  | { readonly kind: "acknowledge" };

export type HostEffect =
  /** Sessions of this key, or of this host, end now. */
  | { readonly kind: "end-key"; readonly key: string; readonly reason: SessionEnd }
  | { readonly kind: "end-all"; readonly reason: SessionEnd }
  | { readonly kind: "end-boots-but"; readonly boot: string; readonly reason: SessionEnd }
  /** Sessions of other boot ids may be heard of once more only as a clone. */
  | { readonly kind: "supersede"; readonly boot: string; readonly spare: readonly string[] }
  /** A fact for the ledger: this key never comes back, whatever is restored. */
  | { readonly kind: "spend-key"; readonly key: string }
  | { readonly kind: "tell-clone"; readonly clone: Clone }
  | { readonly kind: "tell"; readonly what: "enrolled" | "rotating" | "rotated" | "revoked" };

export type SessionEnd =
  | "revoked"
  | "key-rotated"
  | "replaced"
  | "superseded"
  | "acknowledged"
  | "idle"
  | "lifetime"
  | "closed";

export interface HostStep {
  readonly state: HostState | undefined;
  readonly effects: readonly HostEffect[];
  readonly refused?: RefusalKind;
}

export function stepHost(state: HostState | undefined, event: HostEvent): HostStep {
  switch (event.kind) {
    case "enrol":
      return enrol(state, event);
    case "rotate":
      return rotate(state, event);
    case "session":
      return session(state, event);
    case "confirm":
      if (state === undefined) return refuse(state, "not-found");
      if (state.phase === "revoked") return refuse(state, "host-revoked");
      return { state: { ...state, pins: event.pins }, effects: none };
    case "spoke":
      return spoke(state, event.boot);
    case "revoke":
      return revoke(state);
    case "acknowledge":
      return acknowledge(state);
  }
}

/** The keys that a host has, or had when it was revoked. */
export function fingerprintsOf(state: HostState): readonly string[] {
  switch (state.phase) {
    case "enrolled":
      return [state.key.fingerprint];
    case "rotating":
      return [state.key.fingerprint, state.next.fingerprint];
    case "revoked":
      return state.fingerprints;
  }
}

const none: readonly HostEffect[] = [];
const refuse = (state: HostState | undefined, refused: RefusalKind): HostStep => {
  return { state, effects: none, refused };
};

function enrol(
  state: HostState | undefined,
  { key, replace, pins }: Extract<HostEvent, { kind: "enrol" }>,
): HostStep {
  const fresh: HostState = { phase: "enrolled", key, boots: [], clones: [], pins };
  const told: HostEffect = { kind: "tell", what: "enrolled" };
  if (state === undefined) return { state: fresh, effects: [told] };
  const isOwn = fingerprintsOf(state).includes(key.fingerprint);
  if (state.phase === "revoked") {
    return isOwn ? refuse(state, "key-revoked") : { state: fresh, effects: [told] };
  }
  // Its answer was lost, or its journal: it is told the same again.
  if (isOwn) return { state, effects: none };
  if (!replace) return refuse(state, "name-taken");
  const spent = fingerprintsOf(state).map((fingerprint): HostEffect => {
    return { kind: "spend-key", key: fingerprint };
  });
  return {
    state: fresh,
    effects: [...spent, { kind: "end-all", reason: "replaced" }, told],
  };
}

function rotate(
  state: HostState | undefined,
  { by, next }: Extract<HostEvent, { kind: "rotate" }>,
): HostStep {
  if (state === undefined) return refuse(state, "not-found");
  if (state.phase === "revoked") return refuse(state, "host-revoked");
  if (state.key.fingerprint !== by) return refuse(state, "key-unknown");
  if (next.fingerprint === by) return refuse(state, "wrong-state");
  const isSame = state.phase === "rotating" && state.next.fingerprint === next.fingerprint;
  if (isSame) return { state, effects: none };
  // A next key that was never used is forgotten: the host has lost it.
  const { key, boots, clones, pins } = state;
  return {
    state: { phase: "rotating", key, next, boots, clones, pins },
    effects: [{ kind: "tell", what: "rotating" }],
  };
}

type SessionEvent = Extract<HostEvent, { kind: "session" }>;

function session(state: HostState | undefined, event: SessionEvent): HostStep {
  if (state === undefined) return refuse(state, "key-unknown");
  if (state.phase === "revoked") return refuse(state, "host-revoked");
  const { boots, clones, effects } = noteBoot(state, event);
  const notes: Notes = { boots, clones, pins: event.pins };
  if (state.key.fingerprint === event.key) return { state: { ...state, ...notes }, effects };
  if (state.phase !== "rotating" || state.next.fingerprint !== event.key) {
    return refuse(state, "key-unknown");
  }
  const old = state.key.fingerprint;
  return {
    state: { phase: "enrolled", key: state.next, ...notes },
    effects: [
      { kind: "spend-key", key: old },
      { kind: "end-key", key: old, reason: "key-rotated" },
      ...effects,
      { kind: "tell", what: "rotated" },
    ],
  };
}

function noteBoot(
  state: Notes,
  event: SessionEvent,
): Pick<Notes, "boots" | "clones"> & { readonly effects: readonly HostEffect[] } {
  const { boot } = event;
  const latest = state.boots.at(-1);
  const { boots, clones } = state;
  if (latest === undefined) return { boots: [boot], clones, effects: none };
  if (latest === boot) return { boots, clones, effects: none };
  if (boots.includes(boot)) {
    const sign = addClone(clones, { boots: [boot, latest], how: "returned" });
    return { boots, ...sign };
  }
  const more = [...boots, boot].slice(-limits.boots);
  const alive = event.answering.filter((other) => other !== boot);
  let known = clones;
  const effects: HostEffect[] = [];
  for (const other of alive) {
    const sign = addClone(known, { boots: [other, boot], how: "answers" });
    known = sign.clones;
    effects.push(...sign.effects);
  }
  effects.push({ kind: "supersede", boot, spare: alive });
  return { boots: more, clones: known, effects };
}

/** A pair is told once, until it is acknowledged. */
function addClone(
  clones: readonly Clone[],
  clone: Clone,
): { readonly clones: readonly Clone[]; readonly effects: readonly HostEffect[] } {
  const isKnown = clones.some(({ boots }) => clone.boots.every((boot) => boots.includes(boot)));
  if (isKnown || clones.length >= limits.clones) return { clones, effects: none };
  return { clones: [...clones, clone], effects: [{ kind: "tell-clone", clone }] };
}

function spoke(state: HostState | undefined, boot: string): HostStep {
  if (state === undefined || state.phase === "revoked") return { state, effects: none };
  const latest = state.boots.at(-1);
  if (latest === undefined || latest === boot) return { state, effects: none };
  const { clones, effects } = addClone(state.clones, { boots: [boot, latest], how: "spoke" });
  return { state: { ...state, clones }, effects };
}

function revoke(state: HostState | undefined): HostStep {
  if (state === undefined) return refuse(state, "not-found");
  const fingerprints = fingerprintsOf(state);
  const spent = fingerprints.map((key): HostEffect => ({ kind: "spend-key", key }));
  const end: HostEffect = { kind: "end-all", reason: "revoked" };
  // Once more, should the one who revoked it first have died before the rest of it was done.
  if (state.phase === "revoked") return { state, effects: [end, ...spent] };
  const { boots, clones, pins } = state;
  return {
    state: { phase: "revoked", fingerprints, boots, clones, pins },
    effects: [end, ...spent, { kind: "tell", what: "revoked" }],
  };
}

function acknowledge(state: HostState | undefined): HostStep {
  if (state === undefined) return refuse(state, "not-found");
  const latest = state.boots.at(-1);
  const effects: HostEffect[] =
    latest === undefined || state.clones.length === 0
      ? []
      : [{ kind: "end-boots-but", boot: latest, reason: "acknowledged" }];
  return { state: { ...state, clones: [] }, effects };
}
