/** Calls of the orchestrator, with the cookie of this browser and the token that goes with it. */

interface Problem {
  readonly title?: string;
  readonly detail?: string;
  readonly expected?: string;
  readonly received?: string;
  readonly hint?: string;
}

export class Refused extends Error {
  readonly status: number;
  constructor(status: number, { title, detail, expected, received, hint }: Problem) {
    const compared = expected === undefined ? "" : ` Expected ${expected}, received ${received}.`;
    const mend = hint === undefined ? "" : ` ${hint}.`;
    super(`${detail ?? title ?? `The orchestrator answered ${status}`}.${compared}${mend}`);
    this.status = status;
  }
}

export interface Session {
  readonly who: string;
  readonly csrfToken: string;
}

let csrfToken = "";

export async function ask<Answer>(
  method: "GET" | "POST" | "PUT" | "DELETE",
  path: string,
  body?: unknown,
): Promise<Answer> {
  const headers: Record<string, string> = { "x-csrf-token": csrfToken };
  if (body !== undefined) headers["content-type"] = "application/json";
  const answer = await fetch(path, {
    ...{ method, headers, credentials: "same-origin" as const },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  }).catch((cause: unknown) => {
    throw new Error(
      "The orchestrator does not answer. Look whether it runs, and is reached from here.",
      {
        cause,
      },
    );
  });
  const found: unknown = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, found as Problem);
  return found as Answer;
}

/** undefined: nobody is logged in. */
export async function currentSession(): Promise<Session | undefined> {
  try {
    return keep(await ask<Session>("GET", "/v1/browser-session"));
  } catch (error) {
    if (error instanceof Refused && error.status === 401) return undefined;
    throw error;
  }
}

export const logIn = async (token: string) =>
  keep(await ask<Session>("POST", "/v1/browser-session", { token }));

export async function logOut(): Promise<void> {
  await ask("DELETE", "/v1/browser-session");
  csrfToken = "";
}

function keep(session: Session): Session {
  csrfToken = session.csrfToken;
  return session;
}
