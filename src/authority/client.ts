import * as v from "valibot";
import { HttpClient } from "../http/client.ts";
import type { RouteDefinition, StreamDefinition, StreamEvent } from "../http/route.ts";
import {
  type ControlClient,
  ControlRefusal,
  ControlUnreachable,
  connectControl,
} from "../messaging/control-client.ts";
import { describeIssues, firstFinding } from "../messaging/describe-issues.ts";
import { ExitCode } from "../units/exit-code.ts";
import { hostlerVersion } from "../units/version.ts";
import { streamItemSchema } from "./protocol.ts";

/** Letters of what was typed that are said again. */
const LONGEST_RECEIVED = 200;

/** An authority is away, refused, or is not understood; the message has the mend. */
export class AuthorityError extends Error {
  override readonly name = "AuthorityError";
  readonly exitCode = ExitCode.refused;
  /** Of a refusal, such as "not-found"; undefined where nobody has answered. */
  readonly kind: string | undefined;

  constructor(message: string, kind?: string) {
    super(message);
    this.kind = kind;
  }
}

/** What was typed is nothing that an authority could be asked: nobody was. */
export class InputRefused extends Error {
  override readonly name = "InputRefused";
  readonly exitCode = ExitCode.usage;
}

/** An authority by the name of what it is for, and how somebody starts and finds it. */
export interface ExpectedDaemon {
  /** "master" */
  readonly name: string;
  /** "hostler vm master" */
  readonly start: string;
  /** "--control-socket" */
  readonly flag: string;
}

const anyAuthority: ExpectedDaemon = {
  name: "authority",
  start: "hostler identity authority",
  flag: "--control-socket",
};

/** Where an authority is reached: here, or elsewhere by TLS, pins and an operator's token. */
export type AuthorityPlace =
  | {
      readonly kind: "control";
      readonly path: string;
      /** Who is expected there; an authority without it. */
      readonly daemon?: ExpectedDaemon | undefined;
    }
  | {
      readonly kind: "https";
      readonly url: string;
      readonly pins: readonly string[];
      readonly token: string;
    };

/** A client of an authority; the same routes are called whichever way it is reached. */
export class AuthorityClient implements Disposable {
  readonly #way: ControlClient | HttpClient;

  private constructor(way: ControlClient | HttpClient) {
    this.#way = way;
  }

  /** @throws AuthorityError when nobody answers there; HttpPinRefused … */
  static async connect(place: AuthorityPlace): Promise<AuthorityClient> {
    if (place.kind === "https") {
      const { url, pins, token } = place;
      const client = new HttpClient({ url, pins, token: () => token });
      await client.connect();
      return new AuthorityClient(client);
    }
    try {
      return new AuthorityClient(await connectControl(place.path));
    } catch (error) {
      throw translate(error, place);
    }
  }

  /** @throws InputRefused, AuthorityError, or what the HTTP client throws: each has its mend */
  async call<Input extends v.GenericSchema, Output extends v.GenericSchema>(
    route: RouteDefinition<Input, Output>,
    input: v.InferInput<Input>,
  ): Promise<v.InferOutput<Output>> {
    checkInput(route.input, input);
    const way = this.#way;
    if (way instanceof HttpClient) return await way.call(route, input);
    try {
      return understood(route.output, await way.request(route.name, { input }));
    } catch (error) {
      throw translate(error);
    }
  }

  /** Events as they come, until `signal`, or until the authority has no more. */
  async *stream<Input extends v.GenericSchema, Output extends v.GenericSchema>(
    route: StreamDefinition<Input, Output>,
    input: v.InferInput<Input>,
    options: { readonly after?: string | undefined; readonly signal: AbortSignal },
  ): AsyncGenerator<StreamEvent & { readonly data: v.InferOutput<Output> }> {
    const { after, signal } = options;
    const last = after === undefined ? {} : { after };
    const way = this.#way;
    if (way instanceof HttpClient) {
      yield* way.stream(route, input, { ...last, signal });
      return;
    }
    try {
      for await (const item of way.stream(route.name, { input, ...last })) {
        const { id, event, data } = understood(streamItemSchema, item);
        yield { id, event, data: understood(route.output, data) };
      }
    } catch (error) {
      throw translate(error);
    }
  }

  [Symbol.dispose](): void {
    if (this.#way instanceof HttpClient) this.#way[Symbol.dispose]();
    else this.#way.close();
  }
}

/** @throws InputRefused in the words of the schema */
function checkInput(schema: v.GenericSchema, input: unknown): void {
  const checked = v.safeParse(schema, input);
  if (checked.success) return;
  const [issue] = checked.issues;
  const { expected } = firstFinding(checked.issues);
  const part = issue.path?.map(({ key }) => String(key)).join(".");
  // Where the schema has words of its own, they say more than a pattern or a sign.
  const wanted = issue.message.startsWith("Invalid") ? expected : `${issue.message} in ${part}`;
  const received = String(issue.received).slice(0, LONGEST_RECEIVED);
  throw new InputRefused(`Expected ${wanted}, received ${received}`);
}

function understood<T extends v.GenericSchema>(schema: T, answer: unknown): v.InferOutput<T> {
  const outcome = v.safeParse(schema, answer);
  if (outcome.success) return outcome.output;
  throw new AuthorityError(
    `The authority's answer is not understood: ${describeIssues(outcome.issues)}. This is ` +
      `hostler ${hostlerVersion}; the authority may be of another version: restart it`,
  );
}

function translate(error: unknown, place?: Extract<AuthorityPlace, { kind: "control" }>): unknown {
  if (error instanceof ControlRefusal) {
    const { kind, expected, message } = error.error;
    const hint = kind === "refused" && expected?.startsWith("user") ? otherUser : error.error.hint;
    // Some refusals are whole sentences, and some are the first half of one.
    const sentence = message.endsWith(".") ? message : `${message}.`;
    return new AuthorityError(hint === undefined ? message : `${sentence} ${hint}`, kind);
  }
  if (!(error instanceof ControlUnreachable)) return error;
  const { code } = error;
  const { path, daemon: { name, start, flag } = anyAuthority } = place ?? {};
  if (path !== undefined && (code === "ENOENT" || code === "ECONNREFUSED")) {
    return new AuthorityError(
      `No ${name} runs at ${path}. Start it by ${start}, give its ${flag}, or ask one ` +
        "elsewhere by --authority, --pin and --token-file",
    );
  }
  if (path !== undefined && (code === "EACCES" || code === "EPERM")) {
    return new AuthorityError(
      `The control socket ${path} is not for this user (${code}). ${otherUser}`,
    );
  }
  return new AuthorityError(error.message);
}

const otherUser =
  "Run this as the authority's user, which is root as a rule, or start it with --command-uid for " +
  "this one as well";
