/** The steps of the demo, in order, and the summary. */
import { release } from "node:os";
import { monotonicNow } from "../../src/event-loop/clock.ts";
import { Signal } from "../../src/units/signals.ts";
import { formatMicroseconds, Report } from "./checks.ts";
import { configurationText, Orders, processNames } from "./configuration.ts";
import type { EventWatch } from "./event-watch.ts";
import {
  foreignNamespaces,
  innerNumber,
  isAlive,
  kernelTellsEndings,
  shareProcessNamespace,
} from "./kernel.ts";
import { type ExpectedEnding, Scene } from "./scene.ts";
import { Stage } from "./stage.ts";
import { tell } from "./telling.ts";

export interface StoryOptions {
  readonly program: string;
  readonly namespaceFlags: readonly string[];
  /** The program is the one for fault tests, and is told to lack what is new. */
  readonly oldKernel: boolean;
}

/** All the checks that the steps make. */
const checkCount = 32;

const byKill: ExpectedEnding = { kind: "signalled", signal: Signal.SIGKILL };
const kill = (processId: number) => void process.kill(processId, "SIGKILL");

/** Tells the story. @returns 0 when all of it was seen, 1 when not, 130 after Ctrl-C */
export async function tellStory(options: StoryOptions): Promise<number> {
  const report = new Report();
  const { oldKernel } = options;
  const absent = { HOSTLER_ABSENT: "pidfd_get_info,so_peerpidfd,pidfs" };
  const stage = new Stage({ ...options, environment: oldKernel ? absent : {} });
  return await tell(report, {
    show: async () => {
      const tellsEndings = !oldKernel && (await kernelTellsEndings());
      await new Story(report, stage, { ...options, tellsEndings }).tell();
    },
    checkCount: () => checkCount,
    diaries: () => stage.diaries,
    close: () => stage.close(),
    lastWords: "Times are of single restarts by daemons that began just now: run bench measures.",
  });
}

class Story {
  readonly #report: Report;
  readonly #stage: Stage;
  readonly #options: StoryOptions & { readonly tellsEndings: boolean };

  constructor(
    report: Report,
    stage: Stage,
    options: StoryOptions & { readonly tellsEndings: boolean },
  ) {
    this.#report = report;
    this.#stage = stage;
    this.#options = options;
  }

  async tell(): Promise<void> {
    const first = await this.#makePartition();
    const agent = await this.#startAgent(first);
    using orders = new Orders(this.#stage.folder);
    const events = await this.#startOrchestrator(orders);
    const scene = new Scene(this.#report, events);
    await this.#killOnHost(scene);
    await this.#killInPartition(scene);
    await this.#endByItself(scene, orders);
    await this.#killAgent(scene, events, agent);
    await this.#killWithoutAgent(scene, events);
    await this.#bringAgentBack(scene, events);
    await this.#killWhatTheFormerAgentStarted(scene);
    await this.#readLogs();
    await this.#stopAll(events);
    await this.#endPartition();
  }

  async #makePartition(): Promise<number> {
    const report = this.#report;
    report.step("A partition");
    report.say("Namespaces of its own, as a container has. Its first process reaps orphans; were");
    report.say("it the agent, the kernel would end the whole partition when the agent dies.");
    report.command(this.#stage.partitionCommand);
    const first = await this.#stage.makePartition();
    const foreign = foreignNamespaces(first);
    const seen = `process ${first} has its own ${foreign.join(", ")}`;
    report.check("a partition is there", foreign.length === 4, seen);
    return first;
  }

  async #startAgent(first: number): Promise<number> {
    const report = this.#report;
    report.step("The agent, in the partition");
    report.command(this.#stage.agentCommand);
    const agent = await this.#stage.startAgent();
    const inside = shareProcessNamespace(first, agent) && innerNumber(agent) > 1;
    const seen = `process ${agent}, which is ${innerNumber(agent)} in there`;
    report.check("the agent runs in the partition and is not its first process", inside, seen);
    return agent;
  }

  async #startOrchestrator(orders: Orders): Promise<EventWatch> {
    const report = this.#report;
    report.step("The orchestrator, on the host");
    report.command(`cat ${this.#stage.configuration}`);
    const text = configurationText(this.#stage.agentSocket, orders.path);
    this.#stage.writeConfiguration(text);
    report.output(text);
    report.command(`${this.#stage.programName} process check ${this.#stage.configuration}`);
    const checked = await this.#stage.run("process", "check", this.#stage.configuration);
    report.output(checked.output);
    report.check("the configuration is valid", checked.exitCode === 0, `exit ${checked.exitCode}`);
    report.command(this.#stage.orchestratorCommand);
    const events = await this.#stage.startOrchestrator();
    for (const name of processNames) await events.ready(name);
    await this.#list("all four run, in both partitions");
    await this.#checkOrder(events);
    return events;
  }

  /** Shows the real table. */
  async #list(what: string): Promise<void> {
    const words = ["process", "list", "--control-socket", this.#stage.controlSocket];
    this.#report.command([this.#stage.programName, ...words].join(" "));
    const { exitCode, output } = await this.#stage.run(...words);
    this.#report.output(output);
    const rows = processNames.filter((name) => output.includes(name)).length;
    const seen = `${rows} of ${processNames.length} in the table`;
    this.#report.check(what, exitCode === 0 && rows === processNames.length, seen);
  }

  async #checkOrder(events: EventWatch): Promise<void> {
    const ready = await events.next({ name: "brake-monitor", what: "ready" }, 0);
    const requested = await events.next({ name: "media", what: "start-requested" }, 0);
    const after = requested.monotonic_us - ready.monotonic_us;
    const seen = `${formatMicroseconds(after)} after`;
    this.#report.check("media was started when brake-monitor was ready", after >= 0, seen);
  }

  async #killOnHost(scene: Scene): Promise<void> {
    const report = this.#report;
    report.step("A process on the host is killed");
    const ended = await scene.end("brake-monitor", kill);
    report.command(`kill -KILL ${ended.before.get("brake-monitor")?.pid}    # brake-monitor`);
    await scene.expectRestart("brake-monitor", ended, byKill);
    await scene.expectUndisturbed(ended.before, ["brake-monitor"]);
  }

  async #killInPartition(scene: Scene): Promise<void> {
    const report = this.#report;
    report.step("A process in the partition is killed");
    this.#sayHowEndingsAreKnown();
    const ended = await scene.end("media", kill);
    report.command(`kill -KILL ${ended.before.get("media")?.pid}    # media`);
    await scene.expectRestart("media", ended, byKill);
    await scene.expectUndisturbed(ended.before, ["media"]);
  }

  #sayHowEndingsAreKnown(): void {
    const report = this.#report;
    report.say(
      "The orchestrator is not its parent, and holds its pidfd: the kernel tells it of the",
    );
    if (this.#options.tellsEndings) {
      report.say("death at once, and, when the parent has reaped it, how it ended.");
      return;
    }
    const what = this.#options.oldKernel ? "This run does as if the kernel" : "This kernel";
    report.say("death at once. How it ended, the kernel tells others than the parent only from");
    report.say(`6.15 on. ${what} (${release()}) cannot: the agent's notice says it.`);
  }

  async #endByItself(scene: Scene, orders: Orders): Promise<void> {
    const report = this.#report;
    report.step("A process in the partition fails with an exit status");
    report.command(`echo 7 > ${orders.path}    # diagnosis exits with what it reads`);
    const ended = await scene.end("diagnosis", () => orders.tell(7));
    await scene.expectRestart("diagnosis", ended, { kind: "exited", status: 7 });
    await scene.expectUndisturbed(ended.before, ["diagnosis"]);
  }

  async #killAgent(scene: Scene, events: EventWatch, agent: number): Promise<void> {
    const report = this.#report;
    report.step("The agent is killed");
    const before = await events.list();
    const said = this.#stage.said;
    report.command(`kill -KILL ${agent}    # the agent`);
    const code = await this.#stage.endAgent("SIGKILL");
    const notice = await this.#stage.orchestratorSaid(/partition qm is away.*/, said);
    report.output(`hostler process orchestrator: ${notice}`);
    report.check("the agent is dead, and the orchestrator knows", code !== 0, notice);
    await scene.expectUndisturbed(before);
    await this.#list("all four still run");
  }

  async #killWithoutAgent(scene: Scene, events: EventWatch): Promise<void> {
    const report = this.#report;
    const { tellsEndings } = this.#options;
    report.step("A process in the partition is killed while there is no agent");
    const ended = await scene.end("media", kill);
    const { before, position, deedAt } = ended;
    const invocation = before.get("media")?.invocation ?? "";
    report.command(`kill -KILL ${before.get("media")?.pid}    # media`);
    const wanted = { name: "media", invocation };
    const died = await events.next({ ...wanted, what: "died" }, position);
    const ending = await events.next({ ...wanted, what: "ended" }, position);
    const took = formatMicroseconds(died.monotonic_us - deedAt);
    scene.show("media", ended);
    report.check("the death of media is seen without an agent", true, `${took} after the kill`);
    scene.checkEnding("media", ending, tellsEndings ? byKill : { kind: "unknown" });
    const phase = await events.phaseAfter("clearing", "media");
    const waits = phase === "waiting" || phase === "backing-off";
    report.check("media waits for an agent", waits, `phase ${phase}`);
    await scene.expectUndisturbed(before, ["media"]);
  }

  async #bringAgentBack(scene: Scene, events: EventWatch): Promise<void> {
    const report = this.#report;
    report.step("The agent comes back");
    report.say("Here the demo starts it again; on a system its unit does (Restart=always).");
    report.command(this.#stage.agentCommand);
    const before = await events.list();
    const position = events.position;
    const startedAt = monotonicNow() * 1_000;
    const agent = await this.#stage.startAgent();
    const started = await events.next({ name: "media", what: "started" }, position);
    const took = formatMicroseconds(started.monotonic_us - startedAt);
    const seen = `process ${started.pid}, ${took} after agent ${agent} was asked for`;
    report.check("media runs again, from the new agent", started.pid !== undefined, seen);
    await scene.expectUndisturbed(before, ["media"]);
  }

  async #killWhatTheFormerAgentStarted(scene: Scene): Promise<void> {
    const report = this.#report;
    const { tellsEndings } = this.#options;
    report.step("A process that the former agent started is killed");
    report.say("It is watched as before: its pidfd is the orchestrator's, and not the agent's.");
    if (!tellsEndings) report.say("Its parent is gone, so nobody can say how it ended.");
    const ended = await scene.end("navigation", kill);
    report.command(`kill -KILL ${ended.before.get("navigation")?.pid}    # navigation`);
    await scene.expectRestart("navigation", ended, tellsEndings ? byKill : { kind: "unknown" });
    await scene.expectUndisturbed(ended.before, ["navigation"]);
  }

  async #readLogs(): Promise<void> {
    const report = this.#report;
    report.step("What was written down");
    const socket = ["--control-socket", this.#stage.controlSocket];
    for (const words of [["process", "logs", "media", ...socket]]) {
      report.command([this.#stage.programName, ...words].join(" "));
      const { output } = await this.#stage.run(...words);
      report.output(output);
      const count = output.split("media plays as process").length - 1;
      const seen = `${count} lines, one of each instance`;
      report.check("the lines of all instances of media are kept", count === 3, seen);
    }
    await this.#list("the table counts the restarts");
  }

  async #stopAll(events: EventWatch): Promise<void> {
    const report = this.#report;
    report.step("All is stopped, in reverse order");
    const before = await events.list();
    const position = events.position;
    const stoppedAt = monotonicNow() * 1_000;
    report.command(`kill -TERM ${this.#stage.orchestratorProcessId}    # the orchestrator`);
    const code = await this.#stage.stopOrchestrator();
    const moments = new Map<string, number>();
    for (const event of events.events.slice(position)) {
      if (!["stop-requested", "died"].includes(event.what)) continue;
      moments.set(`${event.name} ${event.what}`, event.monotonic_us);
      const what = event.what === "died" ? "is dead" : "is asked to stop";
      report.moment(event.monotonic_us - stoppedAt, `${event.name} ${what}`);
    }
    const chain = ["navigation", "media", "brake-monitor"];
    const inOrder = chain.slice(1).every((name, index) => {
      const died = moments.get(`${chain[index]} died`);
      const asked = moments.get(`${name} stop-requested`);
      return died !== undefined && asked !== undefined && died <= asked;
    });
    report.check("each was stopped after what came after it", inOrder, chain.join(", then "));
    report.check("the orchestrator ended", code === 0, `exit code ${code}`);
    const left = [...before.values()].filter(({ pid }) => pid !== null && isAlive(pid));
    const seen = left.length === 0 ? "none of them" : left.map(({ name }) => name).join(", ");
    report.check("no process is left", left.length === 0, seen);
  }

  async #endPartition(): Promise<void> {
    this.#report.step("The partition ends");
    const agentCode = await this.#stage.endAgent("SIGTERM");
    const code = await this.#stage.endPartition();
    const seen = `exit codes ${agentCode} and ${code}`;
    this.#report.check("agent and partition ended", agentCode === 0 && code === 0, seen);
  }
}
