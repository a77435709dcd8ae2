/** The orchestrator is killed at each step of becoming another program; nothing is doubled. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { type ReexecutionStep, reexecutionSteps } from "../../src/process/perform/inheritance.ts";
import { findInvocation } from "../../src/process/perform/process-table.ts";
import { hostler, hostlerWithFaults } from "../support/binary.ts";
import { withoutHolder } from "../support/kept.ts";
import { lonelyChild } from "../support/lonely-child.ts";
import { startOrchestrator } from "../support/orchestrator.ts";
import { begin, bothPlaces } from "../support/orchestrator-partition.ts";
import { Gap, reexecute } from "../support/reexecution.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { rejectionOf, waitFor } from "../support/wait-for.ts";

setDefaultTimeout(120_000);

/** Of the new program the asker hears nothing, but where it has answered. */
const isAnswered = (step: ReexecutionStep) => step === "reexecute:told";

skipUnless("killed on its way to another program", root, () => {
  for (const place of bothPlaces) {
    test.each([...reexecutionSteps])(`at %s: ${place.title}`, async (step) => {
      using folder = temporaryFolder();
      const child = lonelyChild(folder);
      const lines = `[process.it]\n@here\n${child.table}\n`;
      const orchestrator = {
        binary: hostlerWithFaults(),
        environment: { HOSTLER_KILL_AT: step },
      };
      await using running = await begin(place, folder, lines, { orchestrator });
      const { program, controlSocket } = running.orchestrator;
      await running.orchestrator.started("it");
      const answer = reexecute(controlSocket);
      if (isAnswered(step)) await answer.catch(() => undefined);
      else expect((await rejectionOf(answer)).message).toContain("closed the connection");
      expect((await program.ended()).signal).toBe("SIGKILL");
      // Its child goes on, until the next one goes on with it, or ends it.
      expect(await child.lives()).toHaveLength(1);
      const { partition } = running;
      const here = partition === undefined ? "" : 'partition = "qm"';
      const rest = partition && `[partition.qm]\nsocket = "${partition.socket}"\n`;
      const configuration = `${lines.replace("@here", here)}${rest ?? ""}`;
      await using next = await startOrchestrator({ folder, configuration });
      await next.client.request("wait", { name: "it", until: "ready" });
      const { pid } = await next.summary("it");
      await waitFor("one instance", () => child.alive.length === 1 && child.alive[0] === pid);
      expect(child.metAnother).toBe(false);
      // And it can go on as another program itself.
      expect((await reexecute(controlSocket)).process_id).toBe(next.program.processId);
      expect(await child.lives()).toEqual([pid as number]);
    });
  }

  test("with a dry run that hangs: the next one ends it", async () => {
    using folder = temporaryFolder();
    const gap = new Gap(folder, hostler());
    gap.set("try", "hang");
    const configuration = `${withoutHolder}[process.it]\ncommand = ["sleep", "1000"]\n`;
    const { environment } = gap;
    await using orchestrator = await startOrchestrator({ folder, configuration, environment });
    await orchestrator.started("it");
    const answer = rejectionOf(reexecute(orchestrator.controlSocket, { program: gap.program }));
    const journal = () => readFileSync(`${orchestrator.controlSocket}.journal`, "utf8");
    const found = /"start":"(\w+)","name":"a dry run"/;
    const invocation = await waitFor("the dry run", () => {
      const known = found.exec(journal())?.[1];
      return known !== undefined && findInvocation(known).found.length > 0 ? known : undefined;
    });
    orchestrator.program.kill("SIGKILL");
    await orchestrator.program.ended();
    await answer;
    await using next = await startOrchestrator({ folder, configuration });
    await next.started("it");
    expect(findInvocation(invocation).found).toEqual([]);
  });
});
