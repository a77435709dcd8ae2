/**
 * The work of the task `cpu` as a WebAssembly module, put together here byte by byte: the same
 * instructions on every host, whatever a compiler of JavaScript makes of a loop that day. All of it
 * is exact by the WebAssembly specification (floating point is IEEE 754, rounded to nearest, with
 * nothing fused), so that an answer is one number, on every processor that is well.
 *
 * `answersOf` in the tests computes the same in another way.
 */

/** Rounds of one answer, by kind: a few milliseconds on a processor of these years. */
export const rounds = { integer: 1_000_000, float: 500_000, vector: 400_000 } as const;
/** Independent chains of the vector work: enough to keep several units at it. */
export const CHAINS = 4;
/** Of 64-bit words, https://prng.di.unimi.it/: the shifts of xorshift64, an odd multiplier. */
export const MULTIPLIER = 0x9e37_79b9_7f4a_7c15n;

const type = { i32: 0x7f, i64: 0x7e, f64: 0x7c, v128: 0x7b } as const;
type ValueType = keyof typeof type;

/** Opcodes of the core specification 2.0, appendix "Index of Instructions". */
const op = {
  end: [0x0b],
  loop: [0x03, 0x40],
  branchIf0: [0x0d, 0x00],
  i32Add: [0x6a],
  i32Sub: [0x6b],
  i64Add: [0x7c],
  i64Sub: [0x7d],
  i64Mul: [0x7e],
  i64DivideUnsigned: [0x80],
  i64RemainderUnsigned: [0x82],
  i64And: [0x83],
  i64Or: [0x84],
  i64Xor: [0x85],
  i64ShiftLeft: [0x86],
  i64ShiftRightUnsigned: [0x88],
  i64RotateLeft: [0x89],
  i64CountLeadingZeros: [0x79],
  i64CountOnes: [0x7b],
  i64FromF64Bits: [0xbd],
  f64FromI64Signed: [0xb9],
  f64SquareRoot: [0x9f],
  f64Add: [0xa0],
  f64Sub: [0xa1],
  f64Mul: [0xa2],
  f64Divide: [0xa3],
} as const;

/** The second byte of an instruction of vectors, after 0xfd. */
const vector = {
  i32x4Splat: 17,
  i64x2ExtractLane: 29,
  f64x2Splat: 20,
  xor: 81,
  or: 80,
  i32x4ShiftLeft: 171,
  i32x4ShiftRightUnsigned: 173,
  i32x4Add: 174,
  i32x4Mul: 181,
  f64x2Add: 240,
  f64x2Sub: 241,
  f64x2Mul: 242,
  f64x2Divide: 243,
  f64x2SquareRoot: 239,
  constant: 12,
} as const;

type Code = readonly (number | Code)[];

/** LEB128, as the binary format has all its numbers. */
function unsigned(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  do {
    const low = rest & 0x7f;
    rest >>>= 7;
    bytes.push(rest === 0 ? low : low | 0x80);
  } while (rest !== 0);
  return bytes;
}

function signed(value: bigint): number[] {
  const bytes: number[] = [];
  let rest = BigInt.asIntN(64, value);
  for (;;) {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    const isLast = (rest === 0n && (low & 0x40) === 0) || (rest === -1n && (low & 0x40) !== 0);
    bytes.push(isLast ? low : low | 0x80);
    if (isLast) return bytes;
  }
}

const get = (local: number): Code => [0x20, unsigned(local)];
const set = (local: number, ...value: Code): Code => [value, 0x21, unsigned(local)];
const i32 = (value: number): Code => [0x41, signed(BigInt(value))];
const i64 = (value: bigint): Code => [0x42, signed(value)];
const f64 = (value: number): Code => [0x44, [...new Uint8Array(Float64Array.of(value).buffer)]];
const simd = (name: keyof typeof vector): Code => [0xfd, unsigned(vector[name])];
const v128 = (bytes: Uint8Array): Code => [simd("constant"), [...bytes]];

interface WasmFunction {
  readonly name: string;
  /** Parameters, then locals, each with the index that it stands at. */
  readonly parameters: readonly ValueType[];
  readonly locals: readonly ValueType[];
  readonly body: Code;
}

/** A loop that runs `body` until the count in a local of i32 is 0. */
const repeat = (counter: number, body: Code): Code => [
  op.loop,
  body,
  set(counter, get(counter), i32(1), op.i32Sub),
  get(counter),
  op.branchIf0,
  op.end,
];

/** integer(seed, rounds): shifts, multiplication, division, counting of bits. */
function integerWork(): WasmFunction {
  const [state, counter, answer] = [0, 1, 2];
  const shifted = (by: bigint, shift: Code): Code =>
    set(state, get(state), get(state), i64(by), shift, op.i64Xor);
  const body = repeat(counter, [
    shifted(13n, op.i64ShiftLeft),
    shifted(7n, op.i64ShiftRightUnsigned),
    shifted(17n, op.i64ShiftLeft),
    set(
      answer,
      [get(answer), i64(5n), op.i64RotateLeft],
      [get(state), i64(MULTIPLIER), op.i64Mul, op.i64Xor],
    ),
    set(
      answer,
      get(answer),
      [get(state), [get(answer), i64(0xffffn), op.i64And, i64(1n), op.i64Or]],
      [op.i64DivideUnsigned, op.i64Add],
    ),
    set(
      answer,
      [get(answer), [get(answer), op.i64CountOnes]],
      [[get(state), op.i64CountLeadingZeros], i64(8n), op.i64ShiftLeft, op.i64Add, op.i64Xor],
    ),
  ]);
  return {
    name: "integer",
    parameters: ["i64", "i32"],
    locals: ["i64"],
    body: [body, get(answer)],
  };
}

/** float(seed, rounds): a chaotic map, so that the smallest error is a large one soon. */
function floatWork(): WasmFunction {
  const [seed, counter, answer, x, y] = [0, 1, 2, 3, 4];
  return {
    name: "float",
    parameters: ["i64", "i32"],
    locals: ["i64", "f64", "f64"],
    body: [
      // Between 0 and 1, from the seed's lowest 20 bits.
      set(
        x,
        [get(seed), i64(0xf_ffffn), op.i64And, i64(1n), op.i64Or, op.f64FromI64Signed],
        [f64(2 ** 21), op.f64Divide],
      ),
      repeat(counter, [
        set(x, [f64(3.9999), get(x), op.f64Mul], [f64(1), get(x), op.f64Sub], op.f64Mul),
        set(
          y,
          [[get(y), get(y), op.f64Mul], get(x), op.f64Add, op.f64SquareRoot],
          [f64(1), get(x), op.f64Add, op.f64Divide],
        ),
        set(
          answer,
          [get(answer), i64(7n), op.i64RotateLeft],
          [get(x), op.i64FromF64Bits, op.i64Xor],
          [get(y), op.i64FromF64Bits, op.i64Add],
        ),
      ]),
      get(answer),
    ],
  };
}

/** Lanes that differ from chain to chain, as 16 bytes. */
export function laneStart(chain: number): { words: Uint32Array; doubles: Float64Array } {
  const words = Uint32Array.from({ length: 4 }, (_, lane) => 0x9e37_79b1 * (chain * 4 + lane + 1));
  const doubles = Float64Array.of((chain + 1) / 16, (chain + 5) / 16);
  return { words, doubles };
}

/** vector(seed, rounds): four lanes of integers and two of doubles, several chains side by side. */
function vectorWork(): WasmFunction {
  const [seed, counter, sum, spread] = [0, 1, 2, 3];
  const words = (chain: number) => 4 + chain * 2;
  const doubles = (chain: number) => 5 + chain * 2;
  const chains = Array.from({ length: CHAINS }, (_, chain) => chain);
  const all = (lanes: ArrayBufferView) => v128(new Uint8Array(lanes.buffer as ArrayBuffer));
  const one = (value: number): Code => [f64(value), simd("f64x2Splat")];
  const begin = (chain: number): Code => {
    const start = laneStart(chain);
    return [
      set(words(chain), all(start.words), get(spread), simd("i32x4Add")),
      set(doubles(chain), all(start.doubles)),
    ];
  };
  const step = (chain: number): Code => {
    const [w, d] = [words(chain), doubles(chain)];
    return [
      set(
        w,
        [get(w), [i32(0x0019_660d), simd("i32x4Splat")], simd("i32x4Mul")],
        [[i32(0x3c6e_f35f), simd("i32x4Splat")], simd("i32x4Add")],
      ),
      set(
        w,
        [get(w), i32(13), simd("i32x4ShiftLeft")],
        [[get(w), i32(19), simd("i32x4ShiftRightUnsigned")], simd("or")],
      ),
      set(
        d,
        [one(3.9999), get(d), simd("f64x2Mul")],
        [[one(1), get(d), simd("f64x2Sub")], simd("f64x2Mul")],
      ),
      set(
        sum,
        [get(sum), get(w), simd("xor")],
        [[get(d), simd("f64x2SquareRoot"), one(1), get(d), simd("f64x2Add")]],
        [simd("f64x2Divide"), simd("xor")],
      ),
    ];
  };
  const lane = (index: number): Code => [get(sum), simd("i64x2ExtractLane"), index];
  return {
    name: "vector",
    parameters: ["i64", "i32"],
    locals: ["v128", "v128", ...chains.flatMap(() => ["v128", "v128"] as const)],
    body: [
      set(spread, get(seed), 0xa7, simd("i32x4Splat")),
      chains.map(begin),
      repeat(counter, chains.map(step)),
      [lane(0), lane(1), i64(32n), op.i64RotateLeft, op.i64Add],
    ],
  };
}

const flatten = (code: Code): number[] =>
  code.flatMap((part) => (typeof part === "number" ? [part] : flatten(part)));

/** A section, or any other piece that its own length stands before. */
const sized = (bytes: readonly number[]): number[] => [...unsigned(bytes.length), ...bytes];
const list = (parts: readonly (readonly number[])[]): number[] => [
  ...unsigned(parts.length),
  ...parts.flat(),
];
const section = (id: number, bytes: readonly number[]): number[] => [id, ...sized(bytes)];

/** A module that exports these functions, each of (i64, i32) to i64. */
function moduleOf(functions: readonly WasmFunction[]): Uint8Array<ArrayBuffer> {
  const types = functions.map(({ parameters }) => [
    0x60,
    ...list(parameters.map((parameter) => [type[parameter]])),
    ...list([[type.i64]]),
  ]);
  const names = functions.map(({ name }, index) => [
    ...sized([...new TextEncoder().encode(name)]),
    ...[0x00, ...unsigned(index)],
  ]);
  const bodies = functions.map(({ locals, body }) =>
    sized([...list(locals.map((local) => [1, type[local]])), ...flatten(body), ...op.end]),
  );
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
    ...section(1, list(types)),
    ...section(3, list(functions.map((_, index) => unsigned(index)))),
    ...section(7, list(names)),
    ...section(10, list(bodies)),
  ]);
}

/** One answer for a seed and a number of rounds. */
export type Work = (seed: bigint, rounds: number) => bigint;

/** @throws WebAssembly.CompileError where the engine does not have what a function needs */
async function load(functions: readonly WasmFunction[]): Promise<Record<string, Work>> {
  const { instance } = await WebAssembly.instantiate(moduleOf(functions), {});
  return instance.exports as unknown as Record<string, Work>;
}

export interface LoadModule {
  readonly integer: Work;
  readonly float: Work;
  /** The reason where the engine has no vectors. */
  readonly vector: Work | string;
}

/** The work, ready to be called. Vectors are a module of their own: not every engine has any. */
export async function loadModule(): Promise<LoadModule> {
  const scalar = await load([integerWork(), floatWork()]);
  const { integer, float } = scalar;
  if (integer === undefined || float === undefined)
    throw new Error("Bug: a module without exports");
  try {
    const { vector: work } = await load([vectorWork()]);
    return { integer, float, vector: work ?? "the module exports nothing" };
  } catch (refusal) {
    if (!(refusal instanceof WebAssembly.CompileError)) throw refusal;
    return { integer, float, vector: `this engine has no vectors: ${refusal.message}` };
  }
}
