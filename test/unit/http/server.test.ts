/** The server and the pinned client with each other: calls, refusals, records. */
import { beforeEach, describe, expect, test } from "bun:test";
import { HttpClient } from "../../../src/http/client.ts";
import {
  HttpAddressRefused,
  HttpPinRefused,
  HttpRefusal,
  HttpUnreachable,
} from "../../../src/http/client-error.ts";
import { makeCertificate } from "../../support/certificate.ts";
import { readThing, setThing, startTestServer, things, whoAmI } from "../../support/http-server.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf } from "../../support/wait-for.ts";

beforeEach(() => things.clear());

const admin = { token: () => "admin-token" };

describe("a call", () => {
  test("sets and reads, and the change stands in the records", async () => {
    await using given = startTestServer();
    const client = given.client(admin);
    expect(await client.call(setThing, { name: "a", value: 30 })).toEqual({ before: null });
    expect(await client.call(readThing, { name: "a", unit: "ten" })).toEqual({
      name: "a",
      value: 3,
    });
    expect(given.records).toEqual([
      {
        who: "operator alice",
        from: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
        verb: "test.things.set",
        object: "thing a",
        before: undefined,
        after: 30,
        result: "done",
      },
    ]);
    expect(client.certificateHash).toBe(given.certificate.pin);
  });

  test("is told where it came from, and so is the route", async () => {
    await using given = startTestServer();
    const told = await given.client().call(whoAmI, {});
    expect(told.who).toEqual({ kind: "anonymous" });
    expect(told.from).toMatch(/^127\.0\.0\.1:\d+$/);
  });

  test("goes over a Unix socket too, which is its owner's alone", async () => {
    using folder = temporaryFolder();
    const unix = folder.file("http.sock");
    const listen = { unix };
    await using given = startTestServer({ listen, certificate: undefined as never });
    expect(await given.client(admin).call(setThing, { name: "a", value: 1 })).toEqual({
      before: null,
    });
    expect(given.records[0]?.from).toBe("unix socket");
    expect((await Bun.file(unix).stat()).mode & 0o777).toBe(0o600);
  });
});

describe("a refusal", () => {
  test("without credentials is 401, with too few 403, and both are recorded", async () => {
    await using given = startTestServer();
    const call = (token?: string) =>
      given
        .client(token === undefined ? {} : { token: () => token })
        .call(setThing, { name: "a", value: 1 });
    const anonymous = (await rejectionOf(call())) as HttpRefusal;
    expect(anonymous).toBeInstanceOf(HttpRefusal);
    expect(anonymous.problem).toMatchObject({ status: 401, instance: "/v1/things/a" });
    const viewer = (await rejectionOf(call("view-token"))) as HttpRefusal;
    expect(viewer.kind).toBe("forbidden");
    expect(viewer.problem.expected).toBe("the permission operate");
    expect(viewer.problem.hint).toContain("operator add NAME --role operate");
    const unknown = (await rejectionOf(call("stolen"))) as HttpRefusal;
    expect(unknown.kind).toBe("unauthenticated");
    expect(given.records.map(({ who, object, result }) => [who, object, result])).toEqual([
      ["anonymous", "/v1/things/a", "Credentials are missing or wrong"],
      ["operator bob", "/v1/things/a", "Not permitted"],
      ["anonymous", "/v1/things/a", "Credentials are missing or wrong"],
    ]);
    expect(things.size).toBe(0);
  });

  test("of a wrong input names what was expected", async () => {
    await using given = startTestServer();
    const wrong = { name: "a", value: "one" as unknown as number };
    const refusal = (await rejectionOf(given.client(admin).call(setThing, wrong))) as HttpRefusal;
    expect(refusal.problem).toMatchObject({
      status: 400,
      expected: "number in value",
      received: '"one"',
    });
    expect(given.records[0]?.result).toBe("The request is wrong");
  });
});

describe("a client", () => {
  test("takes nobody but who is pinned", async () => {
    await using given = startTestServer();
    const other = makeCertificate();
    const client = given.client({ pins: [other.pin] });
    const refusal = await rejectionOf(client.call(whoAmI, {}));
    expect(refusal).toBeInstanceOf(HttpPinRefused);
    expect(refusal.message).toContain(given.certificate.pin);
    const byCertificate = given.client({ pins: [], certificates: [other.certificate] });
    expect(await rejectionOf(byCertificate.call(whoAmI, {}))).toBeInstanceOf(HttpPinRefused);
  });

  test("says that nobody listens", async () => {
    const given = startTestServer();
    const client = given.client();
    await given.server.stop();
    const lost = (await rejectionOf(client.call(whoAmI, {}))) as HttpUnreachable;
    expect(lost).toBeInstanceOf(HttpUnreachable);
    expect(lost.message).toEndWith("nobody listens there");
    expect(lost.ambiguous).toBe(false);
  });

  test("speaks to nobody without TLS, but on loopback", () => {
    const make = (url: string) => () => new HttpClient({ url });
    expect(make("http://192.0.2.1:80")).toThrow(HttpAddressRefused);
    expect(make("ftp://127.0.0.1")).toThrow(HttpAddressRefused);
    expect(make("https://127.0.0.1:1")).toThrow("Expected a pin");
  });
});
