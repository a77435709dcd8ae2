import { wrongAnswer } from "../../../ffi/fault-hooks.ts";
import { randomWords } from "../random-words.ts";
import type { CpuKind } from "../tasks/cpu.ts";
import { type LoadModule, loadModule, rounds, type Work } from "./load-module.ts";

/** Work whose answers are known, kind by kind. */

export interface Answer {
  readonly expected: string;
  readonly found: string;
}

export interface CpuWork {
  readonly kind: CpuKind;
  /** One answer, for one of the seeds in turn; some milliseconds. */
  answer(turn: number): Answer;
}

/** By seed; what `loadModule` and its second implementation in the tests give. */
export const answers: Readonly<
  Record<"integer" | "float" | "vector", readonly (readonly [seed: bigint, answer: bigint])[]>
> = {
  integer: [
    [1n, 0x0aaa_e345_b83b_b56en],
    [0xfeed_face_cafe_beefn, 0x3315_f3ed_7f8f_5e45n],
  ],
  float: [
    [1n, 0x6909_23ee_2d74_6255n],
    [0xb_eef1n, 0xea83_2cf6_0c51_0014n],
  ],
  vector: [
    [1n, 0x9dfe_10e6_ec1c_354dn],
    [0xdead_10ccn, 0xacfb_7695_9e08_d63an],
  ],
};

/** Bytes that are hashed, and their digests as any other program gives them. */
export const HASHED_BYTES = 1024 ** 2;
export const digests = {
  sha256: "ee5a69453c330fe66cefaff93ac63b77bd18266e6ce9e60ad1272ee0257f716b",
  sha512:
    "6c5ac738d79fe0d174ccd66a2bfc8e52e04cf44c29a7372107d9fd7a24e93426" +
    "03310644caa5406d7c60c3bd8c40437c76832acc3f55b77dda4cb5eb8b1e4e94",
} as const;
const COMPRESSED_BYTES = 256 * 1024;

/** The kinds that there are here, and why others are not. */
export async function cpuWork(): Promise<{
  readonly works: readonly CpuWork[];
  readonly unseen: readonly { readonly kind: CpuKind; readonly reason: string }[];
}> {
  const module = await loadModule();
  const works: CpuWork[] = [
    computed("integer", module.integer),
    computed("float", module.float),
    ...vectorWork(module),
    hashing(),
    compression(),
  ];
  const unseen =
    typeof module.vector === "string"
      ? [{ kind: "vector" as const, reason: module.vector.slice(0, 256) }]
      : [];
  return { works: works.map(spoiled()), unseen };
}

function vectorWork({ vector }: LoadModule): CpuWork[] {
  return typeof vector === "string" ? [] : [computed("vector", vector)];
}

function computed(kind: "integer" | "float" | "vector", work: Work): CpuWork {
  const known = answers[kind];
  return {
    kind,
    answer: (turn) => {
      const [seed, answer] = known[turn % known.length] ?? [1n, 0n];
      const found = BigInt.asUintN(64, work(seed, rounds[kind]));
      return { expected: hexadecimal(answer), found: hexadecimal(found) };
    },
  };
}

/** Bytes that look like chance, and are the same everywhere. */
export function hashedBytes(): Uint8Array {
  const words = new Uint32Array(HASHED_BYTES / 4);
  const random = randomWords(0x2545_f491);
  for (let index = 0; index < words.length; index += 1) words[index] = random();
  return new Uint8Array(words.buffer);
}

function hashing(): CpuWork {
  const bytes = hashedBytes();
  const algorithms = ["sha256", "sha512"] as const;
  return {
    kind: "hash",
    answer: (turn) => {
      const algorithm = algorithms[turn % algorithms.length] ?? "sha256";
      const found = new Bun.CryptoHasher(algorithm).update(bytes).digest("hex");
      return { expected: digests[algorithm], found };
    },
  };
}

/** Made smaller and back: what comes out is what went in, on a processor that is well. */
function compression(): CpuWork {
  const words = ["host", "disk", "memory", "link", "fan", "socket", "lane", "cache"];
  const random = new Uint32Array(hashedBytes().buffer);
  const text: string[] = [];
  for (let length = 0, index = 0; length < COMPRESSED_BYTES; index += 1) {
    const drawn = random[index] ?? 0;
    const word = `${words[drawn % words.length]}${drawn % 997} `;
    text.push(word);
    length += word.length;
  }
  const plain = new TextEncoder().encode(text.join("").slice(0, COMPRESSED_BYTES));
  const expected = `${COMPRESSED_BYTES} equal bytes`;
  return {
    kind: "compression",
    answer: () => {
      const back = roundTrip(plain);
      if (typeof back === "string") return { expected, found: back };
      if (Buffer.compare(plain, back) === 0) return { expected, found: expected };
      const at = plain.findIndex((byte, index) => byte !== back[index]);
      const found = `${back.length} bytes, of which byte ${at} is ${back[at]} and not ${plain[at]}`;
      return { expected, found };
    },
  };
}

/** The bytes, or why they cannot be had back. */
function roundTrip(plain: Uint8Array<ArrayBuffer>): Uint8Array | string {
  try {
    return Bun.inflateSync(Bun.deflateSync(plain));
  } catch (error) {
    return `an error: ${error instanceof Error ? error.message : String(error)}`.slice(0, 200);
  }
}

/** In the build for fault tests: the kind that was asked for is wrong once, at its third answer. */
function spoiled(): (work: CpuWork) => CpuWork {
  const kind = wrongAnswer();
  if (kind === undefined) return (work) => work;
  let answered = 0;
  return (work) => {
    if (work.kind !== kind) return work;
    return {
      kind,
      answer: (turn) => {
        answered += 1;
        const { expected, found } = work.answer(turn);
        return { expected, found: answered === 3 ? `${found} but for a bit` : found };
      },
    };
  };
}

const hexadecimal = (value: bigint) => `0x${value.toString(16).padStart(16, "0")}`;
