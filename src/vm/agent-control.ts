import type { ControlCall } from "../messaging/control-server.ts";
import { AgentRefused } from "./guest-agent/client.ts";
import type { MachineAgent } from "./perform/machine-agent.ts";
import type { ControlRequest, ErrorKind } from "./protocol.ts";
import { type ExecEnd, type ExecItem, execLimits } from "./protocol-exec.ts";

/** The machine whose guest is asked. */
export interface AskedMachine {
  readonly name: string;
  readonly phase: string;
  readonly agent: Pick<MachineAgent, "ping" | "exec">;
}

export type AgentRequest = Extract<ControlRequest, { verb: "exec" | "guest-ping" }>;

/** Phases in which a guest runs: in another it cannot answer, and would be waited for in vain. */
const answering: ReadonlySet<string> = new Set(["running", "detached", "snapshotting"]);

/** Answers a request to the agent in a guest. What the guest does is no fault of the worker's. */
export function answerAgent(machine: AskedMachine, request: AgentRequest, call: ControlCall): void {
  const { name, phase } = machine;
  if (!answering.has(phase)) {
    const hint =
      phase === "paused" ? `See hostler vm resume ${name}` : `See hostler vm show ${name}`;
    refuse(call, "wrong-phase", `${name} is ${phase}: its guest does not run`, hint);
    return;
  }
  if (request.verb === "exec") exec(machine, request, call);
  else ping(machine, call);
}

function ping({ name, agent }: AskedMachine, call: ControlCall): void {
  agent.ping().then(
    (milliseconds) => call.done({ milliseconds }),
    (error) => refuseFor(name, error, call),
  );
}

/**
 * The program ends with whoever asked for it, and waits for a client that is slower than it, as for
 * a pipe: nothing is lost, and no more is kept here than what was under way.
 */
function exec(
  { name, agent }: AskedMachine,
  request: Extract<AgentRequest, { verb: "exec" }>,
  call: ControlCall,
): void {
  const { argv, environment, working_directory: workingDirectory } = request;
  let isHeld = false;
  const running = agent.exec(
    {
      argv,
      ...(environment !== undefined && { environment }),
      ...(workingDirectory !== undefined && { workingDirectory }),
      timeLimit: request.time_limit_ms ?? execLimits.time,
      outputLimit: request.output_limit ?? execLimits.outputBytes,
      streams: "apart",
      outlives: false,
    },
    {
      onOutput: (stream, bytes) => {
        call.item({ stream, data: bytes.toBase64() } satisfies ExecItem, { later: true });
        if (isHeld || !call.isBehind) return;
        isHeld = true;
        running.hold(true);
      },
    },
  );
  call.onDrained(() => {
    if (isHeld) running.hold(false);
    isHeld = false;
  });
  call.onGone(() => running.end());
  running.ended.then(
    ({ ending, leftOut, killed }) => {
      call.done({ ending, left_out: leftOut, killed: killed ?? null } satisfies ExecEnd);
    },
    (error) => refuseFor(name, error, call),
  );
}

function refuseFor(name: string, error: unknown, call: ControlCall): void {
  const kind = error instanceof AgentRefused ? "agent-refused" : "agent-unreachable";
  refuse(call, kind, `${name}: ${error instanceof Error ? error.message : String(error)}`);
}

function refuse(call: ControlCall, kind: ErrorKind, message: string, hint?: string): void {
  call.refuse({ kind, message, ...(hint !== undefined && { hint }) });
}
