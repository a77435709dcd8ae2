/** Clients that break rules, lie, are too many, or do not read: luod goes on for the others. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, rmSync } from "node:fs";
import { limits } from "../../src/live-update/protocol.ts";
import { openNull, RawClient } from "../support/agent-client.ts";
import { LineClient, Machine } from "../support/live-update-daemon.ts";
import { claim, update } from "../support/live-update-story.ts";
import { root, skipUnless } from "../support/skips.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

/** What is sent as the user nobody: the kernel tells luod who has connected. */
async function asNobody<T>(act: () => Promise<T>): Promise<T> {
  process.seteuid?.(65_534);
  try {
    return await act();
  } finally {
    process.seteuid?.(0);
  }
}

async function isServed(machine: Machine): Promise<void> {
  const client = await machine.client();
  expect((await client.ask({ cmd: "SUBSCRIBE", id: "served" })).event).toBe("OK");
  client[Symbol.dispose]();
  await waitFor("its end", async () => (await machine.ask<unknown[]>("list")).length === 0);
}

skipUnless("what is no line", root, () => {
  const wrong = {
    "no JSON": "garbage",
    "nothing at all": "",
    "a line of 64 KiB and one byte": `"${"x".repeat(limits.lineBytes - 1)}"`,
    "no end for more than 64 KiB": "x".repeat(2 * limits.lineBytes),
    "nesting without end": "[".repeat(60_000),
  };
  for (const [what, line] of Object.entries(wrong)) {
    test(`${what}: the connection ends, nothing else`, async () => {
      await using machine = new Machine();
      await machine.start();
      const client = await machine.client();
      await client.say(line);
      await client.closed();
      await machine.luod.said(/a client broke the protocol: expected a line of/);
      await isServed(machine);
    });
  }

  test("a line of 64 KiB is one, byte by byte as well; what is no request is refused", async () => {
    await using machine = new Machine();
    await machine.start();
    const client = await machine.client();
    const rest = limits.lineBytes - '{"cmd":"NO","text":""}'.length;
    await client.say(`{"cmd":"NO","text":"${"x".repeat(rest)}"}`);
    expect((await client.heard("ERROR")).error?.kind).toBe("request");
    for (const byte of '{"cmd":"SUBSCRIBE","id":"slow","request":1}\n') {
      await client.sendBytes(new TextEncoder().encode(byte));
    }
    expect((await client.heard("OK")).request).toBe(1);
    await client.say({ cmd: "HELLO", protocol: 2 });
    expect((await client.heard("ERROR")).error?.kind).toBe("version");
    const bare = await machine.bareClient();
    await bare.say({ cmd: "SUBSCRIBE" });
    await bare.closed();
    expect(bare.lines[0]?.error?.kind).toBe("request");
  });

  test("a descriptor that nobody asked for: closed, and the connection ends", async () => {
    await using machine = new Machine();
    await machine.start();
    const client = await machine.client();
    using file = openNull();
    await client.say({ cmd: "SUBSCRIBE", id: "vm" }, [file.number, file.number]);
    await client.closed();
    await machine.luod.said(/expected at most 0 descriptors, received 2/);
    await isServed(machine);
  });
});

skipUnless("names", root, () => {
  const fine = ["x".repeat(63), "ü".repeat(31), "a/b", "systemd-x"];
  const refused = ["", "x".repeat(64), "x".repeat(200), "a\u0000b", "a\nb", "a\u009bb", "\ud800"];
  const taken = ["systemd", "systemd/x", "hostler", "hostler/x"];
  test("of 63 bytes and less are taken; others are refused, and so are the system's", async () => {
    await using machine = new Machine();
    await machine.start();
    const client = await machine.client();
    for (const id of fine) {
      expect([id, (await client.ask({ cmd: "SUBSCRIBE", id })).event]).toEqual([id, "OK"]);
    }
    for (const id of [...refused, ...taken]) {
      const { error } = await client.ask({ cmd: "SUBSCRIBE", id });
      expect([id, error?.kind]).toEqual([id, "request"]);
    }
    const long = await client.ask({ cmd: "SUBSCRIBE", id: "x".repeat(60), sessions: ["abc"] });
    expect(long.error?.message).toContain("expected 1 to 63 bytes");
  });

  test("that another has: the second one is told who; one session has one owner", async () => {
    await using machine = new Machine();
    await machine.start();
    const first = await machine.client();
    await first.ask({ cmd: "SUBSCRIBE", id: "vm", sessions: ["", "log"] });
    const second = await machine.client();
    const same = await second.ask({ cmd: "SUBSCRIBE", id: "vm" });
    expect(same.error?.message).toContain(`another connection, of process ${process.pid}`);
    const shared = await second.ask({ cmd: "SUBSCRIBE", id: "vm/log" });
    expect(shared.error).toMatchObject({ kind: "taken" });
    const bare = await machine.bareClient();
    await bare.say({ cmd: "SUBSCRIBE", id: "vm" });
    await bare.closed();
    first[Symbol.dispose]();
    await waitFor("the name", async () => {
      return (await second.ask({ cmd: "SUBSCRIBE", id: "vm/log" })).event === "OK";
    });
    // And the other way round.
    const third = await machine.client();
    const parts = { id: "vm", sessions: ["", "log"] };
    expect((await third.ask({ cmd: "SUBSCRIBE", ...parts })).error?.kind).toBe("taken");
  });
});

skipUnless("words", root, () => {
  test("READY, PROGRESS and ABORT that nobody asked for are refused alike", async () => {
    await using machine = new Machine();
    await machine.start();
    const client = await machine.client();
    for (const cmd of ["READY", "PROGRESS", "ABORT"]) {
      const { event, error } = await client.ask({ cmd });
      expect([cmd, event, error?.kind]).toEqual([cmd, "ERROR", "not-asked"]);
      expect(error?.message).toBe(`${cmd} without a START_PRESERVATION`);
    }
  });

  test("optional is the opposite of required; both at once may not contradict", async () => {
    await using machine = new Machine();
    await machine.start();
    const client = await machine.client();
    const asked = async (words: object) => {
      const { event, error } = await client.ask({ cmd: "SUBSCRIBE", id: "vm", ...words });
      if (event !== "OK") return error?.kind;
      const [one] = await machine.ask<readonly { readonly required: boolean }[]>("list");
      return one?.required;
    };
    expect(await asked({})).toBe(true);
    expect(await asked({ optional: true })).toBe(false);
    expect(await asked({ optional: false })).toBe(true);
    expect(await asked({ required: false })).toBe(false);
    expect(await asked({ required: false, optional: true })).toBe(false);
    expect(await asked({ required: true, optional: true })).toBe("request");
    expect(await asked({ required: false, optional: false })).toBe("request");
  });
});

skipUnless("who may", root, () => {
  test("another user claims nothing of it, root does; a stranger does not connect", async () => {
    await using machine = new Machine();
    await machine.start();
    await update(machine);
    // Root is not named, and may all the same.
    await machine.start({ flags: ["--allow-uid", "65534"] });
    for (const path of [machine.clientSocket, machine.folder.path]) chmodSync(path, 0o777);
    const stranger = await asNobody(() => LineClient.connect(machine.clientSocket));
    await stranger.hello();
    const { error } = await stranger.ask({ cmd: "CLAIM", id: "greeted" });
    expect(error).toMatchObject({ kind: "refused" });
    stranger[Symbol.dispose]();
    await claim(machine, "greeted");
    await machine.kill();
    await machine.start();
    chmodSync(machine.clientSocket, 0o777);
    const refused = await asNobody(() => RawClient.connect(machine.clientSocket));
    await refused.closed();
    expect(new TextDecoder().decode(refused.received)).toContain('"kind":"refused"');
    refused[Symbol.dispose]();
  });

  test("an id is his to whom --allow-id gives it", async () => {
    await using machine = new Machine();
    await machine.start({ flags: ["--allow-id", "vm-*=0", "--allow-id", "db=70"] });
    const client = await machine.client();
    expect((await client.ask({ cmd: "SUBSCRIBE", id: "vm-1" })).event).toBe("OK");
    for (const cmd of ["SUBSCRIBE", "READY", "UNSUBSCRIBE"]) {
      expect((await client.ask({ cmd, id: "db" })).error?.kind).toBe("refused");
    }
    // What came is root's to claim, whosever it is.
    expect((await client.ask({ cmd: "CLAIM", id: "db" })).error?.kind).toBe("unknown");
    expect((await client.ask({ cmd: "FINISHED", id: "db" })).error?.kind).toBe("not-claimed");
  });
});

skipUnless("how many, and how slow", root, () => {
  test("one connection more than 4,096 is refused, and served when another has gone", async () => {
    await using machine = new Machine();
    await machine.start();
    const clients: RawClient[] = [];
    for (let count = 0; count < limits.connections; count += 1) {
      clients.push(await RawClient.connect(machine.clientSocket));
    }
    const more = await RawClient.connect(machine.clientSocket);
    await more.closed();
    expect(new TextDecoder().decode(more.received)).toContain("at most 4096 clients");
    for (const client of [more, ...clients.splice(0, 10)]) client[Symbol.dispose]();
    await waitFor("a place", async () => {
      using client = await LineClient.connect(machine.clientSocket);
      return await client.hello().then(
        () => true,
        () => false,
      );
    });
    for (const client of clients) client[Symbol.dispose]();
  });

  test("one that reads nothing: let go, and the session that waited for it is closed", async () => {
    await using machine = new Machine();
    await machine.start();
    const deaf = await machine.client();
    await deaf.ask({ cmd: "SUBSCRIBE", id: "deaf", deadline_ms: 300 });
    // Answers that it does not take: more than the socket holds, and less than it is let go for.
    for (let request = 1; request <= 700; request += 1) {
      await deaf.say({ cmd: "UNSUBSCRIBE", id: "other", request });
    }
    await machine.load();
    const { ended } = await machine.kexec();
    expect((await ended).reason).toBe("deaf is required: it was not ready within 300 ms");
    expect(machine.kernel.outgoing).toEqual([]);
    await machine.luod.said(/a client does not read, and is let go/);
    await deaf.closed();
    expect(deaf.descriptors).toEqual([]);
  });

  test("one that reads nothing and asks without end is let go", async () => {
    await using machine = new Machine();
    await machine.start();
    const deaf = await machine.client();
    const line = new TextEncoder().encode('{"cmd":"UNSUBSCRIBE","id":"other","request":1}\n');
    await waitFor("its end", () => {
      for (let count = 0; count < 100; count += 1) if (deaf.trySend(line) < 0) return true;
      return false;
    });
    await isServed(machine);
  });
});

skipUnless("the socket", root, () => {
  test("that somebody removes is made anew", async () => {
    await using machine = new Machine();
    await machine.start();
    rmSync(machine.clientSocket);
    await isServed(machine);
  });
});
