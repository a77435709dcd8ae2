import * as v from "valibot";
import { AGENT_PORT } from "../../hypervisor/agent-port.ts";

/**
 * The wire between a worker and the agent in a guest: JSON text sequences (RFC 7464) over a channel
 * of bytes on which either side may come and go at any time. A worker trusts nothing of what a
 * guest says; names and numbers are never used again for something else.
 *
 * Whoever asks begins with a hello that carries a session id of its own. Every answer carries it,
 * so that what was meant for an earlier asker is known and dropped; and a new session ends what
 * the earlier one began.
 */

/** An agent that speaks another version answers a hello with its own, and is then not asked. */
export const PROTOCOL_VERSION = 1;

/** As the VMM gives it, and as udev names it in the guest. */
export const PORT_NAME: string = AGENT_PORT;
/** The port of AF_VSOCK that the agent listens at, where the guest has no such virtio port. */
export const VSOCK_PORT = 26_735;

/** Going over one of these is a refusal that a test shows. */
export const limits = {
  /** Bytes of a message to an agent, without the separator before it and the newline after it. */
  requestBytes: 512 * 1024,
  /** Bytes of a message of an agent: what a guest can have a worker keep. */
  answerBytes: 96 * 1024,
  /** Bytes of a program's output in one message: base64 makes them a third more. */
  outputPieceBytes: 48 * 1024,
  /** Bytes that an asker sends to a program's standard input in one message. */
  inputPieceBytes: 48 * 1024,
  /** Bytes of a program's standard input altogether; the agent keeps them until they are read. */
  inputBytes: 4 * 1024 * 1024,
  /** Bytes of a program's output that an asker may ask for. */
  outputBytes: 64 * 1024 * 1024,
  argumentCount: 1024,
  variableCount: 1024,
  /** Bytes of arguments and variables together: JSON may need six for one of them. */
  argumentBytes: 64 * 1024,
  /** UTF-16 units of any text that a guest says of itself. */
  wordLength: 256,
  /** UTF-16 units of the reason of a refusal. */
  reasonLength: 2048,
  /** Programs that run for one session at once. */
  programs: 64,
  /** Milliseconds that a program may run at most; without a limit of the asker's it is this one. */
  programTime: 24 * 60 * 60_000,
  /** Bytes that wait in the agent for an asker that does not read, before programs have to wait. */
  queuedBytes: 512 * 1024,
  /** Bytes that are no message of this session, which an asker takes between two that are. */
  strayBytes: 1024 * 1024,
} as const;

const text = v.pipe(
  v.string(),
  v.check((value) => !value.includes("\0"), "Expected text without a zero byte"),
);
const word = v.pipe(v.string(), v.maxLength(limits.wordLength));
const whole = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const session = v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/, "Expected 32 hexadecimal digits"));
const id = whole;
const heading = { session, id };

/** Base64 of at most so many bytes. */
function base64(bytes: number) {
  const longest = Math.ceil(bytes / 3) * 4;
  return v.pipe(v.string(), v.maxLength(longest), v.base64());
}

/** The first message of an asker. It may be said again, with the same session. */
export const helloSchema = v.strictObject({
  verb: v.literal("hello"),
  /** Any number: an agent of another version answers with its own. */
  version: whole,
  session,
});

export const execSchema = v.strictObject({
  ...heading,
  verb: v.literal("exec"),
  argv: v.pipe(v.array(text), v.minLength(1), v.maxLength(limits.argumentCount)),
  /** NAME=value, the whole environment; without it PATH, HOME and LANG alone. */
  environment: v.optional(v.pipe(v.array(text), v.maxLength(limits.variableCount))),
  working_directory: v.optional(text),
  /** Input messages follow, of which the last says so. Without it: /dev/null. */
  input: v.boolean(),
  /** Milliseconds; then the program and its process group are killed. */
  time_limit: v.pipe(whole, v.minValue(1), v.maxValue(limits.programTime)),
  /** Bytes of both streams together that are sent; what is more is counted. */
  output_limit: v.pipe(whole, v.maxValue(limits.outputBytes)),
  /**
   * "apart": two pipes, each in its own order, told as they are read. "together": one pipe, in the
   * very order of the writes, told as stdout.
   */
  streams: v.picklist(["apart", "together"]),
  /** Whether it goes on when its asker has gone, or has begun another session. */
  outlives: v.boolean(),
});
export type ExecRequest = v.InferOutput<typeof execSchema>;

/** What an asker says to an agent. */
export const requestSchema = v.variant("verb", [
  helloSchema,
  v.strictObject({ ...heading, verb: v.literal("ping") }),
  v.strictObject({ ...heading, verb: v.literal("memory") }),
  v.strictObject({ ...heading, verb: v.literal("info") }),
  execSchema,
  v.strictObject({
    ...heading,
    verb: v.literal("input"),
    data: base64(limits.inputPieceBytes),
    last: v.boolean(),
  }),
  /** Whether the output of the program that the request of this id began waits in its pipes. */
  v.strictObject({ ...heading, verb: v.literal("hold"), held: v.boolean() }),
  /** Kills the program that the request of this id began. It is answered by that one's ending. */
  v.strictObject({ ...heading, verb: v.literal("end") }),
  v.strictObject({
    ...heading,
    verb: v.literal("shutdown"),
    how: v.picklist(["power-off", "reboot"]),
  }),
]);
export type Request = v.InferOutput<typeof requestSchema>;

/** Bytes, from /proc/meminfo. */
export const memorySchema = v.strictObject({
  total: whole,
  free: whole,
  /** What programs could still get without swapping. */
  available: whole,
  buffers: whole,
  cached: whole,
  swap_total: whole,
  swap_free: whole,
});
export type GuestMemory = v.InferOutput<typeof memorySchema>;

export const informationSchema = v.strictObject({
  /** As uname -r says. */
  kernel: word,
  /** Another one after each boot. */
  boot_id: v.pipe(v.string(), v.uuid()),
  /** The version of the agent's program. */
  agent: word,
  host_name: word,
  /** "x64" or "arm64". */
  architecture: word,
});
export type GuestInformation = v.InferOutput<typeof informationSchema>;

export const endingSchema = v.variant("kind", [
  v.strictObject({ kind: v.literal("exited"), status: v.pipe(whole, v.maxValue(255)) }),
  v.strictObject({
    kind: v.literal("signalled"),
    signal: v.pipe(whole, v.minValue(1), v.maxValue(64)),
    core_dumped: v.boolean(),
  }),
]);
export type ProgramEnding = v.InferOutput<typeof endingSchema>;

export const refusalSchema = v.strictObject({
  /** "limit", "start", "program", "port", "shutdown", "request". */
  kind: word,
  message: v.pipe(v.string(), v.maxLength(limits.reasonLength)),
});
export type AgentRefusal = v.InferOutput<typeof refusalSchema>;

/** What an agent says. */
export const answerSchema = v.variant("kind", [
  v.strictObject({ kind: v.literal("hello"), session, version: whole, agent: word }),
  /** Whoever asks said no hello to this agent: it was started anew, or another asker came. */
  v.strictObject({ kind: v.literal("unknown-session"), session }),
  v.strictObject({ ...heading, kind: v.literal("done") }),
  v.strictObject({ ...heading, kind: v.literal("memory"), memory: memorySchema }),
  v.strictObject({ ...heading, kind: v.literal("info"), information: informationSchema }),
  v.strictObject({ ...heading, kind: v.literal("refused"), refusal: refusalSchema }),
  /** A program runs; its output and its end follow. */
  v.strictObject({
    ...heading,
    kind: v.literal("started"),
    process_id: v.pipe(whole, v.minValue(1)),
  }),
  v.strictObject({
    ...heading,
    kind: v.literal("output"),
    stream: v.picklist(["stdout", "stderr"]),
    data: base64(limits.outputPieceBytes),
  }),
  v.strictObject({
    ...heading,
    kind: v.literal("ended"),
    ending: endingSchema,
    /** Bytes of output beyond the limit, which were not sent. */
    left_out: whole,
    /** Why the agent killed it, if it did. */
    killed: v.optional(v.picklist(["time-limit", "asker"])),
  }),
]);
export type Answer = v.InferOutput<typeof answerSchema>;

/** Bytes that arguments and variables take in a program's memory, each with its end. */
export function argumentSize(request: Pick<ExecRequest, "argv" | "environment">): number {
  const encoder = new TextEncoder();
  const texts = [...request.argv, ...(request.environment ?? [])];
  return texts.reduce((sum, part) => sum + encoder.encode(part).length + 1, 0);
}
