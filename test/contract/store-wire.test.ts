/** The bytes of the store's wire, as another program has to write and read them. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { MemoryStore } from "../../src/store/memory-store.ts";
import {
  clientMessageSchema,
  closeCodes,
  limits,
  PROTOCOL_VERSION,
  serverMessageSchema,
  storePath,
} from "../../src/store/wire/protocol.ts";
import { StoreConnection } from "../../src/store/wire/store-connection.ts";
import { falseTimers } from "../support/false-timers.ts";
import { conformanceBuckets } from "../support/store-buckets.ts";
import { waitFor } from "../support/wait-for.ts";

/** What a client says, and what it is answered. Never changed: a new version adds to it. */
const conversation: readonly (readonly [said: string, answered: readonly string[]])[] = [
  [
    '{"kind":"hello","version":1,"program":"golden"}',
    [
      '{"kind":"welcome","version":1,"server":"memory","acknowledgement":"memory",' +
        '"incarnation":"golden"}',
    ],
  ],
  ['{"kind":"ping"}', ['{"kind":"pong"}']],
  ['{"kind":"get","id":1,"bucket":"facts","key":"a.b"}', ['{"kind":"got","id":1,"entry":null}']],
  [
    '{"kind":"put","id":2,"bucket":"facts","key":"a.b","value":"ü","write_id":"w1","expect":0}',
    ['{"kind":"written","id":2,"revision":1}'],
  ],
  [
    '{"kind":"get","id":3,"bucket":"facts","key":"a.b"}',
    [
      '{"kind":"got","id":3,"entry":{"bucket":"facts","key":"a.b","revision":1,' +
        '"operation":"put","value":"ü","write_id":"w1","time":7}}',
    ],
  ],
  [
    '{"kind":"put","id":4,"bucket":"facts","key":"a.b","value":"","write_id":"w2","expect":0}',
    [
      '{"kind":"refused","id":4,"problem":{"kind":"conflict","received":1},' +
        '"message":"The key a.b of facts has revision 1, and not the expected one."}',
    ],
  ],
  [
    '{"kind":"watch","id":5,"bucket":"facts","pattern":"a."}',
    [
      '{"kind":"entries","id":5,"entries":[{"bucket":"facts","key":"a.b","revision":1,' +
        '"operation":"put","value":"ü","write_id":"w1","time":7}]}',
      '{"kind":"synced","id":5,"revision":1}',
    ],
  ],
  [
    '{"kind":"delete","id":6,"bucket":"facts","key":"a.b","write_id":"w3"}',
    [
      '{"kind":"written","id":6,"revision":2}',
      '{"kind":"entries","id":5,"entries":[{"bucket":"facts","key":"a.b","revision":2,' +
        '"operation":"delete","value":"","write_id":"w3","time":7}]}',
    ],
  ],
  ['{"kind":"unwatch","id":5}', []],
  [
    '{"kind":"watch","id":7,"bucket":"facts","pattern":"","since":9}',
    ['{"kind":"reset","id":7}', '{"kind":"synced","id":7,"revision":2}'],
  ],
  [
    '{"kind":"get","id":8,"bucket":"unknown","key":"a"}',
    [
      '{"kind":"refused","id":8,"problem":{"kind":"refused","expected":"a bucket of facts, ' +
        'records, beats, few","received":"\\"unknown\\""},"message":"The store refuses this: ' +
        'expected a bucket of facts, records, beats, few, received \\"unknown\\"."}',
    ],
  ],
];

describe("the store's wire, version 1", () => {
  test("a whole conversation, byte for byte", async () => {
    const sent: string[] = [];
    let closed = 0;
    const connection = new StoreConnection({
      store: new MemoryStore({ buckets: conformanceBuckets, wallClock: () => 7 }),
      loop: falseTimers().loop,
      incarnation: "golden",
      permits: () => true,
      onFailure: (failure) => {
        throw failure;
      },
      socket: {
        send: (text) => sent.push(text),
        bufferedAmount: () => 0,
        close: (code) => {
          closed = code;
        },
      },
    });
    for (const [said, answered] of conversation) {
      sent.length = 0;
      connection.receive(said);
      await waitFor(`the answer to ${said}`, () => sent.length >= answered.length);
      expect([said, sent.toSorted()]).toEqual([said, [...answered].toSorted()]);
      for (const text of sent) {
        expect(v.safeParse(serverMessageSchema, JSON.parse(text)).success).toBe(true);
      }
    }
    connection[Symbol.dispose]();
    expect(closed).toBe(1001);
  });

  test("every problem of the seam goes over it, and a message of later times is refused", () => {
    const problems = [
      { kind: "conflict", received: 3 },
      { kind: "ambiguous" },
      { kind: "denied" },
      { kind: "unavailable" },
      { kind: "refused", expected: "a", received: "b" },
      { kind: "full" },
      { kind: "damaged" },
    ];
    for (const problem of problems) {
      const message = { kind: "refused", id: 1, problem, message: "" };
      expect(v.safeParse(serverMessageSchema, message).success).toBe(true);
    }
    expect(v.safeParse(serverMessageSchema, { kind: "later" }).success).toBe(false);
    // What is added to a message is not looked at: an older peer goes on.
    expect(v.safeParse(clientMessageSchema, { kind: "ping", more: 1 }).success).toBe(true);
  });

  test("numbers that are written down elsewhere", () => {
    expect(PROTOCOL_VERSION).toBe(1);
    expect(storePath).toBe("/v1/store");
    expect(closeCodes).toEqual({
      violation: 4000,
      sessionEnded: 4001,
      behind: 4002,
      silent: 4003,
      goingAway: 1001,
    });
    expect(limits.messageBytes).toBe(4 * 1024 * 1024);
  });
});
