/** How a host reaches its authority; the pinned client of `http` stands behind it. */
export interface HttpCaller {
  /**
   * @throws WrongPin when the server shows a certificate that is not among the pins: nothing was
   *   sent then; any other Error when no answer came
   */
  call(request: HttpRequest): Promise<HttpAnswer>;
}

export interface HttpRequest {
  /** "https://NAME:PORT" */
  readonly address: string;
  readonly method: "GET" | "POST";
  readonly path: string;
  /** JSON; left out for GET. */
  readonly body?: unknown;
  readonly bearer?: string;
  /**
   * SHA-256 of the DER of the certificates that may be shown. "any": whoever answers is believed
   * nothing, because the answer carries its own signature; no secret is in such a request.
   */
  readonly pins: readonly string[] | "any";
}

export interface HttpAnswer {
  readonly status: number;
  /** Parsed JSON, bounded, and not looked at. */
  readonly body: unknown;
  /** SHA-256 of the DER of the certificate that the server showed. */
  readonly certificate: string;
}

/** The server showed a certificate that is not trusted. */
export class WrongPin extends Error {
  override readonly name = "WrongPin";
  readonly received: string;

  constructor(received: string, options?: ErrorOptions) {
    super(`The server shows the certificate ${received}, which is not trusted`, options);
    this.received = received;
  }
}
