/** A host beside an authority of `identity-world.ts`: its calls go there without a socket. */
import {
  HostIdentity,
  type HostOptions,
  type HostSession,
  type HostStep,
} from "../../src/identity/host.ts";
import {
  type HttpAnswer,
  type HttpCaller,
  type HttpRequest,
  WrongPin,
} from "../../src/identity/http-caller.ts";
import { type IdentityWorld, Killed } from "./identity-world.ts";
import { type TemporaryFolder, temporaryFolder } from "./temporary-folder.ts";

/** Boot ids, by a letter. */
export const bootOf = (letter: string) => `0c1ad8a6-0000-4000-8000-00000000000${letter}`;

export class TestHost implements Disposable, HttpCaller {
  readonly folder: TemporaryFolder = temporaryFolder();
  readonly requests: HttpRequest[] = [];
  /** After how many answers the next one is lost; the call was done. */
  loseAnswer: ((request: HttpRequest) => boolean) | undefined;
  /** The certificate of whoever stands between, in place of the authority's. */
  between: { readonly pin: string; answer(request: HttpRequest): unknown } | undefined;
  /** What is changed of a request on its way. */
  tamper: ((request: HttpRequest) => HttpRequest) | undefined;
  killAt: HostStep | undefined;
  readonly #world: IdentityWorld;
  #boot = bootOf("b");

  constructor(world: IdentityWorld) {
    this.#world = world;
  }

  get identityFolder(): string {
    return this.folder.file("identity");
  }

  reboot(letter: string): void {
    this.#boot = bootOf(letter);
  }

  /** A process of the host, begun anew. */
  identity(options: Partial<HostOptions> = {}): HostIdentity {
    return new HostIdentity({
      folder: this.identityFolder,
      caller: this,
      boot: this.#boot,
      onStep: (step) => {
        if (step !== this.killAt) return;
        this.killAt = undefined;
        throw new Killed(step);
      },
      ...options,
    });
  }

  async enrol(name: string, options: Record<string, unknown> = {}): Promise<HostSession> {
    await this.identity().enrol({ token: await this.#world.token(name, options) });
    return this.identity().openSession();
  }

  async call(asked: HttpRequest): Promise<HttpAnswer> {
    const request = this.tamper?.(asked) ?? asked;
    this.requests.push(request);
    const shown = this.between?.pin ?? this.#world.authority.served.pin;
    if (request.pins !== "any" && !request.pins.includes(shown)) throw new WrongPin(shown);
    if (this.between !== undefined) {
      return { status: 200, body: this.between.answer(request), certificate: shown };
    }
    const route = this.#world.authority.routes.find(({ method, path }) => {
      return method === request.method && path === request.path;
    });
    if (route === undefined) throw new Error(`There is no route ${request.path}.`);
    const { bearer } = request;
    const admitted = bearer === undefined ? undefined : this.#world.authority.authenticate(bearer);
    if (bearer !== undefined && admitted === undefined) {
      return { status: 401, body: { type: "x", title: "Credentials" }, certificate: shown };
    }
    const principal = admitted ?? { kind: "anonymous" };
    const answer = await this.#world.run(route, request.body ?? {}, principal);
    if (this.loseAnswer?.(request) === true) throw new Error("The answer was lost.");
    return { ...answer, certificate: shown };
  }

  [Symbol.dispose](): void {
    this.folder[Symbol.dispose]();
  }
}
